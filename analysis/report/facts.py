"""Headline numbers in words: each with a sentence that says what it means and what it does not."""

from collections.abc import Iterator
from dataclasses import dataclass

from analysis.formatting import counted, metric_label, percent, percent_range
from analysis.luck.held_out_saving import LuckAdjusted
from analysis.report.parts import Part
from analysis.summary import Interval, Summary

__all__ = ["Fact", "cost_text", "facts", "finding"]

PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"))


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A headline number.

    Attributes:
        title: what it is.
        value: as text.
        sentence: what it means.
        share: the number in 0..1, where it is a share of the full model's cost.
        interval: its 95 % interval.
        floor: the same against shuffled references.
    """

    title: str
    value: str
    sentence: str
    share: float | None = None
    interval: Interval | None = None
    floor: float | None = None

    @property
    def details(self) -> list[str]:
        """Interval and floor as text, as far as there are any."""
        interval = [f"95 % interval {percent_range(self.interval)}"] if self.interval else []
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
    """What a reader should remember, in one line."""
    enough = cost_text(part.summary.per_sequence_fraction * part.experiment.full_cost, part.experiment.measure)
    if part.experiment.costs is None:
        enough = f"{enough.split()[0]} of {part.summary.layers} {part.experiment.measure}"
    return f"On average, {enough} are enough"


def facts(part: Part, *, adjusted: LuckAdjusted | None = None, verified: tuple[int, int] | None = None) -> list[Fact]:
    """The headline numbers of a part of a run.

    Args:
        part: all sequences or those of a task.
        adjusted: the saving that other references confirm.
        verified: how many of how many reported allocations gave the same output in plain generation.
    """
    found = [_per_sequence(part), *_nonzero(part), _oracle(part), *_end_to_end(part.summary), _proven(part)]
    return [*found, *_shuffled(part.summary), *_adjusted(adjusted, part), *_verified(verified)]


def _per_sequence(part: Part) -> Fact:
    summary, measure = part.summary, part.experiment.measure
    kept = f"scores at least as well ({metric_label(summary.criterion)}) as with all of them"
    if part.experiment.tolerance:
        kept = f"loses at most {part.experiment.tolerance:g} of {metric_label(summary.criterion)}"
    tries = f"the best of {summary.allocations_per_sequence:.4g} allocations tried"
    return Fact(
        title="Minimal budget per sequence",
        value=percent(summary.per_sequence_fraction),
        sentence=f"With this share of the {measure}, chosen for each sequence alone, its output {kept}. It is {tries}: "
        "a longer search can only find less, a controller that does not know the references will need more.",
        share=summary.per_sequence_fraction,
        interval=summary.per_sequence_interval,
        floor=summary.null_per_sequence_fraction,
    )


def _nonzero(part: Part) -> Iterator[Fact]:
    summary = part.summary
    zero, share = summary.zero_quality_sequences, summary.per_sequence_fraction_nonzero
    if not zero:
        return
    rest = summary.sequences - zero
    why = f"On {zero} of {counted(summary.sequences)} the full model scores zero, so that any allocation is good enough"
    yield Fact(
        title="Where the full model scores at all",
        value="none" if share is None else percent(share),
        sentence=f"{why} there, even no layer. This is the mean over the other {rest}."
        if rest
        else f"{why} everywhere.",
        share=share,
    )


def _oracle(part: Part) -> Fact:
    summary = part.summary
    less = f" less {part.experiment.tolerance:g}" if part.experiment.tolerance else ""
    exact = "" if summary.exact else f" It may be too high by {summary.equal_quality_gap:.1e}, no more."
    return Fact(
        title="Oracle at equal mean quality",
        value=percent(summary.equal_quality_fraction),
        sentence="An oracle that sees the references and hands out layers over all sequences reaches the full model's "
        f"mean {metric_label(summary.criterion)} of {summary.full_quality:.3f}{less} with this share. It takes outputs "
        f"that happen to beat the full model and gives up others, which no controller can do.{exact}",
        share=summary.equal_quality_fraction,
        interval=summary.equal_quality_interval,
        floor=summary.null_equal_quality_fraction,
    )


def _end_to_end(summary: Summary) -> Iterator[Fact]:
    if summary.end_to_end_fraction is None:
        return
    yield Fact(
        title="The same end to end",
        value=percent(summary.end_to_end_fraction),
        sentence="What the oracle's choice costs once the pass over the prompt is counted too, for the same number of "
        "generated tokens. A share of layers is not a speed-up: this is closer to one.",
        share=summary.end_to_end_fraction,
    )


def _proven(part: Part) -> Fact:
    summary = part.summary
    others = summary.sequences - summary.zero_quality_sequences
    gap = ""
    if summary.mean_gap is not None:
        distance = cost_text(summary.mean_gap, part.experiment.measure)
        gap = f" For the others what is proven lies {distance} lower on average."
    return Fact(
        title="Proven minimal",
        value=f"{summary.certified_nonzero} of {others}",
        sentence="Sequences for which every smaller set was tried and failed, so that no search can find less."
        f"{gap} Where the full model scores zero nothing needs a proof.",
    )


def _shuffled(summary: Summary) -> Iterator[Fact]:
    if summary.null_per_sequence_fraction is None or summary.null_zero_quality_share is None:
        return
    yield Fact(
        title="Against shuffled references",
        value=percent(summary.null_per_sequence_fraction),
        sentence="The minimal budget if each output is read against another sequence's references, where quality means "
        f"nothing: what picking the best and a low bar give for free (there the full model scores zero on "
        f"{percent(summary.null_zero_quality_share)} of the sequences). A floor to compare with, not to subtract.",
        share=summary.null_per_sequence_fraction,
    )


def _adjusted(adjusted: LuckAdjusted | None, part: Part) -> Iterator[Fact]:
    if adjusted is None:
        return
    lost = adjusted.share_of_luck
    luck = f"{percent(lost)} of the saving is lost by that" if lost > 0 else "Nothing of the saving is lost by that"
    yield Fact(
        title="Oracle, judged by other references",
        value=percent(adjusted.fraction),
        sentence=f"Half of each sequence's references choose the {part.experiment.measure}, the other half judge: with "
        "this share mean quality is still the full model's by references that had no part in the choice. "
        f"{luck}: an estimate of what was luck, over {counted(adjusted.sequences)} with two references or more.",
        share=adjusted.fraction,
        interval=adjusted.interval,
    )


def _verified(verified: tuple[int, int] | None) -> Iterator[Fact]:
    if verified is None:
        return
    agree, total = verified
    rest = "" if agree == total else " Do not trust the ones that did not: they are marked in the table."
    yield Fact(
        title="Verified",
        value=f"{agree} of {total}",
        sentence="Reported allocations whose very output was confirmed alone, by the library's own forward of a model "
        f"that has only those layers.{rest}",
    )
