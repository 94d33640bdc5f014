"""One mask for all sequences: quality and KL divergence at each budget, and the layers that run."""

from script import main

if __name__ == "__main__":
    raise SystemExit(main("static_masks"))
