"""Commands other than a search: killed, on a full disk, on runs with links, and on runs that were edited by hand."""

import contextlib
import io
import json
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import pandas as pd
from harness_tasks import write_tasks

from faults.disks import limit_files
from faults.ground import Fault, Ground, Tries, one_line
from oracle.cli import main
from oracle.store import Run
from oracle.store.atomic import is_scratch
from oracle.store.index import INDEX, UNLISTED

__all__ = ["FAULTS"]

WRITING: dict[str, Callable[[Path, Path], list[str]]] = {
    "report": lambda run, out: ["report", str(run)],
    "figures": lambda run, out: ["figures", str(run)],
    "measure": lambda run, out: ["measure", str(run), "--only", "features", "--again"],
    "compare": lambda run, out: ["compare", str(run), "--controllers", "unified", "--no-timing"],
    "static": lambda run, out: ["static", str(run), "--methods", "unified", "--no-timing"],
    "draft": lambda run, out: ["draft", str(run), "--methods", "unified", "--evaluations", "2", "--no-timing"],
    "eval": lambda run, out: [
        *("eval", str(run), "--tasks", "arc_like", "--include-path", str(tasks_beside(run)), "--limit", "2")
    ],
    "check --renew": lambda run, out: ["check", str(run), "--renew"],
    "export checkpoint": lambda run, out: [
        *("export", str(run), "--format", "checkpoint", "--allocation", "0", "--out", str(out))
    ],
    "export layer-map": lambda run, out: [
        *("export", str(run), "--format", "layer-map", "--allocation", "0", "--out", str(out))
    ],
    "export hf": lambda run, out: ["export", str(run), "--format", "hf", "--out", str(out)],
    "profile": lambda run, out: ["profile", "--model", model_of(run), "--out", str(out.with_suffix(".json"))],
    "export jsonl": lambda run, out: ["export", str(run), "--format", "jsonl", "--out", str(out)],
}


def tasks_beside(run: Path) -> Path:
    """Task files of lm-evaluation-harness, next to a run."""
    return write_tasks(run.parent / "tasks")


def model_of(run: Path) -> str:
    """The model of a run."""
    return str(Run.open(run).manifest["config"]["model"])


QUIET = ("report", "figures", "measure", "compare", "static", "draft", "eval", "check", "profile")
"""Commands with `--quiet`."""


def run_of(ground: Ground) -> Path:
    """A copy of a whole run, with its report and figures."""
    whole, _ = ground.whole(unit="layer")
    return Path(shutil.copytree(whole.folder, ground.place() / "run"))


