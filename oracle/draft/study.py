"""The oracle of self-speculative decoding on one run: the best draft masks, what practice reaches, proven bounds.

In shapes, X is verified prefixes.
"""

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from analysis.drafting import DRAFTS
from oracle.allocations import unified
from oracle.config import SearchConfig
from oracle.costs import Conditions
from oracle.costs.latency import measure_latency
from oracle.draft.acceptance import Acceptance, Drafting
from oracle.draft.adaptive import clasp_masks, knapspec_mask, swift_score
from oracle.draft.bounds import SCHEMA as BOUNDS
from oracle.draft.bounds import bounds_of, enumerable
from oracle.draft.plan import ORACLES, Plan
from oracle.draft.rounds import Length, Played, Times, play
from oracle.draft.searches import bayesian, sublayers_of, swift
from oracle.engine import DraftEngine, Engine
from oracle.engine.layer_importance import HiddenStates
from oracle.engine.schedule import as_masks
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.pipeline.reload import model_of, require_same_decoding, searched_sequences, spread
from oracle.store import Run
from oracle.store.derived import DerivedTables, key_of, origin_of
from oracle.types import Allocation, RunPath
from oracle.utils.progress import Watch, automatic, note

__all__ = ["SCHEMA", "DraftStudy", "find_drafts"]

VERSION = 1
"""Increment when the same settings give different results."""

SKIPPED = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of the layers that CLaSp skips in its sweep; the best on the other half of the sequences is used."""

CALIBRATION = 4
"""Sequences on which Draft & Verify's search and that for a static mask evaluate masks."""

SWIFT_STEPS = 6
"""SWIFT's steps, in multiples of the evaluations: one of its steps costs a sixth of an evaluation or less."""

ROUNDS = 12
"""Timed rounds of the cost model."""

