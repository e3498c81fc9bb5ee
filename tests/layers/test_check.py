"""The witnesses themselves: each wrong pair must be caught by the one whose duty it is. A test that cannot fail is a defect."""

import pytest
import torch

from twofold.layers import check
from twofold.layers.check import Case, noise
from twofold.layers.differentiable import Native, differentiable

X, W = noise(4, 3, seed=1), noise(3, seed=2)


def forward(x, weight):
    return x * weight, (x, weight)


def backward(dy, saved):
    x, weight = saved
    return dy * weight, (dy * x).sum(0)


def expression(x, weight):
    return torch.einsum("bd,d->bd", x, weight)


def test_a_right_pair_passes():
    check.check(Case(differentiable(forward, backward), (X, W), expression, linear=True))


WRONG_BACKWARD = {
    "a term is missing": lambda dy, saved: (dy * saved[1], dy.sum(0)),
    "the mean in place of the sum": lambda dy, saved: (dy * saved[1], (dy * saved[0]).mean(0)),
    "the sign": lambda dy, saved: (-dy * saved[1], (dy * saved[0]).sum(0)),
    "no gradient": lambda dy, saved: (dy * saved[1], None),
    "the axis reversed": lambda dy, saved: (dy * saved[1].flip(0), (dy * saved[0]).sum(0)),
}


@pytest.mark.parametrize("name", WRONG_BACKWARD)
@pytest.mark.parametrize("witness", [check.check_differences, check.check_expression])
def test_a_wrong_gradient_is_caught(name, witness):
    case = Case(differentiable(forward, WRONG_BACKWARD[name]), (X, W), expression)
    with pytest.raises((AssertionError, RuntimeError)):
        witness(case)


def test_a_wrong_value_is_caught():
    case = Case(differentiable(lambda x, w: (x * w.flip(0), (x, w.flip(0))), backward), (X, W), expression)
    with pytest.raises(AssertionError, match="independent expression"):
        check.check_expression(case)


def test_a_map_that_is_not_adjoint_is_caught():
    case = Case(differentiable(forward, lambda dy, saved: (2 * dy * saved[1], None)), (X, W), expression, linear=True)
    with pytest.raises(AssertionError, match="<Ax,y>"):
        check.check_adjoint(case)


def test_rows_that_leak_are_caught():
    case = Case(differentiable(lambda x, w: (x * w + x.mean(0), (x, w)), backward), (X, W), expression)
    with pytest.raises(AssertionError, match="row 0 differs"):
        check.check_rows(case)


def test_a_native_route_that_differs_is_caught():
    wrong = Native(lambda x, w: (x * w * 1.001, (x, w)), backward, lambda x, w: "")
    with pytest.raises(AssertionError, match="by route native"):
        check.check_routes(Case(differentiable(forward, backward, native=wrong), (X, W), expression))


def test_changed_arguments_are_caught():
    def careless(x, weight):
        with torch.no_grad():
            x.data.mul_(1)
            weight.data.add_(1e-3)
        return forward(x, weight)

    native = Native(careless, backward, lambda x, w: "")
    with pytest.raises(AssertionError, match="changed its arguments: number 1"):
        check.check_routes(Case(differentiable(forward, backward, native=native), (X, W), expression))


def test_silence_and_poor_messages_are_caught():
    def refuse():
        raise ValueError("no")

    with pytest.raises(AssertionError, match="accepted in silence"):
        check.check_message(lambda: None, "expected")
    with pytest.raises(AssertionError, match="lacks"):
        check.check_message(refuse, "expected")


def test_two_outputs_of_one_shape_are_told_apart():
    def both(x, weight):
        return (x * weight, x + weight), (x, weight)

    def swapped(dy, saved):
        x, weight = saved
        first, second = dy[1], dy[0]
        return first * weight + second, (first * x + second).sum(0)

    case = Case(differentiable(both, swapped), (X, W), lambda x, w: (torch.einsum("bd,d->bd", x, w), x + w))
    with pytest.raises(AssertionError, match="independent expression"):
        check.check_expression(case)
