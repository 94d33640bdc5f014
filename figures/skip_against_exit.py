"""How close skipping and early exit stay to the full model's hidden state and output."""

import sys

from script import main

if __name__ == "__main__":
    sys.exit(main("skip_against_exit"))
