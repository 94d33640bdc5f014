"""How far an output's tokens are those of the full model."""

from collections.abc import Sequence

__all__ = ["agreement"]


def agreement(tokens: Sequence[int], full_tokens: Sequence[int]) -> float:
    """Share of positions at which an output has the full model's token.

    Counted over the longer of the two, so that a cut-off output is not a perfect one.

    Args:
        tokens: token ids of the output.
        full_tokens: token ids of the full model's output.

    Returns:
        A share in [0, 1]; 1.0 if and only if the two are identical (two empty outputs are).
    """
    longer = max(len(tokens), len(full_tokens))
    if longer == 0:
        return 1.0
    return sum(ours == theirs for ours, theirs in zip(tokens, full_tokens, strict=False)) / longer
