"""Measured quality and tokens per second of unified skipping, against the ideal speed-up."""

from script import main

if __name__ == "__main__":
    raise SystemExit(main("throughput"))
