"""A run folder is data: it can neither let code run nor name places to write."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from oracle.controllers import OracleController
from oracle.errors import InputError
from oracle.pipeline.reload import model_of
from oracle.pipeline.run import resume_search
from oracle.store import Run
from oracle.store.index import index_all

Command = Callable[..., tuple[int, str, str]]

CODE = """
from pathlib import Path
from transformers import LlamaConfig
Path(MARK).touch()
class EvilConfig(LlamaConfig):
    model_type = "evil"
"""


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that the model's code creates when it runs."""
    return tmp_path / "mark"


@pytest.fixture
def foreign(tmp_path: Path, tiny_folder: Path, mark: Path) -> Path:
    """A model whose configuration is code of its own."""
    folder = shutil.copytree(tiny_folder, tmp_path / "foreign")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "configuration_evil.EvilConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "configuration_evil.py").write_text(CODE.replace("MARK", repr(str(mark))))
    return folder


@pytest.fixture
def run(search: Callable[..., Run], tmp_path: Path) -> Run:
    """A search that did not end."""
    return unfinished(search(out=tmp_path / "run", strategy="tpe", evaluations=4))


def unfinished(run: Run) -> Run:
    for path in [run.folder / "summary.json", *run.folder.glob("certificates/*")]:
        path.unlink()
    index_all(run.folder)
    return run


def edit(run: Run, **settings: object) -> Run:
    """Changes settings in a manifest, and renews the digests: the editor knows what he does."""
    manifest = json.loads((run.folder / "manifest.json").read_text())
    manifest["config"] |= settings
    (run.folder / "manifest.json").write_text(json.dumps(manifest))
    index_all(run.folder)
    return Run.open(run.folder)


def test_a_manifest_lets_no_code_run(
    run: Run, foreign: Path, mark: Path, command: Command, sequences_file: Path
) -> None:
    edited = edit(run, model=str(foreign), trust_remote_code=True)
    out = run.folder.parent / "other"
    commands: list[list[object]] = [
        ["search", "--resume", run.folder],
        ["search", "--from", run.folder, "--out", out, "--data", sequences_file],
        ["measure", run.folder],
        ["compare", run.folder, "--controllers", "unified"],
    ]
    for words in commands:
        code, _, error = command(*words, "--quiet")
        assert (code, "ships its own code" in error) == (2, True), words
        # Nor if code is allowed, but not this model's.
        code, _, error = command(*words, "--quiet", "--trust-remote-code")
        assert (code, "--trust-remote-code needs --model too" in error) == (2, True), words
    for load in (lambda: model_of(edited), lambda: OracleController.from_run(run.folder)):
        with pytest.raises(InputError, match="ships its own code"):
            load()
    for load in (
        lambda: model_of(edited, trust_remote_code=True),
        lambda: OracleController.from_run(run.folder, trust_remote_code=True),
        lambda: resume_search(run.folder, settings={"trust_remote_code": True}),
    ):
        with pytest.raises(InputError, match="needs --model too"):
            load()
    assert not mark.exists()


@pytest.mark.slow
def test_nor_on_workers(run: Run, foreign: Path, mark: Path, command: Command) -> None:
    edit(run, model=str(foreign), trust_remote_code=True)
    code, _, error = command("search", "--resume", run.folder, "--quiet", "--executor", "ray", "--workers", 1)
    assert (code, "ships its own code" in error) == (2, True)
    assert not mark.exists()


def test_the_command_line_lets_it_run(run: Run, foreign: Path, mark: Path, command: Command) -> None:
    edit(run, model=str(foreign))
    code, *_ = command("search", "--resume", run.folder, "--quiet", "--trust-remote-code", "--model", foreign)
    assert code == 2  # it is another model than the run's
    assert mark.exists()


@pytest.mark.parametrize(
    "place", ["{away}/trials.db", "{run}/../away/trials.db", "{run}/link/trials.db", "file:x?uri=true"]
)
def test_trials_outside_the_run_are_confirmed(run: Run, place: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (run.folder / "link").symlink_to(tmp_path / "away")
    study = "sqlite:///" + place.format(away=tmp_path / "away", run=run.folder)
    edit(run, study=study)
    code, _, error = command("search", "--resume", run.folder, "--quiet", "--no-figures")
    assert (code, "stores trials outside its folder" in error, study in error) == (2, True, True)
    assert list((tmp_path / "away").iterdir()) == []
    assert not Run.open(run.folder).complete


def test_trials_that_are_confirmed_or_inside_are_stored(run: Run, command: Command, tmp_path: Path) -> None:
    study = f"sqlite:///{tmp_path}/trials.db"
    edit(run, study=study)
    code, _, error = command("search", "--resume", run.folder, "--quiet", "--no-figures", "--study", study)
    assert (code, error) == (0, "")
    assert (tmp_path / "trials.db").is_file()
    resume_search(unfinished(edit(run, study=f"sqlite:///{run.folder}/trials.db")).folder)
    assert (run.folder / "trials.db").is_file()
