"""The short form of the table of machines: what this machine can be made to compute like others."""

import pytest
import torch

from machines.__main__ import Machine, lacking, passes

OPTIONS = ("--ulp", "0")
"""Hostile arithmetic is tried in `engine/test_arithmetic.py`, on this machine as it is."""


def test_this_machine_computes_as_machines_of_few_instructions_do() -> None:
    for threads, capability, isa, family in ((2, "default", "AVX2", "llama"), (1, "avx2", "ALL", "qwen2-moe")):
        if lacking(capability, isa, torch.backends.cpu.get_cpu_capability()):
            continue
        reported, rows = Machine(threads=threads, capability=capability, isa=isa).rows("--families", family, *OPTIONS)
        assert reported == capability.upper()
        assert len(rows) == 2
        assert all(passes(row) for row in rows), rows


@pytest.mark.parametrize(
    ("row", "fine"),
    [
        ({}, True),
        ({"accepted": 1}, False),
        ({"mismatches": 1}, False),
        ({"verified": 5}, False),
        ({"verified": 0, "reported": 0}, False),
    ],
)
def test_a_row_passes_only_if_everything_does(row, fine) -> None:
    whole = {"accepted": 2, "models": 2, "mismatches": 0, "verified": 6, "reported": 6}
    assert passes(whole | row) is fine


def test_what_a_processor_lacks_is_named() -> None:
    assert lacking("avx512", "ALL", "AVX2") == "avx512"
    assert lacking("default", "AVX512_CORE", "AVX2") == "oneDNN's AVX512_CORE"
    assert lacking("avx2", "AVX2", "AVX512") is None
