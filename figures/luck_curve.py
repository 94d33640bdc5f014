"""The fractions found against the number of allocations tried."""

import sys

from script import main

if __name__ == "__main__":
    sys.exit(main("luck_curve"))
