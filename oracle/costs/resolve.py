"""The setting `cost`: the cost that a search minimises."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any

from oracle.config import SearchConfig
from oracle.costs.costs import Conditions, Costs
from oracle.costs.files import costs_of_file
from oracle.costs.flops import count_flops
from oracle.costs.latency import measure_latency
from oracle.errors import InputError
from oracle.models import LanguageModel

__all__ = ["search_costs"]


def search_costs(
    config: SearchConfig, model: LanguageModel, prompt_tokens: Seq[int], *, expected: Mapping[str, Any] | None = None
) -> Costs | None:
    """The costs that a search minimises; None for `layers`, where each execution costs 1, without overhead.

    FLOPs and times are those of a token halfway through an output: it attends to the mean prompt and to half of the
    maximum number of generated tokens (or to the model's whole context). One sequence is decoded at a time.

    Args:
        config: `cost` is `layers`, `flops`, `latency` (measured now, on this machine) or a file of `oracle profile
            --out`; unit and `max_new_tokens` are used too.
        model: the language model.
        prompt_tokens: lengths of the prompts.
        expected: manifest of a resumed run, whose costs remain valid.

    Raises:
        InputError: if they cannot be determined, or the file's are of another model, unit or dtype.
    """
    if config.cost == "layers":
        return None
    if expected and "costs" in expected:
        return Costs.from_dict(expected["costs"])
    halfway = round(sum(prompt_tokens) / len(prompt_tokens) + config.max_new_tokens / 2)
    conditions = Conditions(unit=config.unit, context=min(halfway, model.context or halfway))
    if config.cost == "flops":
        return count_flops(model, conditions)
    if config.cost == "latency":
        return measure_latency(model, conditions).costs
    try:
        costs = costs_of_file(config.cost)
    except InputError as error:
        raise InputError(f"--cost needs layers, flops, latency or a file of costs: {error}") from error
    costs.check_meant_for(fingerprint=model.fingerprint, unit=config.unit, dtype=model.machine.dtype)
    return costs
