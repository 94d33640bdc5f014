"""FLOPs are those that torch counts, and times land where they were spent."""

import itertools
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from tiny import LAYERS, Mixture, tiny_llama, tiny_tokenizer
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import DynamicCache
from zoo import GATED, MIXED, WIDE, ZOO, tiny

import oracle.costs.anatomy
from oracle.costs import Conditions
from oracle.costs.anatomy import Experts, multiplied
from oracle.costs.bench import Bench
from oracle.costs.flops import count_flops
from oracle.costs.latency import group_units, measure_latency
from oracle.engine.schedule import Units
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.models.kv_cache import RowCache
from oracle.models.layer_call import Call, Part

SPARSE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {"kv_lora_rank": 12, "q_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6}
MORE: dict[str, tuple[str, dict[str, object]]] = {
    "a dense layer, then experts": ("Qwen3Moe", {**GATED, **SPARSE, "head_dim": 8, "mlp_only_layers": [0]}),
    "experts beside a shared one": ("Qwen2Moe", {**GATED, **SPARSE, "shared_expert_intermediate_size": 24}),
    "experts with biases": ("GptOss", {**GATED, **MIXED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "experts behind every layer": ("Olmoe", {**GATED, "num_experts": 4, "num_experts_per_tok": 2}),
    "experts with multipliers": ("GraniteMoe", {**GATED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "experts in long context": ("Phimoe", {**GATED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "norms with a row a head": ("Cohere", {**GATED, "use_qk_norm": True}),
    "fused and grouped": ("Falcon", {**WIDE, "new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False}),
    "latent attention": ("DeepseekV3", {**WIDE, **LATENT, "intermediate_size": 64, "first_k_dense_replace": LAYERS}),
}
NORM_BEHIND = "opt, norm after"
"""The family whose attention and MLP cannot be skipped apart."""

FUSED = {"gpt2": 4, "gpt-neox": 4, "bloom": 4, "falcon": 1, "falcon, alibi": 4, "phi3": 2, "gpt-bigcode": 1}
FUSED["fused and grouped"] = 2
"""Families whose queries, keys and values come out of one matrix -> key/value heads, beside 4 query heads."""

NAMES = ("experts", "heads")

WINDOW = 8
"""No longer than the windows of the zoo: everything is attended to."""

CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""The one kernel that torch leaves out of its count."""


def build(family: str, layers: int = LAYERS) -> LanguageModel:
    prefix, settings = {**ZOO, **MORE}[family]
    cut = {name: layers for name in ("num_hidden_layers", "n_layer") if name in settings}
    kinds = {name: settings[name][:layers] for name in ("layer_types",) if name in settings}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.ZOO", {family: (prefix, {**settings, **cut, **kinds})})
        network = tiny(family)
    if any("experts" in name for name, _ in network.named_modules()):
        network.set_experts_implementation("eager")  # torch does not count grouped products
    return LanguageModel(name=family, network=network, tokenizer=tiny_tokenizer())


@pytest.fixture(scope="module", params=[*ZOO, *MORE][:-1])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    """Two layers: the first and the second kind, where there are two."""
    return build(request.param, layers=2)


def counted(*works: Callable[[], object]) -> tuple[list[int], FlopCounterMode]:
    """What torch counts of each, and kernel by kernel of all."""
    attention = {CPU_ATTENTION: lambda query, key, value, *args, **kwargs: sdpa_flop_count(query, key, value)}
    totals = [0]
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=attention) as counter:
        for work in works:
            work()
            totals.append(counter.get_total_flops())
    return [after - before for before, after in pairwise(totals)], counter


@torch.inference_mode()
def test_flops_of_a_token_are_those_that_torch_counts(model) -> None:
    """For the library's own model and cache, which drops what a sliding window hides."""
    context = 3 * WINDOW
    cache, tokens = DynamicCache(config=model.network.config), torch.arange(context)[None]
    model.network(tokens[:, :-1], cache=cache, use_cache=True)
    [total], plain = counted(lambda: model.network(tokens[:, -1:], cache=cache, use_cache=True))
    costs = count_flops(model, Conditions(context=context))
    assert costs.total == total
    assert costs.overhead == 2 * 258 * 32, "the head alone: the embedding is a look-up"
    last = {
        name.split(".")[-1]: sum(flops.values()) for name, flops in plain.get_flop_counts().items() if ".1." in name
    }
    if heads := FUSED.get(model.name):
        (fused,) = (last[name] for name in ("c_attn", "query_key_value", "qkv_proj") if name in last)
        assert costs.states == (fused * 2 * heads // (4 + 2 * heads),) * 2
    else:
        assert costs.states == (last["k_proj"] + last["v_proj"],) * 2


@torch.inference_mode()
@pytest.mark.parametrize("unit", ["layer", "sublayer"])
def test_flops_of_a_unit_are_those_that_torch_counts(model, unit) -> None:
    conditions = Conditions(unit=unit, context=WINDOW)
    if unit == "sublayer" and model.name == NORM_BEHIND:
        with pytest.raises(InputError, match="use the unit 'layer'"):
            count_flops(model, conditions)
        return
    cache = RowCache(model.layers, WINDOW)
    step = model.decoder.begin(torch.arange(WINDOW - 1)[None], cache=cache, positions_RT=torch.arange(WINDOW - 1)[None])
    for cache.step in range(model.layers):
        model.decoder.run(Call(cache.step), step.hidden_RTD, step)
    cache.advance(WINDOW - 1)
    step = model.decoder.begin(torch.tensor([[7]]), cache=cache, positions_RT=torch.tensor([[WINDOW - 1]]))
    costs, units = count_flops(model, conditions), Units(model.decoder, unit)
    calls = [units.calls((number,))[0] for number in range(units.count)]

    def run(call: Call) -> None:
        cache.step = call.layer
        model.decoder.run(call, step.hidden_RTD, step)

    assert list(costs.units) == counted(*(partial(run, call) for call in calls))[0]
    assert [flops == 0 for flops in costs.states] == [call.part == Part.MLP for call in calls]


@torch.inference_mode()
def test_what_is_timed_is_what_is_counted(model) -> None:
    conditions = Conditions(context=WINDOW, batch=3)
    bench = Bench(model.decoder, [Call(layer) for layer in range(model.layers)], conditions)
    costs = count_flops(model, conditions)
    works = (bench.whole, bench.parts, bench.states)
    for work in works:  # a repetition finds what the first found
        work()
    [whole, parts, states], _ = counted(*works)
    assert whole == parts == 3 * costs.total
    assert 3 * sum(costs.states) <= states < 3 * sum(costs.units) / 2


def test_active_experts_only() -> None:
    model, one, all_of_them = (build("mixtral") for _ in range(3))
    one.network.config.num_experts_per_tok, all_of_them.network.config.num_experts_per_tok = 1, 4
    expert = 3 * 2 * 32 * 64
    few, some, many = (count_flops(each, Conditions()).units[0] for each in (one, model, all_of_them))
    assert (some - few, many - some) == (expert, 2 * expert)
    listed = torch.nn.ModuleList(torch.nn.Linear(3, 5) for _ in range(4))
    assert multiplied(listed, Experts(count=4, active=2)) == 4 * 3 * 5
    assert multiplied(listed, None, {listed[1], listed[3]}) == 2 * 3 * 5


LISTED = [(2, 2, 1), (4, 2, 2), (3, 4, 2), (5, 5, 3), (2, 8, 1)]
"""Layers, experts, experts per token."""


@pytest.mark.parametrize(("layers", "experts", "active"), LISTED)
def test_experts_in_a_list_are_counted_as_torch_counts_them(layers: int, experts: int, active: int) -> None:
    """Also where there are as many layers as experts, or as heads as either."""
    network = tiny_llama(num_hidden_layers=layers)
    for layer in network.model.layers:
        layer.mlp = Mixture(32, experts, active)
    network.config.num_experts, network.config.num_experts_per_tok = experts, active
    model = LanguageModel(name="listed", network=network.eval(), tokenizer=tiny_tokenizer())
    cache, tokens = DynamicCache(config=network.config), torch.arange(12)[None]
    with torch.inference_mode():
        network(tokens[:, :-1], cache=cache, use_cache=True)
    [total], _ = counted(lambda: network(tokens[:, -1:], cache=cache, use_cache=True))
    costs = count_flops(model, Conditions(context=12))
    assert costs.total == total
    assert costs.overhead == 2 * 258 * 32 > 0
    assert len(set(costs.units)) == 1


def test_layers_may_differ_in_their_heads() -> None:
    """By what the layers compute, not by one number of the configuration."""
    network = tiny_llama()
    narrow = network.model.layers[2].self_attn
    for name, width in (("q_proj", 16), ("k_proj", 8), ("v_proj", 8)):
        setattr(narrow, name, torch.nn.Linear(32, width, bias=False))
    narrow.o_proj = torch.nn.Linear(16, 32, bias=False)
    model = LanguageModel(name="uneven", network=network, tokenizer=tiny_tokenizer())
    costs = count_flops(model, Conditions(context=20))
    per_token = [2 * 4 * (8 + 8), 2 * 2 * (8 + 8)]  # query heads x (D + E)
    longer = count_flops(model, Conditions(context=21))
    assert [b - a for a, b in zip(costs.units, longer.units, strict=True)] == [per_token[n == 2] for n in range(LAYERS)]


SPARSE_FAMILIES = ["mixtral", *(name for name in MORE if "experts" in name)]


@pytest.mark.parametrize("family", SPARSE_FAMILIES)
@pytest.mark.parametrize("layers", [2, 4])
def test_as_many_layers_as_experts_or_heads_change_nothing(family: str, layers: int) -> None:
    """Four experts and four heads: what has the same number is not taken for the other."""
    model, context = build(family, layers), WINDOW
    cache, tokens = DynamicCache(config=model.network.config), torch.arange(context)[None]
    with torch.inference_mode():
        model.network(tokens[:, :-1], cache=cache, use_cache=True)
    [total], _ = counted(lambda: model.network(tokens[:, -1:], cache=cache, use_cache=True))
    assert count_flops(model, Conditions(context=context)).total == total


def test_flops_that_cannot_be_told_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="caches keys and values compressed"):
        count_flops(build("latent attention"), Conditions())
    packed = build("llama")
    assert packed.decoder
    packed.network.model.layers[3].mlp.register_parameter(
        "codes", torch.nn.Parameter(torch.zeros((4, 1), dtype=torch.uint8), requires_grad=False)
    )
    with pytest.raises(InputError, match="LlamaMLP holds packed"):
        count_flops(packed, Conditions())
    monkeypatch.setattr(oracle.costs.anatomy, "ACTIVE_EXPERTS", ("a name of its own",))
    with pytest.raises(InputError, match="lacks the number that a token runs through"):
        count_flops(build("experts beside a shared one"), Conditions())


@pytest.mark.embedded
def test_flops_of_the_embedded_model(embedded_model) -> None:
    width, inner, states, vocabulary = 576, 1536, 192, 49152
    costs = count_flops(embedded_model, Conditions(context=100))
    layer = 2 * (2 * width * width + 2 * width * states + 3 * width * inner) + 4 * 100 * width
    assert costs.units == (layer,) * 30
    assert (costs.overhead, costs.states[0]) == (2 * vocabulary * width, 2 * 2 * width * states)


def test_alike_are_units_of_equal_shapes_and_kind() -> None:
    def groups(family: str, unit: str) -> list[tuple[Part, tuple[int, ...]]]:
        return [(group.part, group.layers) for group in group_units(build(family), Conditions(unit=unit))]

    assert groups("llama", "layer") == [(Part.WHOLE, (0, 1, 2, 3, 4))]
    assert groups("gemma2", "layer") == [(Part.WHOLE, (0, 2, 4)), (Part.WHOLE, (1, 3))]
    attention, mlp = (Part.ATTENTION, (0, 1, 2, 3, 4)), Part.MLP
    assert groups("a dense layer, then experts", "sublayer") == [attention, (mlp, (0,)), (mlp, (1, 2, 3, 4))]


def test_times_land_on_the_part_that_spent_them() -> None:
    model, nap = build("gemma2"), 0.003
    for layer in model.network.model.layers[::2]:
        layer.mlp.register_forward_pre_hook(lambda *args: time.sleep(nap))
    model.network.lm_head.register_forward_pre_hook(lambda *args: time.sleep(2 * nap))
    latency = measure_latency(model, Conditions(rounds=5))
    sleepy, awake = latency.costs.units[0], latency.costs.units[1]
    assert latency.costs.units == (sleepy, awake, sleepy, awake, sleepy)
    assert latency.costs.overhead >= 2000 * nap > 1000 * nap > awake
    assert sleepy >= 1000 * nap > max(latency.costs.states)
    assert latency.whole.median >= 5000 * nap
    apart = measure_latency(model, Conditions(rounds=5, unit="sublayer")).costs
    assert apart.units[1] >= 1000 * nap > apart.units[0]
    assert apart.states[0] > 0 == apart.states[1]


@pytest.mark.parametrize("batch", [1, 4])
def test_times_are_per_token_of_the_batch(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("oracle.costs.bench.time", SimpleNamespace(perf_counter=lambda: 4 * next(ticks) / 1000))
    latency = measure_latency(build("llama"), Conditions(batch=batch, rounds=3))
    lap = 4 / batch
    assert latency.costs.units == latency.costs.states == pytest.approx((lap,) * LAYERS)
    assert latency.costs.overhead == pytest.approx(2 * lap)
    assert (latency.whole.low, latency.whole.high) == pytest.approx((lap, lap))
    assert latency.parts_to_whole == pytest.approx(2 + LAYERS)


def test_a_time_is_the_median_of_rounds_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter([900.0, 900.0, 900.0, 1.0, 2.0, 3.0, 4.0, 500.0])  # the first three warm up
    monkeypatch.setattr(Bench, "parts", lambda self: [next(rounds)] * (LAYERS + 2))
    latency = measure_latency(build("llama"), Conditions(rounds=5))
    assert latency.costs.units == (3.0,) * LAYERS
    assert latency.costs.overhead == 6.0
    assert (latency.spreads[0].low, latency.spreads[0].high) == (2.0, 4.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device and a CUDA build of torch")
def test_times_on_a_gpu() -> None:
    network = tiny("llama").to("cuda")
    latency = measure_latency(
        LanguageModel(name="llama", network=network, tokenizer=tiny_tokenizer()), Conditions(rounds=20)
    )
    assert torch.cuda.get_device_name() in latency.costs.device
    assert 0.5 < latency.parts_to_whole < 5
