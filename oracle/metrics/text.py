"""Scores of a text against its references, all in [0, 1]."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from oracle.errors import InputError
from oracle.metrics.answers import choice_letter, contains, numeric, rouge_score_of, token_f1
from oracle.metrics.registry import METRICS, get_metric
from oracle.metrics.rouge import rouge_l, rouge_n

__all__ = ["agreement", "score_text", "score_texts"]

_FINAL_PUNCTUATION = ".,;:!?…。、，；：！？"  # noqa: RUF001

# Number of reference tuples cached with their n-grams, in sacrebleu's own form.
_CACHED_REFERENCES = 1024


@lru_cache(maxsize=2 * _CACHED_REFERENCES)
def _sacrebleu_metric(name: str, references: tuple[str, ...]) -> BLEU | CHRF:
    columns = [[reference] for reference in references]
    return BLEU(effective_order=True, references=columns) if name == "bleu" else CHRF(references=columns)


def _sacrebleu(text: str, references: tuple[str, ...], *, name: str) -> float:
    # As sacrebleu's sentence_score does, but with the n-grams of the references cached. A perfect score is
    # 100.00000000000004.
    return min(_sacrebleu_metric(name, references).corpus_score([text], None).score / 100, 1.0)


def _best(text: str, references: tuple[str, ...], *, score: Callable[[str, str], float]) -> float:
    return max(score(text, reference) for reference in references)


@lru_cache(maxsize=8192)
def _normalised(text: str) -> str:
    spaced = " ".join(text.casefold().split())
    return spaced.rstrip(_FINAL_PUNCTUATION + " ") or spaced


def exact_prefix(text: str, reference: str) -> bool:
    """Whether some continuation of a text could match a reference exactly."""
    # An unfinished text may end in half a character, or in punctuation that continues or is dropped.
    begun = " ".join(text.casefold().split()).rstrip(_FINAL_PUNCTUATION + " \ufffd")
    return _normalised(reference).startswith(begun)


def _exact_match(text: str, references: tuple[str, ...]) -> float:
    ours = _normalised(text)
    return float(any(ours == _normalised(reference) for reference in references))


_SCORERS: dict[str, Callable[[str, tuple[str, ...]], float]] = {
    "rouge1": partial(_best, score=partial(rouge_n, n=1)),
    "rouge2": partial(_best, score=partial(rouge_n, n=2)),
    "rougeL": partial(_best, score=rouge_l),
    "bleu": partial(_sacrebleu, name="bleu"),
    "chrf": partial(_sacrebleu, name="chrf"),
    "exact_match": _exact_match,
    "numeric": numeric,
    "choice_letter": choice_letter,
    "token_f1": token_f1,
    "contains": contains,
    "rougeL-stemmed": partial(rouge_score_of, kind="rougeL", stemmed=True),
    "rougeLsum": partial(rouge_score_of, kind="rougeLsum", stemmed=False),
}


def score_text(name: str, text: str, references: tuple[str, ...]) -> float:
    """Quality of a text against its references by one text metric.

    `rouge1`, `rouge2`, `rougeL`: F-measure without stemming, best reference, equal to `RougeScorer.score_multi` of
    package rouge-score. `bleu`: sacrebleu's sentence BLEU with effective order and exponential smoothing; n-grams may
    match any reference (Papineni et al. 2002). `chrf`: sacrebleu's sentence chrF2, best reference. `exact_match`: 1.0
    if the text equals a reference after case folding, collapsing white space and dropping final sentence punctuation
    (unless the text has nothing else), else 0.0. Values that depend on the references alone are cached.
    The others are in `oracle.metrics.answers`.

    Args:
        name: a metric of kind `text`.
        text: the decoded output; may be empty.
        references: one or more right answers.

    Returns:
        A value in [0, 1]; BLEU and chrF are divided by 100.

    Raises:
        InputError: if the metric is unknown or not of kind `text`, or there are no references.
    """
    scorer = _SCORERS.get(name)
    if scorer is None:
        kind = get_metric(name).kind
        raise InputError(f"metric {name!r} is computed from {kind}, not from a text: use one of {', '.join(_SCORERS)}")
    if not references:
        raise InputError(f"metric {name!r} needs at least one reference, not none: give references")
    return scorer(text, references)


def score_texts(text: str, references: tuple[str, ...]) -> dict[str, float]:
    """Quality of a text by the metrics of kind `text` that are always computed, in order; see `score_text`."""
    wanted = [name for name, metric in METRICS.items() if metric.kind == "text" and metric.always]
    return {name: score_text(name, text, references) for name in wanted}


def agreement(tokens: Sequence[int], full_tokens: Sequence[int]) -> float:
    """Share of positions, in [0, 1], at which an output has the full model's token.

    Computed over the longer of the two, so that a truncated output does not score 1.0; 1.0 if and only if the two are
    identical (two empty outputs are).
    """
    longer = max(len(tokens), len(full_tokens))
    if longer == 0:
        return 1.0
    return sum(ours == theirs for ours, theirs in zip(tokens, full_tokens, strict=False)) / longer
