"""Similarity of hidden states and outputs to the full model's, for skipping and for early exit."""

from script import main

if __name__ == "__main__":
    raise SystemExit(main("skip_against_exit"))
