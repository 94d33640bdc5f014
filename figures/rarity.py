"""Share of random masks that meet the criterion at each budget, real and shuffled references."""

from script import main

if __name__ == "__main__":
    raise SystemExit(main("rarity"))
