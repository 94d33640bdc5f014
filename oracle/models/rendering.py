"""Prompts as the model reads them: chat template, system turn and template arguments, then token ids.

What a template writes may depend on the day (`strftime_now`), so a run renders its prompts once and stores the result.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

from jinja2 import TemplateError, meta
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import PreTrainedTokenizerBase

from oracle.errors import InputError, reason_of
from oracle.types import Asked, Message, Rendered
from oracle.utils.arguments import parse_arguments
from oracle.utils.text import nearest_hint

__all__ = ["PromptFormat", "PromptOptions", "encode_text", "render", "uses_template"]

UNFORMATTED = "--no-chat-template passes prompts unformatted"

MANY = 6
"""Number of names listed in a message."""

_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
"""Tags that the transformers library adds to jinja."""

_GIVEN = frozenset({"messages", "tools", "documents", "add_generation_prompt"})
"""What templates get without arguments, besides the tokenizer's special tokens."""

_ENVIRONMENT = ImmutableSandboxedEnvironment(extensions=[loopcontrols])
_ENVIRONMENT.globals |= dict.fromkeys(("raise_exception", "strftime_now"))


class PromptOptions(Protocol):
    """The settings of `oracle.config.SearchConfig` that decide how prompts are rendered."""

    @property
    def chat_template(self) -> bool | str:
        """Whether to apply the tokenizer's chat template; or the name of one of its templates, or a jinja file."""

    @property
    def system(self) -> str | None:
        """Text of the system turn, for prompts without one."""

    @property
    def template_args(self) -> tuple[str, ...]:
        """Arguments of the template, each `NAME=VALUE`."""


def render(tokenizer: PreTrainedTokenizerBase, asked: Asked, options: PromptOptions) -> Rendered:
    """The text and the token ids of one prompt or conversation; see `PromptFormat`."""
    return PromptFormat.of(tokenizer, options).render(asked)


