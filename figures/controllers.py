"""Share of the headroom between static allocations and the oracle that controllers capture."""

from script import main

if __name__ == "__main__":
    raise SystemExit(main("controllers"))
