"""What controllers capture of the headroom between static allocations and the oracle."""

import sys

from script import main

if __name__ == "__main__":
    sys.exit(main("controllers"))
