"""Hidden states are those of the library's own models, and are computed once."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import LAYERS, tiny_llama, tiny_tokenizer
from torch import Tensor
from transformers import DynamicCache
from zoo import ZOO, tiny

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.engine.hidden_states import Hidden, Trace
from oracle.engine.layer_importance import HiddenStates
from oracle.errors import InputError
from oracle.models import LanguageModel, truncated
from oracle.store.hidden import HiddenStore

PROMPT = "A prompt that is wider than a window."
TOKENS = tuple(b" and its answer")
EVERY = tuple(range(LAYERS))
MASK = (0, 2, 3)


@pytest.fixture(scope="module", params=ZOO)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return LanguageModel(name=request.param, network=tiny(request.param), tokenizer=tiny_tokenizer())


@pytest.fixture
def store(tmp_path: Path) -> HiddenStore:
    return HiddenStore(tmp_path / "hidden")


def engine_of(model: LanguageModel, store: HiddenStore | None = None, **changes: object) -> Engine:
    return Engine(model, SearchConfig(**{"max_new_tokens": 10, **changes}), store)


def hooked(network: torch.nn.Module, layers: torch.nn.ModuleList, *args: object, **kwargs: object) -> Tensor:
    """What enters the layers of an untouched model, and what leaves each of them."""
    seen: list[Tensor] = []

    def note(module: torch.nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        seen.extend([kwargs.get("hidden_states", args[0] if args else None)] if not seen else [])
        seen.append(output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(note, with_kwargs=True) for layer in layers]
    with torch.inference_mode():
        network(*args, **kwargs)
    for handle in handles:
        handle.remove()
    return torch.cat(seen)


def layers_of(network: torch.nn.Module, count: int) -> torch.nn.ModuleList:
    return next(m for m in network.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@torch.inference_mode()
def test_the_full_models_states_are_the_librarys(model) -> None:
    engine = engine_of(model)
    ids = engine.encode(PROMPT)
    states = engine.hidden.states(ids, TOKENS, EVERY)
    whole = torch.tensor([[*ids, *TOKENS]])
    wanted = torch.cat(model.network(whole, output_hidden_states=True).hidden_states)
    found = torch.cat([states.prompt.every(), states.generated.every()], dim=1)
    assert found.shape == (LAYERS + 1, len(ids) + len(TOKENS), wanted.shape[-1])
    close(found[:-1], wanted[:-1])
    # The library's last state is the one behind the final norm.
    close(model.decoder.normed(found[-1:]), wanted[-1:])
    close(found, hooked(model.network, layers_of(model.network, LAYERS), whole))


@torch.inference_mode()
def test_they_are_so_bit_for_bit(tiny_model) -> None:
    """Of one pass over the prompt and one over what follows, as generation makes them."""
    engine = engine_of(tiny_model)
    prompt = engine.open(PROMPT)
    first = tiny_model.network(prompt.tokens[None], use_cache=True, output_hidden_states=True)
    past = copy.deepcopy(first.cache)
    second = tiny_model.network(torch.tensor([TOKENS]), cache=past, output_hidden_states=True)
    for given in (prompt, prompt.tokens.tolist()):
        states = engine.hidden.states(given, TOKENS, EVERY)
        for trace, wanted in ((states.prompt, first), (states.generated, second)):
            found = trace.every()
            assert torch.equal(found[:-1], torch.cat(wanted.hidden_states[:-1]))
            assert torch.equal(tiny_model.network.model.norm(found[-1:]), wanted.hidden_states[-1])


@pytest.mark.parametrize("mask", [(), MASK])
def test_masks_behind_a_full_prompt(model, mask) -> None:
    engine = engine_of(model)
    prompt = engine.open(PROMPT)
    states = engine.hidden.states(prompt, TOKENS, mask)
    torch.testing.assert_close(states.prompt.every(), engine.hidden.states(prompt, TOKENS, EVERY).prompt.every())
    assert states.prompt.allocation == EVERY
    full = DynamicCache(config=model.network.config)
    with torch.inference_mode():
        model.network(prompt.tokens[None], cache=full, use_cache=True)
    cut = truncated(model.network, mask)
    kept = DynamicCache(config=cut.config)
    kept.layers = [full.layers[layer] for layer in mask]
    if mask:
        layers = layers_of(cut, len(mask))
        close(states.generated.executed(), hooked(cut, layers, torch.tensor([TOKENS]), cache=kept))
    every = states.generated.every()
    assert len(every) == LAYERS + 1
    for layer in range(LAYERS):
        assert torch.equal(every[layer], every[layer + 1]) == (layer not in mask)
        assert torch.equal(states.generated.after(layer + 1), every[layer + 1])
    # Passing through the given keys and values must not have changed them.
    again = Hidden(model, engine.units, engine.config, None).states(prompt.tokens.tolist(), TOKENS, mask)
    torch.testing.assert_close(again.generated.executed(), states.generated.executed())


@pytest.mark.parametrize("allocation", [MASK, (0, 1, 1, 2), (4, 2, 0)])
def test_allocations_that_the_prompt_runs_too(model, allocation) -> None:
    engine = engine_of(model, scope="sequence")
    ids = engine.encode(PROMPT)
    states = engine.hidden.states(ids, TOKENS, allocation)
    cut = truncated(model.network, allocation)
    wanted = hooked(cut, layers_of(cut, len(allocation)), torch.tensor([[*ids, *TOKENS]]), use_cache=False)
    close(states.generated.executed(), wanted[:, len(ids) :])
    close(states.prompt.executed(), wanted[:, : len(ids)])
    assert engine.hidden.executions == len(allocation) * (len(ids) + len(TOKENS)), "nothing twice"


@pytest.mark.parametrize("scope", ["decode", "sequence"])
def test_sublayers_stand_between_layers(tiny_model, scope) -> None:
    halves, wholes = engine_of(tiny_model, scope=scope, unit="sublayer"), engine_of(tiny_model, scope=scope)
    ids = halves.encode(PROMPT)
    found = halves.hidden.states(ids, TOKENS, (0, 1, 3, 4, 6, 7, 8, 9))
    assert found.generated.every().shape[0] == 2 * LAYERS + 1
    found = halves.hidden.states(ids, TOKENS, tuple(range(2 * LAYERS)))
    wanted = wholes.hidden.states(ids, TOKENS, EVERY)
    for name in ("prompt", "generated"):
        torch.testing.assert_close(getattr(found, name).every()[::2], getattr(wanted, name).every())


def no_more_passes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("this was computed before")

    monkeypatch.setattr(engine.model.decoder, "run", refuse)


@pytest.mark.parametrize(("scope", "allocation"), [("decode", MASK), ("sequence", MASK), ("sequence", (1, 0, 1))])
def test_nothing_is_computed_twice(tiny_model, store, monkeypatch, scope, allocation) -> None:
    first = engine_of(tiny_model, store, scope=scope)
    ids = first.encode(PROMPT)
    states = first.hidden.states(ids, TOKENS, allocation)
    assert (first.hidden.hits, first.hidden.misses) == (0, 0), "nothing was asked for yet"
    wanted = states.prompt.executed(), states.generated.executed()
    assert (first.hidden.hits, first.hidden.misses) == (0, 2)
    second = engine_of(tiny_model, HiddenStore(store.folder), scope=scope)
    no_more_passes(second, monkeypatch)
    # Numbers of any kind are the same numbers.
    states = second.hidden.states(torch.tensor(ids), np.array(TOKENS), tuple(np.array(allocation)))
    for trace, tensor in zip((states.prompt, states.generated), wanted, strict=True):
        assert torch.equal(trace.executed(), tensor)
        assert torch.equal(trace.executed(), tensor)
    assert (second.hidden.hits, second.hidden.misses, second.hidden.executions) == (2, 0, 0)


def test_the_prompt_is_kept_once_for_all_masks_and_scopes(tiny_model, store, monkeypatch) -> None:
    engine = engine_of(tiny_model, store)
    ids = engine.encode(PROMPT)
    engine.hidden.states(ids, TOKENS, MASK).prompt.every()
    engine.hidden.states(ids, TOKENS, EVERY).generated.every()
    no_more_passes(engine, monkeypatch)
    engine.hidden.states(ids, TOKENS[:3], (1,)).prompt.every()
    other = engine_of(tiny_model, store, scope="sequence").hidden
    states = other.states(ids, TOKENS, EVERY)
    states.prompt.every(), states.generated.every()
    assert (engine.hidden.hits, other.hits, other.misses) == (1, 2, 0)


def test_other_questions_have_other_answers(tiny_model, store) -> None:
    base = engine_of(tiny_model, store)
    ids = base.encode(PROMPT)
    base.hidden.states(ids, TOKENS, MASK).generated.every()
    other_model = LanguageModel(name="tiny", network=tiny_llama(seed=1), tokenizer=tiny_tokenizer())
    half = LanguageModel(name="tiny", network=tiny_llama().bfloat16(), tokenizer=tiny_tokenizer())
    asked = [
        (base, ids, TOKENS, (0, 2)),
        (base, ids, TOKENS[:-1], MASK),
        (base, ids[1:], TOKENS, MASK),
        (base, [*ids, TOKENS[0]], TOKENS[1:], MASK),
        (engine_of(tiny_model, store, scope="sequence"), ids, TOKENS, MASK),
        (engine_of(tiny_model, store, unit="sublayer"), ids, TOKENS, MASK),
        (engine_of(other_model, store), ids, TOKENS, MASK),
        (engine_of(half, store), ids, TOKENS, MASK),
    ]
    for engine, prompt, tokens, allocation in asked:
        hits, misses = engine.hidden.hits, engine.hidden.misses
        engine.hidden.states(prompt, tokens, allocation).generated.executed()
        assert (engine.hidden.hits, engine.hidden.misses) == (hits, misses + 1)
    assert {usage.model.split("-")[1] for usage in store.usage()} == {"float32", "bfloat16"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_survives(store, dtype) -> None:
    model = LanguageModel(name="tiny", network=tiny_llama().to(dtype), tokenizer=tiny_tokenizer())
    wanted = engine_of(model).hidden.states([1, 2], TOKENS, MASK).generated.every()
    for _ in range(2):
        found = engine_of(model, store).hidden.states([1, 2], TOKENS, MASK).generated.every()
        assert found.dtype == dtype and torch.equal(found, wanted)


def test_damaged_states_are_computed_again(tiny_model, store, monkeypatch) -> None:
    said: list[str] = []
    store = HiddenStore(store.folder, warn=said.append)
    engine = engine_of(tiny_model, store)
    wanted = engine.hidden.states([1, 2], TOKENS, MASK).generated.every()
    [path] = store.folder.rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    trace = engine.hidden.states([1, 2], TOKENS, MASK).generated
    assert torch.equal(trace.after(1), wanted[1]), "this one is whole"
    assert torch.equal(trace.every(), wanted), "and this one is not"
    assert len(said) == 1 and path.name in said[0] and "state 3" in said[0]
    assert engine.hidden.counts() == {"hits": 1, "misses": 2, "damaged": 1}
    no_more_passes(engine, monkeypatch)
    assert torch.equal(engine.hidden.states([1, 2], TOKENS, MASK).generated.every(), wanted), "as good as new"


def test_one_layer_is_one_read(tiny_model, store, monkeypatch) -> None:
    engine = engine_of(tiny_model, store)
    wanted = engine.hidden.states([1, 2], TOKENS, MASK).generated.every()
    reads: list[tuple[int, ...]] = []
    get = store.get

    def noted(*args: object) -> np.ndarray | None:
        found = get(*args)
        reads.append(found.shape)
        return found

    monkeypatch.setattr(store, "get", noted)
    trace = engine.hidden.states([1, 2], TOKENS, MASK).generated
    assert torch.equal(trace.after(4), wanted[4])
    assert reads == [(1, len(TOKENS), 32)]


def test_states_can_be_learned_from(tiny_model, store) -> None:
    """Tensors made without gradients are ordinary ones, computed or read."""
    probe = torch.nn.Linear(32, 1)
    for _ in range(2):
        trace = engine_of(tiny_model, store).hidden.states([1, 2], TOKENS, MASK).generated
        probe(trace.every()).sum().backward()
        assert not trace.every().is_inference()


def test_hints_read_what_is_there(tiny_model, store) -> None:
    found = []
    for kept in (None, store, store):
        engine = engine_of(tiny_model, kept)
        prompt = engine.open(PROMPT)
        states = HiddenStates(engine, prompt, TOKENS)
        found.append((states.influence(), states.skips([1.0] * LAYERS, range(LAYERS))))
        computed = LAYERS * len(TOKENS) if not engine.hidden.hits else 0
        assert states.executions == computed + LAYERS * (LAYERS + 1) // 2 * (len(TOKENS) - 1)
    assert engine.hidden.hits == 1
    assert found[0] == found[1] == found[2]


def test_what_cannot_be_is_refused(tiny_model) -> None:
    engine = engine_of(tiny_model)
    for wanted, prompt, tokens, allocation in (
        ("units 0 to 4", [1], [2], (5,)),
        ("rising subset", [1], [2], (1, 0)),
        ("at least one token", [], [2], MASK),
        ("at least one token", [1], [], MASK),
        ("context of 256", [1] * 200, [2] * 57, MASK),
    ):
        with pytest.raises(InputError, match=wanted):
            engine.hidden.states(prompt, tokens, allocation)
    trace = Trace((1, 0, 1), LAYERS, lambda states: torch.zeros(4, 1, 1))
    for use in (trace.every, lambda: trace.after(2)):
        with pytest.raises(InputError, match="rising allocation"):
            use()
    with pytest.raises(InputError, match="depth of 0 to 5"):
        Trace(MASK, LAYERS, lambda states: torch.zeros(4, 1, 1)).after(6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device and a CUDA build of torch")
def test_states_on_a_gpu(store) -> None:
    model = LanguageModel(name="tiny", network=tiny_llama().to("cuda"), tokenizer=tiny_tokenizer())
    wanted = engine_of(model).hidden.states([1, 2], TOKENS, MASK).generated.every()
    for _ in range(2):
        found = engine_of(model, store).hidden.states([1, 2], TOKENS, MASK).generated.every()
        assert found.device.type == "cuda"
        torch.testing.assert_close(found, wanted)
