"""Help texts of all commands."""

import re

import pytest

from oracle.cli import parsers
from oracle.cli.figures import EPILOG

PARSERS = parsers()


@pytest.mark.parametrize("name", PARSERS)
def test_help_says_what_a_value_is(name: str) -> None:
    text = PARSERS[name].format_help()
    assert not re.search(r"default:\s+(True|False|None|\[)", text)
    for action in PARSERS[name]._actions:
        if action.option_strings and action.nargs != 0 and action.type is not None:
            assert action.metavar or f"{action.option_strings[0]} {action.dest.upper()}" not in text
        assert action.help or not action.option_strings


def test_the_number_of_sequences_is_limited_by_one_name() -> None:
    having = {
        name
        for name, one in PARSERS.items()
        for action in one._actions
        if (action.help or "").startswith("maximum number of sequences") and "--limit" in action.option_strings
    }
    assert {"search", "data", "measure", "compare", "static", "draft"} <= having
    assert PARSERS["measure"].parse_args(["r", "--limit", "3"]).sequences == 3
    assert PARSERS["measure"].parse_args(["r", "--sequences", "3"]).sequences == 3


def test_figures_are_listed_by_name() -> None:
    from analysis.plots.registry import NAMES

    listed = [line.split()[0] for line in EPILOG.splitlines() if line.startswith("  ")]
    assert sorted(listed) == sorted(NAMES)
