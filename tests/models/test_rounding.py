"""Exactness as a contract that any machine can keep: what is compared bit for bit, and what within the rounding."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from arithmetic import Hostile
from tiny import Mixture, tiny_llama, tiny_tokenizer
from transformers import BartConfig, BartForCausalLM, BertConfig, BertLMHeadModel, LlamaConfig, LlamaForCausalLM
from zoo import MORE, ZOO, tiny

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models import Decoder, LanguageModel, probes
from oracle.models.rounding import MULTIPLE, Rounding
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


class Eight(torch.nn.Module):
    """A linear map in 8 bits, as LLM.int8 has it: columns with an outlier in any row are multiplied in full precision.

    Dettmers et al. 2022, arXiv 2208.07339, section 3.
    """

    def __init__(self, linear: torch.nn.Linear, threshold: float) -> None:
        super().__init__()
        self.linear, self.threshold = linear, threshold

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        outliers = (hidden.abs() > self.threshold).flatten(0, -2).any(0)
        weight = self.linear.weight
        scale = hidden.abs().amax(-1, keepdim=True).clamp(min=1e-6) / 127
        rounded = (hidden / scale).round() * scale
        return torch.nn.functional.linear(torch.where(outliers, hidden, rounded), weight)


class Limited(Mixture):
    """A mixture whose experts take a limited share of the batch; tokens beyond it pass unchanged."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        flat = hidden_states.flatten(0, 1)
        best = self.router(flat).argmax(-1)
        room = 1 + len(flat) // len(self.experts)
        result = torch.zeros_like(flat)
        for place, expert in enumerate(self.experts):
            rows = (best == place).nonzero()[:room, 0]
            result = result.index_add(0, rows, expert(flat[rows]))
        return result.view_as(hidden_states)


class Apart(torch.nn.Module):
    """A matrix that is exact in columns in which any row of the batch has an outlier, and coarse in the others."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        apart = (hidden.flatten(0, -2).abs() > 1.5).any(0)
        exact, coarse = self.linear.weight, (self.linear.weight * 8).round() / 8
        return torch.nn.functional.linear(hidden * apart, exact) + torch.nn.functional.linear(hidden * ~apart, coarse)


class Crowded(torch.nn.Module):
    """An MLP with room for three tokens of a batch; the others pass by."""

    def __init__(self, mlp: torch.nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        flat = hidden.flatten(0, -2)
        chosen = flat.sum(-1).argsort(descending=True)[:3]
        result = torch.zeros_like(flat)
        result[chosen] = self.mlp(flat[chosen])
        return result.view_as(hidden)


class Normed(torch.nn.Module):
    """A norm by the statistics of the whole batch."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden / hidden.pow(2).mean().sqrt()


def influenced(kind: str) -> torch.nn.Module:
    network = tiny_llama()
    for layer in network.model.layers:
        if kind == "8 bits":
            for part in (layer.self_attn.q_proj, layer.mlp.up_proj):
                assert isinstance(part, torch.nn.Linear)
            layer.self_attn.q_proj = Eight(layer.self_attn.q_proj, 1.5)
            layer.mlp.up_proj = Eight(layer.mlp.up_proj, 1.5)
        elif kind == "limited experts":
            layer.mlp = Limited(32, 4, 1)
        elif kind == "exact columns":
            layer.mlp.down_proj = Apart(layer.mlp.down_proj)
        elif kind == "room for three":
            layer.mlp = Crowded(layer.mlp)
        else:
            layer.post_attention_layernorm = Normed()
    return network.eval()


KINDS = ("8 bits", "exact columns", "limited experts", "room for three", "norm of the batch")


