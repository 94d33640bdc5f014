"""Fractions found against the number of allocations tried."""

from script import main

if __name__ == "__main__":
    raise SystemExit(main("luck_curve"))
