"""The engine: evaluates many allocations of a sequence at once, exactly."""

from oracle.engine.decode import Generation
from oracle.engine.drafting import Drafted, DraftEngine, Speculation, VerifiedOutput
from oracle.engine.engine import Engine
from oracle.engine.evaluate import Evaluator
from oracle.engine.fixed_length import FixedLengthEngine
from oracle.engine.gated import GatedGeneration, GatedScore
from oracle.engine.gates import Fed, Gate, TableGate
from oracle.engine.prompts import PromptState
from oracle.engine.reference import Difference

__all__ = [
    "Difference",
    "DraftEngine",
    "Drafted",
    "Engine",
    "Evaluator",
    "Fed",
    "FixedLengthEngine",
    "Gate",
    "GatedGeneration",
    "GatedScore",
    "Generation",
    "PromptState",
    "Speculation",
    "TableGate",
    "VerifiedOutput",
]
