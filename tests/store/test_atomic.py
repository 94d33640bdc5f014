"""Files are written whole or not at all, no link in a run is followed, and nothing unfinished stays."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from oracle.errors import InputError
from oracle.store.atomic import scratch_folder, tidy, tidy_tree
from oracle.store.derived import writable
from oracle.store.files import make_folder, write_folder, write_json, write_text, write_whole
from oracle.store.lock import Lock
from oracle.store.log import Log


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def half(path: Path) -> None:
    path.write_text("half")
    raise KeyboardInterrupt


def killed(folder: Path, code: str) -> None:
    """Kills a process in the middle of a write."""
    program = (
        "import sys, time; from pathlib import Path; from oracle.store import files\n"
        f"def stop(path): {code}; print('in', flush=True); time.sleep(60)\n"
        f"files.write_whole(Path({str(folder / 'page.html')!r}), stop)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    # While it lives, its scratch file is not touched.
    before = names(folder)
    tidy(folder)
    assert names(folder) == before
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_write_cut_off_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "page.html", "whole")
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "page.html", half)
    assert (names(tmp_path), (tmp_path / "page.html").read_text()) == (["page.html"], "whole")


def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path: Path) -> None:
    write_text(tmp_path / "page.html", "whole")
    killed(tmp_path, "path.write_text('half')")
    assert len(names(tmp_path)) == 2 and (tmp_path / "page.html").read_text() == "whole"
    write_text(tmp_path / "other", "")
    assert names(tmp_path) == ["other", "page.html"]


def test_what_a_killed_process_left_anywhere_in_a_run_is_removed_by_the_next_command(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    killed(tmp_path / "figures", "pass")
    (tmp_path / "figures" / ".mine.tmp").touch()
    tidy_tree(tmp_path)
    assert names(tmp_path) == ["figures", "figures/.mine.tmp"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "page.html", "whole")
    limits, action = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            write_text(tmp_path / "page.html", "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, action)
    assert (names(tmp_path), (tmp_path / "page.html").read_text()) == (["page.html"], "whole")


def test_a_folder_is_there_with_all_its_files_or_not_at_all(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "a").write_text("a")
        (folder / "b").write_text("b")

    def stop(folder: Path) -> None:
        (folder / "a").write_text("a")
        raise KeyboardInterrupt

    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "out", stop)
    assert names(tmp_path) == ["out"]
    write_folder(tmp_path / "out", fill)
    write_folder(tmp_path / "deep" / "out", fill)
    assert names(tmp_path) == ["deep", "deep/out", "deep/out/a", "deep/out/b", "out", "out/a", "out/b"]
    with pytest.raises(InputError, match="not empty"):
        write_folder(tmp_path / "out", fill)


@pytest.mark.parametrize("path", ["/dev/null", "folder", "fifo"])
def test_devices_pipes_and_folders_are_not_replaced(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="is not a regular file"):
        write_text(tmp_path / path, "text")


def test_a_scratch_folder_is_private_and_those_of_killed_processes_go(tmp_path: Path) -> None:
    code = (
        f"import os; from pathlib import Path; from oracle.store.atomic import scratch_folder\n"
        f"with scratch_folder(Path({str(tmp_path)!r}), 'query') as scratch: (scratch / 'x').touch(); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(names(tmp_path)) == 2
    with scratch_folder(tmp_path, "query") as scratch:
        assert names(tmp_path) == [scratch.name]
        assert scratch.stat().st_mode & 0o777 == 0o700
    assert names(tmp_path) == []


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """A folder that links in a run lead to."""
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "file").write_text("theirs")
    return tmp_path / "away"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"schema_version": 3}))
    return tmp_path / "run"


WRITES: dict[str, Callable[[Path], object]] = {
    "file": lambda path: write_text(path / "file", "mine"),
    "json": lambda path: write_json(path / "deeper" / "file", {}),
    "folder": lambda path: make_folder(path / "new"),
    "export": lambda path: write_folder(path / "new", lambda scratch: None),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("disguised", [False, True])
def test_folders_that_are_links_in_a_run_are_not_followed(
    run: Path, away: Path, write: Callable[[Path], object], disguised: bool
) -> None:
    if disguised:  # as a run of its own
        (away / "manifest.json").write_text(json.dumps({"schema_version": 3}))
    (run / "figures").symlink_to(away)
    before = names(away)
    with pytest.raises(InputError, match="is a link inside the run"):
        write(run / "figures")
    assert (names(away), (away / "file").read_text()) == (before, "theirs")


def test_files_that_are_links_are_replaced_not_followed(run: Path, away: Path) -> None:
    for name in ("report.html", "summary.json"):
        (run / name).symlink_to(away / "file")
        write_text(run / name, "mine")
        assert not (run / name).is_symlink() and (run / name).read_text() == "mine"
    assert (away / "file").read_text() == "theirs"


def test_the_lock_and_the_log_are_not_followed(run: Path, away: Path) -> None:
    for name in ("lock", "log.jsonl"):
        (run / name).symlink_to(away / "file")
    with pytest.raises(InputError, match="cannot write to"):
        Lock(run / "lock")
    Log(run / "log.jsonl").info("event")
    assert (away / "file").read_text() == "theirs"


def test_derived_tables_are_not_written_through_links(run: Path, away: Path) -> None:
    (run / "measures").symlink_to(away)
    with (
        pytest.raises(InputError, match="is a link inside the run"),
        writable(run / "measures" / "x" / "table.parquet"),
    ):
        pass
    assert names(away) == ["file"]


def test_a_link_to_a_run_and_links_outside_runs_are_the_users_own(run: Path, away: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    write_text(tmp_path / "link" / "report.html", "mine")
    (tmp_path / "page.html").symlink_to(away / "file")
    write_text(tmp_path / "page.html", "my page")
    assert (tmp_path / "page.html").is_symlink() and (away / "file").read_text() == "my page"
    (tmp_path / "pictures").symlink_to(away)
    write_text(tmp_path / "pictures" / "figure", "mine")
    assert (run / "report.html").read_text() == (away / "figure").read_text() == "mine"
