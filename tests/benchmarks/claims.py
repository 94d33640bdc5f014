"""Published claims, checked on the embedded model as far as its size allows: one table.

    python tests/benchmarks/claims.py [--json] [--parts NAME ...] [--out runs/claims] [--run RUN] [--gates FILE]
                                      [--sequences N] [--questions N] [--again]

Each row has the claim, its source, the published figure, the sample, our figure with its 95 % interval (percentile
bootstrap over sequences; Wilson for shares of sequences) and a verdict by a rule that is fixed beforehand:

- a claim of direction (`sign`): the interval lies above 0: agrees; below 0: does not agree; otherwise: cannot tell;
- a claim of a number (`number`): it lies in the interval: agrees; outside: does not agree; in an interval wider than
  the number itself: cannot tell;
- a claim of a bound (`at least`, `at most`): the interval lies beyond it: agrees, or on the other side: does not agree;
  otherwise: cannot tell;
- a claim of what a search reaches (`reached`), with fewer simulations than in the paper: above the bound: agrees; below
  it: cannot tell, because more simulations may find more;
- without values, or with equal ones that are no shares: cannot tell.

The published numbers are of models 8 to 50 times larger, some of them trained for the method; nothing here is trained.
What each part measured is kept in the output folder, by model and settings; `--again` measures it anew. Gates take
hours: their rows are read from the file that tests/benchmarks/gates.py writes. With `--run`, the table is also written
into that run, and `oracle report` shows it.
"""

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest, spearmanr

import analysis
from analysis.stats import mean_interval
from oracle.allocations import early_exit, full, published_unified, random_mask, skip_decode
from oracle.config import SearchConfig
from oracle.engine import Engine, PromptState, TableGate
from oracle.measure.tables import FOLDER
from oracle.metrics import score_text
from oracle.models import load_model
from oracle.pipeline.run import run_search
from oracle.search import Archive, Problem, Space, make
from oracle.sequences import load_sequences
from oracle.store import Run
from oracle.store.derived import DerivedTables, key_of, origin_of
from oracle.store.files import write_json
from oracle.types import Allocation, Outcome, Proposal, Sequence

FloatArray = NDArray[np.float64]

VERSION = 2
"""Moves when the same settings measure something else."""

SEQUENCES = 24
"""Sequences of all tasks, for what is measured on full outputs."""

FREE = (2, 7, 11, 16, 20, 25)
"""Layers whose 64 masks are all measured."""

EXHAUSTED = 10
"""Sequences on which they are."""

SIMULATIONS = 32
"""Paths per question, at most, of CoLa's search; 200 in the paper."""

TASKS = ("facts", "classify")
"""Tasks with short answers, of which the full model gets some right and some wrong."""

QUESTIONS = 24
"""Questions with short answers; there are 56, which take about 20 minutes on one core."""

ANSWER = 10
"""Tokens of an answer, as in Dr.LLM."""

TOGETHER = 8
"""Paths of a question that are decided together."""

RESAMPLES = 2000

HARDLY = 0.05
"""Share of the full model's quality up to which hidden states "hardly help"; the papers give none, this one is ours."""

CANNOT_TELL = "cannot tell"

