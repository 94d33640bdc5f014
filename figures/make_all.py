"""All figures of one or more runs."""

from script import main

if __name__ == "__main__":
    raise SystemExit(main())
