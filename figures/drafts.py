"""Skip masks as drafts of their own full model: accepted length against draft cost, beside the proven bounds."""

from script import main

if __name__ == "__main__":
    raise SystemExit(main("drafts"))
