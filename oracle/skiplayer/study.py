"""Study: trains the arms on the same rows, measures them on the same held-out text, and writes the tables."""

from dataclasses import dataclass
from functools import cached_property
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
            done, curve = {}, list[dict[str, float]]()
            for arm in self.config.arms:
                depth = self._depth(rows_RT) if arm == "dense" else None
                learner = Learner(arm, self.config, self.corpus.tokenizer.size, depth)
                train(learner, self.corpus, self.folder.checkpoint(arm), watch=watch, stop=stop)
                with watch(f"Measuring {arm}", 1) as advance:
                    gates: MakeGates = learner.gates
                    if arm == "early-exit":
                        threshold = self._threshold(learner.model)
                        gates = _exit_gates(learner.model, threshold)
                        curve = _curve(learner.model, threshold, rows_RT)
                    done[arm] = self._measure(learner, gates, rows_RT)
                    advance(1, "")
            results = tables(self.config, done, curve, self.asked)
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
            right_X=answers(model, gates, asked, self.corpus.tokenizer),
        )

    def _depth(self, rows_RT: Tokens) -> int:
        """Number of layers of the dense model whose counted FLOPs are nearest to those at the target density."""
        config, some_RT = self.config, rows_RT[:4]

        def count(layers: int, gates: MakeGates) -> float:
            model = Model(config, self.corpus.tokenizer.size, layers).to(resolve_device(config.device))
            return flops_per_token(model, gates, some_RT)

        target = count(config.layers, lambda: RandomGates(config.density, seeded(config.seed, 2)))
        return min(range(1, config.layers + 1), key=lambda layers: abs(count(layers, lambda: None) - target))

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


def _exit_gates(model: Model, threshold: float) -> MakeGates:
    return lambda: Confidence(model, threshold)


def _curve(model: Model, chosen: float, rows_RT: Tokens) -> list[dict[str, float]]:
    """Early exit at several thresholds, including the chosen one."""
    points = []
    for threshold in sorted({*THRESHOLDS, chosen}):
        one = measure(model, _exit_gates(model, threshold), rows_RT)
        point = {"threshold": threshold, "loss": one.loss, "density": one.density, "flops": one.flops}
        points.append({**point, "chosen": threshold == chosen})
    return points
