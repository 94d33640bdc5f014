"""On a GPU the engine says what plain generation says there; and nowhere does its layer loop wait for the device."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny import LAYERS, tiny_tokenizer
from torch.utils._python_dispatch import TorchDispatchMode
from zoo import ZOO, tiny

from oracle.config import SearchConfig
from oracle.engine import Engine, TableGate
from oracle.models import Decoder, LanguageModel

MASKS = [(), (2,), (0, 4), (1, 2, 3), (0, 1, 3, 4), tuple(range(LAYERS))]
PROMPTS = ("Hello there.", "A longer prompt, wider than a window.", "xy")
WAITS = {"aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten._unique2", "aten.unique_consecutive"}
"""Operations whose result the host must wait for."""

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device and a CUDA build of torch"),
]


def on(device: str, family: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    return LanguageModel(name=family, network=tiny(family).to(device, dtype), tokenizer=tiny_tokenizer())


class Recorder(TorchDispatchMode):
    """Notes the operations that run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.add(str(function.overloadpacket))
        return function(*args, **(kwargs or {}))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Records what happens inside the layers of any decoder."""
    recorder, run = Recorder(), Decoder.run

    def recorded(*args, **kwargs):
        with recorder:
            return run(*args, **kwargs)

    monkeypatch.setattr(Decoder, "run", recorded)
    return recorder


@pytest.mark.parametrize("family", [family for family in ZOO if family != "mixtral"])
def test_layers_never_wait_for_the_device(recorder: Recorder, family) -> None:
    """A mixture of experts does, by its own code: it asks which experts have work."""
    engine = Engine(on("cpu", family), SearchConfig(max_new_tokens=6))
    prompts = [engine.open(text) for text in PROMPTS]
    engine.generate([(prompt, mask) for mask in MASKS for prompt in prompts])
    engine.log_likelihoods(prompts[0], MASKS, [1, 2, 3])
    assert len(recorder.seen) > 10
    assert not recorder.seen & WAITS


class TestOnTheGpu:
    """The same promises as on the CPU, up to rounding."""

    pytestmark = gpu

    @pytest.fixture(params=ZOO)
    def model(self, request: pytest.FixtureRequest) -> LanguageModel:
        return on("cuda", request.param)

    @pytest.mark.parametrize("scope", ["decode", "decode-last", "sequence"])
    def test_padded_batches_give_the_tokens_of_plain_generation(self, model, scope) -> None:
        engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=12))
        prompts = [engine.open(text) for text in PROMPTS]
        requests = [(prompt, mask) for mask in MASKS for prompt in prompts]
        for request, (generation, _) in zip(requests, engine.generate(requests), strict=True):
            assert generation.tokens == engine.alone(*request), request[1]

    def test_scores_are_those_of_the_cpu(self, model) -> None:
        values = []
        for device in ("cpu", "cuda"):
            engine = Engine(on(device, model.name), SearchConfig(scope="sequence"))
            values.append(engine.log_likelihoods(engine.open(PROMPTS[1]), MASKS, list(b"an answer")))
        np.testing.assert_allclose(*values, atol=1e-3)

    def test_reproduction_is_what_generation_says(self, model) -> None:
        engine = Engine(model, SearchConfig(max_new_tokens=6))
        prompt = engine.open(PROMPTS[0])
        runs = np.unpackbits(np.arange(2**LAYERS, dtype=np.uint8)[:, None], axis=1)[:, -LAYERS:].astype(bool)
        masks = [tuple(np.flatnonzero(row).tolist()) for row in runs]
        outputs = [generation.tokens for generation, _ in engine.generate([(prompt, mask) for mask in masks])]
        wanted = max(set(outputs), key=outputs.count)
        answers = [answer for _, part in engine.reproduces(prompt, runs, wanted) for answer in part]
        assert answers == [output == wanted for output in outputs]

    @pytest.mark.parametrize("policy", ["propagate", "copy", "omit"])
    def test_gates_agree_with_teacher_forcing(self, model, policy) -> None:
        engine = Engine(model, SearchConfig(max_new_tokens=8))
        prompts = [engine.open(text) for text in PROMPTS]
        rng = np.random.default_rng(0)
        gate = TableGate([rng.random((8, LAYERS)) < 0.6 for _ in prompts], policy=policy)
        found = engine.generate_gated(prompts, gate)
        scores = engine.score_gated(prompts, gate, [result.generation.tokens for result in found])
        assert [tuple(score.best_T) for score in scores] == [result.generation.tokens for result in found]

    def test_the_layer_loop_does_not_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run: Callable = Decoder.run

        def strict(*args, **kwargs):
            torch.cuda.set_sync_debug_mode("error")
            try:
                return run(*args, **kwargs)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        engine = Engine(on("cuda", "llama"), SearchConfig(max_new_tokens=12))
        prompts = [engine.open(text) for text in PROMPTS]
        monkeypatch.setattr(Decoder, "run", strict)
        assert engine.generate([(prompt, mask) for mask in MASKS for prompt in prompts])

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_settles_its_near_ties_alone(self, dtype) -> None:
        engine = Engine(on("cuda", "llama", dtype), SearchConfig(max_new_tokens=12))
        prompt = engine.open(PROMPTS[1])
        found = engine.generate([(prompt, mask) for mask in MASKS])
        assert (
            sum(
                generation.tokens == engine.alone(prompt, mask)
                for mask, (generation, _) in zip(MASKS, found, strict=True)
            )
            >= 5
        )
