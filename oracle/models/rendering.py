"""Prompts and conversations as the text that a model reads."""

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from oracle.errors import InputError
from oracle.types import Asked

__all__ = ["render"]


def render(tokenizer: PreTrainedTokenizerBase, asked: Asked, *, chat_template: bool) -> tuple[str, bool]:
    """The text that is tokenised, and whether the tokenizer adds its special tokens to it.

    Through the tokenizer's chat template if it has one and it is wanted; its text has the special tokens already.

    Raises:
        InputError: if a conversation cannot be rendered, for want of a chat template or by the template's own rules.
    """
    if not (chat_template and tokenizer.chat_template):
        if not isinstance(asked, str):
            why = (
                "the tokenizer has none: use a chat model"
                if chat_template
                else "--no-chat-template leaves it out: omit that"
            )
            raise InputError(
                f"a conversation of {len(asked)} turns needs a chat template, but {why}, or give one text per row as "
                "the prompt (--prompt-column, --template)"
            )
        return asked, True
    turns = [("user", asked)] if isinstance(asked, str) else [(turn.role, turn.content) for turn in asked]
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)), False
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        roles = ", ".join(role for role, _ in turns)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"the chat template cannot render turns of the roles {roles}: {reason}: change the turns, or use "
            "--no-chat-template for plain prompts"
        ) from error
