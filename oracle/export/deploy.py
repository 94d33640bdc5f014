"""One allocation of a run as something to deploy: a checkpoint, or a recipe for another tool."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from analysis.formatting import counted
from analysis.measurements import static_masks
from oracle.allocations import compact, strip
from oracle.config import EMBEDDED, EMBEDDED_ORIGIN
from oracle.errors import InputError
from oracle.export.checkpoint import cut_config, write_checkpoint
from oracle.models import LanguageModel
from oracle.models.introspection import find_layers, index_names, path_of_layers
from oracle.pipeline.reload import model_of
from oracle.store import Run, check_free, versions
from oracle.store.files import write_folder
from oracle.store.index import json_text
from oracle.types import Allocation

__all__ = ["DEPLOYMENTS", "deploy", "measured_on", "prompts_differ"]

MODEL_NEEDED = ("checkpoint", "transformers-snippet")


def deploy(
    run: Run,
    form: str,
    out: Path,
    allocation: Allocation,
    *,
    model: LanguageModel | str | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Writes one allocation of a run's model in a form that other tools read.

    The forms hold scope `sequence`: prompt and generated tokens run the same layers. Quality that a run measured in
    another scope is quoted with its scope.

    Args:
        run: the run; its model is loaded for `checkpoint` and `transformers-snippet`.
        form: `checkpoint`, `mergekit`, `llama-prune`, `layer-map` or `transformers-snippet`.
        out: folder; must not exist, or be empty.
        allocation: the layers that run, in order.
        model: the run's model, if already loaded, or its name.
        device: device to load the model on; None for the run's setting.
        trust_remote_code: whether code shipped with the model may run while loading it.

    Returns:
        What `layer_oracle.json` in the folder says.

    Raises:
        InputError: if the form is unknown or cannot hold the allocation, or the folder cannot be written.
    """
    if form not in DEPLOYMENTS:
        raise InputError(f"--format must be one of {', '.join(DEPLOYMENTS)}, not '{form}'")
    if run.unit != "layer":
        raise InputError(
            f"'{form}' holds whole layers, but the run's unit is '{run.unit}'; use oracle.apply, or search --unit layer"
        )
    if unknown := sorted({layer for layer in allocation if not 0 <= layer < run.units}):
        raise InputError(
            f"the model has the layers 0 to {run.units - 1}, but '{compact(allocation)}' names {compact(unknown)}; "
            "leave out what it does not have"
        )
    if not allocation:
        raise InputError(
            f"'{form}' needs at least one of the layers 0 to {run.units - 1}, but the allocation has none; choose "
            "another with --allocation, --budget or --sequence"
        )
    check_free(out)
    about = {
        "format": form,
        "allocation": list(allocation),
        "layers": run.units,
        "model": run.manifest["model"],
        "run": {
            key: run.manifest[key] for key in ("config", "data", "versions", "commit", "seed") if key in run.manifest
        },
        "exported_with": versions(),
        "scope": run.manifest["config"]["scope"],
        "measured": _measured(run, allocation),
    }
    loaded = None
    if form in MODEL_NEEDED:
        loaded = model_of(run, model, device=device, trust_remote_code=trust_remote_code)
    if form == "checkpoint":
        assert loaded is not None
        write_checkpoint(out, loaded, allocation, _card(about), about, trust_remote_code=trust_remote_code)
        return about
    name, text = RECIPES[form](run, allocation, loaded)

    def fill(folder: Path) -> None:
        for file, content in {name: text, "layer_oracle.json": json_text(about), "README.md": _card(about)}.items():
            (folder / file).write_text(content, encoding="utf-8")

    write_folder(out, fill)
    return about


def prompts_differ(scope: str) -> str:
    """What is lost in a deployed form by masks that were chosen in a scope; empty for `sequence`, which it has.

    Args:
        scope: of the run.
    """
    if scope == "sequence":
        return ""
    return (
        f"these files run the prompt with the same layers (scope sequence), but the run's scope is {scope}, in which "
        "it runs at full depth: outputs are worse; choose masks for such files by 'oracle static --data DATA --scope "
        "sequence'"
    )


def _measured(run: Run, allocation: Allocation) -> dict[str, Any] | None:
    """Mean quality of the allocation in the run's scope; None if it is not known.

    On the held-out sequences of `oracle static`, else on those of the run on which it was evaluated.
    """
    metric = run.manifest["config"]["criterion"]
    masks = static_masks(run.folder)
    for row in [] if masks is None else masks.to_dict("records"):
        if tuple(row["allocation"].tolist()) == allocation:
            return {
                "metric": metric,
                "scope": run.manifest["config"]["scope"],
                "sequences": int(row["held_out_sequences"]),
                "held_out": True,
                "quality": float(row["quality"]),
                "full_quality": float(row["full_quality"]),
            }
    evaluations = run.evaluations()
    same = evaluations["allocation"].map(lambda one: tuple(one.tolist()) == allocation) & ~evaluations["dropped"]
    found = evaluations[same].drop_duplicates("sequence")
    if found.empty:
        return None
    full = evaluations[evaluations["number"] == 0].set_index("sequence")[metric]
    return {
        "metric": metric,
        "scope": run.manifest["config"]["scope"],
        "sequences": len(found),
        "held_out": False,
        "quality": float(found[metric].mean()),
        "full_quality": float(full.loc[found["sequence"]].mean()),
    }


