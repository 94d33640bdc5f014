"""Checks of settings before anything is loaded: neither the model nor the data nor torch is needed."""

from pathlib import Path

from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.metrics import METRICS, get_metric, load_function
from oracle.search import PATH_STRATEGIES, get_strategy
from oracle.utils.text import nearest_hint

__all__ = ["check_functions", "check_settings"]

COSTS = ("layers", "flops", "latency")


def check_settings(config: SearchConfig) -> None:
    """Checks settings that `SearchConfig` cannot, and how they go together.

    Raises:
        InputError: for an unknown strategy or cost, or settings that exclude each other.
    """
    strategy = get_strategy(config.strategy)
    if config.paths and not strategy.paths:
        raise InputError(
            f"--paths needs one of the strategies {', '.join(PATH_STRATEGIES)}, not '{config.strategy}', which tries "
            "skip masks only; choose one or omit --paths (a search --from a run has that run's setting)"
        )
    check_functions(config)
    metric = get_metric(config.criterion)
    if metric.name in METRICS and metric.floor is not None and config.tolerance >= 1:
        raise InputError(
            f"--tolerance needs less than 1 for {config.criterion}, whose values lie between 0 and 1, not "
            f"{config.tolerance}: any allocation would qualify"
        )
    if config.cost not in COSTS:
        _check_cost_file(config)
    if config.study is not None:
        _check_study(config.study)


def check_functions(config: SearchConfig) -> None:
    """Imports the metrics that are functions.

    Raises:
        InputError: if one is not allowed, cannot be imported, or does not keep to the protocol.
    """
    for name in config.asked_metrics:
        if get_metric(name).foreign:
            load_function(name)


def _check_cost_file(config: SearchConfig) -> None:
    from oracle.costs import costs_of_file

    try:
        unit = costs_of_file(config.cost).unit
    except InputError as error:
        hint = nearest_hint(config.cost, COSTS)
        raise InputError(f"--cost needs {', '.join(COSTS)} or a file of costs: {error}{hint}") from error
    if unit != config.unit:
        raise InputError(
            f"--cost '{config.cost}' has the costs of {unit}s, but --unit is {config.unit}; choose --unit {unit}, or "
            f"write the costs with 'oracle profile --unit {config.unit} --out FILE'"
        )


def _check_study(study: str) -> None:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        url = make_url(study)
        url.get_dialect()
    except (SQLAlchemyError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"--study needs a URL such as sqlite:///trials.db, not '{study}' ({reason})") from error
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).absolute().parent.is_dir():
        raise InputError(f"--study '{study}' needs an existing folder, but '{Path(url.database).parent}' is none")
