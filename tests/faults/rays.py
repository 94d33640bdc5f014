"""Ray workers that are killed, and a Ray head that goes down."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from faults import child
from faults.ground import Fault, Ground, Tries, one_line
from oracle.errors import InputError
from oracle.executors import Event, Item, Note
from oracle.executors.ray_cluster import Cluster, Worker
from oracle.search import Memory

__all__ = ["FAULTS"]

HEAD = "Ray head stopped, started again, --resume"

BULLET = "LAYER_ORACLE_FAULTS_BULLET"


class Small(Worker):
    """A worker with small rounds, as the searches that it is compared with."""

    def __init__(self, *arguments: Any) -> None:
        child.small_steps()
        super().__init__(*arguments)


class Deadly(Small):
    """A worker that is killed after the number of events in a file, which it then deletes."""

    def search(self, items: Seq[Item], memory: Memory) -> Iterator[Event | Note | dict[str, int]]:
        """Dies in the middle of a sequence."""
        bullet = Path(os.environ[BULLET])
        for number, event in enumerate(super().search(items, memory)):
            yield event
            if bullet.exists() and number == int(bullet.read_text()):
                bullet.unlink()
                os.kill(os.getpid(), signal.SIGKILL)


class Poor(Small):
    """A worker whose memory is out after a few events, even for a single row."""

    def search(self, items: Seq[Item], memory: Memory) -> Iterator[Event | Note | dict[str, int]]:
        """Ends with the error that a user sees."""
        for number, event in enumerate(super().search(items, memory)):
            yield event
            if number == 9:
                raise InputError("not enough memory for a single row")


def create_executor(worker: type[Worker], **environment: str) -> None:
    """In the process of a search: sets the class of its workers."""
    os.environ.update(environment)
    Cluster.worker = worker


def worker_killed(ground: Ground, times: int) -> Tries:
    """Kills a worker in the middle of a sequence: another one goes on."""
    whole, _ = ground.whole()
    for _ in range(times):
        place = ground.place()
        (place / "bullet").write_text(str(ground.random.randrange(1, 20)))
        search = [*ground.search(place / "run"), "--executor", "ray", "--workers", "2"]
        process = ground.start(search, partial(create_executor, Deadly, **{BULLET: str(place / "bullet")}))
        if code := process.wait():
            yield f"exit code {code}: {process.output[-1500:]}"
        elif (place / "bullet").exists():
            yield "no worker was killed"
        else:
            yield ground.compared(place / "run", whole)


def worker_refuses(ground: Ground, times: int) -> Tries:
    """A worker cannot go on, and says why: the user reads that, and resumes the run elsewhere."""
    for _ in range(times):
        out = ground.place() / "run"
        process = ground.start(
            [*ground.search(out), "--executor", "ray", "--workers", "1"], partial(create_executor, Poor)
        )
        code = process.wait()
        yield one_line(process, code) or ground.resumed(out)


@contextmanager
def head(port: int, access: dict[str, str]) -> Iterator[None]:
    """A Ray head on this machine; at the end all its processes are killed, and no others."""
    words = ["start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    command = [str(Path(sys.executable).with_name("ray")), *words, "--disable-usage-stats"]
    environment = {**os.environ, **access}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        deadline = time.monotonic() + 120
        while not listening(port) and time.monotonic() < deadline:
            time.sleep(0.2)
        yield
    finally:
        every = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in every:
            one.kill()
        psutil.wait_procs(every, timeout=30)
        process.wait()


def listening(port: int) -> bool:
    """Whether a process listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """An unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def head_stopped(ground: Ground, times: int) -> Tries:
    """The whole cluster goes down in the middle of a search; the run is resumed on another one."""
    # A token of its own, wherever Ray wants one.
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    breaking = partial(create_executor, Small, **access)
    for _ in range(times):
        out, port = ground.place() / "run", free_port()
        cluster = ["--executor", "ray", "--workers", "2", "--address", f"127.0.0.1:{port}"]
        with head(port, access):
            process = ground.start([*ground.search(out), *cluster], breaking)
            deadline = time.monotonic() + 120
            while not list(out.glob("evaluations/part-*.parquet")) and time.monotonic() < deadline:
                time.sleep(0.01)
        began = time.monotonic()
        code = process.wait()
        ground.notes[HEAD] = f"the search ends {time.monotonic() - began:.0f} s later"
        if code == 0:
            yield None if ground.compared(out, ground.whole()[0]) is None else "exit code 0 of a run that is not whole"
            continue
        with head(port, access):
            lost = ground.resumed(out, *cluster, breaking=breaking)
        yield lost or (f"a traceback: {process.output[-3000:]}" if "Traceback" in process.output else None)


FAULTS = [
    Fault(name="Ray worker killed in a sequence", tries=worker_killed, times=3, quick=0),
    Fault(name="Ray worker without memory for a row", tries=worker_refuses, times=1, quick=0),
    Fault(name=HEAD, tries=head_stopped, times=1, quick=0),
]
