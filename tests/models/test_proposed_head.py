"""The two best tokens from proposals in bfloat16: none is missed, whatever the head and the states."""

import pytest
import torch
from torch import Tensor, nn

from oracle.models.greedy import best
from oracle.models.proposed_head import ProposedHead

VOCABULARY, WIDTH, ROWS = 5003, 48, 9


def head(kind: str) -> nn.Linear:
    """Heads whose best tokens are easy and hard to tell apart."""
    made = nn.Linear(WIDTH, VOCABULARY, bias=False)
    with torch.no_grad():
        made.weight.normal_()
        if kind == "close":  # pairs of tokens that differ by less than a bfloat16 shows
            made.weight[1::2] = made.weight[0:-1:2] * (1 + 2.0**-12)
        elif kind == "long":  # few very long tokens
            made.weight[::500] *= 30
        elif kind == "negative":  # all logits far below zero
            made.weight.copy_(-made.weight.abs() - 1)
    return made


def states(kind: str) -> Tensor:
    hidden = torch.randn(ROWS, WIDTH) * torch.logspace(-3, 3, ROWS)[:, None]
    return hidden.abs() if kind == "negative" else hidden


@pytest.mark.parametrize("kind", ["plain", "close", "long", "negative"])
@pytest.mark.parametrize("seed", range(5))
@torch.inference_mode()
def test_tokens_and_leads_are_those_of_all_logits(kind: str, seed: int) -> None:
    torch.manual_seed(seed)
    whole, hidden = head(kind), states(kind)
    tokens_R, lead_R = ProposedHead(whole).best(hidden)
    exact_RV = hidden.double() @ whole.weight.double().T
    top_R2 = exact_RV.topk(2, dim=-1).values
    scale_R = hidden.norm(dim=1) * whole.weight.norm(dim=1).max()
    chosen_R = exact_RV.gather(1, tokens_R[:, None])[:, 0]
    assert bool((top_R2[:, 0] - chosen_R <= 1e-6 * scale_R).all()), "the best, but for rounding in float32"
    assert bool(((top_R2[:, 0] - top_R2[:, 1] - lead_R).abs() <= 1e-6 * scale_R).all())


@pytest.mark.parametrize("kind", ["plain", "close", "long", "negative"])
@torch.inference_mode()
def test_the_two_best_are_proposed_and_few_others(kind: str) -> None:
    torch.manual_seed(3)
    whole = head(kind)
    proposals, seen = ProposedHead(whole), 0
    for hidden in states(kind):
        ids_X = proposals.proposed(hidden[None])
        wanted = (whole.weight.double() @ hidden.double()).topk(2).indices
        if ids_X is not None:
            assert set(wanted.tolist()) <= set(ids_X.tolist())
            assert ids_X.tolist() == sorted(ids_X.tolist())
            seen += 1
    assert seen or kind == "long", "few enough to be of use; very long tokens widen the bound of all"


@torch.inference_mode()
def test_the_bound_holds() -> None:
    torch.manual_seed(1)
    whole, hidden = head("long"), torch.randn(200, WIDTH)
    proposals = ProposedHead(whole)
    low = hidden.bfloat16()
    proposed_RV = nn.functional.linear(low, whole.weight.bfloat16()).double()
    error_R = (proposed_RV - hidden.double() @ whole.weight.double().T).abs().amax(1)
    bound_R = proposals._bound(hidden, low.float(), proposed_RV.abs().amax(1).float())
    assert bool((error_R <= bound_R).all())
    assert float((error_R / bound_R).max()) > 0.05, "and is not idle"


@torch.inference_mode()
def test_states_that_are_no_numbers_are_left_to_the_whole_head() -> None:
    whole, hidden = head("plain"), torch.randn(3, WIDTH)
    hidden[1, 0] = float("nan")
    proposals = ProposedHead(whole)
    assert proposals.proposed(hidden) is None
    tokens_R, _ = proposals.best(hidden)
    assert tokens_R.tolist() == best(nn.functional.linear(hidden, whole.weight))[0].tolist()


def test_it_is_only_for_large_plain_heads_in_float32_on_processors_that_have_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = nn.Linear(64, 1 << 17, bias=False)
    for has, heads in ((True, [large]), (False, [])):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"avx512_bf16": has})
        assert [one for one in [large] if ProposedHead.of(one)] == heads
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    for other in (nn.Linear(64, 1 << 17), nn.Linear(64, 512, bias=False), large.bfloat16(), nn.Sequential(large)):
        assert ProposedHead.of(other) is None
