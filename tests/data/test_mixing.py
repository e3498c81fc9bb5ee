"""Mixing: shares that sum to 1, the law of each kind, a gradient that is p - g, and the same for all who hold a part."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from twofold.data.augment_draws import Draws
from twofold.data.mixing import Mixing, Plan, beta, goals, soft_cross_entropy

X, Y = torch.randn(16, 3, 10, 12), torch.arange(16) % 5


def test_goals_are_smoothed_one_hot_rows():
    assert goals(torch.tensor([1, 0]), 4).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    torch.testing.assert_close(goals(torch.tensor([2], dtype=torch.uint8), 4, 0.2), torch.tensor([[0.05, 0.05, 0.85, 0.05]]))


def test_the_loss_is_the_cross_entropy_of_hard_and_smoothed_classes():
    z = torch.randn(16, 5)
    torch.testing.assert_close(soft_cross_entropy(z, goals(Y, 5)), F.cross_entropy(z, Y))
    torch.testing.assert_close(soft_cross_entropy(z, goals(Y, 5, 0.1)), F.cross_entropy(z, Y, label_smoothing=0.1))


def test_the_gradient_is_what_was_said_less_the_goal():
    z = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    g = 0.3 * goals(Y[:6], 5, 0.1).double() + 0.7 * goals(Y[:6].flip(0), 5, 0.1).double()
    (gradient,) = torch.autograd.grad(soft_cross_entropy(z, g), z)
    torch.testing.assert_close(gradient, (z.softmax(1) - g).detach() / 6)
    assert torch.autograd.gradcheck(lambda z: soft_cross_entropy(z, g), z)


@pytest.mark.parametrize("epoch", range(6))
def test_mixup_and_cutmix_follow_their_laws(epoch):
    g = goals(Y, 5, 0.1)
    for kind in ({"mixup": 0.8}, {"cutmix": 1.0}):
        mixing = Mixing(5, smoothing=0.1, seed=2, **kind)
        plan = mixing.plan(16, (10, 12), epoch, 3)
        mixed = mixing.mix(X, Y, epoch, 3)
        j, share = plan.partner_B, plan.share
        assert sorted(j.tolist()) == list(range(16)) and 0 <= share <= 1
        torch.testing.assert_close(mixed.goal_BN, share * g + (1 - share) * g[j])
        torch.testing.assert_close(mixed.goal_BN.sum(1), torch.ones(16))
        if "mixup" in kind:
            assert plan.box is None
            torch.testing.assert_close(mixed.x_BCHW, share * X + (1 - share) * X[j])
        else:
            inside = torch.zeros(10, 12, dtype=torch.bool)
            inside[plan.box.top : plan.box.bottom, plan.box.left : plan.box.right] = True
            assert torch.equal(mixed.x_BCHW, torch.where(inside, X[j], X))
            assert share == pytest.approx(1 - inside.float().mean().item())


def test_parts_of_a_batch_mix_as_the_whole():
    mixing = Mixing(5, mixup=1.0, cutmix=1.0)
    for batch in range(6):
        plan, whole = mixing.plan(16, (10, 12), 0, batch), mixing.mix(X, Y, 0, batch).x_BCHW
        for part in (slice(0, 5), slice(5, 16)):
            assert torch.equal(plan.blend(X[part], X[plan.partner_B[part]]), whole[part])


def test_with_both_each_is_taken_about_as_often_and_batches_differ():
    plans = [Mixing(5, mixup=1.0, cutmix=1.0).plan(8, (10, 12), 0, batch) for batch in range(400)]
    assert 160 < sum(plan.box is None for plan in plans) < 240
    assert len({plan.share for plan in plans if plan.box is None}) > 150
    assert len({tuple(plan.partner_B.tolist()) for plan in plans}) > 380


def test_without_either_the_pictures_stay():
    mixed = Mixing(5, smoothing=0.1).mix(X, Y, 0, 0)
    assert mixed.x_BCHW is X and torch.equal(mixed.goal_BN, goals(Y, 5, 0.1))


@pytest.mark.parametrize("a", [0.01, 0.2, 1.0, 4.0])
def test_shares_are_of_the_beta_distribution(a):
    shares = np.array([beta(a, Draws(0, 0, np.array([batch]))) for batch in range(3000)])
    assert shares.min() >= 0 and shares.max() <= 1
    assert shares.mean() == pytest.approx(0.5, abs=0.04)
    assert shares.var() == pytest.approx(1 / (4 * (2 * a + 1)), rel=0.1)


BAD = {
    "mixup": (lambda: Mixing(5, mixup=-1), "mixup: expected a number from 0 (without) to 4, the a of Beta(a, a), got -1."),
    "cutmix": (lambda: Mixing(5, cutmix=9), "cutmix: expected a number from 0 (without) to 4"),
    "smoothing": (lambda: Mixing(5, smoothing=1), "label_smoothing: expected a share from 0, below 1, got 1."),
    "class": (lambda: goals(torch.tensor([0, 7]), 5), "goals: expected class numbers 0 to 4, got 7. Has the data more classes"),
    "kind": (lambda: goals(torch.zeros(2), 5), "goals: expected class numbers (B,), got float32 (2,)."),
    "bytes": (
        lambda: Plan(Y, 0.5, None).blend(X.byte(), X.byte()),
        "mixing pictures: expected floating point, got uint8. Normalise them first.",
    ),
    "goal": (
        lambda: soft_cross_entropy(torch.zeros(2, 5), torch.tensor([0, 1])),
        "goal: expected floating point (2, 5), as the logits, got int64 (2,). Class numbers?",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
