"""The masks that draft: the best found, and those of the published methods.

In shapes, X is verified prefixes.
"""

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oracle.allocations import unified
from oracle.draft.adaptive import clasp_masks, knapspec_mask, swift_score
from oracle.draft.material import Material, Policy
from oracle.draft.plan import ORACLES
from oracle.draft.searches import bayesian, sublayers_of, swift
from oracle.engine import Engine
from oracle.engine.layer_importance import HiddenStates
from oracle.engine.schedule import as_masks
from oracle.types import Allocation
from oracle.utils.progress import Watch

__all__ = ["Policies"]

SKIPPED = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of the layers that CLaSp skips in its sweep; the best on the other half of the sequences is used."""

CALIBRATION = 4
"""Sequences on which Draft & Verify's search and that for a static mask evaluate masks."""

SWIFT_STEPS = 6
"""SWIFT's steps, in multiples of the evaluations: one of its steps costs a sixth of an evaluation or less."""

BEST = 6
"""Masks of a pool from which a search for a better one begins."""


class Policies:
    """Searches a policy of every sequence for each method of a plan, and the oracles.

    Args:
        material: what is drafted.
        watch: reports progress.

    Attributes:
        left_out: methods that cannot be tried, with the reason.
        decisions: by sequence id the layer executions per round that choosing CLaSp's mask costs.
    """

    def __init__(self, material: Material, watch: Watch) -> None:
        self._material, self._watch = material, watch
        self.left_out: dict[str, str] = {}
        self.decisions: dict[str, float] = {}
        plain = replace(
            material.engine.config,
            scope="decode",
            unit="layer",
            cost="layers",
            strategy="spread",
            paths=False,
            prune=False,
            study=None,
        )
        model = material.engine.model
        self._states = Engine(model, plain)
        self._apart: Engine | None = None
        if material.separable:
            apart = Engine(model, replace(plain, unit="sublayer"))
            self._apart = apart if apart.units.sequential else None

    def found(self) -> dict[str, dict[str, Policy]]:
        """For each choice the policy of each sequence, the oracles first."""
        names = [name for name in self._material.plan.methods if self._possible(name)]
        pool = self._pool()
        chosen: dict[str, dict[str, Policy]] = {}
        with self._watch("Searching drafts", len(names) + len(self._material.sequences)) as advance:
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
            oracles = self._oracles([*pool, *_masks_of(chosen, self._material.sequences)], advance)
        return {**oracles, **{name: chosen[name] for name in names}}

    def _possible(self, name: str) -> bool:
        if name != "knapspec" or self._apart is not None:
            return True
        self.left_out[name] = "attention and MLP of this model have no hidden state between them"
        return False

    def _pool(self) -> list[Allocation]:
        """Masks that are tried on every sequence: early exits, unified skipping, and those of high block influence."""
        layers, ids = self._material.layers, list(self._material.sequences)
        masks = [tuple(range(budget)) for budget in range(1, layers)]
        budgets = range(max(1, layers // 4), layers)
        masks += [unified(layers, budget) for budget in budgets]
        with self._watch("Drafts of all sequences", len(ids)) as advance:
            worth = np.mean([self._influence(name) for name in ids[:: max(1, len(ids) // CALIBRATION)]], axis=0)
            order = np.argsort(-worth, kind="stable")
            masks += [tuple(sorted(order[:budget].tolist())) for budget in budgets]
            pool = [sublayers_of(mask) for mask in dict.fromkeys(masks)]
            for name, _ in self._material.side_by_side(
                lambda name: len(self._material.acceptance.lengths(name, pool)), ids
            ):
                advance(1, name)
        return pool

    def _influence(self, name: str) -> tuple[float, ...]:
        """Block influence (ShortGPT) of each layer on an output."""
        output = self._material.acceptance.output(name)
        start = replace(output.prefix(1), own=0)
        before = replace(start, tokens=start.tokens[:-1])
        return HiddenStates(self._states, before, output.tokens).influence()

    def _by_halves(self, name: str, pool: Seq[Allocation], chosen: dict[str, dict[str, Policy]]) -> dict[str, Policy]:
        """A policy per half, from the other half's sequences."""
        found: dict[str, Policy] = {}
        for half, other in ((0, 1), (1, 0)):
            # Those masks of other methods that were found without this half.
            learned = {one: by_id for one, by_id in chosen.items() if one not in ("clasp", "knapspec")}
            others = _masks_of(learned, self._material.halves[half])
            policy = self._search(name, [*pool, *others], self._material.halves[other])
            found |= dict.fromkeys(self._material.halves[half], policy)
        return found

    def _search(self, name: str, pool: Seq[Allocation], training: list[str]) -> Policy:
        """The policy of one method, from training sequences."""
        layers, plan, some = self._material.layers, self._material.plan, training[:CALIBRATION]
        if name == "early-exit":
            return self._material.best([sublayers_of(range(budget)) for budget in range(1, layers)], training)
        if name == "unified":
            return self._material.best(
                [sublayers_of(unified(layers, budget)) for budget in range(max(1, layers // 4), layers)], training
            )
        if name == "swift":
            return self._material.best([self._swift(training)], training)
        # Draft & Verify searches sublayers, and knows none of the others' masks; a static mask is of whole layers.
        apart = name == "draft-verify" and self._material.separable
        starts = (
            self._random(2 * layers if apart else layers) if name == "draft-verify" else self._whole(pool, training)
        )
        known = 0 if name == "draft-verify" else len(starts)

        def objective(masks: Seq[Allocation]) -> list[float]:
            return [
                value for value, _ in self._material.of_masks(masks if apart else [*map(sublayers_of, masks)], some)
            ]

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
            return self._material.best(masks, some)
        return self._material.best([*masks, *pool], training)

    def _swift(self, training: list[str]) -> Allocation:
        """SWIFT's mask, stored once it is found."""
        schema = pa.schema([("mask", pa.list_(pa.int16()))])
        name = f"swift-{self._material.halves.index(training)}"
        if (stored := self._material.parts.read(name, schema)) is not None:
            return tuple(stored[0].to_pylist()[0]["mask"])
        mask = swift(
            lambda masks: self._agreement(masks, training),
            layers=self._material.layers,
            evaluations=SWIFT_STEPS * self._material.plan.evaluations,
            seed=self._material.plan.seed,
            separable=self._material.separable,
        )
        self._material.parts.write(name, pa.Table.from_pylist([{"mask": list(mask)}], schema=schema))
        return mask

    def _random(self, units: int) -> list[Allocation]:
        """Random masks that skip a tenth to a half of the units."""
        rng = np.random.default_rng([self._material.plan.seed, 5])
        masks = []
        for share in np.linspace(0.1, 0.5, max(2, self._material.plan.evaluations // 4)):
            skipped = rng.choice(units, max(1, round(share * units)), replace=False)
            masks.append(tuple(sorted(set(range(units)) - set(skipped.tolist()))))
        return list(dict.fromkeys(masks))

    def _whole(self, pool: Seq[Allocation], ids: Seq[str]) -> list[Allocation]:
        """The best masks of whole layers in a pool, as layers."""
        whole = [mask for mask in pool if sublayers_of([unit // 2 for unit in mask[::2]]) == mask]
        values = self._material.of_masks(whole, ids)
        order = sorted(range(len(whole)), key=lambda place: (-values[place][0], whole[place]))
        return [tuple(unit // 2 for unit in whole[place][::2]) for place in order[:BEST]]

    def _agreement(self, masks: Seq[Allocation], ids: Seq[str]) -> list[float]:
        return swift_score(self._material.engine, map(self._material.acceptance.output, ids), masks)

    def _clasp_policies(self) -> dict[str, Policy]:
        """CLaSp's masks per prefix, with the number of skipped layers and the draft length of the other half."""
        skips = sorted(
            {
                max(1, round(share * self._material.layers))
                for share in SKIPPED
                if round(share * self._material.layers) < self._material.layers
            }
        )
        masks: dict[str, list[list[Allocation]]] = {}
        lengths: dict[str, list[NDArray[np.int16]]] = {}
        near: dict[str, list[int]] = {}
        for name, rows in self._clasp_rows(skips).items():
            by_skips = [[tuple(mask) for mask in row["masks"]] for row in rows]
            masks[name] = [list(each) for each in zip(*by_skips, strict=True)]
            lengths[name] = [np.array(row["lengths"], dtype=np.int16) for row in rows]
            near[name] = [row["near"] for row in rows]
        found: dict[str, Policy] = {}
        for half, other in ((0, 1), (1, 0)):
            training = self._material.halves[other]
            values = []
            for place in range(len(skips)):
                draft_ms = [[self._material.draft_ms(each[place]) for each in masks[name]] for name in training]
                values.append(self._material.speedup(training, [lengths[name][place] for name in training], draft_ms))
            place = max(range(len(skips)), key=lambda one: values[one][0])
            for name in self._material.halves[half]:
                found[name] = Policy(
                    masks=[each[place] for each in masks[name]],
                    length=values[place][1],
                    lengths_X=lengths[name][place],
                    near=near[name][place],
                )
                # Before layer l there are states of 1 to min(l, M) skips; the full model's own are known.
                self.decisions[name] = float(sum(min(layer, skips[place]) for layer in range(self._material.layers)))
        return found

    def _clasp_rows(self, skips: Seq[int]) -> dict[str, list[dict[str, Any]]]:
        """By sequence id, per number of skips: a mask for each prefix, accepted lengths, and near-ties."""
        material, lists = self._material, pa.list_(pa.int16())
        schema = pa.schema([("masks", pa.list_(lists)), ("lengths", lists), ("near", pa.int32())])

        def choose(name: str) -> list[dict[str, Any]]:
            output, found = material.acceptance.output(name), []
            by_prefix = clasp_masks(self._states, output, skips)
            for place in range(len(skips)):
                masks = [each[place] for each in by_prefix]
                drafted = material.engine.accepted_each(
                    output, as_masks(masks, 2 * material.layers), material.plan.length
                )
                lengths, near = drafted.lengths_AX[0].tolist(), int(drafted.near_AX.sum())
                found.append({"masks": masks, "lengths": lengths, "near": near})
            return found

        return material.stored_side_by_side(material.parts, "clasp", schema, choose)

    def _knapspec_policies(self) -> dict[str, Policy]:
        assert (
            self._apart is not None
            and self._material.times.attention is not None
            and self._material.times.mlp is not None
        )
        ms = float(np.mean(self._material.times.attention)), float(np.mean(self._material.times.mlp))
        apart, engine, most = self._apart, self._material.engine, self._material.plan.length

        def choose(name: str) -> Policy:
            mask, length = knapspec_mask(engine, apart, self._material.acceptance.output(name), ms, most)
            return Policy(masks=[mask], length=length)

        return dict(self._material.side_by_side(choose, list(self._material.sequences)))

    def _oracles(self, pool: Seq[Allocation], advance: Callable[[int, str], None]) -> dict[str, dict[str, Policy]]:
        """The best masks found per sequence, per task and for all, on the very sequences that they are judged on."""
        ids, layers, plan = list(self._material.sequences), self._material.layers, self._material.plan

        def search(name: str) -> Policy:
            starts = self._whole(pool, [name])

            def objective(masks: Seq[Allocation]) -> list[float]:
                return [value for value, _ in self._material.of_masks([*map(sublayers_of, masks)], [name])]

            values = bayesian(
                objective, starts, units=layers, evaluations=plan.evaluations, seed=plan.seed, known=len(starts)
            )
            return self._material.best([*map(sublayers_of, values), *pool], [name])

        each: dict[str, Policy] = {}
        for name, policy in self._material.side_by_side(search, ids):
            each[name] = policy
            advance(1, name)
        advance(0, ORACLES[1])
        common = list(dict.fromkeys([*pool, *(each[name].masks[0] for name in ids)]))
        by_task: dict[str, Policy] = {}
        for task in dict.fromkeys(one.task for one in self._material.sequences.values()):
            members = [name for name in ids if self._material.sequences[name].task == task]
            # Masks that are best for one of its sequences, and those that are known for all.
            masks = list(dict.fromkeys([*pool, *(each[name].masks[0] for name in members)]))
            by_task |= dict.fromkeys(members, self._material.best(masks, members))
        advance(0, ORACLES[2])
        # Of the masks that are not known on all sequences those that are promising on some.
        halves = self._material.acceptance.common(ids)
        some = ids[:: max(1, len(ids) // CALIBRATION)]
        values_M = np.array([value for value, _ in self._material.of_masks(common, some)])
        likely = [common[place] for place in np.argsort(-values_M, kind="stable")[:BEST]]
        overall = self._material.best(list(dict.fromkeys([*halves, *likely])), ids)
        return {
            ORACLES[0]: {name: each[name] for name in ids},
            ORACLES[1]: {name: by_task[name] for name in ids},
            ORACLES[2]: dict.fromkeys(ids, overall),
        }


def _masks_of(chosen: dict[str, dict[str, Policy]], ids: Iterable[str]) -> list[Allocation]:
    """The distinct masks of some sequences, without those that differ by prefix."""
    policies = [by_id[name] for by_id in chosen.values() for name in ids]
    return list(dict.fromkeys(one.masks[0] for one in policies if one.lengths_X is None))
