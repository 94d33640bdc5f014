"""The text that small models learn from, as tokens: the documentation that comes with Python, or the user's files.

Shapes: B rows, T tokens.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from oracle.errors import InputError
from oracle.sequences import load_sequences
from oracle.skiplayer.config import SkipConfig
from oracle.skiplayer.tasks import training_text

__all__ = ["Corpus", "Tokens", "load_corpus"]

Tokens = NDArray[np.int64]

SECTIONS, HELD_OUT = 50, 10
"""The text is cut into so many sections, every tenth of which is held out."""


class Tokenizer(Protocol):
    """Text to token ids."""

    size: int

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...


class Bytes:
    """UTF-8 bytes as tokens: nothing to train, to store or to trust."""

    size = 256

    def encode(self, text: str) -> list[int]:
        """The bytes of a text."""
        return list(text.encode())


class FromFile:
    """A tokenizer of the tokenizers library.

    Args:
        path: of its `tokenizer.json`.

    Raises:
        InputError: if it cannot be read.
    """

    def __init__(self, path: str) -> None:
        from tokenizers import Tokenizer as Library

        if not Path(path).is_file():
            raise InputError(f"--tokenizer needs 'bytes' or a tokenizer.json, but there is no file '{path}'")
        try:
            self._library = Library.from_file(path)
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"'{path}' is no tokenizer of the tokenizers library ({error})") from error
        self.size = self._library.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, no special tokens added."""
        return list(self._library.encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Text to train on and text held out, which share no paragraph.

    Attributes:
        train: token ids.
        held_out: token ids.
        cloze: held-out text as it was, for questions about it.
        tokenizer: gives them.
        source: where the text came from, in words.
        digest: of the text and the tokens.
    """

    train: Tokens
    held_out: Tokens
    cloze: str
    tokenizer: Tokenizer
    source: str
    digest: str

    def batch(self, config: SkipConfig, step: int) -> Tokens:
        """The rows of a training step (B T+1): they depend on the seed and the step alone."""
        rng = np.random.default_rng([config.seed, step])
        tasks = round(config.batch * config.task_share)
        starts = rng.integers(0, len(self.train) - config.context, config.batch - tasks)
        rows = [self.train[start : start + config.context + 1] for start in starts]
        for _ in range(tasks):
            ids: list[int] = []
            while len(ids) <= config.context:
                ids += self.tokenizer.encode(training_text(rng, config.context + 1))
            rows.append(np.asarray(ids[: config.context + 1], dtype=np.int64))
        return np.stack(rows)

    def rows(self, config: SkipConfig, *, training: bool = False) -> Tokens:
        """Evenly spaced rows (B T+1) of held-out text, or of training text."""
        tokens, length = (self.train if training else self.held_out), config.context + 1
        starts = np.linspace(0, len(tokens) - length, config.validation).astype(np.int64)
        return np.stack([tokens[start : start + length] for start in starts])


def load_corpus(config: SkipConfig) -> Corpus:
    """Reads, cuts and encodes the text of a study.

    Raises:
        InputError: if a file cannot be read, or there is too little text.
    """
    tokenizer: Tokenizer = Bytes() if config.tokenizer == "bytes" else FromFile(config.tokenizer)
    pieces = _pieces(_texts(config.text))
    sections = ["\n\n".join(part) for part in np.array_split(np.array(pieces, dtype=object), SECTIONS)]
    held_out = "\n\n".join(sections[HELD_OUT - 1 :: HELD_OUT])
    train = "\n\n".join(part for place, part in enumerate(sections) if (place + 1) % HELD_OUT)
    ids = [np.asarray(tokenizer.encode(text), dtype=np.int64) for text in (train, held_out)]
    needed = config.validation * (config.context + 1)
    if len(ids[1]) < needed:
        raise InputError(
            f"text of at least {HELD_OUT * needed} tokens is required, for {config.validation} held-out rows of "
            f"{config.context}, but there are {len(ids[0]) + len(ids[1])}; give more --text or a smaller --validation"
        )
    digest = hashlib.sha256(b"".join([train.encode(), b"\0", held_out.encode(), *(one.tobytes() for one in ids)]))
    return Corpus(
        train=ids[0],
        held_out=ids[1],
        cloze=held_out,
        tokenizer=tokenizer,
        source=", ".join(Path(name).name for name in config.text) or "Python's documentation and the bundled sequences",
        digest=digest.hexdigest(),
    )


def _texts(files: tuple[str, ...]) -> list[str]:
    if files:
        return [_read(name) for name in files]
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise InputError("this Python comes without its documentation (pydoc_data.topics); give --text FILE") from error
    bundled = load_sequences("instruct")
    pairs = "\n\n".join(f"{one.prompt}\n{one.references[0]}" for one in bundled)
    return [pairs, *(topics[name] for name in sorted(topics))]


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InputError(f"--text needs text files in UTF-8, but '{name}' cannot be read ({error})") from error


def _pieces(texts: list[str]) -> list[str]:
    """What stands between blank lines, or lines where that is little; what occurs again is left out."""
    for between in (r"\n\s*\n", r"\n"):
        parts = (part.strip("\n") for text in texts for part in re.split(between, text))
        found = list(dict.fromkeys(part for part in parts if part.strip()))
        if len(found) >= SECTIONS:
            break
    return found
