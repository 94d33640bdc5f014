"""Causality check: whether a model's logits depend on later tokens, tested bit for bit."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from oracle.errors import InputError
from oracle.models.rounding import COARSE

__all__ = ["is_causal", "rows_interact"]

MIXED = 1e-3
"""Change of a logit, over the largest one, above which it is not rounding where bits cannot be compared."""


@torch.inference_mode()
def is_causal(model: PreTrainedModel, tokens_RT: Tensor, logits_RTV: Tensor) -> bool:
    """Whether no logit depends on a later token.

    Replaces the last token of every row and compares the logits of earlier positions, bit for bit: both passes have
    the same shapes, so a causal model rounds them identically. In a mixture of experts the replaced token changes the
    experts' batches; then the gradient decides, because its zeros are exact.

    Args:
        model: the model.
        tokens_RT: token ids, T >= 2.
        logits_RTV: the model's logits for them.

    Raises:
        InputError: if the bits differ and the model has no gradient.
    """
    others_RT = tokens_RT.clone()
    others_RT[:, -1] += 1
    changed_RTV = model(input_ids=others_RT, use_cache=False).logits
    return torch.equal(changed_RTV[:, :-1], logits_RTV[:, :-1]) or not _later_gradient(model, tokens_RT)


@torch.inference_mode()
def rows_interact(model: PreTrainedModel, tokens_RT: Tensor, *, chooses: bool) -> bool:
    """Whether logits of a row depend on the other rows of its batch by more than rounding.

    Per row, replaces all other rows and compares, bit for bit: both passes have the same shapes, so independent rows
    round identically. Differences within rounding are allowed where a repeated pass gives other bits, and where experts
    regroup their rows with the content; in a dtype so coarse that rounding flips their choice nothing is tested.
    Examples of dependence: 8-bit matrices with outlier columns, experts of limited capacity.

    Args:
        model: the model.
        tokens_RT: token ids, R >= 2.
        chooses: whether layers select experts.
    """
    if chooses and torch.finfo(next(model.parameters()).dtype).eps > COARSE:
        return False  # rounding flips choices of experts there, which `Rounding.jumps` accounts for
    logits_RTV = model(input_ids=tokens_RT, use_cache=False).logits.float()
    repeats = torch.equal(model(input_ids=tokens_RT, use_cache=False).logits.float(), logits_RTV)
    allowed = MIXED * float(logits_RTV.abs().max()) if chooses or not repeats else 0.0
    for row in range(len(tokens_RT)):
        others_RT = tokens_RT.flip(1).roll(1, dims=0)
        others_RT[row] = tokens_RT[row]
        again_TV = model(input_ids=others_RT, use_cache=False).logits[row].float()
        if float((again_TV - logits_RTV[row]).abs().max()) > allowed:
            return True
    return False


def _later_gradient(model: PreTrainedModel, tokens_RT: Tensor) -> bool:
    """Whether any earlier logit has a non-zero gradient with respect to the last token's embedding."""
    embedding = model.get_input_embeddings()
    kept: list[Tensor] = []

    def record(module: object, args: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0]

    # Neither inputs nor intermediate results may be inference tensors.
    with torch.inference_mode(False), torch.enable_grad():
        handle = embedding.register_forward_hook(record)
        try:
            logits_RTV = model(input_ids=tokens_RT.clone(), use_cache=False).logits
        finally:
            handle.remove()
        weights = torch.linspace(-1, 1, logits_RTV.shape[-1], device=logits_RTV.device, dtype=logits_RTV.dtype)
        try:
            [gradient_RTD] = torch.autograd.grad((logits_RTV[:, :-1] * weights).sum(), kept)
        except RuntimeError as error:
            raise InputError(
                f"a decoder-only model is required, but it cannot be determined whether tokens of "
                f"{type(model).__name__} see later ones: earlier logits change with the last token and there is no "
                f"gradient to explain why ({error}); load the model without quantization"
            ) from error
    return bool(gradient_RTD[:, -1].any())