PREFIX = "at 1.25x unified skipping keeps the first layers and the last"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One row of the table.

    Attributes:
        claim: what was published, in a sentence.
        source: where.
        theirs: the published figure.
        sample: what ours rests on.
        figure: what ours is.
        value: it; None if it was not measured.
        low: lower end of its 95 % interval; None if it cannot be given.
        high: upper end.
        verdict: agrees, does not agree, cannot tell.
        note: what limits the comparison.
    """

    claim: str
    source: str
    theirs: str
    sample: str
    figure: str
    value: float | None
    low: float | None
    high: float | None
    verdict: str
    note: str = ""


def judged(low: float | None, high: float | None, rule: str, number: float = 0.0) -> str:
    """The verdict on a claim; see the module for the rules."""
    if low is None or high is None:
        return CANNOT_TELL
    if rule == "number":
        if high - low > number:
            return CANNOT_TELL
        return "agrees" if low <= number <= high else "does not agree"
    above, below = low > number, high < number
    if rule == "reached":
        below = False
    if rule == "at most":
        above, below = below, above
    return "agrees" if above else "does not agree" if below else CANNOT_TELL


def over(values_N: Seq[float], *, difference: bool = False) -> tuple[float, float | None, float | None]:
    """Mean over sequences with its interval.

    Shares have Wilson's interval, because none varies under resampling at 0 and 1; differences of two shares are
    resampled. Equal values have no interval: resampling them would claim certainty, however few they are.
    """
    array_N = np.asarray(values_N, dtype=np.float64)
    if not difference and set(array_N.tolist()) <= {0.0, 1.0}:
        bounds = binomtest(int(array_N.sum()), len(array_N)).proportion_ci(method="wilson")
        return float(array_N.mean()), float(bounds.low), float(bounds.high)
    found = mean_interval(array_N, resamples=RESAMPLES, seed=0) if np.ptp(array_N) else None
    return float(array_N.mean()), *(found or (None, None))


def row(
    values_N: Seq[float], rule: str = "sign", number: float = 0.0, *, difference: bool = False, **words: str
) -> Claim:
    """A row on the mean of one value per sequence; without values, one that says so."""
    if not len(values_N):
        return Claim(value=None, low=None, high=None, verdict=f"{CANNOT_TELL}: none in the sample", **words)
    value, low, high = over(values_N, difference=difference)
    return Claim(value=value, low=low, high=high, verdict=judged(low, high, rule, number), **words)


class Subject:
    """The embedded model, some sequences, and the full model's outputs.

    Args:
        folder: where measurements are kept.
        again: measure anew.
        run: a finished default search of the same sequences; None to search them.
        gates: what tests/benchmarks/gates.py wrote.
        sequences: number of sequences whose full outputs are used.
        questions: number of questions with short answers.
    """

    def __init__(
        self, folder: Path, *, again: bool, run: Path | None, gates: Path, sequences: int, questions: int
    ) -> None:
        self.folder, self.again, self.run, self.gates = folder, again, run, gates
        self.limit, self.questions = sequences, questions

    @cached_property
    def engine(self) -> Engine:
        return Engine(load_model(device="cpu"), SearchConfig(limit=self.limit))

    @property
    def layers(self) -> int:
        return self.engine.model.layers

    @cached_property
    def sequences(self) -> list[Sequence]:
        return load_sequences("instruct", limit=self.limit)

    @cached_property
    def prompts(self) -> list[PromptState]:
        return [self.engine.open(one.prompt) for one in self.sequences]

    @cached_property
    def outputs(self) -> list[tuple[int, ...]]:
        found = self.engine.generate([(prompt, full(self.layers)) for prompt in self.prompts])
        return [one.tokens for one, _ in found]

    def kept(self, name: str, settings: Any, compute: Callable[[], Any]) -> Any:
        """What was measured under these settings: read, or computed and written."""
        key = hashlib.sha256(json.dumps([VERSION, SearchConfig().model, self.limit, settings]).encode()).hexdigest()[
            :12
        ]
        path = self.folder / f"{name}-{key}.json"
        if self.again or not path.exists():
            value = compute()
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, value)
        return json.loads(path.read_text())


def glavas(subject: Subject) -> list[Claim]:
    """The data-set oracle of a default search."""

    def measure() -> dict[str, Any]:
        folder = subject.run or subject.folder / f"search-{subject.limit}"
        if not (folder / "manifest.json").exists():
            run_search(SearchConfig(limit=subject.limit), folder)
        elif not Run.open(folder).complete:
            raise SystemExit(f"'{folder}' is an unfinished search; continue with 'oracle search --resume {folder}'")
        experiment = analysis.load(folder)
        summary, adjusted = analysis.summarise(experiment), analysis.luck_adjusted(experiment)
        held_out = [None] * 3 if adjusted is None else [adjusted.fraction, *(adjusted.interval or (None, None))]
        return {
            "apparent": [summary.equal_quality_fraction, *(summary.equal_quality_interval or (None, None))],
            "held_out": held_out,
            "sequences": [summary.sequences, 0 if adjusted is None else adjusted.sequences],
            "null": summary.null_equal_quality_fraction,
        }

    found = subject.kept("glavas", [str(subject.run)] if subject.run else [], measure)
    null = "" if found["null"] is None else f"{100 * found['null']:.1f} % against shuffled references"
    rows = []
    for name, figure, count, note in (
        ("apparent", "equal-quality fraction", 0, null),
        ("held_out", "the same, evaluated by references held out from the choice", 1, ""),
    ):
        value, low, high = found[name]
        rows.append(
            Claim(
                claim="a per-sequence oracle equals the full model with 23.3 % of its layers",
                source="Glavas et al. 2024, arXiv 2410.20022",
                theirs="23.3 %",
                sample=f"{found['sequences'][count]} of {subject.limit} sequences, ROUGE-L, default search",
                figure=figure,
                value=value,
                low=low,
                high=high,
                verdict=judged(low, high, "number", 0.233),
                note=note,
            )
        )
    return rows


def gates(subject: Subject) -> list[Claim]:
    """What hidden states add to per-token gates, as tests/benchmarks/gates.py found."""
    found = json.loads(subject.gates.read_text())["findings"] if subject.gates.is_file() else []
    measured = {one["decision"]: one for one in found}
    rows = []
    for decision, words in (("sample", "sampled, as released"), ("argmax", "arg-max, ours")):
        one = measured.get(decision)
        told: dict[str, Any] = {
            "claim": f"hidden states hardly help a per-token controller: decisions {words}",
            "source": "Glavas et al. 2024, arXiv 2410.20022",
            "theirs": "hardly",
        }
        if one is None:
            unknown = {"sample": "none", "figure": "ROUGE-L, hidden state - fixed input, at equal executed fraction"}
            advice = f"'{subject.gates}' is written by tests/benchmarks/gates.py"
            verdict = f"{CANNOT_TELL}: not measured here"
            rows.append(Claim(**told, **unknown, value=None, low=None, high=None, verdict=verdict, note=advice))
            continue
        alphas = sorted({alpha for some in one["alphas"].values() for alpha in some})
        low, high = (100 * end for end in one["fractions"])
        bound = HARDLY * one["full_quality"]
        verdict = judged(one["low"], one["high"], "at most", bound)
        if one["seeds"] < 2:
            verdict = f"{CANNOT_TELL}: one seed"
        rows.append(
            Claim(
                **told,
                sample=f"{one['sequences']} sequences in two halves, {one['seeds']} of {one['planned_seeds']} seeds, "
                f"linear gates, alphas {', '.join(f'{alpha:g}' for alpha in alphas)}, {one['steps']} training steps "
                f"({subject.gates.name} of gates.py)",
                figure=f"ROUGE-L, hidden state - fixed input, at equal executed fraction ({low:.0f} to {high:.0f} %)",
                value=one["difference"],
                low=one["low"],
                high=one["high"],
                verdict=verdict,
                note=f"interval over seeds and sequences; agrees below {bound:.3f}, {100 * HARDLY:.0f} % of the full "
                "model's, a bound of ours; targets are the full model's outputs, theirs the data's labels",
            )
        )
    return rows


def policies(subject: Subject) -> list[Claim]:
    """Unified skipping, SkipDecode and early exit, zero-shot: states, next tokens and quality."""
    speedups = (1.25, 2, 3, 5)

    def measure() -> dict[str, Any]:
        engine, layers = subject.engine, subject.layers
        found: dict[str, Any] = {"cosine": {}, "token": {}, "quality": {}}
        masks = {
            f"{name} {speedup}": mask
            for speedup in speedups
            for name, mask in (
                ("unified", published_unified(layers, speedup)),
                ("exit", early_exit(layers, int(layers / speedup))),
            )
        }
        pairs = [
            _against_full(subject, prompt, tokens, list(masks.values()))
            for prompt, tokens in zip(subject.prompts, subject.outputs, strict=True)
            if len(tokens) > 1
        ]
        for number, (key, mask) in enumerate(masks.items()):
            outputs = engine.generate([(prompt, mask) for prompt in subject.prompts])
            found["quality"][key] = _rouge(subject, [one.tokens for one, _ in outputs])
            for place, what in enumerate(("cosine", "token")):
                found[what][key] = [one[number][place] for one in pairs]
        fed = engine.config.max_new_tokens - 1
        for speedup in speedups:
            ran = [np.isin(np.arange(layers), one) for one in skip_decode(layers, speedup, fed)]
            gate = TableGate([np.array(ran)] * len(subject.prompts), policy="omit")
            gated = engine.generate_gated(subject.prompts, gate)
            found["quality"][f"skipdecode {speedup}"] = _rouge(subject, [one.generation.tokens for one in gated])
        return found

    found = subject.kept("policies", [speedups], measure)

    def gain(what: str, one: str, other: str, at: Seq[float]) -> list[float]:
        differences = [np.subtract(found[what][f"{one} {x}"], found[what][f"{other} {x}"]) for x in at]
        return np.mean(differences, axis=0).tolist()

    rows = [
        row(
            gain(what, "unified", "exit", speedups),
            claim=f"a pretrained decoder withstands skipping better than early exit: {words}",
            source="Glavas et al. 2024, arXiv 2410.20022",
            theirs="better",
            sample=f"{len(found[what]['exit 2'])} sequences, mean of 1.25x, 2x, 3x, 5x",
            figure=f"{words}, skipping - exit",
            note=PREFIX,
        )
        for what, words in (
            ("cosine", "cosine to the full model's last state"),
            ("token", "share of equal next tokens"),
            ("quality", "ROUGE-L"),
        )
    ]
    names = {"unified": "unified skipping", "skipdecode": "SkipDecode", "exit": "early exit"}
    for at, label in (((2, 3, 5), "2x, 3x, 5x"), ((1.25,), "1.25x, not in the paper")):
        for one, other, theirs in (
            ("unified", "skipdecode", "+0.5 to +3.4 BLEU"),
            ("skipdecode", "exit", "+1.5 to +2.9 BLEU"),
        ):
            rows.append(
                row(
                    gain("quality", one, other, at),
                    claim=f"quality of {names[one]} is above that of {names[other]}",
                    source="Liu et al. 2024, arXiv 2404.06954",
                    theirs=theirs,
                    sample=f"{subject.limit} sequences, {label}",
                    figure=f"ROUGE-L, {one} - {other}",
                    note="zero-shot; theirs is fine-tuned with the mask"
                    + (f"; {PREFIX}" if one == "unified" and at == (1.25,) else ""),
                )
            )
    return rows


def _rouge(subject: Subject, outputs: Seq[tuple[int, ...]]) -> list[float]:
    text = subject.engine.model.text
    return [
        score_text("rougeL", text(tokens), one.references)
        for tokens, one in zip(outputs, subject.sequences, strict=True)
    ]


@torch.inference_mode()
def _against_full(
    subject: Subject, prompt: PromptState, tokens: tuple[int, ...], masks: Seq[Allocation]
) -> list[tuple[float, float]]:
    """Per mask the mean cosine of the normed last state to the full model's, and the share of equal next tokens.

    Teacher-forced on the full model's output.
    """
    decoder, layers = subject.engine.model.decoder, subject.layers

    def last(mask: Allocation) -> tuple[torch.Tensor, torch.Tensor]:
        hidden_TD = subject.engine.hidden.states(prompt, tokens[:-1], mask).generated.after(layers)
        return decoder.normed(hidden_TD[None])[0].float(), decoder.finish(hidden_TD[None])[0].argmax(-1)

    (whole_TD, best_T), found = last(full(layers)), []
    for mask in masks:
        hidden_TD, same_T = last(mask)
        cosine = torch.nn.functional.cosine_similarity(whole_TD, hidden_TD, dim=-1).mean()
        found.append((float(cosine), float((best_T == same_T).float().mean())))
    return found


def single_drops(subject: Subject) -> list[Claim]:
    """Every layer dropped alone."""

    def measure() -> list[list[float]]:
        layers = subject.layers
        masks = [full(layers), *(tuple(x for x in range(layers) if x != drop) for drop in range(layers))]
        found = []
        for prompt, tokens in zip(subject.prompts, subject.outputs, strict=True):
            if len(tokens) > 1:
                # The first token is the full model's whatever is dropped, and is not counted.
                scale = len(tokens) / (len(tokens) - 1)
                whole, *dropped = subject.engine.log_likelihoods(prompt, masks, tokens)
                found.append([scale * (whole - value) for value in dropped])
        return found

    increase_NL = np.array(subject.kept("single-drops", [], measure))
    others = increase_NL.mean(0)[2:]
    worst = 2 + int(others.argmax())
    return [
        row(
            increase_NL[:, layer] - increase_NL[:, worst],
            claim=f"dropping layer {layer} is catastrophic",
            source="llama.cpp issue 3565",
            theirs="named with layer " + str(1 - layer),
            sample=f"{len(increase_NL)} sequences, {increase_NL.shape[1]} single drops, own output",
            figure=f"nats/token that dropping layer {layer} costs beyond layer {worst}, the worst of the others",
            note=f"costs {increase_NL[:, layer].mean():.2f} nats/token; the median of layers 2 and above "
            f"{np.median(others):.2f}",
        )
        for layer in (0, 1)
    ]


def exhausted(subject: Subject) -> list[Claim]:
    """All masks of six free layers: likelihood of the reference, cosine, and greedy agreement."""

    def masks() -> list[Allocation]:
        fixed = set(range(subject.layers)) - set(FREE)
        return [
            tuple(sorted(fixed | set(chosen))) for count in range(len(FREE) + 1) for chosen in combinations(FREE, count)
        ]

    def measure() -> dict[str, Any]:
        engine, found = subject.engine, []
        chosen = [place for place, tokens in enumerate(subject.outputs) if len(tokens) > 2][:EXHAUSTED]
        for place in chosen:
            prompt, one = subject.prompts[place], subject.sequences[place]
            ids = engine.model.tokenizer(one.references[-1], add_special_tokens=False)["input_ids"]
            pairs = _against_full(subject, prompt, subject.outputs[place], masks())
            found.append(
                {
                    "loss": [-value for value in engine.log_likelihoods(prompt, masks(), ids)],
                    "cosine": [pair[0] for pair in pairs],
                    "same": [pair[1] for pair in pairs],
                }
            )
        return {"masks": masks(), "sequences": found}

    found = subject.kept("exhausted", [FREE, EXHAUSTED], measure)
    kept = [frozenset(mask) for mask in found["masks"]]
    pairs = [(kept.index(one), kept.index(one - {layer})) for one in kept for layer in one & set(FREE)]
    loss_NM = np.array([one["loss"] for one in found["sequences"]])
    more, less = np.array(pairs).T

    def share(rows_N: NDArray[np.int64]) -> float:
        mean_M = loss_NM[rows_N].mean(0)
        return float((mean_M[less] < mean_M[more]).mean())

    count = len(loss_NM)
    rng = np.random.default_rng(0)
    resampled = [share(rng.integers(count, size=count)) for _ in range(RESAMPLES)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    sample = f"{count} sequences, all {len(kept)} masks of {len(FREE)} free layers"
    ranks = [
        float(spearmanr(one["cosine"], one["same"]).statistic)
        for one in found["sequences"]
        if len(set(one["same"])) > 1
    ]
    return [
        Claim(
            claim="depth pruning is not monotone: removing one more layer can lower perplexity",
            source="EvoPress, arXiv 2410.14649",
            theirs="examples",
            sample=f"{sample}, {len(pairs)} pairs",
            figure="share of pairs in which one layer less has the lower mean loss on the references",
            value=share(np.arange(count)),
            low=float(low),
            high=float(high),
            verdict=judged(float(low), float(high), "at least", 0.0),
        ),
        row(
            (loss_NM[:, less] < loss_NM[:, more]).mean(1).tolist(),
            claim="the same, per sequence",
            source="EvoPress, arXiv 2410.14649",
            theirs="not reported",
            sample=f"{sample}, {len(pairs)} pairs per sequence",
            figure="share of pairs in which one layer less has the lower loss on the sequence's reference",
        ),
        row(
            ranks,
            "at least",
            0.5,
            claim="cosine of the last state is a proxy of a draft's acceptance",
            source="KnapSpec, arXiv 2602.20217",
            theirs="used as the objective",
            sample=f"{sample}, {len(ranks)} with differing acceptance",
            figure="Spearman correlation over masks with the share of equal next tokens; bound 0.5 is ours",
        ),
    ]


def exits(subject: Subject) -> list[Claim]:
    """The first layer whose prediction is the final one, per token of the full model's output."""

    def measure() -> list[float]:
        decoder, layers, found = subject.engine.model.decoder, subject.layers, []
        for prompt, tokens in zip(subject.prompts, subject.outputs, strict=True):
            if len(tokens) < 2:
                continue
            states = subject.engine.hidden.states(prompt, tokens[:-1], full(layers)).generated.every()[1:]
            best_LT = torch.stack([decoder.finish(one[:, None])[:, 0].argmax(-1) for one in states])
            first_T = (best_LT == best_LT[-1]).float().argmax(0) + 1
            found.append(float(first_T.float().mean()) / layers)
        return found

    fractions = subject.kept("exits", [], measure)
    return [
        row(
            [1 - fraction for fraction in fractions],
            "at most",
            1 - 23.45 / 32,
            claim="exit alone can save at most 26 % of the layers, even with an oracle per token",
            source="LayerSkip, arXiv 2404.16710",
            theirs="26.7 % (23.45 of 32 layers)",
            sample=f"{len(fractions)} sequences, own output",
            figure="share of layers above the first one that predicts the final token",
            note="no exit is trained, here or there",
        )
    ]


