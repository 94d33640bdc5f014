"""Study: trains the arms on the same rows, measures them on the same held-out text, and writes the tables."""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path

from oracle.skiplayer.config import SkipConfig
from oracle.skiplayer.early_exit import Confidence
from oracle.skiplayer.measure import MakeGates, answers, flops_per_token, measure
from oracle.skiplayer.model import Model
from oracle.skiplayer.results import ArmResult, Results, tables
from oracle.skiplayer.router import RandomGates
from oracle.skiplayer.study_folder import Folder
from oracle.skiplayer.tasks import Question, questions
from oracle.skiplayer.text import Corpus, Tokens, load_corpus
from oracle.skiplayer.train import Learner, Stop, never, seeded, train
from oracle.utils.machine import resolve_device
from oracle.utils.progress import Watch, silent

__all__ = ["resume_study", "run_study"]

THRESHOLDS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1.1)
"""Confidence thresholds of the early-exit curve; at the last, no token exits."""

BISECTIONS = 10


def run_study(config: SkipConfig, out: Path, *, watch: Watch = silent, stop: Stop = never) -> Results:
    """Trains and compares the arms of a study in a new folder.

    Args:
        config: settings of the study.
        out: a folder that does not exist or is empty.
        watch: reports progress.
        stop: returns whether the user requested a stop.

    Returns:
        The tables, also written to the folder.

    Raises:
        InputError: if the folder is not empty, the device is not available, or the text cannot be used.
        Interrupted: on a requested stop; `resume_study` continues.
    """
    resolve_device(config.device)  # raises if it is not available, before anything is written
    corpus = load_corpus(config)
    return _Study(config, corpus, Folder.create(out, config, corpus)).run(watch, stop)


def resume_study(folder: Path, *, watch: Watch = silent, stop: Stop = never) -> Results:
    """Continues an interrupted study; its results are identical to those of an uninterrupted one.

    Raises:
        InputError: if the folder holds no study, or the text has changed.
        Interrupted: on a requested stop.
    """
    opened = Folder.open(folder)
    corpus = load_corpus(opened.config)
    opened.check_text(corpus)
    return _Study(opened.config, corpus, opened).run(watch, stop)


@dataclass(frozen=True)
class _Study:
    config: SkipConfig
    corpus: Corpus
    folder: Folder

    def run(self, watch: Watch, stop: Stop) -> Results:
        with self.folder.locked():
            rows_RT = self.corpus.rows(self.config)
            target = self._flops(self.config.layers, rows_RT, random=True)
            done: dict[str, list[ArmResult]] = {}
            curve: list[dict[str, float]] = []
            for arm in self.config.arms:
                depths: tuple[int | None, ...] = self._depths(rows_RT, target) if arm == "dense" else (None,)
                for number, depth in product(range(self.config.seeds), depths):
                    config = replace(self.config, seed=self.config.seed + number)
                    learner = Learner(arm, config, self.corpus.tokenizer.size, depth)
                    path = self.folder.checkpoint(arm, number, depth)
                    train(learner, self.corpus, path, watch=watch, stop=stop)
                    with watch(f"Measuring {arm}", 1) as advance:
                        gates: MakeGates = learner.gates
                        if arm == "early-exit":
                            threshold = self._threshold(learner.model)
                            gates = _exit_gates(learner.model, threshold)
                            curve = curve or _curve(learner.model, threshold, rows_RT)
                        done.setdefault(arm, []).append(self._measure(learner, gates, rows_RT))
                        advance(1, "")
            results = tables(self.config, done, curve, self.asked, target)
            self.folder.write(results)
        return results

    @cached_property
    def asked(self) -> list[Question]:
        """One-shot questions, the same for every arm."""
        return questions(self.corpus.cloze, self.config.questions, self.config.seed)

    def _measure(self, learner: Learner, gates: MakeGates, rows_RT: Tokens) -> ArmResult:
        model, asked = learner.model, self.asked
        return ArmResult(
            layers=len(model.layers),
            parameters=sum(weight.numel() for weight in learner.parameters()),
            losses=learner.losses,
            measured=measure(model, gates, rows_RT),
            right_Y=answers(model, gates, asked, self.corpus.tokenizer),
        )

    def _flops(self, layers: int, rows_RT: Tokens, *, random: bool = False) -> float:
        """FLOPs per token of a model of `layers` layers, under random routing at the target density if `random`."""
        model = Model(self.config, self.corpus.tokenizer.size, layers).to(resolve_device(self.config.device))
        gates: MakeGates = _no_gates
        if random:
            gates = partial(RandomGates, self.config.density, seeded(self.config.seed, 2))
        return flops_per_token(model, gates, rows_RT[:4])

    def _depths(self, rows_RT: Tokens, target: float) -> tuple[int, int]:
        """Two neighbouring numbers of layers whose dense models' FLOPs enclose the target."""
        below = [layers for layers in range(1, self.config.layers) if self._flops(layers, rows_RT) <= target]
        low = max(below, default=1)
        return low, low + 1

    def _threshold(self, model: Model) -> float:
        """Confidence threshold that gives the target density on training text."""
        rows_RT, low, high = self.corpus.rows(self.config, training=True)[::2], 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            if measure(model, _exit_gates(model, middle), rows_RT).density > self.config.density:
                high = middle
            else:
                low = middle
        return (low + high) / 2


def _no_gates() -> None:
    """Every layer runs."""


def _exit_gates(model: Model, threshold: float) -> MakeGates:
    return lambda: Confidence(model, threshold)


def _curve(model: Model, chosen: float, rows_RT: Tokens) -> list[dict[str, float]]:
    """Early exit at several thresholds, including the chosen one; of one seed."""
    points = []
    for threshold in sorted({*THRESHOLDS, chosen}):
        one = measure(model, _exit_gates(model, threshold), rows_RT)
        point = {"threshold": threshold, "loss": one.loss, "density": one.density, "flops": one.flops}
        points.append({**point, "chosen": threshold == chosen})
    return points
