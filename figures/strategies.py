"""The budgets that search strategies find against the evaluations they spend."""

import sys

from script import main

if __name__ == "__main__":
    sys.exit(main("strategies"))
