"""All figures of one run or several."""

import sys

from script import main

if __name__ == "__main__":
    sys.exit(main())