def uses_template(tokenizer: PreTrainedTokenizerBase, options: PromptOptions) -> bool:
    """Whether prompts go through a chat template."""
    return isinstance(options.chat_template, str) or (options.chat_template and bool(tokenizer.chat_template))


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, templated: bool) -> tuple[int, ...]:
    """Token ids of a rendered text; special tokens are added unless a template or the text itself has them.

    Raises:
        InputError: if the tokenizer fails.
    """
    start = tokenizer.bos_token
    special = not templated and not (start and text.startswith(start))
    try:
        ids = tokenizer(text, add_special_tokens=special)["input_ids"]
    except Exception as error:  # a tokenizer may be code shipped with a model
        raise InputError(
            f"the tokenizer cannot encode a prompt ({reason_of(error)}); change or remove the prompt, or choose a "
            "model whose tokenizer works"
        ) from error
    return tuple(int(token) for token in ids)


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """How prompts become token ids, resolved once, so that a template file may change meanwhile.

    Attributes:
        tokenizer: the model's tokenizer.
        template: text of the chat template; None to pass prompts unformatted.
        source: the template in words, for messages.
        system: text of the system turn; None for none.
        arguments: arguments of the template.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str | None
    source: str
    system: str | None
    arguments: Mapping[str, Any]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, options: PromptOptions) -> Self:
        """Finds the template and checks that it uses what it is given.

        Raises:
            InputError: if there is no such template, it cannot be compiled, or options need one and there is none.
        """
        template, source = _find(tokenizer, options.chat_template)
        found = cls(
            tokenizer=tokenizer,
            template=template,
            source=source,
            system=options.system,
            arguments=parse_arguments(options.template_args),
        )
        if template is None:
            for option, given in (("--system", options.system is not None), ("--template-arg", options.template_args)):
                if given:
                    raise InputError(
                        f"{option} needs a chat template, but {source}; give one with --chat-template FILE, or omit it"
                    )
        elif "messages" not in found._reads:
            raise InputError(
                f"{source} does not read 'messages', so it would write the same text for every prompt; give another "
                f"with --chat-template NAME|FILE, or {UNFORMATTED}"
            )
        return found

    def render(self, asked: Asked) -> Rendered:
        """The text and the token ids of one prompt.

        A text that begins with the tokenizer's BOS gets no further special tokens, nor does what a template wrote.

        Args:
            asked: the user's text, or a conversation. A system turn of its own takes precedence over `system`; if the
                last turn is the assistant's, the model continues it.

        Raises:
            InputError: if the template fails or ignores the system turn, or the result has no tokens.
        """
        text = self._plain(asked) if self.template is None else self._templated(asked)
        ids = encode_text(self.tokenizer, text, self.template is not None)
        if not ids:
            raise InputError("a prompt of at least one token is required, but this one is empty; remove it")
        return Rendered(text=text, ids=ids)

    def notes(self, prompts: Iterable[Asked]) -> list[str]:
        """What the user should know of these prompts: arguments that the template does not read, system turns kept."""
        if self.template is None:
            return []
        found = []
        if unread := [name for name in self.arguments if name not in self._reads]:
            known = sorted(self._reads - _GIVEN - set(self.tokenizer.special_tokens_map))
            listed = ", ".join(known[:MANY]) + (", ..." if len(known) > MANY else "")
            hints = "".join(dict.fromkeys(nearest_hint(name, known) for name in unread))
            found.append(
                f"--template-arg {', '.join(unread)} changes nothing, because {self.source} does not read it; it reads "
                f"{listed or 'no arguments'}{hints}"
            )
        if self.system is not None:
            asked = list(prompts)
            if own := sum(_has_system(one) for one in asked):
                found.append(f"--system is not used for {own} of {len(asked)} prompts, which have a system turn")
        return found

    def describe(self) -> dict[str, Any]:
        """Template and arguments for a manifest: where the template comes from, its digest, the parsed arguments."""
        digest = None if self.template is None else hashlib.sha256(self.template.encode()).hexdigest()[:16]
        return {"template": self.source, "template_digest": digest, "arguments": dict(self.arguments)}

    @cached_property
    def _reads(self) -> frozenset[str]:
        """Names that the template reads from outside."""
        assert self.template is not None
        try:
            syntax = _ENVIRONMENT.parse(_GENERATION.sub("", self.template))
            return frozenset(meta.find_undeclared_variables(syntax))
        except TemplateError as error:
            raise InputError(
                f"{self.source} is no valid jinja template ({reason_of(error)}); correct it, give another with "
                f"--chat-template NAME|FILE, or {UNFORMATTED}"
            ) from error

    def _plain(self, asked: Asked) -> str:
        if isinstance(asked, str):
            return asked
        if len(asked) == 1 and asked[0].role == "user":
            return asked[0].content
        raise InputError(
            f"a conversation of {len(asked)} turns needs a chat template, but {self.source}; give one with "
            "--chat-template FILE, choose a chat model, or build one text per row with --template"
        )

    def _templated(self, asked: Asked) -> str:
        turns = (Message(role="user", content=asked),) if isinstance(asked, str) else asked
        if self.system is None or _has_system(turns):
            return self._apply(turns)
        text = self._apply((Message(role="system", content=self.system), *turns))
        if self._ignores_system:
            raise InputError(
                f"{self.source} ignores the system turn, so --system would change nothing; omit it, put its text into "
                "the prompt with --template, or give another template with --chat-template NAME|FILE"
            )
        return text

    @cached_property
    def _ignores_system(self) -> bool:
        """Whether two system turns give the same text."""
        user = Message(role="user", content="x")
        texts = {self._apply((Message(role="system", content=one), user)) for one in ("first", "second")}
        return len(texts) == 1

    def _apply(self, turns: tuple[Message, ...]) -> str:
        begun = bool(turns) and turns[-1].role == "assistant"
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [{"role": turn.role, "content": turn.content} for turn in turns],
                    chat_template=self.template,
                    add_generation_prompt=not begun,
                    continue_final_message=begun,
                    tokenize=False,
                    **self.arguments,
                )
            )
        except Exception as error:  # a template is code shipped with a model, and can raise anything
            roles = ", ".join(turn.role for turn in turns)
            remedy = (
                "if it demands a system turn, give one with --system TEXT"
                if all(turn.role != "system" for turn in turns)
                else "if it has no system turn, omit --system"
                if self.system is not None
                else "change the turns"
            )
            raise InputError(
                f"{self.source} fails on turns of the roles {roles} ({reason_of(error)}); {remedy}; arguments are "
                f"given with --template-arg NAME=VALUE, another template with --chat-template NAME|FILE; {UNFORMATTED}"
            ) from error


def _has_system(asked: Asked) -> bool:
    return not isinstance(asked, str) and any(turn.role == "system" for turn in asked)


def _find(tokenizer: PreTrainedTokenizerBase, wanted: bool | str) -> tuple[str | None, str]:
    """Text of the chat template, and where it comes from in words; no text to pass prompts unformatted."""
    own = tokenizer.chat_template
    named: dict[str, str] = own if isinstance(own, dict) else {"default": own} if own else {}
    if wanted is False:
        return None, "--no-chat-template is given"
    if wanted is True:
        if not named:
            return None, "the tokenizer has none"
        if "default" not in named:
            names = ", ".join(sorted(named))
            raise InputError(
                f"the tokenizer has the chat templates {names} and no default; choose one with --chat-template NAME; "
                f"{UNFORMATTED}"
            )
        return named["default"], "the tokenizer's chat template"
    if wanted in named:
        return named[wanted], f"the tokenizer's chat template '{wanted}'"
    try:
        text = Path(wanted).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise InputError(
            f"--chat-template needs one of the tokenizer's templates ({', '.join(sorted(named)) or 'it has none'}) or "
            f"a readable jinja file, not '{wanted}' ({reason}){nearest_hint(wanted, named)}"
        ) from error
    return text, f"the chat template in '{wanted}'"
