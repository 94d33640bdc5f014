"""Disks that are full or read-only, models that vanish, and clocks that go back."""

import json
import resource
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from faults.ground import Fault, Ground, Tries, one_line
from oracle.store.hidden import HiddenStore, Key

__all__ = ["FAULTS"]

DAY = 86400

NAMESPACE = ("unshare", "--mount", "--map-root-user")


def can_mount() -> bool:
    """Whether this machine lets a process mount for itself."""
    command = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return bool(shutil.which("unshare")) and not subprocess.run(command, capture_output=True, check=False).returncode


def mounted(ground: Ground, rooms: dict[str, int]) -> list[str | None]:
    """Runs `faults.mounted`."""
    disk = ground.place() / "disk"
    disk.mkdir()
    whole, _ = ground.whole()
    search = ground.search(Path())
    search = [*search[:1], *search[3:], "--quiet"]
    task = {"disk": str(disk), "whole": str(whole.folder), "search": search, "rooms": rooms}
    command = [*NAMESPACE, sys.executable, "-m", "faults.mounted", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else [done.stderr[-1500:]]


def full_disk(ground: Ground, times: int) -> Tries:
    """Searches on file systems of a few KiB, then makes them larger and resumes."""
    if not can_mount():
        return
    whole, _ = ground.whole()
    rooms = {str(ground.place() / "run"): ground.random.randrange(4, 440, 4) for _ in range(times - 1)}
    *lost, pictures = mounted(ground, rooms)
    for out, what in zip(rooms, lost, strict=True):
        yield what or ground.compared(Path(out), whole)
    yield pictures


def read_only(ground: Ground, times: int) -> Tries:
    """Everything that reads or writes, on a file system that is mounted for reading."""
    if can_mount():
        yield from mounted(ground, {})


def limit_files(size: int) -> None:
    """Limits the size of every file of this process, in bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def full_file(ground: Ground, times: int) -> Tries:
    """Searches with a limit on the size of a file, in bytes: longer writes fail in the middle."""
    for _ in range(times):
        out = ground.place() / "run"
        process = ground.start(ground.search(out), partial(limit_files, ground.random.randrange(500, 9000)))
        code = process.wait()
        lost = one_line(process, code) if code else None
        if lost is None and code and (out / "summary.json").exists():
            lost = "the run looks complete"
        yield lost or (ground.resumed(out) if out.exists() else None)


def vanished_model(ground: Ground, times: int) -> Tries:
    """The folder of the model goes while a search runs, and is not there when it is resumed."""
    _, seconds = ground.whole()
    away = ground.model.with_name("away")
    for _ in range(times):
        out = ground.place() / "run"
        process = ground.start(ground.search(out))
        wait_for(out / "manifest.json")
        ground.model.rename(away)
        try:
            time.sleep(ground.random.uniform(0, seconds / 2))
            process.kill()
            process = ground.start(["search", "--no-figures", "--resume", str(out)])
            code = process.wait()
            complete = (out / "summary.json").exists()
            lost = None if complete and code == 0 else one_line(process, code)
        finally:
            away.rename(ground.model)
        yield lost or ground.resumed(out)


def wait_for(path: Path) -> None:
    """Until there is a file."""
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def set_back(seconds: float) -> None:
    """The clock goes back by so much in a moment, and by a day at every tenth look."""
    real, looks = time.time, [0]

    def wrong() -> float:
        looks[0] += 1
        return real() - seconds - DAY * (looks[0] // 10)

    time.time = wrong
    time.time_ns = lambda: int(wrong() * 1e9)


def clock(ground: Ground, times: int) -> Tries:
    """A search is killed, then resumed at an earlier hour."""
    _, seconds = ground.whole()
    for _ in range(times):
        out = ground.place() / "run"
        process = ground.start(ground.search(out), partial(set_back, ground.random.uniform(0, DAY)))
        wait_for(out / "manifest.json")
        time.sleep(ground.random.uniform(0, seconds / 2))
        process.kill()
        yield ground.resumed(out, breaking=partial(set_back, 2 * DAY))


def clock_of_states(ground: Ground, times: int) -> Tries:
    """What was used last stays, even if it was used at an earlier hour than all else."""
    shared = {"model": "f" * 64, "dtype": "float32", "unit": "layer", "scope": "decode", "code": "1"}
    keys = [Key(prompt=(n,), generated=(), allocation=(0,), **shared) for n in range(8)]  # type: ignore[arg-type]
    states = np.zeros((2, 8, 64), dtype=np.float32)
    for _ in range(times):
        store, real = HiddenStore(ground.place()), (time.time, time.time_ns)
        for key in keys:
            store.put(key, states)
        set_back(ground.random.uniform(1, DAY))
        try:
            used = set(ground.random.sample(keys, 4))
            for key in used:
                store.get(key)
            store.prune(store.usage()[0].bytes // 2)
        finally:
            time.time, time.time_ns = real
        left = {key for key in keys if (store.folder / key.path).exists()}
        yield None if left == used else f"{len(left & used)} of 4 that were used last are left"


FAULTS = [
    Fault(name="disk full (tmpfs of some KiB)", tries=full_disk, times=9, quick=0),
    Fault(name="disk full (no file beyond RLIMIT_FSIZE)", tries=full_file, times=10, quick=1),
    Fault(name="folder read-only (tmpfs mounted ro)", tries=read_only, times=6, quick=0),
    Fault(name="model folder vanished", tries=vanished_model, times=3, quick=0),
    Fault(name="clock set back (injected) and killed", tries=clock, times=3, quick=0),
    Fault(name="clock set back (injected), hidden states", tries=clock_of_states, times=50, quick=5),
]
