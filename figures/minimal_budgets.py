"""How many sequences need how much, over all and by task, with what is proven."""

import sys

from script import main

if __name__ == "__main__":
    sys.exit(main("minimal_budgets"))
