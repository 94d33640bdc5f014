"""Exactness as a contract that any machine can keep: what is compared bit for bit, and what within the rounding."""

import pytest
import torch
from arithmetic import Hostile
from tiny import tiny_llama
from transformers import BertConfig, BertLMHeadModel, LlamaConfig, LlamaForCausalLM
from zoo import MORE, ZOO, tiny

from oracle.errors import InputError
from oracle.models import Decoder
from oracle.models import decoder as decoders
from oracle.models.rounding import MULTIPLE
from oracle.utils.cores import Cores, forks

DTYPES = [torch.float32, torch.bfloat16]
EACH_DTYPE = [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)]


def bidirectional(scale: float) -> torch.nn.Module:
    """A Llama without its causal mask whose layers add little, so that later tokens matter little."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=scale,
        is_causal=False,
    )
    return LlamaForCausalLM(config).eval()


@torch.inference_mode()
def test_hostile_arithmetic_moves_rows_of_one_batch_apart_and_repeats_itself() -> None:
    """What refused the embedded model on other processors: equal rows of one batch whose logits are not."""
    network = tiny_llama()
    tokens = torch.tensor([[0, 1, 2], [0, 1, 1]])
    plain = network(tokens).logits
    with Hostile(0):
        assert torch.equal(network(tokens).logits, plain)
    for ulp in (2, 16):
        with Hostile(ulp) as arithmetic:
            hostile = network(tokens).logits
            assert arithmetic.moved > 0
            assert torch.equal(network(tokens).logits, hostile)
        assert not torch.equal(hostile[0, :2], hostile[1, :2])
        difference = (hostile - plain).abs().max()
        assert 0 < difference < 1e-3 * plain.abs().max()


@pytest.mark.parametrize("ulp", [0, 2, 16])
@pytest.mark.parametrize("dtype", EACH_DTYPE)
@pytest.mark.parametrize("family", [*ZOO, *MORE])
def test_no_family_is_refused_for_how_a_machine_rounds(family, dtype, ulp) -> None:
    with Hostile(ulp):
        Decoder(tiny(family).to(dtype))


@pytest.mark.parametrize("ulp", [0, 16])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.2, 0.02, 0.002])
def test_models_whose_tokens_see_later_ones_are_refused(scale, dtype, ulp) -> None:
    bert = BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=scale,
    )
    for model in (bidirectional(scale), BertLMHeadModel(bert).eval()):
        if dtype == torch.bfloat16 and scale < 0.02:
            continue  # there the influence itself is rounded away
        with Hostile(ulp), pytest.raises(InputError, match="see later ones"):
            Decoder(model.to(dtype))


def test_rounding_grows_with_the_arithmetic_and_so_does_the_near_tie_rule() -> None:
    measured = []
    for ulp in (0, 2, 16):
        with Hostile(ulp):
            measured.append(Decoder(tiny_llama()).rounding)
    logits = [rounding.logits for rounding in measured]
    assert 0 < logits[0] < logits[1] < logits[2]
    assert all(rounding.repeats and rounding.near_tie == MULTIPLE * rounding.logits for rounding in measured)


def test_experts_in_low_precision_have_no_safe_lead() -> None:
    """Rounding turns the choice of an expert round, and then logits jump: every output is settled alone."""
    rounding = {dtype: Decoder(tiny("mixtral").to(dtype)).rounding for dtype in DTYPES}
    assert not rounding[torch.float32].jumps
    assert rounding[torch.bfloat16].jumps and rounding[torch.bfloat16].near_tie == float("inf")
    assert rounding[torch.bfloat16].to_dict()["near_tie"] is None
    assert not Decoder(tiny("llama").to(torch.bfloat16)).rounding.jumps


@pytest.mark.skipif(not forks(), reason="processes are forked on Linux only")
def test_several_processes_measure_the_same_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_llama()
    alone = Decoder(network).rounding
    asked = []
    measured = decoders.measure_rounding
    monkeypatch.setattr(decoders, "FORK_FROM", 0)
    monkeypatch.setattr(Cores, "workers", 3)
    monkeypatch.setattr(
        decoders, "measure_rounding", lambda *a, **how: asked.append(how["processes"]) or measured(*a, **how)
    )
    assert Decoder(network).rounding == alone
    # With several threads, as in a forked process with one, other kernels may round.
    torch.set_num_threads(2)
    try:
        Decoder(network)
    finally:
        torch.set_num_threads(1)
    assert asked == [3, 1]
