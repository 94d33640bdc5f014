"""How many sequences need how many layers."""

import sys

from script import main

if __name__ == "__main__":
    sys.exit(main("minimal_budgets"))
