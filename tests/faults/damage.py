"""Files that do not hold what was written: they are noticed, and computed again or refused."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import numpy as np

from faults.ground import Fault, Ground, Tries
from oracle.errors import InputError
from oracle.store import Run
from oracle.store.files import read_table
from oracle.store.hidden import HiddenStore, Key

__all__ = ["FAULTS"]

Harm = Callable[[bytes, Random], bytes]
"""Makes other bytes of a file's."""

RESUMED = 20
"""One in this number of damaged parts is tested with `--resume` to the end; the others are read."""


def flipped(data: bytes, random: Random, start: int, stop: int) -> bytes:
    """One byte of a region is another one."""
    place = random.randrange(start, stop)
    return data[:place] + bytes([data[place] ^ random.randrange(1, 256)]) + data[place + 1 :]


def truncated(data: bytes, random: Random) -> bytes:
    """The file ends too early, or too late."""
    if random.random() < 0.2:
        return data + random.randbytes(random.randrange(1, 64))
    return data[: random.randrange(1, len(data))]


def emptied(data: bytes, random: Random) -> bytes:
    """Nothing, or as many zeros: what a power cut leaves of a file that was not forced to disk."""
    return random.choice([b"", bytes(len(data)), data[: len(data) // 2] + bytes(len(data) - len(data) // 2)])


def header_of_shard(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def footer_of_parquet(data: bytes) -> int:
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


SHARD: dict[str, Harm] = {
    "header": lambda data, random: flipped(data, random, 0, header_of_shard(data)),
    "data": lambda data, random: flipped(data, random, header_of_shard(data), len(data)),
    "truncated": truncated,
    "empty": emptied,
}

PART: dict[str, Harm] = {
    "header": lambda data, random: flipped(data, random, 0, 4),
    "data": lambda data, random: flipped(data, random, 4, footer_of_parquet(data)),
    "footer": lambda data, random: flipped(data, random, footer_of_parquet(data), len(data)),
    "truncated": truncated,
    "empty": emptied,
}


def shard(ground: Ground, times: int, harm: Harm) -> Tries:
    """Damages hidden states: they are missed and set aside, and can be kept again."""
    store = HiddenStore(ground.place(), warn=lambda message: None)
    shared = {"model": "f" * 64, "dtype": "float32", "unit": "layer", "scope": "decode", "code": "1"}
    key = Key(prompt=(1, 2), generated=(3,), allocation=(0, 1), **shared)  # type: ignore[arg-type]
    states = np.random.default_rng(0).normal(size=(3, 4, 8)).astype(np.float32)
    for _ in range(times):
        store.put(key, states)
        path = store.folder / key.path
        path.write_bytes(harm(path.read_bytes(), ground.random))
        if (found := store.get(key)) is not None:
            yield f"damaged states were read, {'equal' if np.array_equal(found, states) else 'wrong'} ones"
        elif path.exists():
            yield "the damaged file stayed in its place"
        else:
            yield None


def searched(ground: Ground, times: int) -> Tries:
    """Damages the hidden states that a search will read: it finds what it would have found."""
    whole, _ = ground.whole()
    for number in range(times):
        cache, out = ground.place(), ground.place() / "run"
        first = ground.start([*ground.search(ground.place() / "run"), "--cache", str(cache)])
        first.wait()
        for path in cache.rglob("*.safetensors"):
            path.write_bytes(list(SHARD.values())[number % len(SHARD)](path.read_bytes(), ground.random))
        process = ground.start([*ground.search(out), "--cache", str(cache)])
        code = process.wait()
        if code != 0 or not Run.open(out).summary()["hidden_states"]["damaged"]:
            yield f"exit code {code}: {process.output[-500:]}"
        else:
            yield ground.compared(out, whole)


def part(ground: Ground, times: int, harm: Harm, name: str) -> Tries:
    """Damages a part of a run: reading refuses it, resuming computes it again."""
    whole, _ = ground.whole()
    for number in range(times):
        out = ground.place() / "run"
        shutil.copytree(whole.folder, out)
        path = ground.random.choice(sorted((out / name).iterdir()))
        path.write_bytes(harm(path.read_bytes(), ground.random))
        try:
            Run.open(out).evaluations()
        except InputError:
            yield ground.resumed(out) if number % RESUMED == RESUMED - 1 else None
        else:
            yield f"{path.name} was read"


def table(ground: Ground, times: int, harm: Harm) -> Tries:
    """Damages a small table: it is refused, or read as it was, where the damage is to nothing that is read."""
    whole, _ = ground.whole()
    tables = sorted(whole.folder.glob("*.parquet"))
    for number in range(times):
        original = tables[number % len(tables)]
        path = Path(ground.place() / original.name)
        path.write_bytes(harm(original.read_bytes(), ground.random))
        try:
            same = read_table(path).to_pylist() == read_table(original).to_pylist()
        except InputError:
            same = True
        yield None if same else f"other values were read from {original.name}"


FAULTS = [
    *(
        Fault(name=f"hidden states damaged: {what}", tries=partial(shard, harm=harm), times=400, quick=30)
        for what, harm in SHARD.items()
    ),
    Fault(name="hidden states damaged under a search", tries=searched, times=4, quick=0),
    *(
        Fault(name=f"part of {name} damaged: {what}", tries=partial(part, harm=harm, name=name), times=40, quick=2)
        for name in ("evaluations", "certificates")
        for what, harm in PART.items()
    ),
    *(
        Fault(name=f"table of results damaged: {what}", tries=partial(table, harm=harm), times=800, quick=20)
        for what, harm in PART.items()
    ),
]
