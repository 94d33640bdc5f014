"""Budgets found by search strategies against the number of evaluations."""

from script import main

if __name__ == "__main__":
    raise SystemExit(main("strategies"))
