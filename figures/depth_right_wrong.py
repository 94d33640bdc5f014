"""What depth right and wrong samples need, and how many wrong ones smaller allocations mend."""

import sys

from script import main

if __name__ == "__main__":
    sys.exit(main("depth_right_wrong"))
