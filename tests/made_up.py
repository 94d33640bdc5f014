"""A made-up run in a real run folder, and what tests ask a browser."""

import json
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from plot_tables import write_drafts, write_static
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from oracle.metrics import agreement, score_texts
from oracle.store import RunWriter
from oracle.store.files import write_table
from oracle.types import Outcome, Sequence

LAYERS = 12

SCRIPT = "<img src=x onerror=\"window.hacked='img'\"></script><script>window.hacked='script'</script>"
HOSTILE = (
    f"{SCRIPT}<a href=\"javascript:window.hacked='link'\">x</a> "
    "%{x} {{ 7 * 7 }} \u2028\u2029\u202e&amp; \x00\x1b[31m"
)


def write_run(
    folder: Path, *, sequences: int = 24, tries: int = 20, tasks: int = 3, references: int = 1, hostile: bool = False
) -> Path:
    """A run whose outputs keep more words of the reference the more layers run; every seventh output is all wrong."""
    rng = np.random.default_rng(sequences)
    config = {"criterion": "rougeL", "tolerance": 0.0, "scope": "decode", "strategy": "spread"}
    model = {"id": SCRIPT if hostile else "tiny", "layers": LAYERS, "fingerprint": "f00d"}
    writer = RunWriter(folder, {"config": config, "model": model, "data": {"source": "made up"}, "seed": 7})
    known = [made_up(n, rng, tasks, references, HOSTILE if hostile else "") for n in range(sequences)]
    if hostile:
        known[0] = Sequence(id="plain", prompt=HOSTILE, references=(HOSTILE,), task="<b>bold</b>")
    writer.write_sequences(known, [len(sequence.prompt) for sequence in known])
    rows = []
    for n, sequence in enumerate(known):
        words, full = sequence.references[0].split()[:12], ""
        for number in range(tries):
            count = LAYERS if number == 0 else int(rng.integers(0, LAYERS))
            layers = tuple(np.sort(rng.choice(LAYERS, count, replace=False)).tolist())
            text = outputs(words, count, rng, wrong=n % 7 == 3) + (HOSTILE if hostile else "")
            full = text if number == 0 else full
            rows.append((sequence.id, number, outcome(layers, number, text, sequence, full)))
    writer.append(rows, list(rows[0][2].quality))
    return folder


def write_extras(folder: Path) -> None:
    """What `oracle measure`, `compare`, `static` and `draft` would add, with values that are easy to average."""
    states = [("skip", 6, 0.4), ("skip", 6, 0.8), ("skip", 12, 1.0), ("exit", 6, 0.2)]
    rows = [(f"s{n:04d}", *state[:2], token, state[2] + n / 10) for n in (0, 1) for token, state in enumerate(states)]
    similarity = pd.DataFrame(rows, columns=["sequence", "kind", "budget", "token", "cosine"])
    similarity = similarity.assign(relative_error=0.1, same_token=similarity["cosine"] > 0.5)
    save(folder / "measures" / "similarity.parquet", similarity)
    speeds = [("full", 1, 1.0, 0.5), ("unified", 2, 0.5, 0.25)]
    runs = [(*row, batch, 10.0 * batch * row[1]) for row in speeds for batch in (1, 8)]
    names = ["policy", "speedup", "fraction", "quality", "batch", "tokens_per_second"]
    save(folder / "measures" / "throughput.parquet", pd.DataFrame(runs, columns=names).assign(cost=6, sequences=2))
    controllers = pd.DataFrame({"controller": ["router", "oracle"], "setting": ["price=1", "policy=minimal"]})
    values = {"executed_fraction": 0.5, "quality": 0.4, "static_quality": 0.3, "oracle_quality": 0.6}
    captured = {"captured": [1 / 3, None], "captured_low": 0.1, "captured_high": 0.5}
    claim = {"claim": "skipping is better", "source": "a paper", "theirs": "better", "sample": "9", "figure": "cosine"}
    claim |= {"value": 0.123456, "low": 0.1, "high": 0.2, "verdict": "agrees", "note": "zero-shot"}
    unknown = {"value": None, "low": None, "high": None, "verdict": "cannot tell: not measured here"}
    save(folder / "measures" / "claims.parquet", pd.DataFrame([claim, {**claim, **unknown}]))
    save(folder / "controllers" / "comparison.parquet", controllers.assign(kind="sequence", **values, **captured))
    write_static(folder, 12, budgets=(9, 6))
    write_drafts(folder, 12)


def save(path: Path, table: pd.DataFrame) -> None:
    path.parent.mkdir(exist_ok=True)
    write_table(path, pa.Table.from_pandas(table).replace_schema_metadata({"provenance": "{}"}))


def made_up(n: int, rng: np.random.Generator, tasks: int, references: int, more: str) -> Sequence:
    """A sequence whose references share most of their words."""
    words = [f"w{word}" for word in rng.integers(0, 40, 12)]
    texts = [" ".join([*words[: 12 - 4 * k], *(f"v{word}" for word in words[12 - 4 * k :])]) for k in range(references)]
    task = more or f"task {'abcdefgh'[n % tasks]}"
    return Sequence(id=f"s{n:04d}{more}", prompt=f"prompt {n}{more}", references=tuple(texts), task=task)


def outputs(words: list[str], layers: int, rng: np.random.Generator, *, wrong: bool) -> str:
    kept = rng.random(len(words)) < (0 if wrong else 0.3 + 0.6 * layers / LAYERS)
    return " ".join(word if keep else f"x{n}" for n, (word, keep) in enumerate(zip(words, kept, strict=True)))


def outcome(layers: tuple[int, ...], number: int, text: str, sequence: Sequence, full: str) -> Outcome:
    tokens = tuple(map(len, text.split()))
    quality = {**score_texts(text, sequence.references), "agreement": agreement([*tokens], [*map(len, full.split())])}
    return Outcome(
        allocation=layers,
        family=("full", "unified", "random", "early-exit")[min(number, 3)],
        tokens=tokens,
        text=text,
        finished=True,
        margin=0.5,
        quality=quality,
    )


def programs() -> tuple[str | None, str | None]:
    """Where Chromium and its driver are."""
    return next(filter(None, map(which, ("chromium", "chromium-browser", "google-chrome"))), None), which(
        "chromedriver"
    )


SCRIPT_SECONDS = 180
"""Time for one script: axe-core needs more than the usual half minute on a slow or busy machine."""


def browser() -> webdriver.Chrome:
    """A real browser without a window; it logs what it complains about and what it asks for."""
    program, driver = programs()
    options = webdriver.ChromeOptions()
    options.binary_location = program or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    found.set_script_timeout(SCRIPT_SECONDS)
    return found


def drawn(browser: webdriver.Chrome, part: str = "all") -> None:
    """Waits until the pictures show a part of the run."""
    script = "return document.documentElement.dataset.drawn"
    WebDriverWait(browser, 60, 0.05).until(lambda seen: seen.execute_script(script) == part)


def requests(browser: webdriver.Chrome) -> list[str]:
    """Addresses that the page asked for since it was opened, pictures that it painted itself left out."""
    events: list[dict[str, Any]] = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith("data:")]
