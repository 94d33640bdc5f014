"""Where memory runs out less is done at once, and outcomes are the same."""

from collections.abc import Callable
from itertools import chain, combinations

import numpy as np
import pytest
import torch
from tiny import LAYERS

import oracle.engine.engine as engine_module
from oracle.config import SearchConfig
from oracle.engine import Engine, TableGate
from oracle.engine.decode import Settings
from oracle.errors import InputError
from oracle.store import Run

MASKS = list(chain.from_iterable(combinations(range(LAYERS), count) for count in range(LAYERS + 1)))

ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    "windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    "python": MemoryError(),
}

Narrow = Callable[[int, Exception], None]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Narrow:
    """Makes memory run out for more than a number of rows at once, in any operation."""

    def act(rows: int, error: Exception) -> None:
        def patched(name: str, count: Callable[..., int]) -> None:
            work = getattr(engine_module, name)

            def limited(*args: object, **kwargs: object) -> object:
                if count(*args) > rows:
                    raise error
                return work(*args, **kwargs)

            monkeypatch.setattr(engine_module, name, limited)

        def decoded(decoder: object, prompts: list, schedule: object, settings: Settings, *_: object) -> int:
            return settings.rows

        patched("greedy_decode", decoded)
        patched("continuation_scores", lambda decoder, prompt, schedule, tokens: len(schedule.runs_AI))
        patched("gated_decode", lambda decoder, prompts, *_: len(prompts))
        patched("gated_score", lambda decoder, prompts, *_: len(prompts))
        test = engine_module.Refuter.test

        def limited_test(self: object, schedule: object) -> object:
            if len(schedule.runs_AI) > rows:  # type: ignore[attr-defined]
                raise error
            return test(self, schedule)  # type: ignore[arg-type]

        monkeypatch.setattr(engine_module.Refuter, "test", limited_test)

    return act


@pytest.fixture(params=["decode", "sequence"])
def engine(request: pytest.FixtureRequest, tiny_model) -> Engine:
    return Engine(tiny_model, SearchConfig(scope=request.param, max_new_tokens=6))


def outcomes(engine: Engine) -> dict[str, list]:
    prompts = [engine.open(text) for text in ("Hello there.", "x")]
    runs_NU = np.array([[unit in mask for unit in range(LAYERS)] for mask in sorted(MASKS)])
    full = engine.alone(prompts[0], tuple(range(LAYERS)))
    gate = TableGate([np.ones((1, LAYERS), dtype=np.bool_)] * 2, policy="propagate")
    likelihoods = engine.log_likelihoods(prompts[0], MASKS, [1, 2, 3])
    scores = engine.score_gated(prompts, gate, [[1, 2]] * 2)
    return {
        "decoded": [one.tokens for one, _ in engine.generate([(p, mask) for mask in MASKS for p in prompts])],
        "scored": [round(value, 4) for value in likelihoods],
        "tested": [answer for _, answers in engine.reproduces(prompts[0], runs_NU, full) for answer in answers],
        "gated": [one.generation.tokens for one in engine.generate_gated(prompts, gate)],
        "gated scores": [np.round(one.log_likelihoods_T, 4).tolist() for one in scores],
    }


@pytest.mark.parametrize("rows", [1, 5])
def test_half_the_rows_give_the_same_outcomes(engine: Engine, narrow: Narrow, rows: int) -> None:
    expected = outcomes(engine)
    assert not engine.notes
    narrow(rows, ERRORS["cpu"])
    assert outcomes(engine) == expected
    notes = {work: [note["now"] for note in engine.notes if note["work"] == work] for work in ("decoding", "scoring")}
    for now in notes.values():
        assert now and now == sorted(now, reverse=True)
        assert now[-1] <= rows < 2 * now[-1] + 2
    engine.notes.clear()
    assert outcomes(engine) == expected
    assert engine.notes == [], "the smaller size is remembered"


@pytest.mark.parametrize("kind", ERRORS)
def test_every_way_to_say_so_is_understood(engine: Engine, narrow: Narrow, kind: str) -> None:
    prompt = engine.open("x")
    narrow(8, ERRORS[kind])
    assert len(engine.generate([(prompt, mask) for mask in MASKS])) == len(MASKS)
    assert [note["now"] for note in engine.notes] == [16, 8]


def test_no_memory_for_one_row_is_one_clear_error(engine: Engine, narrow: Narrow) -> None:
    prompt = engine.open("x")
    narrow(0, ERRORS["cpu"])
    with pytest.raises(InputError, match="not enough memory for a single row"):
        engine.generate([(prompt, mask) for mask in MASKS])
    with pytest.raises(InputError, match="not enough memory for a single row"):
        engine.log_likelihoods(prompt, MASKS, [1, 2])


def test_other_errors_are_not_taken_for_it(engine: Engine, narrow: Narrow) -> None:
    prompt = engine.open("x")
    narrow(0, RuntimeError("expected a tensor of floats"))
    with pytest.raises(RuntimeError, match="expected a tensor of floats"):
        engine.generate([(prompt, mask) for mask in MASKS])


def test_the_log_of_the_run_says_so(search: Callable[..., Run], narrow: Narrow) -> None:
    whole = search(limit=3)
    narrow(7, ERRORS["cuda"])
    run = search(limit=3)
    columns = ["sequence", "number", "allocation", "tokens", "rougeL"]
    assert run.evaluations()[columns].map(repr).equals(whole.evaluations()[columns].map(repr))
    lines = [line for line in (run.folder / "log.jsonl").read_text().splitlines() if "memory is out" in line]
    assert lines and all('"level": "warning"' in line and '"work": "decoding"' in line for line in lines)
