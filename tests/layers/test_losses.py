"""Cross-entropy: the witnesses over all options, the law p - onehot, large logits, what is ignored, and wrong targets."""

import math

import numpy as np
import pytest
import torch
from torch import nn as torch_nn

import twofold
from twofold.layers import losses as page
from twofold.layers.check import Case, check, check_differences, check_drop_in, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.layers.losses import CrossEntropyLoss, cross_entropy

Z = noise(5, 4, seed=1)
T = torch.tensor([2, 0, 3, 3, 1])
SOME = torch.tensor([2, -100, 3, 0, -100])
W = torch.tensor([0.75, 2.0, 1.5, 3.0], dtype=torch.float64)
MAPS, MAPS_T = noise(2, 4, 3, 2, seed=2), torch.tensor([[[0, 3], [1, 1], [2, 0]], [[3, 2], [-100, 0], [1, 3]]])


def expression(z, target, weight=None, ignore_index=-100, reduction="mean", smoothing=0.0):
    """The goal as a matrix of one-hot rows, the classes last, and log p by torch's logsumexp."""
    z = z.movedim(min(1, z.dim() - 1), -1)
    N = z.shape[-1]
    weight = torch.ones(N, dtype=z.dtype) if weight is None else weight.to(z.dtype)
    counts = (target != ignore_index).to(z.dtype)
    hot = (target.unsqueeze(-1) == torch.arange(N)).to(z.dtype) * counts.unsqueeze(-1)
    goal = ((1 - smoothing) * hot + smoothing / N * counts.unsqueeze(-1)) * weight
    loss = -torch.einsum("...n,...n->...", goal, z - z.logsumexp(-1, keepdim=True))
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / torch.einsum("...n,n->", hot, weight)


def by_loops(z, target, weight, ignore_index, reduction, smoothing):
    """The law of the page for (B, N), one number at a time."""
    B, N = z.shape
    losses, shares = [], []
    for b in range(B):
        if target[b] == ignore_index:
            losses.append(0.0)
            continue
        p = [math.exp(z[b, n]) / sum(math.exp(v) for v in z[b]) for n in range(N)]
        w = [1.0] * N if weight is None else weight
        goal = [w[n] * smoothing / N + (w[n] * (1 - smoothing) if n == target[b] else 0) for n in range(N)]
        losses.append(-sum(g * math.log(q) for g, q in zip(goal, p, strict=True)))
        shares.append(w[target[b]])
    return {"none": losses, "sum": sum(losses), "mean": sum(losses) / sum(shares)}[reduction]


CASES = {
    "mean": (Z, T),
    "sum": (Z, T, None, -100, "sum"),
    "none": (Z, T, None, -100, "none"),
    "weights": (Z, T, W),
    "weights, sum": (Z, T, W, -100, "sum"),
    "weights, none": (Z, T, W, -100, "none"),
    "ignored": (Z, SOME),
    "ignored class": (Z, T, None, 3),
    "ignored, none": (Z, SOME, None, -100, "none"),
    "ignored, weights": (Z, SOME, W),
    "smoothing": (Z, T, None, -100, "mean", 0.1),
    "smoothing, none": (Z, T, None, -100, "none", 0.3),
    "all smooth": (Z, T, None, -100, "mean", 1.0),
    "smoothing, ignored": (Z, SOME, None, -100, "sum", 0.1),
    "everything": (Z, SOME, W, -100, "mean", 0.2),
    "everything, none": (Z, SOME, W, -100, "none", 0.2),
    "one row": (Z.detach()[:1].requires_grad_(), T[:1]),
    "one class": (noise(3, 1, seed=4), torch.zeros(3, dtype=torch.int64)),
    "two classes": (noise(3, 2, seed=4), torch.tensor([1, 0, 1])),
    "maps": (MAPS, MAPS_T),
    "maps, everything": (MAPS, MAPS_T, W, -100, "mean", 0.1),
    "maps, none": (MAPS, MAPS_T, W, -100, "none", 0.1),
    "one example": (noise(4, seed=3), torch.tensor(2)),
    "one example, everything": (noise(4, seed=3), torch.tensor(2), W, -100, "none", 0.1),
    "transposed": (noise(4, 5, seed=5).detach().t().requires_grad_(), T),
    "expanded": (noise(1, 4, seed=6).detach().expand(5, 4).requires_grad_(), T),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    arguments = CASES[name]
    rows = len(arguments) > 4 and arguments[4] == "none" and arguments[0].dim() > 1
    check(Case(cross_entropy, arguments, expression, rows=rows, row_arguments=(0, 1)))


@pytest.mark.parametrize("name", [name for name, arguments in CASES.items() if arguments[0].dim() == 2])
def test_values_by_loops(name):
    given = CASES[name]
    z, target, weight, ignore_index, reduction, smoothing = given + (None, -100, "mean", 0.0)[len(given) - 2 :]
    expected = by_loops(z.detach().numpy(), target, None if weight is None else weight.tolist(), ignore_index, reduction, smoothing)
    got, _ = cross_entropy.explain(z, target, weight, ignore_index, reduction, smoothing)
    assert np.allclose(got.numpy(), expected, rtol=0, atol=1e-12)


def gradient(z, *rest):
    z = z.detach().clone().requires_grad_()
    with twofold.route("plain"):
        return torch.autograd.grad(cross_entropy(z, *rest), z)[0]


def test_the_gradient_is_what_was_said_less_what_is_so():
    onehot = torch.eye(4, dtype=torch.float64)[T]
    assert torch.allclose(gradient(Z, T), (Z.detach().softmax(1) - onehot) / 5, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ["mean", "everything", "maps, everything"])
def test_the_gradient_sums_to_zero_over_the_classes(name):
    total = gradient(*CASES[name]).sum(1)
    assert torch.allclose(total, torch.zeros_like(total), rtol=0, atol=1e-15)


def test_who_knows_nothing_pays_log_N():
    assert CrossEntropyLoss()(torch.zeros(3, 7, dtype=torch.float64), torch.tensor([0, 3, 6])).item() == pytest.approx(math.log(7))


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_logits_and_classes_that_cannot_be_stay_finite(route, dtype):
    z = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [0.0, float("-inf"), 0.0]], dtype=dtype, requires_grad=True)
    with twofold.route(route):
        loss = CrossEntropyLoss(reduction="none")(z, torch.tensor([1, 1, 0]))
    loss.sum().backward()
    assert torch.allclose(loss, torch.tensor([2e4, math.log(2), math.log(2)], dtype=dtype), rtol=1e-6)
    half = torch.tensor([[1.0, -1.0, 0.0], [0.0, -0.5, 0.5], [-0.5, 0.0, 0.5]], dtype=dtype)
    assert z.grad is not None and torch.allclose(z.grad, half, rtol=1e-6, atol=1e-7)


