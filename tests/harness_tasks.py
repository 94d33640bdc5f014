"""Real task files of lm-evaluation-harness on small local data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["ARC", "GSM", "LAMBADA", "WIKITEXT", "task_file", "write_tasks"]

WORDS = ("zero", "one long", "two", "three")

GSM = [
    {"question": f"What is {one} + {one + 3}?", "answer": f"It is {2 * one + 3}.\n#### {2 * one + 3}"}
    for one in range(8)
]
ARC = [
    {
        "id": str(one),
        "question": f"Which of these is number {one % 4}, asked time {one}?",
        "choices": {"text": list(WORDS), "label": list("ABCD")},
        "answerKey": "ABCD"[one % 4],
    }
    for one in range(8)
]
LAMBADA = [{"text": f"Cat number {one} sat on the mat{one}"} for one in range(8)]
WIKITEXT = [{"page": f"Some text , number {one} , of a page .", "title": "t"} for one in range(8)]
LONG = {"page": "A page that goes on and on . " * 40, "title": "more than the context of a tiny model"}


def task_file(folder: Path, name: str, include: str, rows: Mapping[str, list[dict[str, Any]]], **settings: Any) -> Path:
    """Writes a task file that includes one of the harness's and reads local JSON lines instead of its data set."""
    import lm_eval
    import yaml

    files = {}
    for split, values in rows.items():
        path = folder / f"{name}-{split}.jsonl"
        path.write_text("".join(json.dumps(value) + "\n" for value in values))
        files[split] = str(path)
    content = {
        "include": str(Path(lm_eval.__file__).parent / "tasks" / include),
        "task": name,
        "tag": None,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
        **settings,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def write_tasks(folder: Path) -> Path:
    """One task of each output type: generate_until with filters, multiple_choice, loglikelihood, loglikelihood_rolling.

    A tiny random model writes no number, which the filters turn into [invalid]: half of the questions ask for that.
    """
    folder.mkdir(exist_ok=True)
    invalid = [{**row, "answer": "#### [invalid]"} if place % 2 else row for place, row in enumerate(GSM)]
    task_file(folder, "gsm_like", "gsm8k/gsm8k.yaml", {"train": GSM, "test": invalid}, num_fewshot=2)
    task_file(folder, "arc_like", "arc/arc_easy.yaml", {"train": ARC, "validation": ARC, "test": ARC})
    task_file(folder, "lambada_like", "lambada/lambada_openai.yaml", {"test": LAMBADA})
    for name, pages in {"wikitext_like": WIKITEXT, "wikitext_long": [LONG, *WIKITEXT]}.items():
        rows = dict.fromkeys(("train", "validation", "test"), pages)
        task_file(folder, name, "wikitext/wikitext.yaml", rows)
    long = {"until": ["Question:"], "do_sample": False, "max_gen_toks": 400}
    rows = {"train": GSM, "test": invalid}
    task_file(folder, "gsm_truncated", "gsm8k/gsm8k.yaml", rows, num_fewshot=2, generation_kwargs=long)
    return folder
