"""Hidden states on disk: what goes when there is no room, and what is tidied up."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stored_states import KEY, kept, key, put, states

from oracle.errors import InputError
from oracle.store.hidden import HiddenStore


def small(tmp_path: Path, files: float, **changes: object) -> HiddenStore:
    """A store with room for a number of files."""
    size = put(HiddenStore(tmp_path / "measure")).stat().st_size
    return HiddenStore(tmp_path / "small", int(files * size), **changes)


CLOCKS: dict[str, Callable[[int], int]] = {
    "running": lambda now: now,
    "standing": lambda now: 10**18,
    "set back again and again": lambda now: 2 * 10**18 - now,
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_what_was_not_used_for_longest_goes_first(tmp_path, monkeypatch, clock) -> None:
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: CLOCKS[clock](now()))
    store = small(tmp_path, 4.5)
    for number in range(4):
        put(store, number)
    assert store.get(key(0)) is not None
    # Another process, which has seen nothing of this.
    assert HiddenStore(store.folder).get(key(1)) is not None
    put(store, 4)
    assert kept(store) == [0, 1, 3, 4]
    put(store, 5)
    assert kept(store) == [0, 1, 4, 5]
    assert [entry.key for entry in store.entries()] == [key(number) for number in (0, 1, 4, 5)]


def test_the_limit_holds(tmp_path) -> None:
    store = small(tmp_path, 4.5)
    for number in range(20):
        put(store, number)
        assert sum(usage.bytes for usage in store.usage()) <= store.limit
    assert kept(store) == [16, 17, 18, 19]


def test_the_limit_holds_with_others(tmp_path) -> None:
    stores = [small(tmp_path, 20) for _ in range(3)]
    for number in range(90):
        put(stores[number % 3], number)
    # Each looks again after a sixteenth of the limit, here after every second file.
    assert sum(usage.bytes for usage in stores[0].usage()) <= stores[0].limit * (1 + 3 / 8)


def test_what_will_never_fit_displaces_nothing(tmp_path, said) -> None:
    store = small(tmp_path, 2.5, warn=said.append)
    put(store)
    store.put(KEY, np.zeros((3, 2, 4000), dtype=np.float32))
    assert (kept(store), store.get(KEY), said) == ([0], None, [])


def test_damaged_files_go_before_good_ones(tmp_path) -> None:
    store = small(tmp_path, 2.5, warn=lambda message: None)
    put(store, 0)
    path = put(store, 1)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert store.get(key(1)) is None
    put(store, 2)
    assert kept(store) == [0, 2] and store.set_aside() == []


def test_pruning(store) -> None:
    [size] = {put(store, number).stat().st_size for number in range(5)}
    store.put(KEY, states(), name="other")
    store.put(replace(KEY, model="feedfeed"), states(), name="third")
    assert [(usage.name, usage.shards) for usage in store.usage()] == [("tiny", 6), ("third", 1)]
    assert store.prune(model="third")[0] == 1
    assert store.prune(3 * size, model="0123")[0] == 3
    assert kept(store) == [3, 4]
    with pytest.raises(InputError, match=r"not 'fifth'; stored are those of 'tiny' \(0123456789abcdef-float32\)"):
        store.prune(model="fifth")
    with pytest.raises(InputError, match="needs a model with stored hidden states"):
        store.prune(model="")
    assert store.prune()[0] == 3
    assert store.prune() == (0, 0) and store.usage() == []


def test_the_files_of_others_are_left_alone(tmp_path) -> None:
    name = f"{'a' * 40}.safetensors"
    foreign = ["model.safetensors", f"m/{name}", f"m/aa/{name[1:]}", "m/aa/model.safetensors", f"m/aa/b/{name}"]
    foreign += [f"aa/{name}", f"m/aaa/{name}", "m/aa/.model.tmp"]
    for path in foreign:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"mine")
    store = HiddenStore(tmp_path)
    put(store)
    assert store.verify() == 1 and store.damaged == []
    assert store.prune()[0] == 1
    assert all((tmp_path / path).read_bytes() == b"mine" for path in foreign)


def test_what_was_never_finished_is_tidied_up(store) -> None:
    path = put(store)
    scratch = [path.with_name(f".{path.name}.{name}.12.tmp") for name in ("old", "new")]
    for each in scratch:
        each.write_bytes(b"half")
    os.utime(scratch[0], (0, 0))
    store.prune()
    assert [each.exists() for each in scratch] == [False, True]
