"""Which layers run: the full model, one mask, the allocations of a run, or a controller, on any engine of a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from oracle.allocations import compact, parse
from oracle.config import SearchConfig
from oracle.controllers import Controller, OracleController
from oracle.controllers.methods.fixed import FixedMask
from oracle.controllers.quality_table import QualityTable
from oracle.controllers.registry import get_controller, make, setting
from oracle.controllers.run_context import RunContext
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.store import Run
from oracle.utils.progress import Watch, silent

__all__ = ["Choice", "Policy"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the user asks for; at most one of the three.

    Attributes:
        controller: name of a controller; None for none.
        settings: its settings.
        allocation: one allocation for all requests, such as `0-3,7,9-29`; None for none.
        oracle: `equal_quality` or `minimal`: the allocations of the run, by prompt; None for none.
    """

    controller: str | None = None
    settings: Mapping[str, Any] | None = None
    allocation: str | None = None
    oracle: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("controller", "allocation", "oracle") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"{' and '.join(f'--{name}' for name in given)} exclude each other: give one of them")
        if self.settings and self.controller is None:
            raise InputError(f"the settings {setting(dict(self.settings))} need a controller: name it")
        if self.controller is not None:
            get_controller(self.controller)


class Policy:
    """A controller that can be built on any engine of the run's model.

    Args:
        kind: class of the controller.
        settings: its settings.
        run: the run whose allocations it replays; None for none.
        state: its learned parameters; empty for none.
    """

    def __init__(
        self, kind: type[Controller], settings: Mapping[str, Any], *, run: Run | None, state: Mapping[str, Any]
    ) -> None:
        self._kind, self._settings, self._run, self._state = kind, dict(settings), run, state

    @classmethod
    def of(
        cls, choice: Choice, run: Run | None, model: LanguageModel, config: SearchConfig, watch: Watch = silent
    ) -> Self:
        """The policy of a choice; a controller that learns is trained on all sequences of the run.

        Raises:
            InputError: if it needs a run, or settings that are not given.
        """
        if choice.allocation is not None:
            return cls(_Fixed, {"kept": parse(choice.allocation)}, run=None, state={})
        name = "oracle" if choice.oracle is not None else choice.controller or "full"
        kind = get_controller(name)
        if run is None and (kind.learns or name == "oracle"):
            raise InputError(f"'{name}' needs a run, whose sequences it has seen: give run=RUN")
        settings = {"policy": choice.oracle} if choice.oracle is not None else dict(choice.settings or {})
        offered = kind.sweep(model.layers)
        if not settings and len(offered) == 1:
            settings = offered[0]
        if all(settings.keys() != one.keys() for one in offered):
            known = "; ".join(dict.fromkeys(setting(one) or "no setting" for one in offered[:6]))
            raise InputError(
                f"controller '{name}' needs other settings than {setting(settings) or 'none'}: choose such as {known}"
            )
        state: Mapping[str, Any] = {}
        if kind.learns:
            assert run is not None
            context = RunContext.open(run.folder, model=model, watch=watch)
            controller = make(name, context, settings)
            examples, table = list(context.examples.values()), QualityTable(context, watch=watch)
            seed = int(run.manifest["seed"])
            controller.fit(TrainingSet(examples=examples, quality_table=table, seed=seed, watch=watch))
            state = controller.state()
        return cls(kind, settings, run=run, state=state)

    @property
    def name(self) -> str:
        """The policy in words, such as `unified speedup=2.0`."""
        if issubclass(self._kind, _Fixed):
            return f"allocation {compact(self._settings['kept'])}"
        return f"{self._kind.name} {setting(self._settings)}".strip()

    @property
    def trained(self) -> bool:
        """Whether it was trained on the run's sequences."""
        return self._kind.learns

    def on(self, engine: Engine) -> Controller:
        """The controller on an engine."""
        if self._run is not None and issubclass(self._kind, OracleController):
            return self._kind.of(self._run, engine, **self._settings)
        controller = self._kind(engine, **self._settings)
        if self._state:
            controller.restore(self._state)
        return controller


class _Fixed(FixedMask):
    """One given mask."""

    name = "allocation"

    def __init__(self, engine: Engine, *, kept: tuple[int, ...]) -> None:
        super().__init__(engine)
        engine.units.check(kept, rising=engine.rising)
        self.kept = kept
