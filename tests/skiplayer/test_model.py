"""The small model and its gates: what skipping leaves unchanged, what it saves, and where gradients come from."""

import pytest
import torch
from torch.nn import functional

from oracle.skiplayer.config import SkipConfig
from oracle.skiplayer.measure import flops_per_token
from oracle.skiplayer.model import Model
from oracle.skiplayer.router import MAX_WEIGHT, LearnedGates, RandomGates, Routing
from oracle.skiplayer.train import seeded

CONFIG = {"width": 16, "layers": 3, "heads": 2, "feed_forward": 24, "context": 20, "batch": 2}


def made(unit="layer"):
    model = Model(SkipConfig(**CONFIG, unit=unit), 50)
    model.initialise(seeded(0))
    return model, torch.randint(0, 50, (2, 16), generator=seeded(1))


class Fixed:
    """Gates that are known beforehand, gathered or multiplied by 0."""

    def __init__(self, runs_UBT, compute=False):
        self.runs_UBT, self.compute = runs_UBT, compute

    def __call__(self, unit, hidden_RTD, normed_BTD):
        runs_RT = self.runs_UBT[unit]
        return Routing(runs_RT, runs_RT.float(), compute=self.compute, rate=runs_RT.float().mean())


def drawn(model, share=0.5):
    return torch.rand((model.units, 2, 16), generator=seeded(2)) < share


@pytest.mark.parametrize("unit", ["layer", "module"])
def test_gathering_gives_what_multiplying_by_zero_gives(unit):
    model, tokens_BT = made(unit)
    runs_UBT = drawn(model)
    gathered = model(tokens_BT, Fixed(runs_UBT)).hidden_RTD
    masked = model(tokens_BT, Fixed(runs_UBT, compute=True)).hidden_RTD
    torch.testing.assert_close(gathered, masked, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("unit", ["layer", "module"])
def test_running_everything_is_the_dense_model(unit):
    model, tokens_BT = made(unit)
    everyone = torch.ones((model.units, 2, 16), dtype=torch.bool)
    torch.testing.assert_close(
        model(tokens_BT, Fixed(everyone)).hidden_RTD, model(tokens_BT).hidden_RTD, rtol=1e-5, atol=1e-5
    )


def test_running_nothing_passes_the_embedding_through():
    model, tokens_BT = made()
    none_run = torch.zeros((model.units, 2, 16), dtype=torch.bool)
    assert torch.equal(model(tokens_BT, Fixed(none_run)).hidden_RTD, model.embedding(tokens_BT))


def test_a_skipped_token_is_still_attended_to():
    model, tokens_BT = made()
    runs_UBT = torch.ones((model.units, 2, 16), dtype=torch.bool)
    runs_UBT[:, :, 3] = False
    before = model(tokens_BT, Fixed(runs_UBT)).hidden_RTD
    tokens_BT = tokens_BT.clone()
    tokens_BT[:, 3] = (tokens_BT[:, 3] + 1) % 50
    after = model(tokens_BT, Fixed(runs_UBT)).hidden_RTD
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_later_tokens_are_not_seen():
    model, tokens_BT = made()
    runs_UBT = drawn(model)
    before = model(tokens_BT, Fixed(runs_UBT)).hidden_RTD
    tokens_BT = tokens_BT.clone()
    tokens_BT[:, 9:] = 7
    torch.testing.assert_close(model(tokens_BT, Fixed(runs_UBT)).hidden_RTD[:, :9], before[:, :9])


def test_skipping_saves_flops_all_but_those_of_keys_and_values():
    model, _ = made()
    rows_BT = torch.randint(0, 50, (4, 17), generator=seeded(3)).numpy()
    full = flops_per_token(model, lambda: None, rows_BT)
    none = flops_per_token(model, lambda: RandomGates(0.0, seeded(0)), rows_BT)
    width, wide, tokens = 16, 24, 16
    states, head = 2 * 2 * width * width, 2 * width * 50
    assert none == 3 * states + head
    assert full == 3 * (states + 2 * 2 * width * width + 2 * 3 * width * wide + 2 * 2 * tokens * width) + head


def test_arg_max_draws_nothing_and_the_density_loss_sees_every_token():
    router = LearnedGates(2, 8, temperature=1.0, estimator="executed")
    normed_BTD = torch.randn((2, 6, 8), generator=seeded(0))
    torch.nn.init.normal_(router.weight, generator=seeded(1))
    with torch.no_grad():
        first, second = (router(1, normed_BTD, normed_BTD).runs_RT for _ in range(2))
    logits = normed_BTD @ router.weight[1].T
    assert torch.equal(first, second)
    assert torch.equal(first, logits.argmax(-1) == 1)
    router.generator, router.noise = seeded(5), 1.0
    pick = router(1, normed_BTD, normed_BTD)
    (slope,) = torch.autograd.grad(pick.rate, router.weight)
    assert slope[1].abs().sum() > 0
    assert slope[0].abs().sum() == 0
    assert pick.rate.item() == pytest.approx(pick.runs_RT.float().mean().item())


def test_the_executed_estimator_is_unbiased_for_the_slope_of_running():
    """Averaged over noise, executed tokens weighted by 1 / P give what all tokens at g = 1 would."""
    router = LearnedGates(1, 4, temperature=1.0, estimator="executed")
    torch.nn.init.normal_(router.weight, std=0.5, generator=seeded(1))
    normed_BTD = torch.randn((1, 8, 4), generator=seeded(2))
    worth_BT = torch.randn((1, 8), generator=seeded(3))
    router.noise = 1.0
    found, wanted = torch.zeros_like(router.weight), torch.zeros_like(router.weight)
    for draw in range(4000):
        router.generator = seeded(9, draw)
        pick = router(0, normed_BTD, normed_BTD)
        (slope,) = torch.autograd.grad((pick.gate_RT * worth_BT * pick.runs_RT).sum(), router.weight)
        found += slope / 4000
    clean_BT = (normed_BTD @ (router.weight[0, 1] - router.weight[0, 0])).detach()
    assert torch.sigmoid(clean_BT).min() > 1 / MAX_WEIGHT  # no weight is cut off here
    # E[soft'(d) | runs] per token, by simulation of the logistic noise alone.
    noise = torch.rand(200_000, 1, 1, generator=seeded(11)).logit()
    soft = torch.sigmoid(clean_BT + noise)
    slope_BT = ((soft * (1 - soft)) * (soft > 0.5)).mean(0) / torch.sigmoid(clean_BT)
    direction = torch.einsum("bt,btd->d", worth_BT * slope_BT, normed_BTD)
    wanted[0, 1], wanted[0, 0] = direction, -direction
    torch.testing.assert_close(found, wanted, rtol=0.1, atol=0.03)


def test_straight_through_reaches_the_router_through_the_model():
    model, tokens_BT = made()
    for estimator in ("executed", "all"):
        router = LearnedGates(model.units, 16, temperature=1.0, estimator=estimator)
        router.generator, router.noise = seeded(4), 1.0
        logits = model.logits(model(tokens_BT, router).hidden_RTD)
        functional.cross_entropy(logits.flatten(0, 1), tokens_BT.flatten()).backward()
        assert (router.weight.grad.abs().sum((1, 2)) > 0).all()
