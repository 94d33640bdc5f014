"""Untrusted text, made fit for a terminal."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """The text on one line: control and format characters, line ends among them, become spaces."""
    return "".join(char if char.isprintable() else " " for char in text)
