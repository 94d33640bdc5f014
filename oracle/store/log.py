"""The log beside a run: a JSON object a line."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["Log"]


class Log:
    """Appends events to a file, each whole or not at all as far as the system writes short lines so.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def info(self, event: str, **values: Any) -> None:
        """Notes what happened."""
        self._write("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        """Notes what somebody should know about."""
        self._write("warning", event, values)

    def _write(self, level: str, event: str, values: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "level": level, "event": event, **values}, ensure_ascii=True)
        # What the log is about is worth more than the log.
        with suppress(OSError), self._path.open("a", encoding="ascii") as file:
            file.write(line + "\n")
