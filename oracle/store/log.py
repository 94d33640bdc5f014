"""The log of a run: one JSON object per line."""

import json
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
        with suppress(OSError), self._path.open("a", encoding="ascii") as file:
            file.write(line + "\n")
