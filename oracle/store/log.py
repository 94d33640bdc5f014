"""The log of a run: one JSON object per line."""

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["Log"]


class Log:
    """Appends events to a file, each line atomically as far as the operating system supports it for short lines.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def info(self, event: str, **values: Any) -> None:
        """Appends an event of level `info`."""
        self._write("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        """Appends an event of level `warning`."""
        self._write("warning", event, values)

    def _write(self, level: str, event: str, values: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "level": level, "event": event, **values}, ensure_ascii=True)
        # A log that cannot be written must not stop the search.
        with suppress(OSError), open(self._path, "a", encoding="ascii", opener=_unlinked) as file:
            file.write(line + "\n")


def _unlinked(path: str, flags: int) -> int:
    """Opens a file, but not through a link: one in a run may lead anywhere."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)
