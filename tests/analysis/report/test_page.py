"""The report as a file: complete, the same every time, and safe before any browser sees it."""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up import write_run

import analysis
from analysis import queries
from analysis.formatting import percent
from analysis.report import write_report
from analysis.report.curves import lines_of
from analysis.report.facts import facts, finding
from analysis.report.parts import MOST_TASKS, parts_of, task_names
from analysis.report.rows import details
from oracle.allocations import compact
from oracle.store import Run, RunWriter

Command = Callable[..., tuple[int, str, str]]

ASSETS = Path(analysis.__file__).parent / "report" / "assets"


def unpacked(page: str) -> dict[str, object]:
    blocks = re.findall(r'<script type="application/octet-stream" id="data-([\w-]+)">([^<]*)</script>', page)
    texts = {name: gzip.decompress(base64.b64decode(data, validate=True)).decode() for name, data in blocks}
    return {name: text if name == "plotly" else json.loads(text) for name, text in texts.items()}


def test_equal_runs_give_equal_bytes(stored: Path, report: Path, tmp_path: Path) -> None:
    again = write_report(stored, tmp_path / "folder" / "again.html")
    assert again.read_bytes() == report.read_bytes()


def test_the_policy_names_the_two_scripts_and_no_place(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    scripts = [re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1], str(unpacked(page)["plotly"])]
    assert allowed == [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert re.findall(r'(?:src|href)\s*=\s*"([^"#][^"]*)"', page) == []


def test_the_program_writes_texts_only_as_texts() -> None:
    for path in ASSETS.glob("*.js"):
        program = path.read_text(encoding="utf-8")
        for risky in (
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "Function(",
            "http://",
            "https://",
        ):
            assert risky not in program.replace("http://www.w3.org/2000/svg", ""), f"{path.name}: {risky}"


def test_hostile_texts_end_no_script_and_start_no_tag(hostile: Path) -> None:
    page = hostile.read_text(encoding="utf-8")
    assert "<img" not in page
    assert page.count("<script") == page.count("</script>") == 2 + len(unpacked(page)) - 1
    assert all(re.fullmatch(r"[A-Za-z0-9+/=]*", data) for data in re.findall(r"octet-stream[^>]*>([^<]*)<", page))


def test_the_numbers_are_those_of_the_summary(stored: Path) -> None:
    experiment = analysis.load(stored)
    whole, *tasks = parts_of(experiment, bootstrap=50, permutations=2)
    summary = analysis.summarise(experiment, bootstrap=50, permutations=2)
    values = {
        fact.title: fact
        for fact in facts(whole, adjusted=analysis.luck_adjusted(experiment, bootstrap=0), verified=(3, 4))
    }
    told = summary.headline
    assert values["Minimal budget per sequence"].share == told.per_sequence_fraction
    assert values["Oracle at equal mean quality"].value == f"{100 * told.equal_quality_fraction:.1f} %"
    assert values["Oracle at equal mean quality"].floor == told.null_equal_quality_fraction
    assert values["Proven minimal"].value == f"{told.certified} of {60 - summary.zero_quality_sequences}"
    assert ("Over all sequences" in values) == (told is not summary)
    assert values["Verified"].value == "3 of 4"
    assert "Do not trust" in values["Verified"].sentence
    assert finding(whole) == f"On average, {told.minimal['upper'].mean():.1f} of 12 layers are enough"
    assert [part.name for part in tasks] == ["task a", "task b", "task c"]
    by_task = summary.minimal.groupby(np.arange(60) % 3)["upper"].mean() / 12
    assert [part.summary.per_sequence_fraction for part in tasks] == pytest.approx(by_task.tolist())
    assert all(part.summary.null is None for part in tasks)


def test_plots_are_of_the_sequences_that_headlines_state(stored: Path) -> None:
    parts = parts_of(analysis.load(stored), bootstrap=0, permutations=2)
    assert all(part.summary.untold and part.told for part in parts)
    for part in parts:
        told, curves = part.told, lines_of(part)
        assert curves["oracle"]["point"][:2] == [told.equal_quality_fraction, told.full_quality]
        assert curves["luck"]["per_sequence"][-1] == pytest.approx(told.per_sequence_fraction, rel=1e-4)
        assert curves["luck"]["equal_quality"][-1] == pytest.approx(told.equal_quality_fraction, rel=1e-4)
        for name, number in (("oracle", told.equal_quality_fraction), ("luck", told.per_sequence_fraction)):
            words = curves["words"][name]
            assert f"ver the {told.sequences} sequences that can tell something" in words and percent(number) in words
        assert f"Hatched: the {part.summary.untold} that tell nothing" in curves["words"]["budgets"]
    null = lines_of(parts[0])["null"]
    assert null["full"] == parts[0].told.null.full_quality


def test_policies_end_at_the_full_model_of_the_headline(experiment: analysis.Experiment) -> None:
    whole, *tasks = parts_of(experiment, bootstrap=0, permutations=0)
    policies = lines_of(whole)["policies"]
    assert policies and whole.told.full_quality > whole.summary.full_quality
    for policy in policies:
        assert policy["y"][-1] == pytest.approx(whole.told.full_quality, rel=1e-4)
    [nothing] = [part for part in tasks if part.told is None]
    assert "Over all 3 sequences, none of which tells something, an oracle" in lines_of(nothing)["words"]["oracle"]


def test_a_page_of_a_search_that_has_not_ended_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", sequences=6)
    with RunWriter.reopen(run) as writer:
        before = write_report(run).read_text(encoding="utf-8")
        writer.write_summary({})
    after = write_report(run).read_text(encoding="utf-8")
    assert "the search has not ended" in before and "after 6 of 6 sequences;" in before
    assert "has not ended" not in after


def test_other_references_have_the_last_word(tmp_path: Path) -> None:
    experiment = analysis.load(write_run(tmp_path / "run", references=2))
    [whole, *_] = parts_of(experiment, bootstrap=0, permutations=0)
    adjusted = analysis.luck_adjusted(experiment, bootstrap=20)
    values = {fact.title: fact for fact in facts(whole, adjusted=adjusted)}
    shown = values["Oracle, scored by held-out references"]
    assert (shown.share, shown.interval) == (adjusted.fraction, adjusted.interval)
    assert f"{100 * adjusted.share_of_luck:.1f} % of the saving is lost" in shown.sentence
    assert "this share is too low on average: in simulations by up to 0.08" in shown.sentence


def test_what_opens_is_the_frontier(stored: Path) -> None:
    experiment = analysis.load(stored)
    summary = analysis.summarise(experiment, bootstrap=0, permutations=0)
    for name, (full, *frontier) in zip(experiment.sequences["sequence"], details(experiment, summary), strict=True):
        mine = experiment.evaluations[experiment.evaluations["sequence"] == name]
        costs = sorted(set(mine["cost"]))
        best = [mine.loc[mine["cost"] == cost, "rougeL"].max() for cost in costs]
        better = [n for n, quality in enumerate(best) if all(quality > before for before in best[:n])]
        assert [cost for cost, *_ in frontier] == [costs[n] for n in better]
        assert [quality for _, quality, *_ in frontier] == pytest.approx([best[n] for n in better], rel=1e-4)
        texts = [full if text is None else text for *_, text, _ in frontier]
        assert set(texts) <= set(mine["text"])
        [minimal] = [cost for cost, *_, mark in frontier if mark & 1]
        assert minimal == summary.minimal.set_index("sequence")["upper"][name]


def test_random_masks_are_stated_beside_the_proof(stored: Path, report: Path, tmp_path: Path) -> None:
    rows = unpacked(report.read_text(encoding="utf-8"))["index"]["rows"]
    expected = {row["sequence"]: row["statistical"] for row in queries.budgets(stored)}
    assert dict(zip(rows["id"], rows["statistical"], strict=True)) == expected
    assert any("drawn at random" in text and text.endswith("not a proof") for text in expected.values() if text)
    guided = replace(analysis.load(stored), uniform=False)
    page = write_report(stored, tmp_path / "guided.html", experiment=guided).read_text(encoding="utf-8")
    assert unpacked(page)["index"]["rows"]["statistical"] is None


def test_what_was_measured_is_shown_where_it_was(measured: Path, report: Path) -> None:
    assert unpacked(report.read_text(encoding="utf-8"))["index"]["extras"] == {}
    extras = unpacked(measured.read_text(encoding="utf-8"))["index"]["extras"]
    skip, leave = extras["similarity"]
    assert (skip["name"], skip["x"], leave["name"], leave["x"]) == ("skipping", [0.5, 1.0], "early exit", [0.5])
    assert skip["cosine"] == pytest.approx([0.65, 1.05])
    assert skip["same"] == [0.5, 1.0]
    assert extras["throughput"] == [
        {"policy": "full model", "fraction": 1.0, "quality": 0.5, "speeds": {"1": 10.0, "8": 80.0}},
        {"policy": "unified 2x", "fraction": 0.5, "quality": 0.25, "speeds": {"1": 20.0, "8": 160.0}},
    ]
    assert [(row["verdict"], row["value"], row["low"]) for row in extras["claims"]] == [
        ("agrees", 0.12346, 0.1),
        ("cannot tell: not measured here", None, None),
    ]
    captured = {row["controller"]: row["captured"] for row in extras["controllers"]}
    assert captured == {"router": 0.33333, "oracle": None}
    assert [(row["layers"], row["cost"], row["fraction"]) for row in extras["static"]] == [
        ("0-8", 9, 0.75),
        ("0-5", 6, 0.5),
    ]
    assert [(row["gain"], row["rate"], row["heldOut"]) for row in extras["static"]] == [(1.4, 21, 2), (1.6, 24, 2)]
    assert [(row["kl"], row["kl_low"]) for row in extras["static"]] == [(-0.5, -0.6), (1, 0.9)]
    swift = next(row for row in extras["drafts"]["choices"] if row["name"] == "swift")
    assert (swift["accepted"], swift["draft_cost"], swift["equal"]) == (pytest.approx(9 / 21, abs=1e-5), 0.7, 2)
    assert [(row["budget"], row["masks"], row["speedup_any"]) for row in extras["drafts"]["bounds"]] == [
        (0, 1, 2),
        (1, 13, 2),
    ]


@pytest.mark.parametrize(
    ("layers", "text"), [((), ""), ((3,), "3"), ((0, 1, 2, 5), "0-2,5"), ((0, 1, 1, 2, 0), "0-1,1-2,0")]
)
def test_layers_are_written_as_ranges(layers: tuple[int, ...], text: str) -> None:
    assert compact(np.array(layers, dtype=np.int32), none="") == text


def test_the_smallest_of_many_tasks_are_read_together(stored: Path) -> None:
    sequences = analysis.load(stored).sequences
    many = sequences.assign(task=[f"t{min(n, 50)}" for n in range(60)])
    counts = task_names(many).value_counts()
    assert len(counts) == MOST_TASKS
    assert counts["t50"] == 10
    assert counts["(12 smaller tasks)"] == 12
    assert set(task_names(sequences.assign(task=""))) == {""}


def test_a_run_of_one_sequence_and_one_try(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path / "run", sequences=1, tries=1)).read_text(encoding="utf-8")
    index = unpacked(page)["index"]
    assert index["rows"]["upper"] == [12.0]
    assert 'id="task"' not in page


