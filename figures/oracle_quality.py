"""Mean quality of the oracle against the mean fraction of layers."""

from script import main

if __name__ == "__main__":
    raise SystemExit(main("oracle_quality"))
