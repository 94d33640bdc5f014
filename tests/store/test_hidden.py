"""Hidden states on disk: whole or not there, whoever writes, whatever is damaged, whenever the clock is set."""

import copy
import multiprocessing
import os
import random
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from oracle.errors import InputError
from oracle.store.hidden import HiddenStore, Key
from oracle.store.hidden import folder as folders
from oracle.store.hidden.shard import map_states, read_entry

KEY = Key(
    model="0123456789abcdef",
    dtype="float32",
    unit="layer",
    scope="decode",
    prompt=(1, 2, 3),
    generated=(4, 5),
    allocation=(0, 2),
    code="1",
)


def key(number: int) -> Key:
    return replace(KEY, prompt=(number,))


def states(number: int = 0, dtype: str = "float32") -> np.ndarray:
    """Three states of two tokens that are four wide."""
    return (np.arange(24).reshape(3, 2, 4) + 100 * number).astype(dtype)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, said: list[str]) -> HiddenStore:
    return HiddenStore(tmp_path / "hidden", warn=said.append)


def put(store: HiddenStore, number: int = 0) -> Path:
    store.put(key(number), states(number), name="tiny")
    return store.folder / key(number).path


def kept(store: HiddenStore, count: int = 20) -> list[int]:
    """Which keys there are, without using them."""
    return [number for number in range(count) if (store.folder / key(number).path).exists()]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint16"])
def test_what_was_put_is_got(store, said, dtype) -> None:
    assert store.get(KEY) is None
    store.put(KEY, states(dtype=dtype))
    found = store.get(KEY)
    assert found is not None and found.dtype == dtype
    np.testing.assert_array_equal(found, states(dtype=dtype))
    assert said == []


def test_files_are_safetensors(store) -> None:
    path = put(store)
    with safe_open(path, "np") as file:
        np.testing.assert_array_equal(file.get_tensor("states"), states())
        assert Key.from_text(file.metadata()["key"]) == key(0)
        assert file.metadata()["name"] == "tiny"
    bits = torch.randn(3, 2, 4, dtype=torch.bfloat16)
    store.put(KEY, bits.view(torch.uint16).numpy())
    assert torch.equal(load_file(store.folder / KEY.path)["states"], bits)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "fedcba9876543210"},
        {"dtype": "bfloat16"},
        {"unit": "sublayer"},
        {"scope": "sequence"},
        {"prompt": (1, 2)},
        {"generated": (4,)},
        {"generated": ()},
        {"allocation": (0, 1)},
        {"code": "2"},
    ],
)
def test_every_part_of_the_key_counts(store, change) -> None:
    store.put(KEY, states())
    assert store.get(replace(KEY, **change)) is None
    assert store.get(replace(KEY)) is not None


def test_prompt_and_generated_tokens_do_not_run_together(store) -> None:
    store.put(KEY, states())
    assert store.get(replace(KEY, prompt=(1, 2), generated=(3, 4, 5))) is None


def damages(whole: bytes) -> dict[str, bytes]:
    """Every byte another one, every length too short, and too long."""
    found = {f"byte {i}": whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))}
    found |= {f"{length} bytes": whole[:length] for length in range(len(whole))}
    found |= {f"{len(junk)} more": whole + junk for junk in (b"\0", b"junk", bytes(4096), whole)}
    return found | {f"length {n}": n.to_bytes(8, "little") + whole[8:] for n in (0, 1, 2**26 + 1, 2**63, 2**64 - 1)}


def test_damage_anywhere_is_noticed(store, said) -> None:
    path = put(store)
    whole = path.read_bytes()
    aside = store.folder / "damaged" / path.name
    for name, content in damages(whole).items():
        path.write_bytes(content)
        assert store.get(key(0)) is None, name
        assert not path.exists() and aside.read_bytes() == content, name
        assert str(path) in said[-1] and "are damaged (" in said[-1], name
    assert len(said) == len(store.damaged) == len(damages(whole))
    path.write_bytes(whole)
    assert store.get(key(0)) is not None


def test_what_was_damaged_is_put_again(store, said) -> None:
    path = put(store)
    path.write_bytes(path.read_bytes()[:-1])
    assert store.get(key(0)) is None
    put(store)
    np.testing.assert_array_equal(store.get(key(0)), states())
    assert len(said) == 1 and len(store.set_aside()) == 1


def test_a_file_under_another_name_is_not_believed(store, said) -> None:
    path = put(store, 1)
    target = store.folder / key(2).path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())
    assert store.get(key(2)) is None
    assert "another key" in said[0]
    target.write_bytes(path.read_bytes())
    assert (store.verify(), store.damaged) == (2, [target, target])


def test_warnings_are_warnings_by_default(tmp_path) -> None:
    store = HiddenStore(tmp_path)
    path = put(store)
    path.write_bytes(b"")
    with pytest.warns(UserWarning, match="are damaged .*set aside"):
        store.get(key(0))


def test_one_state_is_one_read_of_its_bytes(store, said) -> None:
    path = put(store)
    whole = path.read_bytes()
    size, start = 2 * 4 * 4, len(whole) - 3 * 2 * 4 * 4
    for number in range(3):
        place = start + number * size
        # Everything else could be wrong: it is not looked at.
        path.write_bytes(
            whole[:start] + b"\xff" * (place - start) + whole[place:][:size].ljust(len(whole) - place, b"?")
        )
        found = store.get(key(0), slice(number, number + 1))
        assert isinstance(found, np.memmap)
        assert (found.offset, found.nbytes) == (place, size)
        np.testing.assert_array_equal(found, states()[number : number + 1])
    assert said == []
    assert store.get(key(0), slice(0, 1)) is None, "this one was wrong"