def keys_and_values(subject: Subject) -> list[Claim]:
    """The same random skips per token, with and without the keys and values of skipped layers."""
    skipped, rate = "layers 2 to 28", 0.15

    def measure() -> list[float]:
        rng, kept = np.random.default_rng(0), [place for place, one in enumerate(subject.outputs) if len(one) > 2]
        tables = []
        for _ in kept:
            table_TL = np.ones((40, subject.layers), dtype=np.bool_)
            table_TL[:, 2:-1] = rng.random((40, subject.layers - 3)) >= rate
            tables.append(table_TL)
        shares = {}
        for policy in ("propagate", "omit"):
            gate = TableGate(tables, policy=policy)
            prompts, texts = [subject.prompts[one] for one in kept], [subject.outputs[one] for one in kept]
            scores = subject.engine.score_gated(prompts, gate, texts)
            shares[policy] = [
                float((score.best_T[1:] == np.array(tokens)[1:]).mean())
                for score, tokens in zip(scores, texts, strict=True)
            ]
        return np.subtract(shares["propagate"], shares["omit"]).tolist()

    differences = subject.kept("keys-and-values", [rate], measure)
    return [
        row(
            differences,
            claim="skipped layers have to keep their keys and values",
            source="FlexiDepth, arXiv 2503.23798",
            theirs="84 % of the scores without them",
            sample=f"{len(differences)} sequences, own output, {100 * rate:.0f} % of {skipped} skipped at random",
            figure="share of equal next tokens, with - without",
            note="untrained, random skips; theirs are learned",
        )
    ]


