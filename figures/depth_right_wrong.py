"""Depth needed by right and wrong samples, and number of wrong samples that smaller allocations correct."""

from script import main

if __name__ == "__main__":
    raise SystemExit(main("depth_right_wrong"))