@pytest.mark.parametrize("scope", ["decode", "sequence"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_influence_each_other_run_alone_and_give_the_tokens_of_plain_generation(kind, scope) -> None:
    if kind == "norm of the batch":
        with pytest.raises(InputError, match="see later ones"):
            Decoder(influenced(kind))
        return
    model = LanguageModel(name=kind, network=influenced(kind), tokenizer=tiny_tokenizer())
    rounding = model.decoder.rounding
    assert rounding.interact and rounding.near_tie == float("inf")
    assert rounding.to_dict()["interact"] and rounding.to_dict()["near_tie"] is None
    assert "rows of a batch influence each other, so each batch has one row" in model.headline()
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=8))
    prompts = [engine.open(text) for text in ("A prompt of some length.", "x", "Another one")]
    requests = [(prompt, mask) for prompt in prompts for mask in [(0, 1, 2, 3, 4), (0, 2, 4), (1, 3), (2,)]]
    outputs = [generation.tokens for generation, _ in engine.generate(requests)]
    assert outputs == [engine.alone(*request) for request in requests]
    assert outputs == [engine.generate([request])[0][0].tokens for request in requests]
    together = torch.arange(40, 48)[:, None]
    with torch.inference_mode():
        batch = model.network(together).logits
        single = torch.cat([model.network(row[None]).logits for row in together])
    assert (batch - single).abs().max() > 100 * torch.finfo(torch.float32).eps * single.abs().max()
    runs = np.array(list(product([False, True], repeat=5)))
    wanted = outputs[0]
    found = [answer for _, answers in engine.reproduces(prompts[0], runs, wanted) for answer in answers]
    alone = [engine.alone(prompts[0], tuple(np.flatnonzero(row).tolist())) == wanted for row in runs]
    assert found == alone


def test_positions_counted_by_slots_keep_prompts_apart_and_do_not_count_as_rounding() -> None:
    """Bart's decoder counts slots of its cache: a row of another length would be shifted."""
    config = BartConfig(vocab_size=258, d_model=32, decoder_layers=3, decoder_attention_heads=4, decoder_ffn_dim=64)
    config.init_std, config.is_decoder, config.is_encoder_decoder = 0.2, True, False
    torch.manual_seed(0)
    model = LanguageModel(name="bart", network=BartForCausalLM(config).eval(), tokenizer=tiny_tokenizer())
    assert not model.decoder.positions.mix and Decoder(tiny_llama()).positions.mix
    assert model.decoder.rounding.logits < 1e-3
    engine = Engine(model, SearchConfig(max_new_tokens=6, generation_config=False))
    engine.tie = -1.0  # what the batch gives is what counts
    prompts = [engine.open(text) for text in ("A prompt of some length.", "x", "Another")]
    requests = [(prompt, mask) for prompt in prompts for mask in [(0, 1, 2), (0, 2), (1,)]]
    for request, (generation, _) in zip(requests, engine.generate(requests), strict=True):
        assert generation.tokens == engine.alone(*request)


@pytest.mark.parametrize("ulp", [0, 2, 16])
@pytest.mark.parametrize("family", [*ZOO, *MORE])
def test_no_family_is_taken_for_one_whose_rows_influence_each_other(family, ulp) -> None:
    with Hostile(ulp):
        assert not Decoder(tiny(family)).rounding.interact


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_experts_whose_room_other_rows_take_are_found_in_low_precision(dtype) -> None:
    """Of rounding, which changes the choice of experts there, nothing may come in."""
    assert Decoder(influenced("limited experts").to(dtype)).rounding.interact
    assert Decoder(influenced("room for three").to(dtype)).rounding.interact
    for ulp, family in product((0, 2), ("mixtral", "qwen2-moe")):
        with Hostile(ulp):
            rounding = Decoder(tiny(family).to(dtype)).rounding
        assert rounding.jumps and not rounding.interact


def test_influence_is_found_where_repeated_passes_give_other_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose sums depend on timing: bits cannot be compared, influence beyond rounding still shows."""
    plain, noise = torch.nn.Linear.forward, torch.Generator().manual_seed(0)

    def restless(self: torch.nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
        result = plain(self, hidden)
        return result * (1 + 1e-7 * torch.rand(result.shape, generator=noise))

    monkeypatch.setattr(torch.nn.Linear, "forward", restless)
    rounding = Decoder(tiny_llama()).rounding
    assert not rounding.repeats and not rounding.interact
    found = Decoder(influenced("limited experts")).rounding
    assert not found.repeats and found.interact


SIZES = list(product((2, 4), (1, 2), (32, 64), (16, 48, 80)))


@pytest.mark.parametrize(("experts", "active", "width", "inner"), SIZES)
def test_mixtures_of_any_size_are_accepted_on_one_thread(experts, active, width, inner) -> None:
    """The experts' products change their heights with the tokens, so that bits differ where nothing sees ahead."""
    sizes = {"num_experts": experts, "num_experts_per_tok": active, "moe_intermediate_size": inner}
    network = tiny("qwen2-moe", **sizes, hidden_size=width, shared_expert_intermediate_size=inner + 8)
    assert not Decoder(network).rounding.interact


