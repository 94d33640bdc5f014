"""Settings of the oracle of self-speculative decoding; imports nothing heavy, for help texts."""

from dataclasses import dataclass

from oracle.errors import InputError
from oracle.utils.validation import check_names

__all__ = ["METHODS", "ORACLES", "Plan"]

METHODS = ("swift", "draft-verify", "clasp", "knapspec", "early-exit", "unified", "static")
"""Practical methods: none sees the sequence that it is judged on, beyond what it reads while decoding it."""

ORACLES = ("best per sequence", "best per task", "best overall")
"""Best masks found, chosen on the sequences that they are judged on."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of the oracle of self-speculative decoding.

    Attributes:
        methods: names in `METHODS`.
        length: maximum draft length, in tokens.
        prove: maximum number of masks tested per verified prefix for a bound; whole budgets of it are enumerated.
        evaluations: masks that each search evaluates: per half of the sequences, and per sequence for its best mask.
        limit: maximum number of sequences, evenly spread over the run; None for all.
        seed: seed of the halves and the searches.
        timed: whether to decode with draft and verification, and measure tokens per second.
    """

    methods: tuple[str, ...] = METHODS
    length: int = 8
    prove: int = 5000
    evaluations: int = 32
    limit: int | None = None
    seed: int = 0
    timed: bool = True

    def __post_init__(self) -> None:
        check_names("--methods", self.methods, METHODS)
        for name, least in (("length", 1), ("prove", 0), ("evaluations", 1), ("limit", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"--{name} must be at least {least}, not {value}")
