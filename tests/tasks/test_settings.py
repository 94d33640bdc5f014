"""What tasks decide, and what is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from harness_tasks import ARC, GSM, task_file

from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.pipeline.data import preview, with_task_settings
from oracle.tasks import TaskOptions, task_names
from oracle.tasks.sequences import _shares

pytest.importorskip("lm_eval.api", reason="the extra lm-eval is not installed")

Command = Callable[..., tuple[int, str, str]]


def settled(folder: Path, names: str, criterion: str = "lm-eval", **changes: object) -> SearchConfig:
    options = TaskOptions(include_path=(str(folder),))
    return with_task_settings(
        SearchConfig(data=f"lm-eval:{names}", criterion=criterion, task_options=options, **changes)  # type: ignore[arg-type]
    )


def test_metrics_are_completed_and_lengths_are_the_tasks(tasks: Path) -> None:
    found = settled(tasks, "gsm_like")
    assert found.criterion == "lm-eval:exact_match,strict-match"
    assert (found.max_new_tokens, found.stop) == (256, ("Question:", "</s>", "<|im_end|>"))
    assert settled(tasks, "gsm_like", "lm-eval:exact_match,flexible-extract").criterion.endswith("flexible-extract")
    assert settled(tasks, "gsm_like", "rougeL").criterion == "rougeL"
    arc = settled(tasks, "arc_like,lambada_like")
    assert (arc.criterion, arc.max_new_tokens, arc.stop) == ("lm-eval:acc", 1, ())
    assert settled(tasks, "arc_like", metrics=("lm-eval:acc_norm",)).metrics == ("lm-eval:acc_norm",)


REFUSED = [
    ("lambada_like", "lm-eval:perplexity", "'perplexity'.*whole corpus.*--criterion log_likelihood.*lm-eval:acc"),
    ("wikitext_like", "lm-eval:bits_per_byte", "whole corpus.*--criterion log_likelihood"),
    ("gsm_like,arc_like", "lm-eval", "no such metric in common.*separate runs"),
    ("arc_like", "lm-eval:acc_nrom", "nearest: 'lm-eval:acc_norm'"),
    ("arc_lik", "lm-eval", "no task, group or tag 'arc_lik'.*nearest: 'arc_"),
]


@pytest.mark.parametrize(("names", "criterion", "message"), REFUSED)
def test_what_no_document_has_is_refused_by_name(tasks: Path, names: str, criterion: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        settled(tasks, names, criterion)


CORPUS = [
    ("bleu", "--criterion bleu, sentence BLEU"),
    ("chrf", "--criterion chrf"),
    ("ter", "--criterion chrf"),
]


@pytest.mark.parametrize(("metric", "nearest"), CORPUS)
def test_corpus_metrics_name_the_nearest(tmp_path: Path, metric: str, nearest: str) -> None:
    metrics = [{"metric": metric, "aggregation": metric, "higher_is_better": metric != "ter"}]
    task_file(tmp_path, "translate", "gsm8k/gsm8k.yaml", {"train": GSM, "test": GSM}, metric_list=metrics)
    for criterion in ("lm-eval", f"lm-eval:{metric}"):
        with pytest.raises(
            InputError, match=f"{metric!r} of task 'translate' exists only for a whole corpus.*{nearest}"
        ):
            settled(tmp_path, "translate", criterion)


def test_sampling_and_beams_are_refused(tmp_path: Path) -> None:
    for name, kwargs in {"sampled": {"do_sample": True, "temperature": 0.7}, "beams": {"num_beams": 4}}.items():
        task_file(tmp_path, name, "gsm8k/gsm8k.yaml", {"train": GSM, "test": GSM}, generation_kwargs=kwargs)
        with pytest.raises(InputError, match=f"task '{name}'.*decoding is greedy"):
            settled(tmp_path, name)


def test_tasks_that_end_outputs_differently_are_refused(tmp_path: Path) -> None:
    for name, until in {"one": ["\n"], "two": ["\n\n"]}.items():
        rows = {"train": GSM, "test": GSM}
        task_file(tmp_path, name, "gsm8k/gsm8k.yaml", rows, generation_kwargs={"until": until, "do_sample": False})
    with pytest.raises(InputError, match=r"'one' and 'two' end their outputs differently.*separate runs"):
        settled(tmp_path, "one,two")
    options = TaskOptions(include_path=(str(tmp_path),), own=())
    config = SearchConfig(data="lm-eval:one,two", criterion="lm-eval", task_options=options, stop=("\n",))
    assert with_task_settings(config).stop == ("\n",)


def test_a_prompt_per_choice_is_refused(tmp_path: Path) -> None:
    row = {"sentence": "The _ sat.", "option1": "cat", "option2": "dog", "answer": "1"}
    rows = {split: [row] for split in ("train", "validation")}
    # Its own code is the harness's, and allowed.
    task_file(tmp_path, "winogrande_like", "winogrande/default.yaml", rows)
    options = TaskOptions(include_path=(str(tmp_path),))
    with pytest.raises(InputError, match=r"puts its choices into the prompt.*oracle eval --tasks winogrande_like"):
        preview(SearchConfig(data="lm-eval:winogrande_like", criterion="lm-eval", task_options=options))


def test_names_and_options() -> None:
    assert task_names("lm-eval:a, b,a") == ("a", "b")
    assert task_names("data.jsonl") == ()
    with pytest.raises(InputError, match="needs the name of a task"):
        task_names("lm-eval:,")
    with pytest.raises(InputError, match=r"--num-fewshot needs tasks.*not instruct"):
        SearchConfig(task_options=TaskOptions(num_fewshot=2))
    with pytest.raises(InputError, match="'lm-eval:acc' needs tasks"):
        SearchConfig(criterion="lm-eval:acc")
    with pytest.raises(InputError, match="--num-fewshot needs at least 0"):
        TaskOptions(num_fewshot=-1)
    with pytest.raises(InputError, match="--system is for data of your own"):
        SearchConfig(data="lm-eval:x", system="Be brief.")
    with pytest.raises(InputError, match="--extract and the filters"):
        SearchConfig(data="lm-eval:x", criterion="lm-eval", extract="number")


def test_limits_are_spread_over_tasks() -> None:
    assert _shares({"a": 5, "b": 1, "c": 9}, None) == {"a": 5, "b": 1, "c": 9}
    assert _shares({"a": 5, "b": 1, "c": 9}, 8) == {"a": 4, "b": 1, "c": 3}
    assert _shares({"a": 5, "b": 1, "c": 9}, 2) == {"a": 1, "b": 1, "c": 0}
    assert _shares({"a": 5, "b": 1, "c": 9}, 99) == {"a": 5, "b": 1, "c": 9}


def test_groups_are_searched(tmp_path: Path, command: Command, roomy: Path) -> None:
    rows = dict.fromkeys(("train", "validation", "test"), ARC)
    for name in ("arc_one", "arc_two"):
        task_file(tmp_path, name, "arc/arc_easy.yaml", rows)
    (tmp_path / "group.yaml").write_text("group: arcs\ntask:\n  - arc_one\n  - arc_two\n")
    given = ("--include-path", tmp_path, "--model", roomy, "--limit", 3, "--json", "--rows", 4)
    code, out, error = command("data", "lm-eval:arcs", *given)
    assert (code, error) == (0, "")
    assert json.loads(out)["tasks"] == {"arc_one": 2, "arc_two": 1}


def test_a_chat_template_is_the_harness_s(tmp_path: Path, tasks: Path, command: Command, roomy: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(roomy)
    tokenizer.chat_template = (
        "{% for one in messages %}<{{ one.role }}>{{ one.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    folder = tmp_path / "templated"
    import shutil

    shutil.copytree(roomy, folder)
    tokenizer.save_pretrained(folder)
    given = ("--include-path", tasks, "--model", folder, "--rows", 1, "--json", "--max-new-tokens", 4)
    prompts = []
    for extra in ((), ("--apply-chat-template",)):
        code, out, error = command("data", "lm-eval:gsm_like", *given, *extra)
        assert (code, error) == (0, "")
        prompts.append(json.loads(out)["rows"][0]["prompt"])
    assert prompts[0].startswith("Question: What is")
    assert prompts[1].startswith("<user>Question: What is") and prompts[1].count("<assistant>") == 3


def test_texts_longer_than_the_context_are_left_out_or_refused(tasks: Path, command: Command, roomy: Path) -> None:
    given = ("data", "lm-eval:wikitext_long", "--include-path", tasks, "--model", roomy, "--limit", 3, "--json")
    code, _, error = command(*given)
    assert code == 2 and "wikitext_long-00000: a text of" in error and "'oracle eval' scores it in windows" in error
    code, out, _ = command(*given, "--skip-unusable")
    assert code == 0 and json.loads(out)["sequences"] == 2 and list(json.loads(out)["skipped"].values()) == [1]
