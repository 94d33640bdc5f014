"""Ctrl-C ends every command at once, whatever it is doing; a search keeps what it has."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import jsonl

from oracle.store import Run

SLOW = """
import sys, time
import analysis.report, analysis.plots.registry, analysis.queries
import oracle.cli.figures, oracle.cli.query_answers

def stuck(*_, **__):
    print("in", flush=True)
    # One call that looks at no signal, as those into libraries: it starts again after each.
    __import__("threading").Event().wait()

def library(*_, **__):
    print("in", flush=True)
    import numpy as np
    np.linalg.svd(np.ones((6000, 6000)))
    print("out", flush=True)

analysis.report.write_report = stuck if sys.argv[1] == "report" else library
analysis.plots.registry.draw_all = library
oracle.cli.query_answers.ask = library
from oracle.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", ["report", "figures", "query"])
def test_commands_end_at_once(command: str, search, tmp_path: Path) -> None:
    words = [sys.executable, "-c", SLOW, command, str(search(evaluations=6).folder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    text, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "oracle: interrupted\n")
    assert "out" not in text, "it waited for the library"


def test_a_search_that_scores_thousands_of_choices_stops_and_goes_on(tiny_folder: Path, tmp_path: Path) -> None:
    rows = [
        {"id": f"s{n}", "prompt": f"Question {n}?", "choices": [f"answer {m}" for m in range(5000)], "answer": 1}
        for n in range(2)
    ]
    data = jsonl(tmp_path / "data.jsonl", *rows)
    out = tmp_path / "run"
    search = [
        "search",
        "--model",
        str(tiny_folder),
        "--data",
        data,
        "--criterion",
        "choice_accuracy",
        "--out",
        str(out),
    ]
    small = ["--evaluations", "200", "--max-new-tokens", "1", "--no-figures", "--quiet", "--no-cache"]
    command = [sys.executable, "-m", "oracle", *search, *small]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = out / "log.jsonl"
    while not (log.exists() and '"began"' in log.read_text()) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "oracle: stopped; continue with: oracle search --resume" in error
    assert json.loads(log.read_text().splitlines()[-1])["event"] == "stopped"
    assert not Run.open(out).complete
