"""Inside a mount namespace of its own: a disk that fills up, and one that cannot be written.

`python -m faults.mounted JSON` prints a JSON list: for each try what was lost, or null. See `faults.disks`.
"""

import json
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from faults import child
from oracle.cli import main

__all__: list[str] = []

Answer = tuple[int, str]
"""An exit code, and what is on standard error."""


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def run(*arguments: object) -> Answer:
    """One command, in this process: another one would load the libraries again."""
    errors = StringIO()
    with redirect_stdout(StringIO()), redirect_stderr(errors):
        code = main([str(argument) for argument in arguments])
    return code, errors.getvalue()


def worked(answer: Answer) -> str | None:
    return None if answer[0] == 0 else f"exit code {answer[0]}: {answer[1][-400:]}"


def refused(answer: Answer) -> str | None:
    code, errors = answer
    lines = [line for line in errors.splitlines() if not line.startswith("oracle: warning: ")]
    fine = code == 2 and len(lines) == 1 and lines[0].startswith("oracle: error: ")
    return None if fine else f"exit code {code}: {errors[-400:]}"


def full(disk: Path, out: Path, search: list[str], room: int) -> str | None:
    """A disk of limited size (KiB) is full before the search ends; once it is larger, the run is resumed."""
    mount("-t", "tmpfs", "-o", f"size={room}k", "tmpfs", disk)
    # Hidden states go to the same disk: they are done without.
    answer = run(*search, "--out", disk / "run", "--cache", disk / "hidden")
    if answer[0] and (lost := refused(answer)):
        return lost
    if answer[0] and (disk / "run" / "summary.json").exists():
        return "the run looks complete"
    begun = (disk / "run" / "manifest.json").exists()
    if begun and answer[0] and (lost := refused(run("search", "--resume", disk / "run", "--quiet", "--no-figures"))):
        return f"resumed on a disk that is still full: {lost}"
    mount("-o", "remount,size=64m", disk)
    shutil.rmtree(disk / ("hidden" if begun else "run"), ignore_errors=True)
    answer = run(
        *(
            ["search", "--resume", disk / "run", "--quiet", "--no-figures"]
            if begun
            else [*search, "--out", disk / "run"]
        )
    )
    shutil.copytree(disk / "run", out)
    return worked(answer)


def no_room_for_figures(disk: Path, whole: Path) -> str | None:
    """A run that is there and a disk that is full."""
    mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", disk)
    shutil.copytree(whole, disk / "run")
    try:
        (disk / "filling").write_bytes(bytes(2**20))
    except OSError:
        return refused(run("figures", disk / "run"))
    return "the disk is not full"


def read_only(disk: Path, whole: Path, search: list[str]) -> list[str | None]:
    """A folder that cannot be written: reading works, writing is refused, and hidden states are done without."""
    mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", disk)
    shutil.copytree(whole, disk / "run")
    shutil.copytree(whole, disk / "half", ignore=shutil.ignore_patterns("summary.json", "part-00003-*"))
    mount("-o", "remount,ro", disk)
    return [
        worked(run("query", disk / "run")),
        worked(run("query", disk / "run", "--sql", "SELECT count(*) FROM evaluations")),
        worked(run(*search, "--out", disk.parent / "beside", "--cache", disk / "hidden")),
        refused(run(*search, "--out", disk / "new")),
        refused(run("search", "--resume", disk / "half", "--quiet", "--no-figures")),
        refused(run("figures", disk / "run")),
    ]


def tries(task: dict) -> list[str | None]:
    """What `faults.disks` asks for."""
    disk, whole, search = Path(task["disk"]), Path(task["whole"]), task["search"]
    child.small_steps()
    lost = [full(disk, Path(out), search, room) for out, room in task["rooms"].items()]
    return [*lost, no_room_for_figures(disk, whole)] if lost else read_only(disk, whole, search)


if __name__ == "__main__":
    print(json.dumps(tries(json.loads(sys.argv[1]))))
