"""Some families on every run of the tests; `make families` tries all of them."""

import re

import pytest

from families.sweep import sweep

pytestmark = pytest.mark.filterwarnings("ignore")  # about what random models may or may not do

ACCEPTED = ["llama", "gemma3_text", "olmoe", "roformer", "xglm"]
REFUSED = {
    "mamba": "MambaForCausalLM has layers of kind linear_attention",
    "camembert": "CamembertForCausalLM .* does not count positions from 0",
    "longcat_flash": "layer 0 of LongcatFlashForCausalLM has 2 attentions with keys and values of their own",
    "reformer": "ReformerModelWithLMHead",
}


@pytest.mark.parametrize("family", ACCEPTED)
def test_a_family_gives_the_outputs_of_a_pass_without_cache(family: str) -> None:
    row = sweep(family)
    assert (row.state, row.outputs, row.different) == ("accepted", 55, []), row.why


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_is_refused_by_name(family: str) -> None:
    row = sweep(family)
    assert row.state == "refused"
    assert re.search(REFUSED[family], row.why), row.why
