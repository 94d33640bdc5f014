"""Layers used by the minimal allocations, overall and by task."""

from script import main

if __name__ == "__main__":
    raise SystemExit(main("layer_use"))
