"""Quality and tokens per second of unified skipping, measured, beside what would be ideal."""

import sys

from script import main

if __name__ == "__main__":
    sys.exit(main("throughput"))