def test_a_task_that_tells_nothing_has_a_row_without_a_bar(tmp_path: Path) -> None:
    path = write_report(write_run(tmp_path / "run", sequences=14, tasks=7, tries=4), tmp_path / "report.html")
    page = path.read_text(encoding="utf-8")
    assert page.count("<span>none</span>") == 1
    assert "<span>none</span></div>" in page


def test_the_command_writes_and_opens_it(
    command: Command, search: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr("webbrowser.open", seen.append)
    run = search(out=tmp_path / "run")
    code, out, err = command("report", run.folder, "--open", "--json")
    page = run.folder / "report.html"
    assert (code, json.loads(out), err) == (0, {"report": str(page)}, "")
    assert seen == [page.as_uri()]
    verified = run.summary()["verified"], run.summary()["verified_of"]
    assert f"{verified[0]} of {verified[1]}</p>" in page.read_text(encoding="utf-8")
    assert set(unpacked(page.read_text(encoding="utf-8"))["index"]["rows"]["agrees"]) == {1}
    code, out, _ = command("report", run.folder, "--criterion", "rouge1")
    assert (code, out) == (0, f"{run.folder / 'report-rouge1.html'}\n")
    assert "Verified" not in (run.folder / "report-rouge1.html").read_text(encoding="utf-8")


def test_a_report_that_cannot_be_written_says_so(stored: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(analysis.InputError, match="cannot write the report"):
        write_report(stored, tmp_path / "file" / "report.html")