def told(words: list[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of a command in this process."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main([*words, *["--quiet"] * (words[0] in QUIET)])
    return code, out.getvalue(), errors.getvalue()


def contents(*folders: Path) -> dict[Path, bytes]:
    """Every file but those that change without being written anew."""
    return {
        path: path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.name not in UNLISTED
    }


def wrong(path: Path, data: bytes) -> bool:
    """Whether a file is empty or ends too early."""
    ends = {".html": b"</html>", ".png": b"IEND\xaeB`\x82", ".pdf": b"%%EOF", ".parquet": b"PAR1"}
    if path.suffix == ".json":
        try:
            json.loads(data)
        except ValueError:
            return True
    return not data or (path.suffix in ends and not data.rstrip().endswith(ends[path.suffix]))


def interrupted(ground: Ground, times: int, breaking: Callable[[Random], Callable[[], None]] | None) -> Tries:
    """Breaks commands off anywhere: every file is whole, and the command works when it is given again."""
    names = list(WRITING)
    seconds: dict[str, float] = {}
    for number in range(times):
        name = names[number % len(names)]
        run, out = run_of(ground), ground.place() / "export"
        words = WRITING[name](run, out)
        extra = ["--quiet"] * (words[0] in QUIET)
        if number % 2 and not name.startswith(("export", "profile")):
            told(words)  # there is an old version to lose
        before = contents(run)
        process = ground.start(words, breaking(ground.random) if breaking else None, quiet=bool(extra))
        if breaking is None:
            time.sleep(ground.random.uniform(0, seconds.get(name, 3.0)))
            process.kill()
        elif (code := process.wait()) and (lost := one_line(process, code)):
            yield f"{name}: {lost}"
            continue
        after = {path: data for path, data in contents(run, out.parent).items() if not is_scratch(path)}
        after = {path: data for path, data in after.items() if not any(is_scratch(each) for each in path.parents)}
        if broken := [path.name for path, data in after.items() if path not in before and wrong(path, data)]:
            yield f"{name}: {broken[0]} is not whole"
            continue
        if out.exists() and not (out / "README.md").exists():
            yield f"{name}: half an export"
            continue
        if lost := [path.name for path in before if path not in after or wrong(path, after[path])]:
            yield f"{name}: {lost[0]} was lost"
            continue
        shutil.rmtree(out, ignore_errors=True)
        out.with_suffix(".json").unlink(missing_ok=True)
        began = time.monotonic()
        code, _, error = told(words)
        seconds[name] = time.monotonic() - began + 1.0
        left = [path for folder in (run, out.parent) for path in folder.rglob("*") if is_scratch(path)]
        checked = told(["check", str(run)])
        if code or left:
            yield f"{name}: again: exit code {code}, {len(left)} unfinished files stay: {error[-300:]}"
        else:
            yield f"{name}: {checked[1][-300:]}" if checked[0] else None


def full(random: Random) -> Callable[[], None]:
    """No file may be larger than so many bytes."""
    return partial(limit_files, random.randrange(500, 60_000))


def links(ground: Ground, times: int) -> Tries:
    """Links in a run lead elsewhere: nothing is written there."""
    places = {
        "report": ["report.html"],
        "figures": ["figures", "figures/oracle_quality.png"],
        "measure": ["measures", "measures/features.parquet"],
        "compare": ["controllers", "controllers/comparison.parquet"],
        "resume": ["lock", "log.jsonl", "evaluations", "sequences.parquet"],
        "check": ["lock", INDEX],
    }
    tries = [(command, place) for command, found in places.items() for place in found]
    for number in range(times):
        command, place = tries[number % len(tries)]
        run, away = run_of(ground), ground.place() / "away"
        target = run / place
        target.parent.mkdir(exist_ok=True)
        if target.is_dir():
            shutil.move(target, away)
        else:
            away.mkdir()
            if target.exists():
                shutil.move(target, away / "file")
            else:
                (away / "file").write_bytes(b"theirs")
        target.symlink_to(away if (away / "file").exists() is False or "." not in target.name else away / "file")
        before = contents(away)
        if command == "resume":
            (run / "summary.json").unlink()
            words = ["search", "--resume", str(run), "--no-figures", "--quiet"]
        elif command == "check":
            words = ["check", str(run), "--renew"]
        else:
            words = WRITING[command](run, run)
        try:
            code, _, error = told(words)
        except BaseException as stopped:
            yield f"{command}, {place}: {type(stopped).__name__}: {stopped}"
            continue
        if contents(away) != before:
            yield f"{command}, {place}: something was written through the link"
        else:
            yield None if code in (0, 1, 2) and "Traceback" not in error else f"{command}, {place}: {error[-300:]}"


def edited(ground: Ground, times: int) -> Tries:
    """One byte of any file of a run is another one, a file goes or comes: it is noticed."""
    whole, _ = ground.whole(unit="layer")
    names = [path.relative_to(whole.folder) for path in sorted(whole.folder.rglob("*")) if path.is_file()]
    names = [name for name in names if name.name not in UNLISTED - {INDEX}]
    for number in range(times):
        run, name = run_of(ground), names[number % len(names)]
        path, what = run / name, ground.random.choice(["byte", "gone", "new"])
        if what == "gone":
            path.unlink()
        elif what == "new":
            path = path.with_name(f"part-00077-{path.name}.parquet")
            shutil.copy(run / name, path)
        else:
            data = bytearray(path.read_bytes())
            place = ground.random.randrange(len(data))
            data[place] ^= ground.random.randrange(1, 256)
            path.write_bytes(data)
        code, out, error = told(["check", str(run)])
        yield None if code == 1 and not error else f"{what} {path.name}: exit code {code}: {out[-200:]}{error[-200:]}"


BOMBS = (
    "SELECT * FROM range(600000000000)",
    "SELECT list(range) FROM range(600000000)",
    "SELECT length(repeat('x', 2000000000) || repeat('y', 2000000000))",
    "SELECT count(*) FROM range(3000000) a, range(3000000) b",
    "WITH RECURSIVE x AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM x) SELECT count(*) FROM x",
)


def bombs(ground: Ground, times: int) -> Tries:
    """Queries that ask for more time or memory than there is: refused in time, in one line."""
    whole, _ = ground.whole(unit="layer")
    for number in range(times):
        words = ["query", str(whole.folder), "--seconds", "3", "--memory", "200", "--sql", BOMBS[number % len(BOMBS)]]
        began = time.monotonic()
        code, out, error = told(words)
        late = time.monotonic() - began > 30
        shown = code == 0 and "Only the first" in out
        fine = not late and (shown or (code == 2 and error.count("\n") == 1))
        yield None if fine else f"exit code {code} after {time.monotonic() - began:.0f} s: {error[-300:]}"


def formulas(ground: Ground, times: int) -> Tries:
    """Sequences named like formulas, with escape characters: no CSV holds them as such."""
    for number in range(times):
        place = ground.place()
        start = "=+-@"[number % 4]
        rows = [
            {"id": f"{start}{n}x()\x1b[2J", "task": f"{start}cmd|x{n}", "prompt": "a", "references": ["b"]}
            for n in "ab"
        ]
        (place / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        process = ground.start(ground.search(place / "run", data=place / "data.jsonl", evaluations=4))
        if code := process.wait():
            yield f"exit code {code}: {process.output[-300:]}"
            continue
        run = Run.open(place / "run").folder
        texts = [told(["query", str(run), "--csv"])[1], told(["query", str(run), "--by-task", "--csv"])[1]]
        texts.append(told(["query", str(run), "--csv", "--sql", "SELECT * FROM sequences"])[1])
        told(["figures", str(run)])
        texts += [path.read_text() for path in run.rglob("*.csv")]
        cells = [cell.strip('"') for text in texts for line in text.splitlines() for cell in line.split(",")]
        bad = [cell for cell in cells if (cell.startswith(start) and "x" in cell) or "\x1b" in cell]
        yield f"a cell of CSV is {bad[0]!r}" if bad else None


STUDY = [
    *("--arms", "skiplayer", "dense", "--layers", "2", "--width", "16", "--heads", "2", "--feed-forward", "16"),
    *("--steps", "6", "--batch", "2", "--context", "32", "--validation", "2", "--questions", "2"),
]
"""Settings of a training study of seconds."""


def studies(ground: Ground, times: int) -> Tries:
    """Kills a training study anywhere, and its resumption every other time: resumed, its numbers are the same."""
    whole = ground.place() / "study"
    words, began = ["skiplayer", *STUDY], time.monotonic()
    if code := ground.start([*words, "--out", str(whole)]).wait():
        raise RuntimeError(f"the study fails without any fault: exit code {code}")
    seconds = time.monotonic() - began
    for number in range(times):
        out = ground.place() / "study"
        for each in ([*words, "--out", str(out)], ["skiplayer", "--resume", str(out)])[: 1 + number % 2]:
            process = ground.start(each)
            time.sleep(ground.random.uniform(0, seconds))
            process.kill()
        again = ["--resume", str(out)] if (out / "manifest.json").exists() else [*STUDY, "--out", str(out)]
        process = ground.start(["skiplayer", *again])
        if code := process.wait():
            yield f"again: exit code {code}: {process.output[-300:]}"
        elif left := [path.name for path in out.rglob("*") if is_scratch(path)]:
            yield f"{left[0]} stays, unfinished"
        elif broken := [path.name for path in out.rglob("*") if path.is_file() and wrong(path, path.read_bytes())]:
            yield f"{broken[0]} is not whole"
        else:
            yield None if measured(out) == measured(whole) else "the numbers differ"


def measured(study: Path) -> tuple[str, str]:
    """The numbers of a training study, but for times."""
    arms = pd.read_parquet(study / "arms.parquet")
    arms = arms.drop(columns=[name for name in arms if "seconds" in name or "per_second" in name])
    losses = pd.read_parquet(study / "training.parquet")["loss"]
    return arms.to_json(double_precision=6), losses.to_json(double_precision=6)


FAULTS = [
    Fault(
        name="SIGKILL of report, figures, measure, static, export, ...",
        tries=partial(interrupted, breaking=None),
        times=60,
        quick=2,
    ),
    Fault(name="disk full under the same (RLIMIT_FSIZE)", tries=partial(interrupted, breaking=full), times=24, quick=2),
    Fault(name="SIGKILL of a training study", tries=studies, times=10, quick=0),
    Fault(name="links in a run", tries=links, times=13, quick=2),
    Fault(name="hand edits of a run", tries=edited, times=80, quick=4),
    Fault(name="SQL bombs", tries=bombs, times=5, quick=0),
    Fault(name="formulas and escapes in CSV", tries=formulas, times=4, quick=0),
]
