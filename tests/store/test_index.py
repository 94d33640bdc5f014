"""Edits of a run are noticed: what is not listed, or differs from what is listed, is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oracle.errors import InputError
from oracle.store import Run, RunWriter
from oracle.store.files import write_part, write_table, write_text, write_whole
from oracle.store.index import INDEX, Index, index_all

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def finished(search: Callable[..., Run]) -> Run:
    return search(evaluations=6)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(finished.folder, tmp_path / "run"))


def test_every_file_of_a_run_is_listed_with_who_wrote_it(run: Run) -> None:
    write_text(run.folder / "report.html", "page")
    index = Index.read(run.folder)
    assert index is not None
    found = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    assert set(index.files) == found - {INDEX, ".index.lock", "lock", "log.jsonl"}
    for name, [entry] in index.files.items():
        assert index.difference(name) is None
        assert entry.size == (run.folder / name).stat().st_size
        assert entry.writer["versions"]["layer-oracle"] and "commit" in entry.writer
    assert index.missing() == []


def unsigned(run: Run) -> None:
    path = run.folder / "minimal_budgets.parquet"
    table = pq.read_table(path)
    ones = pa.array([1] * len(table), table.schema.field("upper").type)
    pq.write_table(table.set_column(table.column_names.index("upper"), "upper", ones), path)


def signed(run: Run) -> None:
    unsigned(run)
    table = pq.read_table(run.folder / "minimal_budgets.parquet")
    shutil.copytree(run.folder, run.folder.parent / "copy")
    write_table(run.folder.parent / "copy" / "minimal_budgets.parquet", table)
    shutil.copy(run.folder.parent / "copy" / "minimal_budgets.parquet", run.folder)


def other_summary(run: Run) -> None:
    path = run.folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "verified": 9999}))


def other_manifest(run: Run) -> None:
    path = run.folder / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


def injected(run: Run) -> None:
    [first, *_] = sorted((run.folder / "evaluations").iterdir())
    part = write_part(run.folder.parent / "part-00009", pq.read_table(first))
    shutil.move(part, run.folder / "evaluations")


def lost(run: Run) -> None:
    max((run.folder / "evaluations").iterdir()).unlink()


def other_index(run: Run) -> None:
    path = run.folder / INDEX
    path.write_text(path.read_text().replace('"format":1', '"format":2'))


def no_index(run: Run) -> None:
    (run.folder / INDEX).unlink()


READS: dict[str, Callable[[Path], object]] = {
    "frame": lambda folder: Run.open(folder).to_frame(),
    "sql": lambda folder: Run.open(folder).query("SELECT min(upper) FROM minimal_budgets, evaluations"),
    "summary": lambda folder: (Run.open(folder).summary(whole=True), Run.open(folder).evaluations()),
}
EDITS: dict[Callable[[Run], None], tuple[str, tuple[str, ...]]] = {
    unsigned: (r"minimal_budgets\.parquet' is damaged \(its digest is \w+, but index\.json lists", ("frame", "sql")),
    signed: (r"minimal_budgets\.parquet' is damaged \(its digest is \w+, but index\.json lists", ("frame", "sql")),
    other_summary: (r"summary\.json' is damaged \(its digest is", ("summary",)),
    other_manifest: (r"manifest\.json' is damaged \(its digest is .*oracle check .* --renew", tuple(READS)),
    injected: (r"part-00009.*is damaged \(it is not listed in index\.json\)", tuple(READS)),
    lost: (r"lacks evaluations of|is damaged \(it is missing\)", tuple(READS)),
    other_index: (r"index\.json' is damaged \(its digest is", tuple(READS)),
    no_index: (r"index\.json' is missing", tuple(READS)),
}


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_edits_are_refused(run: Run, edit: Callable[[Run], None]) -> None:
    for read in READS.values():
        read(run.folder)
    edit(run)
    message, noticed_by = EDITS[edit]
    for name in noticed_by:
        with pytest.raises(InputError, match=message) as caught:
            READS[name](run.folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("edit", [unsigned, signed, other_summary, injected, lost], ids=lambda edit: edit.__name__)
def test_results_that_were_edited_are_computed_again(
    run: Run, finished: Run, edit: Callable[[Run], None], command: Command
) -> None:
    edit(run)
    code, out, error = command("search", "--resume", run.folder, "--quiet", "--no-figures")
    # What was injected is set aside, and the results were not of it.
    assert code == 0 and ("nothing was left to do" in error if edit is injected else error == "")
    summary = finished.summary()
    assert f"Verified by the cut model's own forward: {summary['verified']} of {summary['verified_of']} " in out
    assert Run.open(run.folder).to_frame().equals(finished.to_frame())


def test_a_result_that_disagrees_is_refused_even_if_its_digest_is_renewed(run: Run) -> None:
    other_summary(run)
    index_all(run.folder)
    with pytest.raises(
        InputError, match=r"summary\.json' is damaged \(verified: found 9999, expected at most verified_of"
    ):
        Run.open(run.folder).summary()


def test_a_write_that_is_killed_leaves_what_is_listed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the announcement and the confirmation both versions are listed."""
    path = run.folder / "report.html"
    write_text(path, "old")

    def killed(*_: object) -> Path:
        raise KeyboardInterrupt

    real = Path.replace

    def only_the_index(self: Path, target: Path) -> Path:
        return killed() if target == path else real(self, target)

    moments = {"oracle.store.atomic.Path.replace": only_the_index, "oracle.store.files.confirm": killed}
    for moment, act in moments.items():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(moment, act)
            write_text(path, f"new {moment}")
        index = Index.read(run.folder)
        assert index is not None and index.difference("report.html") is None and index.missing() == []
    write_whole(path, lambda scratch: scratch.write_text("newest"))
    index = Index.read(run.folder)
    assert index is not None and len(index.files["report.html"]) == 1


def test_runs_of_earlier_versions_are_read_and_listed_when_they_go_on(run: Run) -> None:
    manifest = json.loads((run.folder / "manifest.json").read_text())
    del manifest["indexed"]
    (run.folder / "manifest.json").write_text(json.dumps(manifest))
    (run.folder / INDEX).unlink()
    for read in READS.values():
        read(run.folder)
    unsigned(run)
    with pytest.raises(InputError, match=r"minimal_budgets\.parquet' is damaged \(it has no digest"):
        Run.open(run.folder).to_frame()
    with RunWriter.reopen(run.folder) as writer:
        writer.begin_again()
        writer.write_summary({})
    assert Index.read(run.folder) is not None