BEST = 6
"""Masks of a pool from which a search for a better one begins."""

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
class Policy:
    """Drafts of one sequence.

    Attributes:
        masks: over sublayers: one for all prefixes, or one each.
        length: draft length.
        lengths_X: accepted tokens per prefix, where masks differ by prefix.
        near: prefixes at which a near-tie decided that; likewise.
    """

    masks: list[Allocation]
    length: int
    lengths_X: NDArray[np.int16] | None = None
    near: int = 0


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
        self._plan, self._watch = plan, watch
        self._parts = tables.in_folder(tables.folder / tables.key)
        config = SearchConfig.from_dict(run.manifest["config"])
        if model.layers < 2:
            raise InputError(f"a draft skips layers, but the model has {model.layers}; choose one of at least 2 layers")
        self._engine = DraftEngine(model, config)
        require_same_decoding(self._engine, run.manifest)
        note(watch, model.headline())
        self._sequences, self._single = self._drafted(run)
        if len(self._sequences) < 2:
            raise InputError(
                f"at least 2 outputs of 2 tokens or more are required, but there are {len(self._sequences)}; use a run "
                "with more sequences, a larger --limit or a larger --max-new-tokens"
            )
        self._acceptance = Acceptance(
            engine=self._engine, sequences=self._sequences, most=plan.length, tables=self._parts
        )
        ids = list(self._sequences)
        order = np.random.default_rng(plan.seed).permutation(len(ids))
        self._halves = [[ids[place] for place in sorted(order[half::2].tolist())] for half in (0, 1)]
        self._layers = model.layers
        self._separable = self._engine.separable()
        plain = replace(
            config, scope="decode", unit="layer", cost="layers", strategy="spread", paths=False, prune=False, study=None
        )
        self._states = Engine(model, plain)
        self._apart: Engine | None = None
        if self._separable:
            apart = Engine(model, replace(plain, unit="sublayer"))
            self._apart = apart if apart.units.sequential else None
        self._left_out: dict[str, str] = {}
        self._decisions: dict[str, float] = {}
        self._times = self._measured_times()
        # What depends on the measured times is not read again once they are measured anew.
        timed = key_of(self._parts.key, asdict(self._times))
        self._timed = DerivedTables(self._parts.folder, key=timed, origin=self._parts.origin)

    def _drafted(self, run: Run) -> tuple[dict[str, Drafting], list[str]]:
        """The sequences by id, and the ids of those whose outputs have one token."""
        searched = searched_sequences(run)
        chosen = spread(searched, self._plan.limit) if self._plan.limit is not None else searched
        found, single = {}, []
        for one in chosen:
            ids = tuple(self._engine.encode(one.sequence))
            if len(one.tokens) < 2:
                single.append(one.sequence.id)
                continue
            output = self._engine.verified(ids, one.tokens)
            found[one.sequence.id] = Drafting(
                id=one.sequence.id,
                task=one.sequence.task,
                prompt_ids=ids,
                tokens=one.tokens,
                length=Length(tokens=len(one.tokens), limit=self._engine.config.max_new_tokens, ended=output.ended),
            )
        return found, single

    def _measured_times(self) -> Times:
        """The cost model, measured once per study; read again when it continues."""
        schema = pa.schema(
            [(name, pa.list_(pa.float64())) for name in ("layers", "attention", "mlp", "overhead", "verify")]
        )
        if (stored := self._parts.read("times", schema)) is not None:
            [row] = stored[0].to_pylist()
            parts = {name: tuple(row[name]) if row[name] else None for name in ("attention", "mlp")}
            return Times(layers=tuple(row["layers"]), overhead=row["overhead"][0], verify=tuple(row["verify"]), **parts)
        model, one = self._engine.model, self._sequences.values()
        context = round(float(np.mean([len(each.prompt_ids) + len(each.tokens) / 2 for each in one])))
        with self._watch("Cost model", 0):
            measured = self._engine.verification_ms(context, self._plan.length + 1, ROUNDS)
            # More tokens never cost less: what noise says otherwise is averaged.
            verify = IsotonicRegression().fit_transform(np.arange(len(measured)), measured)
            costs = measure_latency(model, Conditions(context=context, rounds=ROUNDS)).costs
            # A draft token of every layer is a plain token: parts are scaled so that they add up to one.
            scale = float(verify[0]) / costs.total
            row = {"layers": costs.units, "overhead": (costs.overhead,), "attention": (), "mlp": ()}
            if self._separable:
                apart = measure_latency(model, Conditions(unit="sublayer", context=context, rounds=ROUNDS)).costs.units
                row |= {"attention": apart[::2], "mlp": apart[1::2]}
        scaled = {name: [value * scale for value in values] for name, values in row.items()}
        scaled["verify"] = verify.tolist()
        self._parts.write("times", pa.Table.from_pylist([scaled], schema=schema), {"context": context})
        return self._measured_times()

    def results(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
        """Rows of the two tables, and their provenance."""
        limits = self._bounds()
        policies = self._policies()
        self._acceptance.flush()
        rows = self._rows(policies)
        about = {
            "plan": asdict(self._plan) | {"methods": list(self._plan.methods)},
            "layers": self._layers,
            "separable": self._separable,
            "times": asdict(self._times),
            "halves": self._halves,
            "left_out": self._left_out,
            "notes": self._notes(),
            "nothing_to_draft": self._single,
            "machine": self._engine.model.machine.to_dict(),
        }
        return rows, limits, about

    def _bounds(self) -> list[dict[str, Any]]:
        budget = enumerable(self._layers, self._plan.prove)
        if budget < 0:
            return []
        rows: list[dict[str, Any]] = []
        total = sum(one.length.tokens - 1 for one in self._sequences.values())
        with self._watch(f"Bounds: masks of at most {budget} layers, at every prefix", total) as advance:
            for number, one in enumerate(self._sequences.values()):
                stored = self._timed.read(f"bounds-{number:05}", BOUNDS)
                if stored is None:
                    new = bounds_of(self._acceptance, one, self._times, budget, self._plan.length, advance)
                    self._timed.write(f"bounds-{number:05}", pa.Table.from_pylist(new, schema=BOUNDS))
                    rows += new
                else:
                    rows += stored[0].to_pylist()
                    advance(one.length.tokens - 1, one.id)
        return rows

    def _policies(self) -> dict[str, dict[str, Policy]]:
        """For each choice the policy of each sequence, the oracles first."""
        names = [name for name in self._plan.methods if self._possible(name)]
        pool = self._pool()
        chosen: dict[str, dict[str, Policy]] = {}
        with self._watch("Searching drafts", len(names) + len(self._sequences)) as advance:
            # The static mask may be any that another method found on the same half.
            for name in sorted(names, key=lambda one: one == "static"):
                advance(0, name)
                if name == "clasp":
                    chosen[name] = self._clasp_policies()
                elif name == "knapspec":
                    chosen[name] = self._knapspec_policies()
                else:
                    chosen[name] = self._by_halves(name, pool, chosen)
                advance(1, "")
            oracles = self._oracles([*pool, *_masks_of(chosen, self._sequences)], advance)
        return {**oracles, **{name: chosen[name] for name in names}}

    def _possible(self, name: str) -> bool:
        if name != "knapspec" or self._apart is not None:
            return True
        self._left_out[name] = "attention and MLP of this model have no hidden state between them"
        return False

    def _notes(self) -> list[str]:
        """What differs from the published methods, and what the numbers leave out."""
        notes = [
            "swift, draft-verify: fixed draft lengths; their early end of a draft at low confidence is left out",
            "clasp, knapspec: the time of choosing masks is not in expected or measured tokens/s",
        ]
        if not self._separable:
            notes.append(
                "swift, draft-verify: whole layers, because attention and MLP of this model cannot be skipped apart"
            )
        return notes

    def _pool(self) -> list[Allocation]:
        """Masks that are tried on every sequence: early exits, unified skipping, and those of high block influence."""
        layers, ids = self._layers, list(self._sequences)
        masks = [tuple(range(budget)) for budget in range(1, layers)]
        budgets = range(max(1, layers // 4), layers)
        masks += [unified(layers, budget) for budget in budgets]
        with self._watch("Drafts of all sequences", len(ids)) as advance:
            worth = np.mean([self._influence(name) for name in ids[:: max(1, len(ids) // CALIBRATION)]], axis=0)
            order = np.argsort(-worth, kind="stable")
            masks += [tuple(sorted(order[:budget].tolist())) for budget in budgets]
            pool = [sublayers_of(mask) for mask in dict.fromkeys(masks)]
            for name in ids:
                self._acceptance.lengths(name, pool)
                advance(1, name)
        return pool

    def _influence(self, name: str) -> tuple[float, ...]:
        """Block influence (ShortGPT) of each layer on an output."""
        output = self._acceptance.output(name)
        start = replace(output.prefix(1), own=0)
        before = replace(start, tokens=start.tokens[:-1])
        return HiddenStates(self._states, before, output.tokens).influence()

    def _played(self, name: str, lengths_X: NDArray[np.int16], draft: int) -> Played:
        return play(lengths_X, self._sequences[name].length, draft)

    def _speedup(self, ids: Seq[str], lengths: Seq[NDArray[np.int16]], draft_ms: Seq[Any]) -> tuple[float, int]:
        """Expected speed-up over some sequences at the best common draft length, and that length."""
        best = (-1.0, 1)
        for draft in range(1, self._plan.length + 1):
            played = [self._played(name, one, draft) for name, one in zip(ids, lengths, strict=True)]
            ms = sum(one.ms(each, self._times) for one, each in zip(played, draft_ms, strict=True))
            tokens = sum(one.tokens for one in played)
            best = max(best, (tokens * self._times.token / ms, -draft))
        return best[0], abs(best[1])

    def _of_masks(self, masks: Seq[Allocation], ids: Seq[str]) -> list[tuple[float, int]]:
        """`_speedup` of each mask, the same for all of these sequences."""
        by_id = [self._acceptance.lengths(name, masks) for name in ids]
        return [
            self._speedup(ids, [one[place] for one in by_id], [self._draft_ms(mask)] * len(ids))
            for place, mask in enumerate(masks)
        ]

    def _draft_ms(self, mask: Allocation) -> float:
        return self._times.draft(as_masks([mask], 2 * self._layers)[0])

    def _best(self, masks: Seq[Allocation], ids: Seq[str]) -> Policy:
        """The mask and draft length of highest expected speed-up; the cheapest of equal ones."""
        values = self._of_masks(masks, ids)
        place = min(range(len(masks)), key=lambda one: (-values[one][0], len(masks[one]), masks[one]))
        return Policy(masks=[masks[place]], length=values[place][1])

    def _by_halves(self, name: str, pool: Seq[Allocation], chosen: dict[str, dict[str, Policy]]) -> dict[str, Policy]:
        """A policy per half, from the other half's sequences."""
        found: dict[str, Policy] = {}
        for half, other in ((0, 1), (1, 0)):
            # Those masks of other methods that were found without this half.
            learned = {one: by_id for one, by_id in chosen.items() if one not in ("clasp", "knapspec")}
            others = _masks_of(learned, self._halves[half])
            policy = self._search(name, [*pool, *others], self._halves[other])
            found |= dict.fromkeys(self._halves[half], policy)
        return found

    def _search(self, name: str, pool: Seq[Allocation], training: list[str]) -> Policy:
        """The policy of one method, from training sequences."""
        layers, plan, some = self._layers, self._plan, training[:CALIBRATION]
        if name == "early-exit":
            return self._best([sublayers_of(range(budget)) for budget in range(1, layers)], training)
        if name == "unified":
            return self._best(
                [sublayers_of(unified(layers, budget)) for budget in range(max(1, layers // 4), layers)], training
            )
        if name == "swift":
            return self._best([self._swift(training)], training)
        # Draft & Verify searches sublayers, and knows none of the others' masks; a static mask is of whole layers.
        apart = name == "draft-verify" and self._separable
        starts = (
            self._random(2 * layers if apart else layers) if name == "draft-verify" else self._whole(pool, training)
        )
        known = 0 if name == "draft-verify" else len(starts)

        def objective(masks: Seq[Allocation]) -> list[float]:
            return [value for value, _ in self._of_masks(masks if apart else [*map(sublayers_of, masks)], some)]

        values = bayesian(
            objective,
            starts,
            units=2 * layers if apart else layers,
            evaluations=plan.evaluations,
            seed=plan.seed,
            known=known,
        )
        best = sorted(values, key=lambda mask: (-values[mask], len(mask), mask))[
            : 1 if name == "draft-verify" else BEST
        ]
        masks = best if apart else [*map(sublayers_of, best)]
        if name == "draft-verify":
            return self._best(masks, some)
        return self._best([*masks, *pool], training)

    def _swift(self, training: list[str]) -> Allocation:
        """SWIFT's mask, stored once it is found."""
        schema = pa.schema([("mask", pa.list_(pa.int16()))])
        name = f"swift-{self._halves.index(training)}"
        if (stored := self._parts.read(name, schema)) is not None:
            return tuple(stored[0].to_pylist()[0]["mask"])
        mask = swift(
            lambda masks: self._agreement(masks, training),
            layers=self._layers,
            evaluations=SWIFT_STEPS * self._plan.evaluations,
            seed=self._plan.seed,
            separable=self._separable,
        )
        self._parts.write(name, pa.Table.from_pylist([{"mask": list(mask)}], schema=schema))
        return mask

    def _random(self, units: int) -> list[Allocation]:
        """Random masks that skip a tenth to a half of the units."""
        rng = np.random.default_rng([self._plan.seed, 5])
        masks = []
        for share in np.linspace(0.1, 0.5, max(2, self._plan.evaluations // 4)):
            skipped = rng.choice(units, max(1, round(share * units)), replace=False)
            masks.append(tuple(sorted(set(range(units)) - set(skipped.tolist()))))
        return list(dict.fromkeys(masks))

    def _whole(self, pool: Seq[Allocation], ids: Seq[str]) -> list[Allocation]:
        """The best masks of whole layers in a pool, as layers."""
        whole = [mask for mask in pool if sublayers_of([unit // 2 for unit in mask[::2]]) == mask]
        values = self._of_masks(whole, ids)
        order = sorted(range(len(whole)), key=lambda place: (-values[place][0], whole[place]))
        return [tuple(unit // 2 for unit in whole[place][::2]) for place in order[:BEST]]

    def _agreement(self, masks: Seq[Allocation], ids: Seq[str]) -> list[float]:
        return swift_score(self._engine, map(self._acceptance.output, ids), masks)

    def _clasp_policies(self) -> dict[str, Policy]:
        """CLaSp's masks per prefix, with the number of skipped layers and the draft length of the other half."""
        skips = sorted(
            {max(1, round(share * self._layers)) for share in SKIPPED if round(share * self._layers) < self._layers}
        )
        masks: dict[str, list[list[Allocation]]] = {}
        lengths: dict[str, list[NDArray[np.int16]]] = {}
        near: dict[str, list[int]] = {}
        for number, name in enumerate(self._sequences):
            masks[name], lengths[name], near[name] = self._clasp_of(number, name, skips)
        found: dict[str, Policy] = {}
        for half, other in ((0, 1), (1, 0)):
            training = self._halves[other]
            values = []
            for place in range(len(skips)):
                draft_ms = [[self._draft_ms(each[place]) for each in masks[name]] for name in training]
                values.append(self._speedup(training, [lengths[name][place] for name in training], draft_ms))
            place = max(range(len(skips)), key=lambda one: values[one][0])
            for name in self._halves[half]:
                found[name] = Policy(
                    masks=[each[place] for each in masks[name]],
                    length=values[place][1],
                    lengths_X=lengths[name][place],
                    near=near[name][place],
                )
                # Before layer l there are states of 1 to min(l, M) skips; the full model's own are known.
                self._decisions[name] = float(sum(min(layer, skips[place]) for layer in range(self._layers)))
        return found

    def _clasp_of(
        self, number: int, name: str, skips: Seq[int]
    ) -> tuple[list[list[Allocation]], list[NDArray[np.int16]], list[int]]:
        """Masks per prefix and number of skips; accepted lengths and near-ties per number of skips."""
        lists = pa.list_(pa.int16())
        schema = pa.schema([("masks", pa.list_(lists)), ("lengths", lists), ("near", pa.int32())])
        stored = self._parts.read(f"clasp-{number:05}", schema)
        if stored is None:
            output = self._acceptance.output(name)
            by_prefix = clasp_masks(self._states, output, skips)
            rows = []
            for place in range(len(skips)):
                masks_XU = as_masks([each[place] for each in by_prefix], 2 * self._layers)
                drafted = self._engine.accepted_each(output, masks_XU, self._plan.length)
                rows.append(
                    {
                        "masks": [each[place] for each in by_prefix],
                        "lengths": drafted.lengths_AX[0].tolist(),
                        "near": int(drafted.near_AX.sum()),
                    }
                )
            self._parts.write(f"clasp-{number:05}", pa.Table.from_pylist(rows, schema=schema))
            stored = self._parts.read(f"clasp-{number:05}", schema)
            assert stored is not None, "just written"
        found = stored[0].to_pylist()
        by_skips = [[tuple(mask) for mask in row["masks"]] for row in found]
        lengths = [np.array(row["lengths"], dtype=np.int16) for row in found]
        return [list(each) for each in zip(*by_skips, strict=True)], lengths, [row["near"] for row in found]

    def _knapspec_policies(self) -> dict[str, Policy]:
        assert self._apart is not None and self._times.attention is not None and self._times.mlp is not None
        ms = float(np.mean(self._times.attention)), float(np.mean(self._times.mlp))
        found: dict[str, Policy] = {}
        for name in self._sequences:
            output = self._acceptance.output(name)
            mask, length = knapspec_mask(self._engine, self._apart, output, ms, self._plan.length)
            found[name] = Policy(masks=[mask], length=length)
        return found

    def _oracles(self, pool: Seq[Allocation], advance: Callable[[int, str], None]) -> dict[str, dict[str, Policy]]:
        """The best masks found per sequence, per task and for all, on the very sequences that they are judged on."""
        ids, layers, plan = list(self._sequences), self._layers, self._plan
        each: dict[str, Policy] = {}
        tried = list(pool)
        for name in ids:
            advance(0, name)
            starts = self._whole(pool, [name])

            def objective(masks: Seq[Allocation], name: str = name) -> list[float]:
                return [value for value, _ in self._of_masks([*map(sublayers_of, masks)], [name])]

            values = bayesian(
                objective, starts, units=layers, evaluations=plan.evaluations, seed=plan.seed, known=len(starts)
            )
            own = [*map(sublayers_of, values)]
            each[name] = self._best([*own, *pool], [name])
            tried.append(each[name].masks[0])
            advance(1, "")
        advance(0, ORACLES[1])
        common = list(dict.fromkeys(tried))
        by_task: dict[str, Policy] = {}
        for task in dict.fromkeys(one.task for one in self._sequences.values()):
            members = [name for name in ids if self._sequences[name].task == task]
            # Masks that are best for one of its sequences, and those that are known for all.
            masks = list(dict.fromkeys([*pool, *(each[name].masks[0] for name in members)]))
            by_task |= dict.fromkeys(members, self._best(masks, members))
        advance(0, ORACLES[2])
        # Of the masks that are not known on all sequences those that are promising on some.
        halves = self._acceptance.common(ids)
        some = ids[:: max(1, len(ids) // CALIBRATION)]
        values_M = np.array([value for value, _ in self._of_masks(common, some)])
        likely = [common[place] for place in np.argsort(-values_M, kind="stable")[:BEST]]
        overall = self._best(list(dict.fromkeys([*halves, *likely])), ids)
        return {
            ORACLES[0]: each,
            ORACLES[1]: {name: by_task[name] for name in ids},
            ORACLES[2]: dict.fromkeys(ids, overall),
        }

    def _rows(self, policies: dict[str, dict[str, Policy]]) -> list[dict[str, Any]]:
        """Rows of the table, with measured times if they are wanted."""
        rows = []
        measured = self._speculated(policies) if self._plan.timed else {}
        for choice, by_id in policies.items():
            for name in self._sequences:
                rows.append(self._row(choice, name, by_id[name]) | measured.get((choice, name), {}))
        return rows

    def _row(self, choice: str, name: str, policy: Policy) -> dict[str, Any]:
        one, times, masks, length = self._sequences[name], self._times, policy.masks, policy.length
        lengths_X, near = policy.lengths_X, policy.near
        if lengths_X is None:
            [lengths_X] = self._acceptance.lengths(name, masks)
            near = self._acceptance.near(name, masks[0])
        draft_ms = [self._draft_ms(mask) for mask in masks]
        played = self._played(name, lengths_X, length)
        places = np.arange(1, one.length.tokens)
        steps = range(1, self._plan.length + 1)
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
            "decision_executions": self._decisions[name] if choice == "clasp" else None,
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
        with self._watch("Decoding by draft and verification", len(self._sequences)) as advance:
            for number, name in enumerate(self._sequences):
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
        one, rows = self._sequences[name], []
        every = np.ones(2 * self._layers, dtype=np.bool_)
        plain = self._engine.speculate(one.prompt_ids, lambda known: every, 0, one.tokens)
        for choice, policy in policies.items():
            masks_XU = as_masks(policy.masks, 2 * self._layers)

            def draft(known: int, masks_XU: NDArray[np.bool_] = masks_XU) -> NDArray[np.bool_]:
                return masks_XU[min(known, len(masks_XU)) - 1]

            found = self._engine.speculate(one.prompt_ids, draft, policy.length, one.tokens)
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


def _masks_of(chosen: dict[str, dict[str, Policy]], ids: Iterable[str]) -> list[Allocation]:
    """The distinct masks of some sequences, without those that differ by prefix."""
    policies = [by_id[name] for by_id in chosen.values() for name in ids]
    return list(dict.fromkeys(one.masks[0] for one in policies if one.lengths_X is None))
