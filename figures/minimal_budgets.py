"""Distribution of minimal budgets over sequences, overall and by task, with proven bounds."""

from script import main

if __name__ == "__main__":
    raise SystemExit(main("minimal_budgets"))
