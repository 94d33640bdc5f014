"""Which layers the minimal allocations use, over all and by task."""

import sys

from script import main

if __name__ == "__main__":
    sys.exit(main("layer_use"))