@pytest.mark.skipif(not forks(), reason="processes are forked on Linux only")
def test_several_processes_measure_the_same_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_llama()
    alone = Decoder(network).rounding
    asked = []
    measured = probes.measure_rounding
    monkeypatch.setattr(probes, "LARGE", 0)
    monkeypatch.setattr(Cores, "workers", 3)
    monkeypatch.setattr(
        probes, "measure_rounding", lambda *a, **how: asked.append(how["processes"]) or measured(*a, **how)
    )
    assert Decoder(network).rounding == alone
    # With several threads, as in a forked process with one, other kernels may round.
    torch.set_num_threads(2)
    try:
        Decoder(network)
    finally:
        torch.set_num_threads(1)
    assert asked == [3, 1]


def passes_of(monkeypatch: pytest.MonkeyPatch, network: torch.nn.Module) -> tuple[Rounding, int]:
    """The rounding of a model that is loaded anew, and the number of passes that measured it."""
    passes, logits = [], Decoder.logits
    monkeypatch.setattr(Decoder, "logits", lambda *a, **how: passes.append(1) or logits(*a, **how))
    try:
        return Decoder(network).rounding, len(passes)
    finally:
        monkeypatch.setattr(Decoder, "logits", logits)


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every model is large enough to keep its rounding, in this folder."""
    monkeypatch.setattr(probes, "LARGE", 0)
    monkeypatch.setattr(Cores, "workers", 1)
    monkeypatch.setenv("LAYER_ORACLE_CACHE", str(tmp_path))
    return tmp_path / "rounding"


def test_rounding_is_measured_once_per_model_and_machine(keeping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, whole = passes_of(monkeypatch, tiny_llama())
    again, few = passes_of(monkeypatch, tiny_llama())
    assert again == first and 4 * few == whole
    _, other = passes_of(monkeypatch, tiny("gpt2"))
    assert other > few and len(list(keeping.iterdir())) == 2


@pytest.mark.parametrize(
    "damage", ["", "null", "{", "[" * 200_000, '{"value": {"masks": [], "interact": true}, "digest": "0"}']
)
def test_damaged_rounding_is_measured_again(damage: str, keeping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, whole = passes_of(monkeypatch, tiny_llama())
    [path] = keeping.iterdir()
    kept = path.read_text()
    path.write_text(damage)
    assert passes_of(monkeypatch, tiny_llama()) == (first, whole)
    assert path.read_text() == kept


def test_rounding_kept_of_other_arithmetic_is_measured_again(keeping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on another machine that shares the folder and has the same name."""
    _, whole = passes_of(monkeypatch, tiny_llama())
    with Hostile(16):
        hostile, passes = passes_of(monkeypatch, tiny_llama())
        assert passes > whole and passes_of(monkeypatch, tiny_llama())[0] == hostile
    plain, _ = passes_of(monkeypatch, tiny_llama())
    assert plain.logits < hostile.logits


def test_rounding_is_measured_where_nothing_can_be_kept(keeping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeping.write_text("a file, not a folder")
    first, whole = passes_of(monkeypatch, tiny_llama())
    assert passes_of(monkeypatch, tiny_llama()) == (first, whole)


def test_rounding_is_measured_without_a_home_folder(keeping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYER_ORACLE_CACHE", "~no-such-user/cache")
    first, whole = passes_of(monkeypatch, tiny_llama())
    assert passes_of(monkeypatch, tiny_llama()) == (first, whole)
