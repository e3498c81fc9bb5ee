"""Radial outputs: distances and the competition of the paper against other expressions, codes that differ, and what is refused."""

import math
from functools import partial

import pytest
import torch

from twofold.layers.check import Case, check, check_message, noise
from twofold.models.radial import RadialBasis, codes, competition, competitive_loss, distances, drawing


def test_distances_by_the_four_witnesses():
    x, code = noise(3, 5), noise(4, 5, seed=1)

    def expression(x, code):
        return (x * x).sum(1)[:, None] - 2 * x @ code.t() + (code * code).sum(1)

    check(Case(distances, (x, code), expression))


@pytest.mark.parametrize("j", [0.5, 3.0, 40.0])
def test_the_papers_loss_by_the_four_witnesses(j):
    y, target = noise(4, 3).detach().square().mul(5).requires_grad_(), torch.tensor([2, 0, 0, 1])

    def equation_9(y, target, j):
        rows = [y[b, t] + torch.log(math.exp(-j) + sum(torch.exp(-y[b, n]) for n in range(3))) for b, t in enumerate(target)]
        return sum(rows) / len(rows)

    check(Case(competition, (y, target, j), equation_9, rows=False))


def test_the_loss_is_positive_pushes_near_classes_and_spares_those_beyond_rubbish():
    y = torch.tensor([[0.0, 2.0, 90.0]], requires_grad=True)
    loss = competitive_loss(y, torch.tensor([0]), rubbish=10.0)
    loss.backward()
    assert loss.item() > 0
    right, near, far = y.grad[0].tolist()
    assert right > 0 > near and near < -0.1 and abs(far) < 1e-30
    with_rubbish, without = (competitive_loss(torch.full((1, 2), 300.0), torch.tensor([1]), rubbish=j).item() for j in (84.0, 1e4))
    assert with_rubbish == pytest.approx(300 - 84) and without == pytest.approx(math.log(2))  # no overflow either


def test_ten_classes_have_pictures_and_others_draw():
    digits = codes(10)
    assert drawing(digits[4]).splitlines() == [
        "....##.", "...###.", "..####.", "..#.##.", ".##.##.", ".#..##.", "##..##.", "##..##.", "#######", "#######", "....##.", "....##.",
    ]  # fmt: skip
    assert drawing(digits[1]).splitlines()[-1] == ".######"
    for drawn in (digits, codes(2), codes(200)):
        assert drawn.shape[1] == 84 and set(drawn.unique().tolist()) == {-1.0, 1.0}
        apart = torch.cdist(drawn, drawn, p=0) + 84 * torch.eye(len(drawn))
        assert apart.min() >= 13  # pixels
    assert torch.equal(codes(7), codes(7)) and not torch.equal(codes(7), codes(7, seed=1))


def test_codes_are_learnt_only_where_asked():
    for trainable in (False, True):
        layer = RadialBasis(codes(3), trainable)
        assert ("codes" in dict(layer.named_parameters())) is trainable and list(layer.state_dict()) == ["codes"]
    assert repr(layer) == "RadialBasis(classes=3, units=84, trainable=True)"


LOSS = partial(competitive_loss, torch.zeros(2, 3))
BAD = {
    "units": (lambda: RadialBasis(codes(3))(torch.zeros(2, 80)), "RadialBasis input: expected (B, U=84), got (2, 80)"),
    "rank": (lambda: competitive_loss(torch.zeros(3), torch.tensor([0])), "competitive_loss distances: expected (B, N), got (3,)"),
    "one-hot": (lambda: LOSS(torch.eye(3)[:2]), "expected (2,), a class number for each row, got (2, 3) of float32. One-hot"),
    "class": (lambda: LOSS(torch.tensor([0, 3])), "expected class numbers 0..2, got 3"),
    "j": (lambda: LOSS(torch.tensor([0, 1]), rubbish=0.0), "competitive_loss: expected rubbish", "above 0, got 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    check_message(*BAD[name])