def test_a_class_that_cannot_be_is_smoothed_as_in_torch():
    z = torch.tensor([[0.0, float("-inf"), 1.0]])
    for route in ("plain", "vendor"):
        leaf = z.clone().requires_grad_()
        with twofold.route(route):
            loss = CrossEntropyLoss(label_smoothing=0.1)(leaf, torch.tensor([0]))
        loss.backward()
        assert loss.item() == math.inf
        assert leaf.grad is not None and torch.allclose(leaf.grad, torch.tensor([[-0.6644, -0.0333, 0.6977]]), atol=1e-4)


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("target", [torch.full((2,), -100), torch.zeros(0, dtype=torch.int64)], ids=["all ignored", "empty"])
def test_the_mean_of_nothing_is_nan_and_its_gradient_zero(route, target):
    z = torch.randn(len(target), 3, requires_grad=True)
    with twofold.route(route):
        loss = CrossEntropyLoss()(z, target)
    loss.backward()
    assert math.isnan(loss.item())
    assert z.grad is not None and z.grad.count_nonzero() == 0
    with twofold.route(route):
        assert CrossEntropyLoss(reduction="sum")(z, target).item() == 0


def test_what_is_ignored_may_be_broken():
    z = Z.detach().clone()
    z[1] = float("nan")
    with twofold.route("plain"):
        loss = cross_entropy(z, SOME)
    assert loss.item() == pytest.approx(cross_entropy(Z.detach(), SOME).item())
    assert gradient(z, SOME)[1].tolist() == [0.0] * 4


OPTIONS = {
    "nothing": {},
    "weights": {"weight": W, "reduction": "sum"},
    "everything": {"weight": W, "ignore_index": 3, "reduction": "none", "label_smoothing": 0.1},
}


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("name", OPTIONS)
def test_stands_in_for_torch(name, route):
    layer = CrossEntropyLoss(**OPTIONS[name])
    with twofold.route(route):
        check_drop_in(layer, torch_nn.CrossEntropyLoss(**OPTIONS[name]), Z, T)
    assert layer.last_route == route


def test_class_probabilities_are_torchs_own():
    shares = noise(5, 4, seed=7, grad=False).softmax(1)
    layer = CrossEntropyLoss(label_smoothing=0.1)
    with twofold.route("plain"):
        check_drop_in(layer, torch_nn.CrossEntropyLoss(label_smoothing=0.1), Z, shares)
    assert layer.last_route == "vendor"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_class_numbers_may_be_of_any_whole_number_type(dtype):
    assert torch.equal(CrossEntropyLoss()(Z, T.to(dtype)), CrossEntropyLoss()(Z, T))


