"""Costs: FLOPs are those that torch counts, times land where they were spent, files give back what was written."""

import itertools
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import LAYERS, tiny_tokenizer
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import DynamicCache
from zoo import GATED, MIXED, WIDE, ZOO, tiny

from oracle.costs import Conditions, Costs, costs_of_file, read_costs, write_costs
from oracle.costs.anatomy import Experts, multiplied
from oracle.costs.bench import Bench
from oracle.costs.flops import count_flops
from oracle.costs.groups import group_units
from oracle.costs.latency import measure_latency
from oracle.engine.schedule import Units
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.models.cache import RowCache
from oracle.models.call import Call, Part
from oracle.search import Space

Command = Callable[..., tuple[int, str, str]]

SPARSE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {"kv_lora_rank": 12, "q_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6}
MORE: dict[str, tuple[str, dict[str, object]]] = {
    "a dense layer, then experts": ("Qwen3Moe", {**GATED, **SPARSE, "head_dim": 8, "mlp_only_layers": [0]}),
    "experts beside a shared one": ("Qwen2Moe", {**GATED, **SPARSE, "shared_expert_intermediate_size": 24}),
    "experts with biases": ("GptOss", {**GATED, **MIXED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "norms with a row a head": ("Cohere", {**GATED, "use_qk_norm": True}),
    "fused and grouped": ("Falcon", {**WIDE, "new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False}),
    "latent attention": ("DeepseekV3", {**WIDE, **LATENT, "intermediate_size": 64, "first_k_dense_replace": LAYERS}),
}
NORM_BEHIND = "opt, norm after"
"""The family whose attention and MLP cannot be skipped apart."""

FUSED = {"gpt2": 4, "gpt-neox": 4, "bloom": 4, "falcon": 1, "falcon, alibi": 4, "phi3": 2, "gpt-bigcode": 1}
FUSED["fused and grouped"] = 2
"""Families whose queries, keys and values come out of one matrix -> key/value heads, beside 4 query heads."""

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
    model.network(tokens[:, :-1], past_key_values=cache, use_cache=True)
    [total], plain = counted(lambda: model.network(tokens[:, -1:], past_key_values=cache, use_cache=True))
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
    assert multiplied(listed, Experts(count=4, active=2)) == 2 * 3 * 5


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
    monkeypatch.setattr("oracle.costs.anatomy.ACTIVE_EXPERTS", ("a name of its own",))
    with pytest.raises(InputError, match="does not say how many of them a token runs through"):
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
    assert latency.costs.device == torch.cuda.get_device_name()
    assert 0.5 < latency.parts_to_whole < 5


def costs(**changes: object) -> Costs:
    settings = {
        "units": (10.0, 20.0, 30.0),
        "states": (1.0, 2.0, 3.0),
        "overhead": 40.0,
        "unit_of_measure": "ms/token",
        "unit": "layer",
        "context": 128,
        "batch": 1,
        "dtype": "float32",
        "device": "cpu, 2 threads",
        "model": "tiny",
        "fingerprint": "0123",
    }
    return Costs(**{**settings, **changes})


@pytest.mark.parametrize(
    ("allocation", "fraction", "propagated"),
    [((0, 1, 2), 1.0, 1.0), ((), 0.4, 0.46), ((1,), 0.6, 0.64), ((0, 2, 2), 1.1, 1.12)],
)
def test_fractions_include_what_every_allocation_pays(allocation, fraction, propagated) -> None:
    assert costs().fraction(allocation) == pytest.approx(fraction)
    assert costs().fraction(allocation, propagate=True) == pytest.approx(propagated)
    assert costs().of(allocation) == pytest.approx(100 * fraction)
    space = Space(units=3, free=(0, 1, 2), costs=costs().units)
    assert space.cost(allocation) + costs().overhead == costs().of(allocation)


def test_the_same_units_cost_the_same_to_the_last_bit() -> None:
    thirds = costs(units=(0.1, 1 / 3, 0.1, 1 / 3, 0.7), states=(0.0,) * 5, overhead=0.3)
    found = thirds.of_each([(0, 1, 2, 3), (3, 2, 1, 0), (0, 2, 1, 3), (), (0, 1, 2, 3, 4)])
    assert len(set(found[:3].tolist())) == 1
    assert found[-1] == thirds.total
    assert found[3:].tolist() == pytest.approx([0.3, 0.3 + 0.2 + 2 / 3 + 0.7])
    with pytest.raises(InputError, match=r"units 0 to 4 is required, not \(1, 5\)"):
        thirds.of_each([(0,), (1, 5)])


@pytest.mark.parametrize(
    ("units", "relative", "step"),
    [
        ((7e6, 7e6, 7e6), (1.0, 1.0, 1.0), 7e6),
        ((0.1, 0.1, 0.1), (1.0, 1.0, 1.0), 0.1),
        ((2.0, 6.0, 4.0), (0.5, 1.5, 1.0), 2.0),
        ((0.25, 1.5, 1.25), (0.25, 1.5, 1.25), None),
        ((0.0, 0.0, 0.0), None, None),
    ],
)
def test_a_search_sees_costs_in_mean_units(units, relative, step) -> None:
    some = costs(units=units)
    assert some.step == step
    if relative is None:
        with pytest.raises(InputError, match="needs units that cost something"):
            assert some.relative
    else:
        assert some.relative == relative
    measured = costs(units=(0.1, 1 / 3, 0.7)).relative
    assert sum(measured) == sum(reversed(measured)) == pytest.approx(3.0, abs=1e-5)


@pytest.mark.parametrize("allocation", [(3,), (0, -1)])
def test_units_that_do_not_exist_cost_nothing_that_is_known(allocation) -> None:
    with pytest.raises(InputError, match="units 0 to 2 is required"):
        costs().fraction(allocation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": (), "states": ()}, "a value of every unit"),
        ({"states": (1.0,)}, "not 3 and 1"),
        ({"units": (1.0, -1.0, 1.0)}, "finite values of at least 0"),
        ({"overhead": float("nan")}, "finite values of at least 0"),
        ({"units": (0.0,), "states": (0.0,), "overhead": 0.0}, "not all 0"),
        ({"unit_of_measure": "layers"}, "FLOPs/token or ms/token, not 'layers'"),
        ({"unit": "head"}, "layer or sublayer, not 'head'"),
    ],
)
def test_costs_that_make_no_sense_are_refused(changes, message) -> None:
    with pytest.raises(InputError, match=message):
        costs(**changes)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    measured, counts = costs(units=(0.1, 1 / 3, 2e-300)), costs(unit_of_measure="FLOPs/token", overhead=2.0**60)
    write_costs(tmp_path / "costs.json", [counts, measured], rounds=3)
    assert read_costs(tmp_path / "costs.json", "ms/token") == measured
    assert read_costs(tmp_path / "costs.json", "FLOPs/token") == counts
    assert read_costs(tmp_path / "costs.json") == measured
    for suffix, expected in (("", measured), (":ms", measured), (":flops", counts)):
        assert costs_of_file(f"{tmp_path / 'costs.json'}{suffix}") == expected
    write_costs(tmp_path / "costs.json", [counts])
    assert read_costs(tmp_path / "costs.json") == counts
    with pytest.raises(InputError, match="has costs in FLOPs/token, not in ms/token"):
        read_costs(tmp_path / "costs.json", "ms/token")
    with pytest.raises(InputError, match="cannot write costs"):
        write_costs(tmp_path / "nowhere" / "costs.json", [counts])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read costs .*No such file"),
        ("{", "cannot read costs"),
        ("[]", "no file of costs of schema 1"),
        ('{"schema": 2, "costs": []}', "no file of costs of schema 1"),
        ('{"schema": 1, "costs": [3]}', "has costs in nothing"),
        ('{"schema": 1, "costs": [{"unit_of_measure": "ms/token"}]}', "these are no costs .'units'"),
    ],
)
def test_files_that_hold_no_costs_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "costs.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_costs(tmp_path / "costs.json", "ms/token")


@pytest.mark.parametrize(("name", "value"), [("units", "abc"), ("overhead", "x"), ("color", 1), ("units", [None])])
def test_entries_that_are_no_costs_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match="these are no costs"):
        Costs.from_dict({**costs().to_dict(), name: value})


def test_a_profile_shows_and_writes_its_numbers(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    small = ["profile", "--model", tiny_folder, "--rounds", 3, "--context", 20, "--quiet"]
    file = tmp_path / "costs.json"
    code, out, err = command(*small, "--unit", "sublayer", "--out", file)
    assert (code, err) == (0, "")
    counts, measured = read_costs(file, "FLOPs/token"), read_costs(file, "ms/token")
    assert (counts.unit, counts.context, measured.batch, measured.dtype) == ("sublayer", 20, 1, "float32")
    details = json.loads(file.read_text())
    assert details["parts_to_whole"] == pytest.approx(measured.total / details["whole_ms"]["median"])
    lines = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    for name, first in (("attention of layers 0-4", 0), ("MLP of layers 0-4", 1)):
        assert lines[name][4:6] == ["5", f"{counts.units[first] / 1e6:.2f}"]
        assert f"{measured.units[first]:.3f}" in lines[name]
        assert f"{500 * counts.units[first] / counts.total:.1f}" in lines[name]
    assert f"add up to {details['parts_to_whole']:.2f} of a whole token" in out
    assert command(*small, "--out", file) == (
        2,
        "",
        f"oracle: error: '{file}' is there already and is left as it is; give another --out or remove it\n",
    )


def test_a_profile_is_one_json_object(command: Command, tiny_folder: Path) -> None:
    code, out, err = command("profile", "--model", tiny_folder, "--rounds", 2, "--batch", 2, "--json", "--quiet")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    counts, measured = (Costs.from_dict(each) for each in answer["costs"])
    assert (measured.unit_of_measure, measured.batch, len(measured.units)) == ("ms/token", 2, LAYERS)
    assert answer["groups"][0]["units"] == list(range(LAYERS))
    assert answer["groups"][0]["flops"] == counts.units[0]
    assert counts.fingerprint == measured.fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--unit", "head"], "--unit needs one of layer, sublayer, not 'head'"),
        (["--batch", 0], "--batch needs at least 1, not 0"),
        (["--rounds", -1], "--rounds needs at least 1, not -1"),
        (["--context", 257], "--context needs at most the model's 256 tokens, not 257"),
        (["--out", "nowhere/costs.json"], "'nowhere' is none; make it first"),
        (["--out", "x" * 300], "cannot write to"),
    ],
)
def test_a_profile_refuses_in_one_line(command: Command, tiny_folder: Path, arguments, message) -> None:
    code, out, err = command("profile", "--model", tiny_folder, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("oracle: error: ") and message in err
