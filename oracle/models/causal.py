"""Causality check: whether a model's logits depend on later tokens, tested bit for bit."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from oracle.errors import InputError

__all__ = ["is_causal"]


@torch.inference_mode()
def is_causal(model: PreTrainedModel, tokens_RT: Tensor, logits_RTV: Tensor, other: int) -> bool:
    """Whether no logit depends on a later token.

    Replaces the last token of every row and compares the logits of earlier positions, bit for bit: both passes have
    the same shapes, so a causal model rounds them identically. In a mixture of experts the replaced token changes the
    experts' batches; then the gradient decides, because its zeros are exact.

    Args:
        model: the model.
        tokens_RT: token ids, T >= 2.
        logits_RTV: the model's logits for them.
        other: token id that replaces the last ones.

    Raises:
        InputError: if the bits differ and the model has no gradient.
    """
    others_RT = tokens_RT.clone()
    others_RT[:, -1] = other
    changed_RTV = model(input_ids=others_RT, use_cache=False).logits
    return torch.equal(changed_RTV[:, :-1], logits_RTV[:, :-1]) or not _later_gradient(model, tokens_RT)


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