MUTANTS = {
    "p + onehot": (page.forward, lambda d, s: page.backward(d, s._replace(goal_BN=-s.goal_BN))),
    "not divided by B": (page.forward, lambda d, s: page.backward(d, s) * s.divisor),
    "divided by B, not by the weights": (page.forward, lambda d, s: page.backward(d, s) * s.divisor / 5),
    "what is ignored counts in the gradient": (
        page.forward,
        lambda d, s: d / s.divisor * (s.p_BN - s.goal_BN),
    ),
    "the sum of the goal taken for one": (
        page.forward,
        lambda d, s: torch.where(s.kept_B[:, None], d / s.divisor * (s.p_BN - s.goal_BN), 0),
    ),
    "minus": (page.forward, lambda d, s: -page.backward(d, s)),
    "the softmax forgotten": (page.forward, lambda d, s: -d / s.divisor * s.goal_BN),
    "over the examples": (lambda z, *a: page.forward(z - z.logsumexp(0), *a), page.backward),
    "no weights": (lambda z, t, w, *a: page.forward(z, t, None, *a), page.backward),
    "nothing ignored": (lambda z, t, w, i, *a: page.forward(z, t.clamp(min=0), w, i, *a), page.backward),
    "no smoothing": (lambda *a: page.forward(*a[:5]), page.backward),
    "smoothed over the others only": (lambda *a: page.forward(*a[:5], a[5] * 4 / 3), page.backward),
    "the sum": (lambda *a: page.forward(*a[:4], "sum", a[5]), page.backward),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_variants_are_caught(name):
    case = Case(differentiable(*MUTANTS[name]), CASES["everything"], expression, rows=False)
    with pytest.raises(AssertionError):
        check_expression(case)
    if MUTANTS[name][0] is page.forward:
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(case)


def loss(*shape, target=(2,), number=0, dtype=torch.int64, **options):
    return lambda: CrossEntropyLoss(**options)(torch.zeros(shape), torch.full(target, number, dtype=dtype))


BAD = {
    "class": (loss(2, 10, number=10), "CrossEntropyLoss target: expected class numbers 0..9, got 10 at position (0,). More classes than"),
    "from one": (loss(2, 10, number=10), "Do the numbers start at 1? Subtract 1."),
    "minus one": (loss(2, 10, number=-1), "got -1 at position (0,). Is it a mark for what does not count? Set ignore_index=-1."),
    "pixel": (loss(2, 3, 4, 5, target=(2, 4, 5), number=3), "expected class numbers 0..2, got 3 at position (0, 0, 0)."),
    "number": (loss(2, 10, target=(3,)), "expected (2,), one class number for each N=10 logits of (2, 10), got (3,)."),
    "column": (loss(2, 10, target=(2, 1)), "got (2, 1). One column? target.squeeze(1)."),
    "one-hot": (loss(2, 10, target=(2, 10)), "got (2, 10). One-hot rows? Class numbers: target.argmax(1)."),
    "last axis": (loss(2, 7, 10, target=(2, 7)), "expected (2, 10), one class number for each N=7"),
    "last axis, cure": (
        loss(2, 7, 10, target=(2, 7)),
        "Do the classes stand on the last axis? They belong on axis 1: logits.movedim(-1, 1).",
    ),
    "floats": (loss(2, 10, dtype=torch.float32), "of type int64, got float32. Class numbers: target.long()."),
    "bool": (loss(2, 10, dtype=torch.bool), "of type int64, got bool."),
    "logits of one axis too few": (loss(target=()), "CrossEntropyLoss input: expected logits (B, N, ...) of N > 0 classes, got ()."),
    "no classes": (loss(2, 0), "expected logits (B, N, ...) of N > 0 classes, got (2, 0)."),
    "whole logits": (
        lambda: CrossEntropyLoss()(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)),
        "CrossEntropyLoss input: expected floating point, got int64.",
    ),
    "list": (lambda: CrossEntropyLoss()(torch.zeros(2, 3), [0, 1]), "CrossEntropyLoss target: expected a torch tensor, got list."),
    "array": (lambda: CrossEntropyLoss()(np.zeros((2, 3)), torch.tensor([0, 1])), "input: expected a torch tensor, got numpy.ndarray."),
    "weights": (
        loss(2, 3, weight=torch.ones(4)),
        "expected N=4 classes on axis 1, as many as there are weights, got (2, 3): N is 3, not 4.",
    ),
    "weight axes": (loss(2, 3, weight=torch.ones(3, 1)), "CrossEntropyLoss weight: expected (N,), one a class, got (3, 1)."),
    "reduction": (loss(2, 3, reduction="average"), "expected reduction to be one of none, mean, sum, got 'average'."),
    "smoothing": (loss(2, 3, label_smoothing=10), "expected label_smoothing, a share, from 0 to 1, got 10."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
