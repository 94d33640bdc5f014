"""What the README of an export says.

Names out of a run are quoted; texts of sequences never stand here.
"""

import json
from typing import Any

__all__ = ["CARDS", "readme"]


def readme(manifest: dict[str, Any]) -> str:
    """The card, with what the numbers rest on; names are quoted as JSON, which keeps them on one line."""
    run = manifest["run"]
    config = run["config"]
    facts = {
        "model": run["model"].get("id"),
        "model fingerprint": run["model"]["fingerprint"],
        "data": run.get("data", {}).get("source"),
        "criterion": f"{config['criterion']}, tolerance {config['tolerance']}",
        "scope": config["scope"],
        "seed": run["seed"],
        "sequences": manifest["sequences"],
        "zero-quality sequences": manifest["zero_quality"],
        "sequences that tell something": manifest["informative"],
    }
    lines = "\n".join(f"- {key}: `{_quoted(value)}`" for key, value in facts.items())
    text = CARDS[manifest["format"]]
    return f"{text}\n{_CAUTION}\n\n## Where it comes from\n\n{lines}\n\nThe rest is in `manifest.json`.\n"


def _quoted(value: Any) -> str:
    return json.dumps(value).replace("`", "\\u0060")


_CAUTION = """
Where `zero_quality` is true the full model itself scores zero and any allocation qualifies: leave these out when you
train on allocations. Prompts, references and outputs are data of others and of a model: trust none of them."""

_COMMON = "\n".join(
    "- " + ", ".join(f"`{name}`" for name in names.split(", ")) + f": {meaning}"
    for names, meaning in (
        ("sequence, task, prompt, references, choices, answer", "the sequence; `answer` is an index into `choices`"),
        ("prompt_tokens", "length of the prompt"),
        (
            "rendered, prompt_ids",
            "the prompt as the model reads it and its token ids; null in runs of schema version 3",
        ),
        ("allocation", "layers that run, in order: the cheapest that meets the criterion"),
        ("upper, lower", "its cost, and what no allocation can be cheaper than; equal where `certified`, see `proof`"),
        ("family", "where the search found it"),
        ("quality, full_quality, zero_quality", "of the allocation; of the full model; whether that is zero"),
        (
            "vacuous, informative",
            "why no allocation can be told from another, or empty; whether the sequence tells something: neither "
            "vacuous nor of zero quality",
        ),
        (
            "choice_tokens, reference_tokens",
            "tokens of the longest choice and reference, where the run scores their likelihood",
        ),
        ("output, tokens, full_output", "what the allocation gives, and the full model"),
    )
)

_HF_CARD = f"""---
configs:
- config_name: sequences
  data_files: sequences.parquet
  default: true
- config_name: frontiers
  data_files: frontiers.parquet
---
# Minimal layer budgets per sequence

`datasets.load_dataset(FOLDER, "sequences")` and `"frontiers"`. One row a sequence:

{_COMMON}

`frontiers` has a row for each allocation that is better than everything cheaper: `sequence`, `cost`, `fraction`,
`quality`, `number` (of the evaluation), `family`, `allocation`, `output`."""

_DRLLM_CARD = """# Labels for training layer routers

`labels.jsonl` has one object a sequence, in the form that Dr.LLM (arXiv 2510.12773) publishes:

- `id`, `question`, `answer`: the sequence; `answer` is its first reference
- `prompt_ids`: token ids of the prompt as the model reads it; null in runs of schema version 3
- `optimal_layer_config`: for each layer 0 (skip), 1 (run) or 2 (run twice in a row)
- `references`, `task`: as in the run
- `output`, `quality`, `full_quality`, `zero_quality`, `informative`: what these layers give, how good the full model
  is, and whether the sequence tells something
- `minimal`: false where the cheapest allocation found is none that labels can say (another order, a layer three times),
  so that the cheapest of the others stands here; the manifest counts them

`train/layer_oracle.json` is what Dr.LLM's trainer reads from its data folder: parallel lists `questions`, `best_path`,
`best_response`, `original_correct` (full quality above 0.5), for sequences that tell something."""

_POLAR_CARD = """# Valid and invalid layer paths per sequence

`samples.json` holds `samples`, in the form that PoLar (arXiv 2606.06574) reads:

- `question_id`, `question`, `gt_ans`: the sequence; `gt_ans` is its first reference or the right choice
- `initial_score`: quality of the full model, by the run's criterion
- `final_valid_transitions`: evaluated allocations that meet the criterion with a quality above zero, cheapest first
- `final_invalid_transitions`: all other evaluated allocations, those dropped unfinished included"""

_JSONL_CARD = f"""# Minimal layer budgets per sequence

`sequences.jsonl` has one object a sequence:

{_COMMON}
- `frontier`: what is better than everything cheaper, each with `cost`, `fraction`, `quality`, `number`, `family`,
  `allocation`, `output`"""


CARDS = {"hf": _HF_CARD, "drllm": _DRLLM_CARD, "polar": _POLAR_CARD, "jsonl": _JSONL_CARD}
"""By format."""
