"""Every setting of a search, its default and its check, in one place."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from oracle.errors import InputError
from oracle.metrics import METRICS, get_metric
from oracle.sequences import Columns
from oracle.utils.devices import AUTO, check_device, dtype_name
from oracle.utils.validation import check_types

__all__ = ["EMBEDDED", "Scope", "SearchConfig", "Unit"]

EMBEDDED = "smollm2-135m-instruct"
"""Name of the default model, which comes out of a wheel: see `oracle.models.embedded`."""

Scope = Literal["decode", "sequence"]

Unit = Literal["layer", "sublayer"]

SAMPLERS = ("tpe", "motpe", "nsga2")
"""Strategies of optuna, which can store what they try in a study."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """What a search does, from data to seed.

    Attributes:
        model: name of the model, as `oracle.load_model` takes it.
        data: a file, a `datasets` name, or the bundled `instruct`.
        reference_files: text files aligned with `data`, one reference a line.
        columns: where prompts and references stand in a record.
        tasks: only these tasks; empty for all.
        limit: at most that many sequences, spread over the tasks.
        criterion: the metric that decides whether an output is as good as the full model's.
        tolerance: how far below the full model's quality an output may stay, in units of the metric.
        metrics: further metrics to compute that need a pass through the model.
        scope: `decode` (the prompt runs at full depth, and with it the first generated token comes from the full
            model) or `sequence` (the prompt runs the allocation too).
        unit: what allocations are made of: `layer`, or `sublayer` (attention and MLP apart).
        cost: what is minimised: `layers` (each unit costs 1), `flops`, `latency` (measured on this machine), or a file
            of `oracle profile --out`, where `FILE:flops` or `FILE:ms` chooses if it holds both (ms by default).
        max_new_tokens: the most tokens generated per output.
        paths: whether layers may repeat or change their order (strategies `mcts-*`, scope `sequence`).
        strategy: how allocations are chosen; see `oracle.search.STRATEGIES`.
        study: where the samplers of optuna store a study per sequence, such as `sqlite:///trials.db`; None for nowhere.
        evaluations: allocations evaluated per sequence at most.
        seconds: time per sequence at most; None for no limit.
        layer_executions: layer x token units per sequence at most, as if every output were decoded alone; None for no
            limit.
        prune: whether outputs that cannot meet the criterion any more are dropped unfinished. Faster, but then their
            quality is unknown: other metrics and the null control see only the rest.
        prove: masks per sequence that may be tested without decoding to raise the lower bound; only under the
            same-output criterion (`agreement`, tolerance 0).
        batch_rows: allocations decoded as one batch.
        near_tie: leads, in logits, up to which a token is settled alone, as plain generation settles it; None for a
            multiple of the rounding that is measured when the model is loaded.
        memory: MiB that the engine may add to the loaded model.
        chat_template: whether prompts go through the tokenizer's chat template, if it has one.
        seed: of every random choice.
        dtype: of the weights, stored under torch's canonical name; `auto` is the checkpoint's own on a GPU and float32
            on the CPU, and a run stores which of them it was.
        device: `cpu`, `cuda`, `cuda:N`, or `auto` (a GPU if there is one, else the CPU).
        trust_remote_code: whether code that comes with a model may run.
    """

    model: str = EMBEDDED
    data: str = "instruct"
    reference_files: tuple[str, ...] = ()
    columns: Columns = field(default_factory=Columns)
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    criterion: str = "rougeL"
    tolerance: float = 0.0
    metrics: tuple[str, ...] = ()
    scope: Scope = "decode"
    unit: Unit = "layer"
    cost: str = "layers"
    max_new_tokens: int = 32
    paths: bool = False
    strategy: str = "auto"
    study: str | None = None
    evaluations: int = 120
    seconds: float | None = None
    layer_executions: int | None = None
    prune: bool = False
    prove: int = 50_000
    batch_rows: int = 512
    near_tie: float | None = None
    memory: int = 1024
    chat_template: bool = True
    seed: int = 0
    dtype: str = AUTO
    device: str = AUTO
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        check_device(self.device)
        for name in (self.criterion, *self.metrics):
            get_metric(name)
        for name, allowed in (("scope", get_args(Scope)), ("unit", get_args(Unit))):
            if getattr(self, name) not in allowed:
                raise InputError(f"--{name} needs one of {', '.join(allowed)}, not '{getattr(self, name)}'")
        for name in ("max_new_tokens", "evaluations", "batch_rows", "memory"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} needs at least 1, not {getattr(self, name)}")
        for name in ("limit", "layer_executions"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} needs at least 1, not {getattr(self, name)}")
        if self.near_tie is not None and not 0 <= self.near_tie < float("inf"):
            raise InputError(f"--near-tie needs a number of at least 0, not {self.near_tie}")
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"--seconds needs a number above 0, not {self.seconds}")
        if self.paths and self.scope != "sequence":
            raise InputError("--paths needs --scope sequence: in scope decode the prompt has run each layer once")
        if self.study and self.strategy not in SAMPLERS:
            raise InputError(f"--study needs one of the strategies {', '.join(SAMPLERS)}, not '{self.strategy}'")
        if self.prove < 0:
            raise InputError(f"--prove needs at least 0, not {self.prove}")
        if not 0 <= self.tolerance < float("inf"):
            raise InputError(f"--tolerance needs a number of at least 0, not {self.tolerance}")
        if self.seed < 0:
            raise InputError(f"--seed needs a number of at least 0, not {self.seed}")

    @property
    def model_metrics(self) -> tuple[str, ...]:
        """Metrics that need a pass through the model, the criterion first if it is one."""
        wanted = dict.fromkeys((self.criterion, *self.metrics))
        return tuple(name for name in wanted if get_metric(name).kind in ("likelihood", "choice"))

    @property
    def quality_columns(self) -> list[str]:
        """The columns of qualities that an evaluation has."""
        extra = {
            "log_likelihood": ("log_likelihood", "null_log_likelihood"),
            "choice_accuracy": ("choice_accuracy", "choice"),
        }
        always = [name for name, metric in METRICS.items() if metric.kind in ("text", "tokens")]
        return always + [column for name in self.model_metrics for column in extra[name]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SearchConfig":
        """The config that `to_dict` gave, after a way through JSON.

        Raises:
            InputError: if a setting is unknown or no longer allowed.
        """
        try:
            columns = Columns(**_tuples(values["columns"]))
            return cls(**{**_tuples(values), "columns": columns})
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"the settings of the run are not those of this layer-oracle ({error}); search again, or use the "
                "version that wrote it"
            ) from error


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Lists as tuples: JSON knows no tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
