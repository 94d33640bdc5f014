"""What a comparison keeps, under which key, and that a part never replaces the whole."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from oracle.controllers import compare_run
from oracle.controllers.base import Controller
from oracle.controllers.comparison import derived_tables
from oracle.controllers.run_context import RunContext
from oracle.models import LanguageModel
from oracle.store import Run
from oracle.store.derived import DerivedTables, key_of, origin_of
from oracle.store.index import index_all
from oracle.utils.machine import Machine

SOME = "full,static,unified"


@pytest.fixture
def copy(small_run: Run, tmp_path: Path) -> Path:
    return shutil.copytree(small_run.folder, tmp_path / "run")


def shown(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "controllers" / "comparison.parquet")


@pytest.mark.parametrize(
    ("part", "replaces"),
    [
        ({"controllers": "full", "limit": 3}, False),
        ({"controllers": SOME, "limit": 3}, False),
        ({"controllers": f"{SOME},random", "limit": 5}, False),
        ({"controllers": "random"}, True),
        ({"controllers": SOME, "limit": 6}, True),
    ],
    ids=str,
)
def test_a_part_never_replaces_a_fuller_comparison(copy: Path, command, part: dict, replaces: bool) -> None:
    whole = compare_run(copy, controllers=SOME, timed=False)
    before = shown(copy)
    found = compare_run(copy, timed=False, **part)
    assert (found.fuller is None) == replaces
    if replaces:
        assert set(shown(copy)["controller"]) >= set(before["controller"]), "of the same sequences rows are added"
    else:
        pd.testing.assert_frame_equal(shown(copy), before)
        assert found.fuller == whole.path != found.path
        stored = pd.read_parquet(found.path)
        assert set(stored["controller"]) == set(part["controllers"].split(","))


def test_a_fuller_comparison_replaces_a_part(copy: Path) -> None:
    part = compare_run(copy, controllers="full,unified", timed=False, limit=3)
    assert part.fuller is None and part.path == copy / "controllers" / "comparison.parquet"
    fewer = compare_run(copy, controllers="full", timed=False)
    assert fewer.fuller == part.path, "more sequences, but fewer controllers: neither is fuller"
    whole = compare_run(copy, controllers=SOME, timed=False)
    assert whole.fuller is None
    assert set(shown(copy)["controller"]) == set(SOME.split(","))


def test_the_command_says_what_figures_show(copy: Path, command) -> None:
    compare_run(copy, controllers=SOME, timed=False)
    options = ["--controllers", "full", "--limit", "3", "--no-timing", "--quiet"]
    code, out, _ = command("compare", copy, *options)
    assert code == 0
    assert "Figures and reports show an earlier comparison of more sequences or controllers" in " ".join(out.split())
    code, out, _ = command("compare", copy, *options, "--json")
    answer = json.loads(out)
    assert answer["fuller"] == str(copy / "controllers" / "comparison.parquet") != answer["path"]


def test_a_comparison_of_another_state_of_the_run_is_replaced(copy: Path) -> None:
    compare_run(copy, controllers=SOME, timed=False)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["config"]["tolerance"] = 0.25
    (copy / "manifest.json").write_text(json.dumps(manifest))
    index_all(copy)
    found = compare_run(copy, controllers="full", timed=False, limit=3)
    assert found.fuller is None
    assert set(shown(copy)["controller"]) == {"full"}


INGREDIENTS = {
    "model": {"fingerprint": "0" * 16},
    "data": {"hash": "0" * 64},
    "prompts": {"hash": "0" * 16},
    "config": dict.fromkeys(("criterion", "tolerance", "scope", "unit", "max_new_tokens", "system", "template_args")),
}


@pytest.mark.parametrize(("entry", "name"), [(entry, name) for entry, names in INGREDIENTS.items() for name in names])
def test_the_key_of_a_run_has_every_ingredient(small_run: Run, entry: str, name: str) -> None:
    manifest = json.loads((small_run.folder / "manifest.json").read_text())
    before = key_of(origin_of(manifest))
    assert key_of(origin_of({**manifest, "versions": {}, "commit": "x", "machine": {}})) == before
    assert name in manifest[entry]
    manifest[entry][name] = "another"
    assert key_of(origin_of(manifest)) != before


def test_results_are_read_only_under_their_own_key(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare_run(copy, controllers="full,random", timed=False)
    generated: list[str] = []
    generate = Controller.generate

    def counting(self: Controller, prompts: list) -> list:
        generated.append(self.name)
        return generate(self, prompts)

    monkeypatch.setattr(Controller, "generate", counting)
    compare_run(copy, controllers="full,random", timed=False)
    assert generated == []
    compare_run(copy, controllers="full,random", timed=False, limit=5)
    assert {"full", "random"} <= set(generated)
    generated.clear()
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["prompts"]["hash"] = "0" * 16
    (copy / "manifest.json").write_text(json.dumps(manifest))
    index_all(copy)
    compare_run(copy, controllers="full,random", timed=False)
    assert {"full", "random"} <= set(generated)


def test_speeds_of_another_machine_are_measured_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compare_run(copy, controllers="full", limit=2).rows
    assert (first["tokens_per_second_1"] > 0).all()
    pd.testing.assert_frame_equal(compare_run(copy, controllers="full", limit=2).rows, first)
    elsewhere = Machine(**{**asdict(RunContext.open(copy).engine.model.machine), "processor": "another"})
    monkeypatch.setattr(LanguageModel, "machine", elsewhere)
    untimed = compare_run(copy, controllers="full", limit=2, timed=False).rows
    assert untimed["tokens_per_second_1"].isna().all()
    again = compare_run(copy, controllers="full", limit=2).rows
    assert (again["tokens_per_second_1"] > 0).all()
    assert (again["tokens_per_second_1"] != first["tokens_per_second_1"]).any()


def test_tables_of_a_selection_have_a_folder_of_their_own(copy: Path) -> None:
    keys = {derived_tables(RunContext.open(copy, limit=limit)).key for limit in (None, 6, 5, 2)}
    assert len(keys) == 3, "six of six are all"
    tables: DerivedTables = derived_tables(RunContext.open(copy))
    assert tables.folder == copy / "controllers" / tables.key
