"""Tokenised training text: the documentation shipped with Python, or the user's files."""

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
"""Number of sections that the text is cut into; every tenth is held out."""


class Tokenizer(Protocol):
    """Text to token ids."""

    size: int

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...


class ByteTokenizer:
    """UTF-8 bytes as tokens: no training, no file, no third-party data."""

    size = 256

    def encode(self, text: str) -> list[int]:
        """The bytes of a text."""
        return list(text.encode())


class FileTokenizer:
    """A tokenizer of the tokenizers library.

    Args:
        path: path of its `tokenizer.json`.

    Raises:
        InputError: if the file cannot be read.
    """

    def __init__(self, path: str) -> None:
        from tokenizers import Tokenizer as Library

        if not Path(path).is_file():
            raise InputError(f"--tokenizer needs 'bytes' or a tokenizer.json, but there is no file '{path}'")
        try:
            self._library = Library.from_file(path)
        except Exception as error:  # the library raises nothing narrower
            raise InputError(
                f"--tokenizer needs a file of the tokenizers library, but '{path}' is no tokenizer ({error})"
            ) from error
        self.size = self._library.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return list(self._library.encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Training text and held-out text, which share no paragraph.

    Attributes:
        train: token ids of the training text.
        held_out: token ids of the held-out text.
        cloze: the held-out text, for cloze questions.
        tokenizer: the tokenizer of both.
        source: description of the text's origin.
        digest: SHA-256 of the text and the tokens.
    """

    train: Tokens
    held_out: Tokens
    cloze: str
    tokenizer: Tokenizer
    source: str
    digest: str

    def batch(self, config: SkipConfig, step: int) -> Tokens:
        """Rows of a training step (B T+1), determined by seed and step."""
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
        """Evenly spaced rows of held-out or training text (B T+1)."""
        tokens, length = (self.train if training else self.held_out), config.context + 1
        starts = np.linspace(0, len(tokens) - length, config.validation).astype(np.int64)
        return np.stack([tokens[start : start + length] for start in starts])


def load_corpus(config: SkipConfig) -> Corpus:
    """Reads, splits and encodes the text of a study.

    Raises:
        InputError: if a file cannot be read, or the text is too short.
    """
    tokenizer: Tokenizer = ByteTokenizer() if config.tokenizer == "bytes" else FileTokenizer(config.tokenizer)
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
    """Distinct paragraphs, or distinct lines if there are too few paragraphs."""
    for between in (r"\n\s*\n", r"\n"):
        parts = (part.strip("\n") for text in texts for part in re.split(between, text))
        found = list(dict.fromkeys(part for part in parts if part.strip()))
        if len(found) >= SECTIONS:
            break
    return found