def test_pieces(store) -> None:
    put(store)
    np.testing.assert_array_equal(store.get(key(0), slice(1, None)), states()[1:])
    np.testing.assert_array_equal(store.get(key(0), slice(-1, None)), states()[-1:])
    for wrong in (slice(3, 4), slice(0, 3, 2), slice(2, 1)):
        with pytest.raises(InputError, match="in one piece"):
            store.get(key(0), wrong)


def test_what_was_got_stays_when_its_file_goes(store) -> None:
    path = put(store)
    found = store.get(key(0))
    store.put(key(0), states(7))
    assert store.prune()[0] == 1 and not path.exists()
    np.testing.assert_array_equal(found, states())


def test_what_is_got_is_the_readers_own(store) -> None:
    put(store)
    found = store.get(key(0))
    found[:] = 0
    np.testing.assert_array_equal(store.get(key(0)), states())


def small(tmp_path: Path, files: float, **changes: object) -> HiddenStore:
    """A store with room for so many files."""
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
    with pytest.raises(InputError, match=r"not 'fifth'; kept are those of 'tiny' \(0123456789abcdef-float32\)"):
        store.prune(model="fifth")
    with pytest.raises(InputError, match="needs one"):
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


def test_verify_finds_what_nobody_read(store, said) -> None:
    paths = [put(store, number) for number in range(4)]
    paths[1].write_bytes(paths[1].read_bytes()[:-1] + b"?")
    paths[2].write_bytes(b"")
    assert store.verify() == 4
    assert sorted(store.damaged) == sorted(paths[1:3])
    assert len(said) == len(store.set_aside()) == 2
    assert HiddenStore(store.folder).verify() == 2


def test_a_good_file_is_not_set_aside_for_a_bad_one(store, said) -> None:
    """Somebody else has noticed the damage and mended it, while this reader was still reading."""
    path = put(store)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    with path.open("rb") as file, pytest.raises(Exception, match="checksum"), store._setting_aside(path, file):
        other = path.with_suffix(".other")
        other.write_bytes(whole)
        other.replace(path)
        map_states(file, read_entry(file), 0, 3)
    assert store.get(key(0)) is not None and store.set_aside() == []


def test_failed_writes_stop_nobody(tmp_path, said) -> None:
    (tmp_path / "file").write_text("")
    store = HiddenStore(tmp_path / "file" / "hidden", warn=said.append)
    for number in range(3):
        put(store, number)
        assert store.get(key(number)) is None
    assert [message.split(" hidden")[0] for message in said] == ["cannot keep", "cannot read"]
    with pytest.raises(InputError, match="is a file; give another --cache"):
        HiddenStore(tmp_path / "file")


def test_a_full_disk_leaves_nothing_behind(store, said, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    put(store, 1)
    monkeypatch.setattr(os, "fsync", full)
    put(store, 2)
    assert "No space left on device" in said[0]
    assert [path.name for path in store.folder.rglob("*") if path.is_file() and path.suffix == ".tmp"] == []
    assert kept(store) == [1]


def test_stores_travel(store) -> None:
    put(store)
    found = copy.deepcopy(HiddenStore(store.folder, 10**6))
    assert (found.limit, found.get(key(0)) is not None) == (10**6, True)


def _work(folder: Path, seed: int) -> None:
    """Reads and writes under a limit at which files go all the time; whatever is read must be right."""
    warnings.simplefilter("error")
    store, choose = HiddenStore(folder, 6000), random.Random(seed)
    for _ in range(60):
        number = choose.randrange(6)
        found = store.get(key(number))
        if found is None:
            store.put(key(number), states(number))
        else:
            np.testing.assert_array_equal(found, states(number))
        if choose.random() < 0.05:
            store.verify()
    assert store.damaged == []


def test_many_processes_read_and_write_at_once(tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_work, args=(tmp_path / "hidden", seed)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 3
    store = HiddenStore(tmp_path / "hidden")
    assert store.verify() > 0 and store.damaged == []
    assert not list(store.folder.rglob("*.tmp"))


def test_readers_never_see_half_a_file(tmp_path, monkeypatch) -> None:
    """While a file is being written, it is not there, or the old one is."""
    store = HiddenStore(tmp_path)
    seen: list[np.ndarray | None] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (seen.append(store.get(key(0))), fsync(descriptor)))
    put(store)
    store.put(key(0), states(5))
    assert seen[0] is None
    np.testing.assert_array_equal(seen[2], states())
    np.testing.assert_array_equal(store.get(key(0)), states(5))


def test_the_clock_of_a_folder_never_goes_back(tmp_path, monkeypatch) -> None:
    times = []
    (tmp_path / "file").touch()
    for now in (50, 10**18, 3, 2, 2 * 10**18, 1):
        monkeypatch.setattr(time, "time_ns", lambda now=now: now)
        folders.mark_used(tmp_path, tmp_path / "file")
        times.append((tmp_path / "file").stat().st_mtime_ns)
    assert times == sorted(set(times))