def measured_on(measured: dict[str, Any]) -> str:
    """The sequences of a measured quality, in words."""
    return counted(measured["sequences"], "held-out sequence" if measured["held_out"] else "sequence")


def _card(about: dict[str, Any]) -> str:
    kept, measured = about["allocation"], about["measured"]
    name = about["model"].get("id")
    lines = [
        "---",
        f"base_model: {json.dumps(EMBEDDED_ORIGIN if name == EMBEDDED else name)}",
        "tags: [layer-skipping, depth-pruning]",
        "---",
        "# A model with some of its layers",
        "",
        f"- model: {json.dumps(name)}{', its weights of 4 bits' if name == EMBEDDED else ''}, fingerprint "
        f"`{about['model']['fingerprint']}`",
        f"- layers that run: {len(kept)} of {about['layers']}: `{compact(kept)}`",
        f"- as a strip: `{strip(kept, about['layers'])}`",
    ]
    if measured is None:
        lines.append("- quality: not measured in the run this comes from")
    else:
        lines.append(
            f"- mean {measured['metric']} {measured['quality']:.3f} against {measured['full_quality']:.3f} of the full "
            f"model, over {measured_on(measured)}, in scope `{measured['scope']}`"
        )
    if loss := prompts_differ(about["scope"]):
        lines.append(f"- {loss}")
    return "\n".join([*lines, "", "Provenance is in `layer_oracle.json`; written by layer-oracle.", ""])


def _mergekit(run: Run, allocation: Allocation, model: LanguageModel | None) -> tuple[str, str]:
    """Passthrough slices of consecutive layers, ends exclusive."""
    name = json.dumps(run.manifest["model"]["id"])
    starts = [0, *(place for place, (a, b) in enumerate(pairwise(allocation), 1) if b != a + 1), len(allocation)]
    slices = [
        f"  - sources:\n      - model: {name}\n        layer_range: [{allocation[a]}, {allocation[b - 1] + 1}]"
        for a, b in pairwise(starts)
    ]
    dtype = run.manifest["model"]["dtype"]
    lines = ["slices:", *slices, "merge_method: passthrough", f"dtype: {dtype}", ""]
    if run.manifest["model"]["id"] == EMBEDDED:
        lines.insert(0, f"# in place of {name} give its folder: {FOLDER}")
    return "mergekit.yaml", "\n".join(lines)


def _llama_prune(run: Run, allocation: Allocation, model: LanguageModel | None) -> tuple[str, str]:
    """The list of dropped layers that `llama-quantize --prune-layers` takes."""
    if list(allocation) != sorted(set(allocation)):
        raise InputError(f"llama-prune drops layers only, but '{compact(allocation)}' repeats or reorders them")
    dropped = ",".join(str(layer) for layer in range(run.units) if layer not in allocation)
    if not dropped:
        raise InputError("llama-prune lists dropped layers, but the allocation keeps all; choose a smaller one")
    return "prune-layers.txt", dropped + "\n"


def _layer_map(run: Run, allocation: Allocation, model: LanguageModel | None) -> tuple[str, str]:
    """Per executed layer its index in the full model, as exllama's layer arrangements have it."""
    return "layers.json", json.dumps(list(allocation)) + "\n"


FOLDER = "python -c 'from oracle.models.embedded import embedded_folder as f; print(f())'"

SNIPPET = '''\
"""Runs {count} of {layers} layers of a model in plain transformers: prompt and generated tokens (scope `sequence`)."""

import copy

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = {model}{remark}
LAYERS = {kept}
SETTINGS = {settings}

model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.{dtype}).eval()
tokenizer = AutoTokenizer.from_pretrained(MODEL)

owner = model.get_submodule({owner})
layers = [copy.deepcopy(getattr(owner, {name})[layer]) for layer in LAYERS]
for index, layer in enumerate(layers):  # each layer finds its keys and values in the cache by its index
    for module in layer.modules():
        for attribute in {indices}:
            if hasattr(module, attribute):
                setattr(module, attribute, index)
setattr(owner, {name}, torch.nn.ModuleList(layers))
for name, value in SETTINGS.items():
    setattr(model.config.get_text_config(), name, value)
'''


def _snippet(run: Run, allocation: Allocation, model: LanguageModel | None) -> tuple[str, str]:
    """A script in plain transformers."""
    assert model is not None
    path, _, name = path_of_layers(model.network).rpartition(".")
    text = SNIPPET.format(
        count=len(allocation),
        layers=run.units,
        model=json.dumps(run.manifest["model"]["id"]),
        remark=f"  # its folder: {FOLDER}" if run.manifest["model"]["id"] == EMBEDDED else "",
        kept=list(allocation),
        settings=cut_config(model.network.config.get_text_config(), allocation),
        dtype=run.manifest["model"]["dtype"],
        owner=json.dumps(path),
        name=json.dumps(name),
        indices=tuple(sorted(index_names(getattr(*find_layers(model.network))[0]))),
    )
    return "run_layers.py", text


RECIPES: dict[str, Callable[[Run, Allocation, LanguageModel | None], tuple[str, str]]] = {
    "mergekit": _mergekit,
    "llama-prune": _llama_prune,
    "layer-map": _layer_map,
    "transformers-snippet": _snippet,
}
"""Form to a function that returns the name and the text of its file."""

DEPLOYMENTS = ("checkpoint", *RECIPES)
