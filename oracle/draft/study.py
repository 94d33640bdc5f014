"""The oracle of self-speculative decoding on one run: the best draft masks, what practice reaches, proven bounds.

In shapes, X is verified prefixes.
"""

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from analysis.drafting import DRAFTS
from oracle.config import SearchConfig
from oracle.costs import Conditions
from oracle.costs.latency import measure_latency
from oracle.draft.acceptance import Acceptance, Drafting
from oracle.draft.bounds import SCHEMA as BOUNDS
from oracle.draft.bounds import bounds_of, enumerable
from oracle.draft.material import Material, Policy
from oracle.draft.plan import Plan
from oracle.draft.policies import Policies
from oracle.draft.rounds import Length, Times
from oracle.engine import DraftEngine
from oracle.engine.schedule import as_masks
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.pipeline.reload import model_of, require_same_decoding, searched_sequences, spread
from oracle.store import Run
from oracle.store.derived import DerivedTables, key_of, origin_of
from oracle.types import RunPath
from oracle.utils.progress import Watch, automatic, note

__all__ = ["SCHEMA", "DraftStudy", "find_drafts"]

VERSION = 1
"""Increment when the same settings give different results."""

ROUNDS = 12
"""Timed rounds of the cost model."""

SCHEMA = pa.schema(
    [
        ("sequence", pa.string()),
        ("task", pa.string()),
        ("choice", pa.string()),
        ("draft_length", pa.int32()),
        ("allocation", pa.list_(pa.int16())),
        ("draft_ms", pa.float64()),
        ("token_ms", pa.float64()),
        ("prefixes", pa.int32()),
        ("accepts", pa.list_(pa.int32())),
        ("possible", pa.list_(pa.int32())),
        ("near", pa.int32()),
        ("tokens", pa.int32()),
        ("rounds", pa.int32()),
        ("drafted", pa.int32()),
        ("accepted", pa.int32()),
        ("verify_ms", pa.float64()),
        ("expected_ms", pa.float64()),
        ("decision_executions", pa.float64()),
        ("measured_ms", pa.float64()),
        ("plain_ms", pa.float64()),
        ("measured_accepted", pa.int32()),
        ("measured_drafted", pa.int32()),
        ("equal", pa.bool_()),
        ("settled", pa.int32()),
    ]
)
"""One row per sequence and choice of a mask. `allocation`: the sublayers that the draft runs (unit u is the attention
of layer u // 2 if u is even, its MLP otherwise); null where masks differ by prefix. `draft_ms`, `token_ms`: expected
time of a draft token (their mean where masks differ) and of a plain one. `accepts[j]`: prefixes from which more
than j draft tokens are accepted, of `possible[j]` with so many tokens to come; `near`: prefixes at which a near-tie
decided. `tokens` after the first one are decoded in `rounds` with `drafted` draft tokens, `accepted` of them accepted.
`verify_ms`, `expected_ms`: expected time of the verifications, and of all. `decision_executions`: layer executions per
round that choosing the mask costs, in no time given here. `measured_ms`, `plain_ms`: measured times of draft and
verification and of plain decoding, in turns; with `measured_accepted` of `measured_drafted` tokens. `equal`: whether
that output is the full model's, `settled` near-ties of the verification being decided by plain decoding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DraftStudy:
    """Results for one run.

    Attributes:
        rows: columns of `SCHEMA`.
        bounds: columns of `oracle.draft.bounds.SCHEMA`; empty if nothing was to be enumerated.
        about: settings and conditions: `plan`, `layers`, `times`, `left_out` (name to reason), `nothing_to_draft`
            (sequences with outputs of one token), `machine`.
        path: file of the rows.
    """

    rows: pd.DataFrame
    bounds: pd.DataFrame
    about: dict[str, Any]
    path: Path


def find_drafts(
    folder: RunPath,
    plan: Plan | None = None,
    *,
    model: LanguageModel | None = None,
    load: Callable[[], LanguageModel] | None = None,
    watch: Watch = automatic,
) -> DraftStudy:
    """Searches, bounds and measures drafts of a run's outputs, and writes tables under `RUN/drafts`.

    A result of the same run and plan is read again. An interrupted command continues from what it had computed.

    Args:
        folder: a run whose search has ended.
        plan: settings; None for the defaults.
        model: the run's model, if already loaded.
        load: loads the run's model, if it is needed; None to load it by its name in the run.
        watch: reports progress.

    Raises:
        InputError: if fewer than two outputs can be drafted, or the run or its model is not valid.
    """
    plan, run = plan or Plan(), Run.open(folder)
    run.summary()  # raises if the search has not ended
    key = key_of(VERSION, run.manifest["model"], run.manifest["config"], run.manifest.get("data"), asdict(plan))
    tables = DerivedTables(run.folder / DRAFTS, key=key, origin=origin_of(run.manifest))
    found, bounds = tables.read("drafts", SCHEMA), tables.read("bounds", BOUNDS)
    if found is None or bounds is None:
        if model is None and load is not None:
            model = load()
        rows, limits, about = _Study(run, model_of(run, model), plan, tables, watch).results()
        tables.write("bounds", pa.Table.from_pylist(limits, schema=BOUNDS), about)
        tables.write("drafts", pa.Table.from_pylist(rows, schema=SCHEMA), about)
        found, bounds = tables.read("drafts", SCHEMA), tables.read("bounds", BOUNDS)
        assert found is not None and bounds is not None, "just written"
    return DraftStudy(
        rows=found[0].to_pandas(), bounds=bounds[0].to_pandas(), about=found[1], path=tables.path("drafts")
    )


class _Study:
    """One study of a run's outputs."""

    def __init__(self, run: Run, model: LanguageModel, plan: Plan, tables: DerivedTables, watch: Watch) -> None:
        self._watch, parts = watch, tables.in_folder(tables.folder / tables.key)
        if model.layers < 2:
            raise InputError(f"a draft skips layers, but the model has {model.layers}; choose one of at least 2 layers")
        engine = DraftEngine(model, SearchConfig.from_dict(run.manifest["config"]))
        require_same_decoding(engine, run.manifest)
        note(watch, model.headline())
        sequences, self._single = _drafted(engine, run, plan.limit)
        if len(sequences) < 2:
            raise InputError(
                f"at least 2 outputs of 2 tokens or more are required, but there are {len(sequences)}; use a run "
                "with more sequences, a larger --limit or a larger --max-new-tokens"
            )
        ids = list(sequences)
        order = np.random.default_rng(plan.seed).permutation(len(ids))
        self._material = Material(
            plan=plan,
            engine=engine,
            sequences=sequences,
            halves=[[ids[place] for place in sorted(order[half::2].tolist())] for half in (0, 1)],
            acceptance=Acceptance(engine=engine, sequences=sequences, most=plan.length, tables=parts),
            times=_measured_times(engine, sequences.values(), plan.length, parts, watch),
            layers=model.layers,
            separable=engine.separable(),
            parts=parts,
        )
        # What depends on the measured times is not read again once they are measured anew.
        timed = key_of(parts.key, asdict(self._material.times))
        self._timed = DerivedTables(parts.folder, key=timed, origin=parts.origin)

    def results(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
        """Rows of the two tables, and their provenance."""
        limits = self._bounds()
        search = Policies(self._material, self._watch)
        policies = search.found()
        self._material.acceptance.flush()
        rows = self._rows(policies, search.decisions)
        about = {
            "plan": asdict(self._material.plan) | {"methods": list(self._material.plan.methods)},
            "layers": self._material.layers,
            "separable": self._material.separable,
            "times": asdict(self._material.times),
            "halves": self._material.halves,
            "left_out": search.left_out,
            "notes": self._notes(),
            "nothing_to_draft": self._single,
            "machine": self._material.engine.model.machine.to_dict(),
        }
        return rows, limits, about

    def _bounds(self) -> list[dict[str, Any]]:
        budget = enumerable(self._material.layers, self._material.plan.prove)
        if budget < 0:
            return []
        material = self._material

        def prove(name: str) -> list[dict[str, Any]]:
            one = material.sequences[name]
            return bounds_of(material.acceptance, one, material.times, budget, material.plan.length)

        about = f"Bounds: masks of at most {budget} layers, at every prefix"
        with self._watch(about, len(material.sequences)) as advance:
            rows = material.stored_side_by_side(self._timed, "bounds", BOUNDS, prove, advance)
        return [row for found in rows.values() for row in found]

    def _notes(self) -> list[str]:
        """What differs from the published methods, and what the numbers leave out."""
        notes = [
            "swift, draft-verify: fixed draft lengths; their early end of a draft at low confidence is left out",
            "clasp, knapspec: the time of choosing masks is not in expected or measured tokens/s",
        ]
        if not self._material.separable:
            notes.append(
                "swift, draft-verify: whole layers, because attention and MLP of this model cannot be skipped apart"
            )
        return notes

    def _rows(self, policies: dict[str, dict[str, Policy]], decisions: dict[str, float]) -> list[dict[str, Any]]:
        """Rows of the table, with measured times if they are wanted."""
        rows = []
        measured = self._speculated(policies) if self._material.plan.timed else {}
        for choice, by_id in policies.items():
            for name in self._material.sequences:
                row = self._row(choice, name, by_id[name])
                row["decision_executions"] = decisions[name] if choice == "clasp" else None
                rows.append(row | measured.get((choice, name), {}))
        return rows

    def _row(self, choice: str, name: str, policy: Policy) -> dict[str, Any]:
        one, times, masks, length = self._material.sequences[name], self._material.times, policy.masks, policy.length
        lengths_X, near = policy.lengths_X, policy.near
        if lengths_X is None:
            [lengths_X] = self._material.acceptance.lengths(name, masks)
            near = self._material.acceptance.near(name, masks[0])
        draft_ms = [self._material.draft_ms(mask) for mask in masks]
        played = self._material.played(name, lengths_X, length)
        places = np.arange(1, one.length.tokens)
        steps = range(1, self._material.plan.length + 1)
        return {
            "sequence": name,
            "task": one.task,
            "choice": choice,
            "draft_length": length,
            "allocation": list(masks[0]) if policy.lengths_X is None else None,
            "draft_ms": float(np.mean(draft_ms)),
            "token_ms": times.token,
            "prefixes": len(places),
            "accepts": [int((lengths_X >= step).sum()) for step in steps],
            "possible": [int((one.length.tokens - places >= step).sum()) for step in steps],
            "near": near,
            "tokens": played.tokens,
            "rounds": len(played.known_R),
            "drafted": int(played.drafted_R.sum()),
            "accepted": int(played.accepted_R.sum()),
            "verify_ms": float(np.array(times.verify)[played.drafted_R].sum()),
            "expected_ms": played.ms(draft_ms[0] if policy.lengths_X is None else draft_ms, times),
        }

    def _speculated(self, policies: dict[str, dict[str, Policy]]) -> dict[tuple[str, str], dict[str, Any]]:
        """Measured decoding: per sequence plain decoding and every choice in turn."""
        schema = pa.schema(
            [
                ("choice", pa.string()),
                *((name, SCHEMA.field(name).type) for name in SCHEMA.names[SCHEMA.names.index("measured_ms") :]),
            ]
        )
        found: dict[tuple[str, str], dict[str, Any]] = {}
        with self._watch("Decoding by draft and verification", len(self._material.sequences)) as advance:
            for number, name in enumerate(self._material.sequences):
                stored = self._timed.read(f"decoded-{number:05}", schema)
                if stored is None:
                    rows = self._decoded(name, {choice: by_id[name] for choice, by_id in policies.items()})
                    self._timed.write(f"decoded-{number:05}", pa.Table.from_pylist(rows, schema=schema))
                else:
                    rows = stored[0].to_pylist()
                for row in rows:
                    found[row["choice"], name] = {key: value for key, value in row.items() if key != "choice"}
                advance(1, name)
        return found

    def _decoded(self, name: str, policies: dict[str, Policy]) -> list[dict[str, Any]]:
        one, rows = self._material.sequences[name], []
        every = np.ones(2 * self._material.layers, dtype=np.bool_)
        plain = self._material.engine.speculate(one.prompt_ids, lambda known: every, 0, one.tokens)
        for choice, policy in policies.items():
            masks_XU = as_masks(policy.masks, 2 * self._material.layers)

            def draft(known: int, masks_XU: NDArray[np.bool_] = masks_XU) -> NDArray[np.bool_]:
                return masks_XU[min(known, len(masks_XU)) - 1]

            found = self._material.engine.speculate(one.prompt_ids, draft, policy.length, one.tokens)
            rows.append(
                {
                    "choice": choice,
                    "measured_ms": 1e3 * found.seconds,
                    "plain_ms": 1e3 * plain.seconds,
                    "measured_accepted": found.accepted,
                    "measured_drafted": found.drafted,
                    "equal": found.tokens == plain.tokens == one.tokens,
                    "settled": found.settled,
                }
            )
        return rows


def _drafted(engine: DraftEngine, run: Run, limit: int | None) -> tuple[dict[str, Drafting], list[str]]:
    """The sequences by id, and the ids of those whose outputs have one token."""
    searched = searched_sequences(run)
    chosen = spread(searched, limit) if limit is not None else searched
    found, single = {}, []
    for one in chosen:
        ids = tuple(engine.encode(one.sequence))
        if len(one.tokens) < 2:
            single.append(one.sequence.id)
            continue
        output = engine.verified(ids, one.tokens)
        found[one.sequence.id] = Drafting(
            id=one.sequence.id,
            task=one.sequence.task,
            prompt_ids=ids,
            tokens=one.tokens,
            length=Length(tokens=len(one.tokens), limit=engine.config.max_new_tokens, ended=output.ended),
        )
    return found, single


def _measured_times(
    engine: DraftEngine, sequences: Collection[Drafting], length: int, tables: DerivedTables, watch: Watch
) -> Times:
    """The cost model, measured once per study; read again when it continues."""
    schema = pa.schema(
        [(name, pa.list_(pa.float64())) for name in ("layers", "attention", "mlp", "overhead", "verify")]
    )
    if (stored := tables.read("times", schema)) is not None:
        [row] = stored[0].to_pylist()
        parts = {name: tuple(row[name]) if row[name] else None for name in ("attention", "mlp")}
        return Times(layers=tuple(row["layers"]), overhead=row["overhead"][0], verify=tuple(row["verify"]), **parts)
    model = engine.model
    context = round(float(np.mean([len(each.prompt_ids) + len(each.tokens) / 2 for each in sequences])))
    with watch("Cost model", 0):
        measured = engine.verification_ms(context, length + 1, ROUNDS)
        # More tokens never cost less: what noise says otherwise is averaged.
        verify = IsotonicRegression().fit_transform(np.arange(len(measured)), measured)
        costs = measure_latency(model, Conditions(context=context, rounds=ROUNDS)).costs
        # A draft token of every layer is a plain token: parts are scaled so that they add up to one.
        scale = float(verify[0]) / costs.total
        row = {"layers": costs.units, "overhead": (costs.overhead,), "attention": (), "mlp": ()}
        if engine.separable():
            apart = measure_latency(model, Conditions(unit="sublayer", context=context, rounds=ROUNDS)).costs.units
            row |= {"attention": apart[::2], "mlp": apart[1::2]}
    scaled = {name: [value * scale for value in values] for name, values in row.items()}
    scaled["verify"] = verify.tolist()
    tables.write("times", pa.Table.from_pylist([scaled], schema=schema), {"context": context})
    return _measured_times(engine, sequences, length, tables, watch)
