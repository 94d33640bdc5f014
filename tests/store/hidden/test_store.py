"""Hidden states on disk are whole or absent: with several writers, damaged files and changed clocks."""

import copy
import multiprocessing
import os
import random
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from stored_states import KEY, kept, key, put, states

from oracle.errors import InputError
from oracle.store.hidden import HiddenStore, Key
from oracle.store.hidden import folder as folders
from oracle.store.hidden.shard import map_states, read_entry


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
        with pytest.raises(InputError, match="a contiguous selection"):
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


def test_verify_finds_damage_that_was_never_read(store, said) -> None:
    paths = [put(store, number) for number in range(4)]
    paths[1].write_bytes(paths[1].read_bytes()[:-1] + b"?")
    paths[2].write_bytes(b"")
    assert store.verify() == 4
    assert sorted(store.damaged) == sorted(paths[1:3])
    assert len(said) == len(store.set_aside()) == 2
    assert HiddenStore(store.folder).verify() == 2


def test_a_good_file_is_not_set_aside_for_a_bad_one(store, said) -> None:
    """Another process has repaired the damage while this reader was still reading."""
    path = put(store)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    with path.open("rb") as file, pytest.raises(Exception, match="checksum"), store._setting_aside(path, file):
        other = path.with_suffix(".other")
        other.write_bytes(whole)
        other.replace(path)
        map_states(file, read_entry(file), 0, 3)
    assert store.get(key(0)) is not None and store.set_aside() == []


def test_failed_writes_stop_no_computation(tmp_path, said) -> None:
    (tmp_path / "file").write_text("")
    store = HiddenStore(tmp_path / "file" / "hidden", warn=said.append)
    for number in range(3):
        put(store, number)
        assert store.get(key(number)) is None
    assert [message.split(" hidden")[0] for message in said] == ["cannot store", "cannot read"]
    with pytest.raises(InputError, match="is a file; choose another --cache"):
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


@pytest.mark.parametrize(
    "change",
    [
        {"model": "fedcba9876543210"},
        {"dtype": "float16"},
        {"unit": "sublayer"},
        {"scope": "sequence"},
        {"prompt": (1, 2, 4)},
        {"generated": (4,)},
        {"allocation": (0, 1, 2)},
        {"code": "2"},
    ],
    ids=str,
)
def test_states_of_a_key_that_differs_in_one_ingredient_are_not_found(
    store: HiddenStore, change: dict[str, object]
) -> None:
    put(store)
    assert store.get(key(0)) is not None
    assert store.get(replace(key(0), **change)) is None
    assert set(asdict(key(0))) == {"model", "dtype", "unit", "scope", "prompt", "generated", "allocation", "code"}
