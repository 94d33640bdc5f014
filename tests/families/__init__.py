"""The table of families: every family of transformers with a causal model, against a cache-free reference."""