class Answers:
    """Short answers under any layer path of prompt and answer: right if the gold answer's words are in the output.

    The bundled multiple-choice questions are not used: the full model answers 7 of 28 right, which is chance.

    Args:
        subject: gives the model; a path is run once per question.
    """

    def __init__(self, subject: Subject) -> None:
        config = SearchConfig(scope="sequence", paths=True, max_new_tokens=ANSWER)
        self.engine = Engine(subject.engine.model, config)
        found = [one for one in load_sequences("instruct") if one.task in TASKS]
        self.questions = found[: subject.questions]
        self._known: dict[tuple[str, Allocation], str] = {}

    def outputs(self, question: Sequence, paths: Seq[Allocation]) -> list[str]:
        """The words of each output, between spaces."""
        missing = [one for one in dict.fromkeys(paths) if (question.id, one) not in self._known]
        if missing:
            prompt = self.engine.open(question.prompt)
            outputs = self.engine.generate([(prompt, path) for path in missing])
            for path, (output, _) in zip(missing, outputs, strict=True):
                self._known[question.id, path] = _words(self.engine.model.text(output.tokens))
        return [self._known[question.id, path] for path in paths]

    def right(self, question: Sequence, gold: str, paths: Seq[Allocation]) -> list[bool]:
        """Whether each path gives the gold answer."""
        return [_words(gold) in one for one in self.outputs(question, paths)]

    def searched(self, question: Sequence, strategy: str, gold: str, *, most: int, paths: bool) -> "Found":
        """Asks a strategy for paths; CoLa's is stopped at the first shorter right one, or the first that mends.

        Args:
            question: the question.
            strategy: its name; its own end counts too.
            gold: the answer that counts as right.
            most: maximum number of paths besides the full one.
            paths: whether layers may repeat.
        """
        layers = self.engine.model.layers
        archive = Archive(Space.of(layers, paths=paths), "right")
        searching = make(strategy, Problem(space=archive.space, archive=archive, seed=_seed(question)))
        [was_right] = self.right(question, gold, [full(layers)])
        shortest, tried, mended = layers, 0, False
        while tried < most and not searching.done:
            batch = searching.ask(min(TOGETHER, most - tried))
            judged_batch = self.right(question, gold, [one.allocation for one in batch])
            searching.tell([_outcome(one, right) for one, right in zip(batch, judged_batch, strict=True)])
            tried += sum(one.allocation != full(layers) for one in batch)
            lengths = [len(one.allocation) for one, right in zip(batch, judged_batch, strict=True) if right]
            shortest, mended = min([shortest, *lengths]), mended or (not was_right and bool(lengths))
            if strategy == "mcts-cola" and (shortest < layers if was_right else mended):
                break
        return Found(
            was_right=was_right, found=shortest < layers if was_right else mended, shortest=shortest, tried=tried
        )


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search of a question found.

    Attributes:
        was_right: whether the full model answers right.
        found: whether a shorter path does too, or any path if the full model does not.
        shortest: layers of the shortest path that answers right; those of the model if none.
        tried: number of paths tried besides the full one.
    """

    was_right: bool
    found: bool
    shortest: int
    tried: int


def _words(text: str) -> str:
    return f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "


def guessing(answers: Seq[str], tries: int) -> float:
    """Chance that random guesses among the different answers contain the right one: 1 - (1 - 1/C)^tries."""
    return float(1 - (1 - 1 / len({_words(one) for one in answers})) ** tries)


def _share(values: Seq[bool]) -> str:
    """The share that is true, in percent."""
    return f"{100 * np.mean(values):.0f} %" if values else "-"


def _gold(question: Sequence) -> str:
    """The shortest reference."""
    return min(question.references, key=len)


def _golds() -> dict[str, list[str]]:
    """The gold answers of all bundled questions, by task."""
    found: dict[str, list[str]] = {}
    for one in load_sequences("instruct"):
        found.setdefault(one.task, []).append(_gold(one))
    return found


def _seed(question: Sequence) -> int:
    return int(question.id.rsplit("-", 1)[-1])


def _outcome(proposal: Proposal, right: bool) -> Outcome:
    return Outcome(
        allocation=proposal.allocation,
        family=proposal.family,
        tokens=(0,),
        text="",
        finished=True,
        margin=1.0,
        quality={"right": float(right)},
    )


def _asked(answers: Answers, question: Sequence) -> dict[str, Any]:
    """What the searches of one question find."""
    layers, gold, rng = answers.engine.model.layers, _gold(question), np.random.default_rng(_seed(question))
    [own] = answers.outputs(question, [full(layers)])
    entry: dict[str, Any] = {"task": question.task, "right": _words(gold) in own}
    entry["gold"] = asdict(answers.searched(question, "mcts-cola", gold, most=SIMULATIONS, paths=True))
    if entry["right"]:
        theirs = answers.searched(question, "mcts-drllm", gold, most=200, paths=True)
        ours = answers.searched(question, "auto", gold, most=max(1, theirs.tried), paths=False)
        entry |= {"drllm": asdict(theirs), "auto": asdict(ours)}
    else:
        others = sorted(set(_golds()[question.task]))
        wrong = [one for one in others if _words(one) not in own and _words(one) != _words(gold)]
        other = str(rng.choice(wrong))
        entry["null"] = asdict(answers.searched(question, "mcts-cola", other, most=SIMULATIONS, paths=True))
    masks = [random_mask(layers, int(budget), rng) for budget in rng.integers(layers - 4, layers, 5)]
    entry["five"] = answers.right(question, gold, masks)
    return entry


def paths_by_answer(subject: Subject) -> list[Claim]:
    """Searches of short answers by the gold answer, beside the same for an answer of another question."""
    settings = [SIMULATIONS, subject.questions, TASKS, ANSWER, TOGETHER]

    def measure() -> list[dict[str, Any]]:
        answers = Answers(subject)
        # Question by question, so that an interrupted measurement continues.
        return [
            subject.kept(f"question-{one.id}", settings, partial(_asked, answers, one)) for one in answers.questions
        ]

    found = subject.kept("paths-by-answer", settings, measure)
    right, wrong = [one for one in found if one["right"]], [one for one in found if not one["right"]]
    layers = subject.layers
    cola = "CoLa, arXiv 2507.07996"
    how = f"short answers ({', '.join(TASKS)}), gold words in {ANSWER} tokens; prompt too under the path"
    gained = [float(any(one["five"])) for one in wrong]
    best = _share([one["right"] or any(one["five"]) for one in found])
    golds = _golds()
    chances = [guessing(golds[one["task"]], SIMULATIONS) for one in found]
    chance = f"{SIMULATIONS} random guesses among the answers of a task hit {100 * np.mean(chances):.0f} %"
    asked_for = _share([one["null"]["found"] for one in wrong])
    saved = {name: [float(layers - min(layers, one[name]["shortest"])) for one in right] for name in ("drllm", "auto")}
    extra = np.subtract([one["gold"]["found"] for one in wrong], [one["null"]["found"] for one in wrong], dtype=float)
    return [
        row(
            [float(one["gold"]["found"]) for one in right],
            "reached",
            0.75,
            claim="75 % of right samples have a shorter right path",
            source=cola,
            theirs="more than 75 %",
            sample=f"{len(right)} right questions: {how}; {SIMULATIONS} simulations (theirs 200)",
            figure="share with a shorter right path",
            note=f"null: {chance}",
        ),
        row(
            [float(one["gold"]["found"]) for one in wrong],
            "reached",
            0.6,
            claim="60 % of wrong samples can be mended",
            source=cola,
            theirs="more than 60 %",
            sample=f"{len(wrong)} wrong questions, the same",
            figure="share with a path to the gold answer",
            note=f"nulls: {asked_for} to another question's answer; {chance}",
        ),
        row(
            extra.tolist(),
            difference=True,
            claim="mending finds the right answer, not any answer that is asked for",
            source=f"null control of {cola}",
            theirs="not reported",
            sample=f"{len(wrong)} wrong questions, the same",
            figure="share mended to the gold answer - share that give another question's answer",
        ),
        row(
            saved["drllm"],
            "number",
            1.82,
            claim="tree search saves 1.82 layers on average",
            source="Dr.LLM, arXiv 2510.12773",
            theirs="1.82 layers",
            sample=f"{len(right)} right questions, {how}; its released search and stopping rules",
            figure="layers saved by the shortest right path at the search's end",
            note=f"auto, as many paths: {over(saved['auto'])[0]:.1f} layers; " * bool(right)
            + "its rule ends at the first path 2 shorter",
        ),
        row(
            gained,
            "at most",
            0.05,
            claim="the best of 5 paths by gold label measures the prediction of paths, not chance",
            source="evaluation of PoLar, arXiv 2606.06574",
            theirs="best of 5 predicted paths",
            sample=f"{len(wrong)} wrong questions, the same; 5 random masks without 1 to 4 layers",
            figure="share of wrong answers that any of 5 random masks mends",
            note=f"best of 5: {best} right, full model: {_share([one['right'] for one in found])}; agrees only if "
            "chance mends less than 5 %, a bound of ours",
        ),
    ]


PARTS: dict[str, Callable[[Subject], list[Claim]]] = {
    "glavas": glavas,
    "gates": gates,
    "policies": policies,
    "single-drops": single_drops,
    "exhausted": exhausted,
    "exits": exits,
    "keys-and-values": keys_and_values,
    "paths-by-answer": paths_by_answer,
}


def interval(claim: Claim) -> str:
    """The figure with its interval; a dash if it was not measured."""
    if claim.value is None:
        return "-"
    ends = "" if claim.low is None or claim.high is None else f" ({claim.low:.3g} to {claim.high:.3g})"
    return f"{claim.value:.3g}{ends}"


def table(claims: Seq[Claim]) -> str:
    """The claims as a Markdown table."""
    lines = ["| claim | source | theirs | ours | sample | verdict |", "|---|---|---|---|---|---|"]
    for one in claims:
        note = f"; {one.note}" if one.note else ""
        cells = [one.claim, one.source, one.theirs, f"{interval(one)}: {one.figure}{note}", one.sample, one.verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the parts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to check")
    parser.add_argument("--out", type=Path, default=Path("runs/claims"), help="folder of what was measured")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="number of questions with short answers")
    parser.add_argument("--sequences", type=int, default=SEQUENCES, help="number of sequences for all other parts")
    parser.add_argument("--run", type=Path, help="a finished 'oracle search --limit 24', for its oracle and its report")
    parser.add_argument("--gates", type=Path, default=Path("runs/gates/findings.json"), help="results of gates.py")
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    arguments = parser.parse_args()
    subject = Subject(
        arguments.out,
        again=arguments.again,
        run=arguments.run,
        gates=arguments.gates,
        sequences=arguments.sequences,
        questions=arguments.questions,
    )
    claims = list[Claim]()
    for name in arguments.parts:
        began = time.perf_counter()
        claims += PARTS[name](subject)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    if arguments.run:
        manifest = Run.open(arguments.run).manifest
        tables = DerivedTables(arguments.run / FOLDER, key=key_of(VERSION), origin=origin_of(manifest))
        tables.write("claims", pa.Table.from_pylist([asdict(one) for one in claims]))
    print(json.dumps([asdict(one) for one in claims]) if arguments.json else table(claims))


if __name__ == "__main__":
    main()
