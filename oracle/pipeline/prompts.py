"""The prompts of a run as the model reads them: rendered once, stored with the sequences, and read back ever after."""

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace
from typing import Any, Self

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models.rendering import PromptFormat, PromptOptions, encode_text, uses_template
from oracle.store import Run
from oracle.store.schema import prompts_hash, sequence_of
from oracle.types import Rendered, Sequence

__all__ = ["FixedPrompts", "check_tokenizer", "fix_prompts", "prompt_ids", "rendered_anew"]

DATED = "the chat template writes the date or has changed; start a new run"


@dataclass(frozen=True, kw_only=True)
class FixedPrompts:
    """The sequences of a search with their prompts rendered.

    Attributes:
        sequences: in order.
        manifest: template, its arguments and a digest of the token ids.
        notes: what the user should know, one line each.
    """

    sequences: Seq[Sequence]
    manifest: Mapping[str, Any]
    notes: Seq[str]


def prompt_ids(sequence: Sequence) -> tuple[int, ...]:
    """Token ids of the prompt of a rendered sequence."""
    assert sequence.rendered is not None, "prompts are rendered when a search is set up"
    return sequence.rendered.ids


def rendered_anew(run: Run) -> str:
    """The line that says that a run stores no prompts; an empty text if it does."""
    if not run.sequences()["prompt_ids"].isna().any():
        return ""
    version = run.manifest.get("schema_version")
    return (
        f"'{run.folder}' (schema version {version}) stores no token ids of its prompts: they are rendered anew, and "
        "differ from those of its search if the chat template writes the date or has changed"
    )


def fix_prompts(engine: Engine, sequences: Seq[Sequence], earlier: Run | None = None, *, same: bool) -> FixedPrompts:
    """Renders the prompts of a search, or takes them over from an earlier run.

    Args:
        engine: model and settings.
        sequences: the sequences.
        earlier: run whose prompts are taken over for sequences with the same id and prompt; None to render all.
        same: whether it is the run to continue, whose prompts are required.

    Raises:
        InputError: if a prompt cannot be rendered or does not fit the model, or the run to continue had others.
    """
    stored = _Stored.read(earlier) if earlier else _Stored()
    tokenizer, options = engine.model.tokenizer, engine.config
    taken = [stored.of(sequence) for sequence in sequences]
    if earlier and earlier.manifest["model"]["fingerprint"] == engine.model.fingerprint:
        check_tokenizer(tokenizer, SearchConfig.from_dict(earlier.manifest["config"]), stored.sequences.values())
    if earlier and same and all(prompt is not None for prompt in taken):
        # The template itself may be gone by now.
        fixed = [replace(one, rendered=prompt) for one, prompt in zip(sequences, taken, strict=True)]
        _check_fit(engine, fixed)
        return FixedPrompts(sequences=fixed, manifest=earlier.manifest.get("prompts") or {}, notes=[])
    prompt_format = PromptFormat.of(tokenizer, options)
    fixed = [_render(one, prompt, prompt_format) for one, prompt in zip(sequences, taken, strict=True)]
    _check_fit(engine, fixed)
    if same:
        stored.check_rendered(fixed)
    notes = [*stored.notes, *prompt_format.notes(sequence.asked for sequence in sequences)]
    return FixedPrompts(
        sequences=fixed, manifest={"hash": prompts_hash(fixed), **prompt_format.describe()}, notes=notes
    )


def check_tokenizer(tokenizer: Any, options: PromptOptions, stored: Iterable[Sequence]) -> None:
    """Checks that a tokenizer gives the stored token ids for the stored texts of a run's prompts.

    Nothing is rendered. References, choices and outputs go through the same tokenizer, so it must be the run's.

    Raises:
        InputError: if it gives others.
    """
    templated = uses_template(tokenizer, options)
    for sequence in stored:
        prompt = sequence.rendered
        if prompt is not None and encode_text(tokenizer, prompt.text, templated) != prompt.ids:
            raise InputError(
                f"the run's tokenizer is required, but the current one gives other token ids for the prompt of "
                f"'{sequence.id}'; restore the run's own tokenizer, or start a new run"
            )


def _render(sequence: Sequence, taken: Rendered | None, prompt_format: PromptFormat) -> Sequence:
    try:
        return replace(sequence, rendered=taken or sequence.rendered or prompt_format.render(sequence.asked))
    except InputError as error:
        raise InputError(f"sequence '{sequence.id}': {error}") from error


def _check_fit(engine: Engine, sequences: Seq[Sequence]) -> None:
    for sequence in sequences:
        try:
            engine.encode(sequence)
        except InputError as error:
            raise InputError(f"sequence '{sequence.id}': {error}") from error


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """The prompts of a run.

    Attributes:
        sequences: its sequences, by id; empty if it has none yet.
        lengths: lengths of their prompts in tokens, by id.
        digest: of the prompts, from its manifest; None if it has none.
        notes: what the user should know, one line each.
    """

    sequences: Mapping[str, Sequence] = field(default_factory=dict)
    lengths: Mapping[str, int] = field(default_factory=dict)
    digest: str | None = None
    notes: Seq[str] = ()

    @classmethod
    def read(cls, run: Run) -> Self:
        """Reads the prompts of a run."""
        rows = run.sequences().to_dict("records") if run.has("sequences") else []
        anew = rendered_anew(run) if rows else ""
        return cls(
            sequences={row["sequence"]: sequence_of(row) for row in rows},
            lengths={row["sequence"]: int(row["prompt_tokens"]) for row in rows},
            digest=(run.manifest.get("prompts") or {}).get("hash"),
            notes=[anew] if anew else [],
        )

    def of(self, sequence: Sequence) -> Rendered | None:
        """The prompt of a sequence with the same id and prompt; None if there is none."""
        found = self.sequences.get(sequence.id)
        return found.rendered if found is not None and found.asked == sequence.asked else None

    def check_rendered(self, sequences: Seq[Sequence]) -> None:
        """Checks prompts rendered anew by what the run says of its own: their digest, or else their lengths."""
        if self.digest is not None and prompts_hash(sequences) != self.digest:
            raise InputError(f"the run's prompts are lost and cannot be rendered as they were: {DATED}")
        for sequence in sequences:
            length, found = self.lengths.get(sequence.id), len(prompt_ids(sequence))
            if length not in (None, found):
                raise InputError(
                    f"the run's prompt of '{sequence.id}' has {length} tokens, but {found} if rendered anew: {DATED}"
                )
