"""Controllers by name."""

from typing import Any

from oracle.controllers.base import Controller
from oracle.controllers.methods.confidence import AdaInfer, Confidence, Entropy
from oracle.controllers.methods.drafting import KnapSpec, Swift
from oracle.controllers.methods.evopress import EvoPress
from oracle.controllers.methods.first import First
from oracle.controllers.methods.fixed import DepthDecay, EarlyExit, Full, RandomMask, SkipDecode, Unified
from oracle.controllers.methods.flexidepth import FlexiDepth
from oracle.controllers.methods.gates import GlavasFixed, GlavasHidden
from oracle.controllers.methods.hidden_state import BlockInfluence, Clasp, ClaspWindow
from oracle.controllers.methods.layer_router import DrLlm, DrLlmForward
from oracle.controllers.methods.oracle_replay import OracleController
from oracle.controllers.methods.sequence_router import Ridge, Router
from oracle.controllers.methods.static import StaticBest
from oracle.controllers.run_context import RunContext
from oracle.errors import InputError
from oracle.utils.arguments import settings_text
from oracle.utils.plugins import CONTROLLERS as PLUGINS
from oracle.utils.plugins import plugin_class, plugins
from oracle.utils.text import nearest_hint

__all__ = ["CONTROLLERS", "chosen", "get_controller", "make", "setting"]

CONTROLLERS: dict[str, type[Controller]] = {
    one.name: one
    for one in (
        Full,
        StaticBest,
        OracleController,
        Unified,
        EarlyExit,
        RandomMask,
        SkipDecode,
        DepthDecay,
        BlockInfluence,
        EvoPress,
        Swift,
        Clasp,
        ClaspWindow,
        KnapSpec,
        Confidence,
        Entropy,
        AdaInfer,
        Ridge,
        Router,
        DrLlm,
        DrLlmForward,
        First,
        FlexiDepth,
        GlavasHidden,
        GlavasFixed,
    )
}
"""Name to class, in the order of a comparison's table."""


def chosen(names: str) -> list[str]:
    """Controller names from a comma-separated list or `all`, in the order of the table; those of packages come last.

    `all` are those of this package.

    Raises:
        InputError: for an unknown name or an empty list.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name != "all":
            get_controller(name)
    if not wanted:
        raise InputError(f"--controllers requires 'all' or a list of {', '.join(CONTROLLERS)}, got none")
    others = [name for name in dict.fromkeys(wanted) if name not in CONTROLLERS and name != "all"]
    return [name for name in CONTROLLERS if name in wanted or "all" in wanted] + others


def get_controller(name: str) -> type[Controller]:
    """The controller of a name, also of an installed package (entry points `layer_oracle.controllers`).

    Raises:
        InputError: if no controller has that name; lists the known ones and the nearest.
    """
    if name in CONTROLLERS:
        return CONTROLLERS[name]
    required = "a subclass of SequenceController or TokenController of oracle.controllers"
    if found := plugin_class(PLUGINS, name, Controller, required):
        return found
    known = [*CONTROLLERS, *plugins(PLUGINS)]
    raise InputError(
        f"a controller must be one of {', '.join(known)} (or all), not '{name}'{nearest_hint(name, known)}"
    )


def make(name: str, context: RunContext, settings: dict[str, Any]) -> Controller:
    """Creates a controller on the run's engine, by name and settings."""
    kind = get_controller(name)
    if issubclass(kind, OracleController):
        return kind.of(context.run, context.engine, **settings)
    return kind(context.engine, **settings)


def setting(settings: dict[str, Any]) -> str:
    """Settings as text, such as `speedup=2.0`."""
    return settings_text(settings)
