"""Headline numbers in words: each with a sentence on what it means and what it does not."""

from collections.abc import Iterator
from dataclasses import dataclass

from analysis.formatting import counted, interval_text, metric_label, percent, percent_range
from analysis.luck.held_out_saving import LuckAdjusted
from analysis.per_sequence.lost_answers import lost_answers
from analysis.report.parts import Part
from analysis.stats import affordable_resamples
from analysis.summary import Interval, Summary
from oracle.utils.text import printable

__all__ = ["Fact", "cost_text", "facts", "finding"]

SCORED = ("text", "tokens")
"""Kinds of metrics whose outputs are scored again for every shuffle."""

BIAS = (
    "Where nearly all of the model is needed this share is too low on average: in simulations by up to 0.08, and by up "
    "to 0.4 where layers matter less than the references scatter. The upper end of the interval is the safe reading."
)
"""Bias of the luck-adjusted saving, from the table in `analysis.luck.held_out_saving`."""

MAX_TEXT = 120
"""Maximum number of characters of an output in a sentence."""

PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"))


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A headline number.

    Attributes:
        title: its name.
        value: as text.
        sentence: its meaning.
        share: the number in 0..1, if it is a share of the full model's cost.
        interval: its 95 % bootstrap interval.
        sequences: number behind the interval; 0 if there is none.
        floor: the same against shuffled references.
    """

    title: str
    value: str
    sentence: str
    share: float | None = None
    interval: Interval | None = None
    floor: float | None = None
    sequences: int = 0

    @property
    def details(self) -> list[str]:
        """Interval and floor as text, if known."""
        interval = [interval_text(self.sequences, percent_range(self.interval))] if self.interval else []
        return interval + ([f"shuffled references {percent(self.floor)}"] if self.floor is not None else [])


def cost_text(value: float, measure: str) -> str:
    """A mean cost with its unit, such as `11.0 layers`, `1.204 ms/token` or `84.1 MFLOPs/token`."""
    if measure == "ms/token":
        return f"{value:.3f} ms/token"
    if measure != "FLOPs/token":
        return f"{value:.1f} {measure}"
    size, prefix = next((pair for pair in PREFIXES if value >= pair[0]), (1e3, "k"))
    return f"{value / size:.1f} {prefix}{measure}"


def finding(part: Part) -> str:
    """The main result, in one line."""
    if part.told is None:
        return "This run tells nothing about layers"
    enough = cost_text(part.told.per_sequence_fraction * part.experiment.full_cost, part.experiment.measure)
    if part.experiment.costs is None:
        enough = f"{enough.split()[0]} of {part.summary.layers} {part.experiment.measure}"
    return f"On average, {enough} are enough"


def facts(part: Part, *, adjusted: LuckAdjusted | None = None, verified: tuple[int, int] | None = None) -> list[Fact]:
    """The headline numbers of a part of a run.

    Args:
        part: all sequences or those of one task.
        adjusted: the saving confirmed by held-out references.
        verified: number of reported allocations reproduced by plain generation, and their total.
    """
    if part.told is None:
        return [_nothing(part), *_verified(verified)]
    found = [_per_sequence(part, part.told), _oracle(part, part.told), *_everything(part), *_end_to_end(part.told)]
    found += [_proven(part, part.told), *_shuffled(part.told), *_adjusted(adjusted, part), *_lost(part)]
    return [*found, *_verified(verified)]


def _fewer(part: Part) -> str:
    """What a very large run has less of, as sentences."""
    summary, said = part.summary, ""
    if summary.null is None and part.told is not None and part.told.null is not None:
        said += " In a run this large, intervals and shuffled references are of the sequences that tell something only."
    if (resamples := affordable_resamples(1000, summary.sequences)) < 1000:
        said += f" In a run this large, intervals are from {resamples} resamples."
    if summary.null is not None and (shuffles := len(summary.null.zero_shares)) < 10 and part.experiment.kind in SCORED:
        said += f" References were shuffled {shuffles} times."
    return said


def _untold(part: Part) -> str:
    summary = part.summary
    return summary.told_nothing


def _nothing(part: Part) -> Fact:
    return Fact(
        title="Nothing to state",
        value="none",
        sentence=f"No sequence can tell one allocation from another: {_untold(part)}. A budget of 0 layers for these "
        "would say nothing about the model.",
    )


def _per_sequence(part: Part, summary: Summary) -> Fact:
    measure = part.experiment.measure
    kept = f"scores at least as well ({metric_label(summary.criterion)}) as with all of them"
    if part.experiment.tolerance:
        kept = f"loses at most {part.experiment.tolerance:g} of {metric_label(summary.criterion)}"
    tried = counted(summary.allocations_per_sequence, "allocation")
    tries = f"the best of {tried} tried on average over {counted(summary.sequences)}"
    return Fact(
        title="Minimal budget per sequence",
        value=percent(summary.per_sequence_fraction),
        sentence=f"With this share of the {measure}, chosen per sequence, the output {kept}. It is {tries}: a longer "
        "search can only find less, a controller without access to the references will need more." + _fewer(part),
        share=summary.per_sequence_fraction,
        interval=summary.per_sequence_interval,
        sequences=summary.sequences,
        floor=summary.null_per_sequence_fraction,
    )


def _everything(part: Part) -> Iterator[Fact]:
    """The headline over all sequences, where some are left out of it."""
    summary = part.summary
    if summary.headline is summary:
        return
    yield Fact(
        title="Over all sequences",
        value=percent(summary.per_sequence_fraction),
        sentence=f"The headline numbers are of {counted(summary.informative_sequences)} that can tell something. "
        f"{summary.untold} of {summary.sequences} cannot: {_untold(part)}. With them the mean minimal budget is as "
        f"shown here, and the oracle at equal mean quality needs {percent(summary.equal_quality_fraction)}.",
        share=summary.per_sequence_fraction,
        interval=summary.per_sequence_interval,
        sequences=summary.sequences,
        floor=summary.null_per_sequence_fraction,
    )


def _oracle(part: Part, summary: Summary) -> Fact:
    less = f" less {part.experiment.tolerance:g}" if part.experiment.tolerance else ""
    exact = "" if summary.exact else f" It may be too high by {summary.equal_quality_gap:.1e}, no more."
    return Fact(
        title="Oracle at equal mean quality",
        value=percent(summary.equal_quality_fraction),
        sentence="An oracle that sees the references and allocates layers across all sequences reaches the full "
        f"model's mean {metric_label(summary.criterion)} of {summary.full_quality:.3f}{less} with this share. It "
        f"selects outputs that happen to beat the full model and sacrifices others, which no controller can do.{exact}",
        share=summary.equal_quality_fraction,
        interval=summary.equal_quality_interval,
        sequences=summary.sequences,
        floor=summary.null_equal_quality_fraction,
    )


def _end_to_end(summary: Summary) -> Iterator[Fact]:
    if summary.end_to_end_fraction is None:
        return
    yield Fact(
        title="The same end to end",
        value=percent(summary.end_to_end_fraction),
        sentence="Cost of the oracle's choice including the prompt pass, for the same number of generated tokens. A "
        "share of layers is not a speed-up: this is closer to one.",
        share=summary.end_to_end_fraction,
    )


def _proven(part: Part, summary: Summary) -> Fact:
    gap = ""
    if summary.mean_gap is not None:
        distance = cost_text(summary.mean_gap, part.experiment.measure)
        gap = f" For the others the proven bound is {distance} lower on average."
    return Fact(
        title="Proven minimal",
        value=f"{summary.certified} of {summary.sequences}",
        sentence="Sequences for which every smaller set was tried and failed, so that no search can find less."
        f"{gap} Sequences that tell nothing need no proof.",
    )


def _shuffled(summary: Summary) -> Iterator[Fact]:
    if summary.null_per_sequence_fraction is None or summary.null_zero_quality_share is None:
        return
    yield Fact(
        title="Against shuffled references",
        value=percent(summary.null_per_sequence_fraction),
        sentence="The minimal budget if each output is scored against another sequence's references, where quality is "
        "meaningless: the level reached by selection and a low bar alone (there the full model scores zero on "
        f"{percent(summary.null_zero_quality_share)} of these {counted(summary.sequences)}). A floor to compare with, "
        "not to subtract.",
        share=summary.null_per_sequence_fraction,
    )


def _adjusted(adjusted: LuckAdjusted | None, part: Part) -> Iterator[Fact]:
    if adjusted is None:
        return
    lost = adjusted.share_of_luck
    luck = f"{percent(lost)} of the saving is lost" if lost > 0 else "Nothing of the saving is lost"
    yield Fact(
        title="Oracle, scored by held-out references",
        value=percent(adjusted.fraction),
        sentence=f"Half of each sequence's references choose the {part.experiment.measure}, the other half score: with "
        "this share mean quality is still the full model's by references that had no part in the choice. "
        f"{luck}, an estimate of the luck, over {counted(adjusted.sequences)} that can tell something and have two "
        f"references or more. {BIAS}",
        share=adjusted.fraction,
        interval=adjusted.interval,
        sequences=adjusted.sequences,
    )


def _lost(part: Part) -> Iterator[Fact]:
    """How many right answers the minimal budgets lose, and the pair of outputs that gains most by it."""
    rows = lost_answers(part.experiment).to_dict("records")
    if not rows:
        return
    metric, lost = metric_label(part.experiment.metric), [row for row in rows if row["lost"]]
    sentence = (
        "Outputs at the minimal budget that lack the right answer and still qualify, over the sequences whose "
        f"references share one answer that the full model gives. {metric} compares words, not truth."
    )
    if lost:
        pair = max(lost, key=lambda row: float(row["quality"] - row["full_quality"]))
        share = f"{percent(pair['cost'] / part.experiment.full_cost)} of the {part.experiment.measure}"
        sentence += (
            f" Such as {printable(pair['sequence'])}, answer {_quoted(pair['answer'])}: the full model's "
            f"{_quoted(pair['full_text'])} scores {pair['full_quality']:.3f}, {_quoted(pair['text'])} with {share} "
            f"scores {pair['quality']:.3f}. Definite answers are compared alone by --criterion exact_match with "
            "--extract, or by choice_accuracy."
        )
    yield Fact(title="Right answers lost", value=f"{len(lost)} of {len(rows)}", sentence=sentence)


def _quoted(text: str) -> str:
    """Untrusted text on one line, in quotation marks, truncated."""
    line = printable(" ".join(text.split()))
    return f"“{line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + '…'}”"


def _verified(verified: tuple[int, int] | None) -> Iterator[Fact]:
    if verified is None:
        return
    agree, total = verified
    rest = "" if agree == total else " Do not trust the ones that did not: they are marked in the table."
    yield Fact(
        title="Verified",
        value=f"{agree} of {total}",
        sentence="Reported allocations with exactly the output that plain generation gives, alone, on a model of only "
        f"those layers: confirmed by the library's own forward of that model.{rest}",
    )
