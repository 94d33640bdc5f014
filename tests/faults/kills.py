"""SIGKILL at random moments of a search."""

import time

from faults.ground import Fault, Ground, Tries

__all__ = ["FAULTS"]


def killed(ground: Ground, times: int, **settings: object) -> Tries:
    """Kills a search anywhere, and then its resumption too, every other time."""
    _, seconds = ground.whole(**settings)
    for number in range(times):
        out = ground.place() / "run"
        commands = [ground.search(out, **settings), ["search", "--no-figures", "--resume", str(out)]]
        for command in commands[: 1 + number % 2]:
            process = ground.start(command)
            time.sleep(ground.random.uniform(0, seconds))
            process.kill()
        yield ground.resumed(out, **settings) if out.exists() else None


def embedded(ground: Ground, times: int) -> Tries:
    """The same on a real model."""
    settings = {"model": "smollm2-135m-instruct", "data": "instruct", "limit": 3, "evaluations": 12}
    return killed(ground, times, **settings, **{"max-new-tokens": 6})


FAULTS = [
    Fault(name="SIGKILL, tiny model", tries=killed, times=40, quick=2),
    Fault(
        name="SIGKILL, tiny model, same-output criterion",
        tries=lambda ground, times: killed(ground, times, criterion="agreement", evaluations=20),
        times=10,
        quick=0,
    ),
    Fault(name="SIGKILL, embedded model", tries=embedded, times=5, quick=0),
]
