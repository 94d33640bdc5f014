"""Mean quality of the oracle against the mean fraction of layers."""

import sys

from script import main

if __name__ == "__main__":
    sys.exit(main("oracle_quality"))
