"""Draft masks as JSON, in the form that Draft & Verify and SWIFT read."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.errors import InputError
from oracle.store.files import write_json

if TYPE_CHECKING:
    from oracle.draft.study import DraftStudy

__all__ = ["layer_ids", "write_layer_ids"]


def layer_ids(study: "DraftStudy", model: str) -> dict[str, dict[str, Any]]:
    """Skipped layer ids per mask, as in their `skip_layers.json`: MODEL_NAME to `attention` and `mlp` lists.

    Named by choice; where masks differ between sequences, by task or sequence too. Masks that differ by prefix have no
    such form and are left out.
    """
    layers, found = study.about["layers"], {}
    rows = study.rows[study.rows["allocation"].notna()]
    for choice, part in rows.groupby("choice", sort=False):
        masks = [tuple(mask.tolist()) for mask in part["allocation"]]
        for mask, task, sequence in zip(masks, part["task"], part["sequence"], strict=True):
            name = f"{model.rstrip('/').rsplit('/', 1)[-1]}_{str(choice).replace(' ', '-')}"
            if choice == "best per task":
                name = f"{name}_{task}"
            elif len(set(masks)) > 1:
                name = f"{name}_{sequence}"
            kept = set(mask)
            found[name] = {
                "attention": [layer for layer in range(layers) if 2 * layer not in kept],
                "mlp": [layer for layer in range(layers) if 2 * layer + 1 not in kept],
            }
    return found


def write_layer_ids(study: "DraftStudy", path: Path, model: str) -> None:
    """Writes `layer_ids` as a JSON file.

    Raises:
        InputError: if it cannot be written.
    """
    try:
        write_json(path, layer_ids(study, model))
    except OSError as error:
        raise InputError(f"cannot write '{path}' ({error.strerror}); choose another --export") from error
