"""Whether the tokens of a model see later ones: tried, without a tolerance that could hide it."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from oracle.errors import InputError

__all__ = ["is_causal"]


@torch.inference_mode()
def is_causal(model: PreTrainedModel, tokens_RT: Tensor, logits_RTV: Tensor) -> bool:
    """Whether no logit depends on a later token.

    The last token of every row is replaced and the earlier positions of the same rows are compared, bit for bit: the
    two passes have the same shapes, so that a causal model rounds them alike. The exception is a mixture of experts,
    where another token changes the batches of the experts. There the gradient decides, whose zeros are exact.

    Args:
        model: the model.
        tokens_RT: token ids, two or more for each row.
        logits_RTV: the model's logits for them.

    Raises:
        InputError: if the bits differ and the model has no gradient.
    """
    others_RT = tokens_RT.clone()
    others_RT[:, -1] += 1
    changed_RTV = model(input_ids=others_RT, use_cache=False).logits
    return torch.equal(changed_RTV[:, :-1], logits_RTV[:, :-1]) or not _later_gradient(model, tokens_RT)


def _later_gradient(model: PreTrainedModel, tokens_RT: Tensor) -> bool:
    """Whether the gradient of some logits with respect to the last token's embedding is not zero."""
    embedding = model.get_input_embeddings()
    kept: list[Tensor] = []

    def note(module: object, args: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0]

    # Inputs of the pass must not be inference tensors, nor may what is computed from them.
    with torch.inference_mode(False), torch.enable_grad():
        handle = embedding.register_forward_hook(note)
        try:
            logits_RTV = model(input_ids=tokens_RT.clone(), use_cache=False).logits
        finally:
            handle.remove()
        weights = torch.linspace(-1, 1, logits_RTV.shape[-1], device=logits_RTV.device, dtype=logits_RTV.dtype)
        try:
            [gradient_RTD] = torch.autograd.grad((logits_RTV[:, :-1] * weights).sum(), kept)
        except RuntimeError as error:
            raise InputError(
                f"a decoder-only model is required, but whether the tokens of {type(model).__name__} see later ones "
                f"cannot be told: they change with another last token, and there is no gradient to say why ({error}); "
                "load it without quantization"
            ) from error
    return bool(gradient_RTD[:, -1].any())
