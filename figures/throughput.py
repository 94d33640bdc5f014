"""Measured quality and tokens per second of unified skipping, SkipDecode and early exit, all zero-shot."""

from script import main

if __name__ == "__main__":
    raise SystemExit(main("throughput"))
