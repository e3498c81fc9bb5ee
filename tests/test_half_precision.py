"""How far a result in bfloat16 may be from the exact one: bounds that are derived, and narrow enough to see one tap that is missing.

    u = 2^-8, v = 2^-24                 the unit roundoffs of bfloat16 and of float32
    fl(a op b) = (a op b)(1 + d)        |d| <= u or v
    gamma(n) = n v / (1 - n v)          a sum of n terms in float32, added in any order: each is off by at most gamma(n) of itself

Sums of products. If every term of y = sum_i x_i w_i meets r roundings to bfloat16 (those of x and w are two) and n additions in float32
before the result is rounded, then, with S = sum_i |x_i||w_i|,

    |z - y| <= e = ((1 + u)^r (1 + gamma(n)) - 1) S         |fl(z) - y| <= e + u (|y| + e)

S is the same operation on absolute values, n on ones. Where several steps are not of this form (normalisation), every step carries its
own bound along: a running error analysis. Nothing here is measured or guessed; underflow does not occur in these numbers.

Higham, "Accuracy and stability of numerical algorithms", 2nd ed., 2002, sections 2.2, 3.1 (lemma 3.1), 3.3 and 4.2
"""

from typing import NamedTuple

import pytest
import torch

from twofold.layers.check import noise
from twofold.layers.group_norm import group_norm
from twofold.layers.layer_norm import layer_norm
from twofold.layers.normalization import batch_norm, running_norm
from twofold.space.adaptive import adaptive_average_pool
from twofold.space.average_pooling import average_pool
from twofold.space.correlation import correlate
from twofold.space.gaussian_pooling import gaussian_pool
from twofold.space.stamping import transposed
from twofold.space.windows import Window

U, V = 2.0**-8, 2.0**-24


def gamma(n):
    return n * V / (1 - n * V)


def bound(exact, total, terms, roundings):
    """How far the rounded sum may be off: total is S, terms n, roundings r."""
    error = ((1 + U) ** roundings * (1 + gamma(terms)) - 1) * total
    return error + U * (exact.abs() + error)


def results(operation, arguments, dy, route="plain"):
    """[y, and the gradients of all leading tensors] in float64."""
    leaves = [a.detach().requires_grad_() if isinstance(a, torch.Tensor) else a for a in arguments]
    y = operation.by(route, *leaves)
    gradients = torch.autograd.grad(y, [a for a in leaves if isinstance(a, torch.Tensor)], dy.to(y.dtype))
    return [part.detach().double() for part in (y, *gradients)]


def tensors(change, arguments):
    return [change(a) if isinstance(a, torch.Tensor) else a for a in arguments]


def correlation(window, groups=1, size=(7, 6), channels=6, filters=8):
    size = size[: window.axes] if window.axes < 3 else (*size, 5)
    weight = noise(filters, channels // groups, *window.kernel, seed=2, grad=False)
    return correlate, (noise(3, channels, *size, grad=False), weight, noise(filters, seed=3, grad=False), window, groups)


def stamps(window, groups=1, extra=None, size=(5, 4), maps=6, channels=8):
    size = size[: window.axes] if window.axes < 3 else (*size, 3)
    weight = noise(maps, channels // groups, *window.kernel, seed=2, grad=False)
    bias, extra = noise(channels, seed=3, grad=False), extra or (0,) * window.axes
    return transposed, (noise(3, maps, *size, grad=False), weight, bias, window, groups, extra)


def average(window, *options, size=(7, 6)):
    size = size[: window.axes] if window.axes < 3 else (*size, 5)
    return average_pool, (noise(3, 4, *size, grad=False), window, *options)


# The roundings to bfloat16 that a term of each result (y, dx, then dW and dbias) meets before the last one.
# plain: a product of matrices rounds; the columns of a fold (K of them) are added in bfloat16; the bias, the division, the sum over the
# images come after that. vendor: PyTorch's operators round once, but the backward pass of its average pools adds in bfloat16, and what
# it has no pool for is a convolution, rounded before it is divided.
def of_correlation(K):
    return {"plain": (3, 1 + K, 3, 1), "vendor": (2, 2, 2, 1)}


def of_stamps(K):
    return {"plain": (2 + K, 2, 3, 1), "vendor": (2, 2, 2, 1)}


def of_average(K):
    return {"plain": (2, K), "vendor": (2, K)}


def of_gaussian(K):
    return {"plain": (3, 1 + K), "vendor": (4, 4)}


SUMS = {
    "correlation 3x3": (correlation(Window((3, 3), padding=(1,))), of_correlation(9)),
    "correlation, stride and groups": (correlation(Window((3, 2), stride=(2, 1), padding=(1, 0, 0, 2)), groups=2), of_correlation(6)),
    "correlation, depthwise": (correlation(Window((3, 3), padding=(1,)), groups=6, filters=12), of_correlation(9)),
    "correlation of signals": (correlation(Window((5,), padding=(2,))), of_correlation(5)),
    "correlation of volumes": (correlation(Window((2, 3, 2), dilation=(1, 2, 1))), of_correlation(12)),
    "transposed 3x3": (stamps(Window((3, 3), stride=(2,), padding=(1,)), extra=(1, 0)), of_stamps(9)),
    "transposed, groups": (stamps(Window((3, 2), dilation=(2, 1)), groups=2), of_stamps(6)),
    "transposed of signals": (stamps(Window((4,), stride=(2,))), of_stamps(4)),
    "transposed of volumes": (stamps(Window((2, 2, 3))), of_stamps(12)),
    "average 2x2": (average(Window((2, 2), stride=(2,))), of_average(4)),
    "average 3x3, padding counted": (average(Window((3, 3), stride=(2,), padding=(1,))), of_average(9)),
    "average 3x3, padding not counted": (average(Window((3, 3), padding=(1,)), False), of_average(9)),
    "average of signals": (average(Window((3,), padding=(1,))), of_average(3)),
    "average of volumes": (average(Window((2, 2, 2), stride=(2,))), of_average(8)),
    "average, dilated": (average(Window((2, 2), dilation=(2,))), of_average(4)),
    "adaptive average": ((adaptive_average_pool, (noise(3, 4, 7, 6, grad=False), (3, 3))), of_average(9)),
    "Gaussian": ((gaussian_pool, (noise(3, 4, 7, 6, grad=False), Window((3, 3), padding=(1,)), (0.8, 1.0))), of_gaussian(9)),
}


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("name", SUMS)
def test_sums_of_products_stay_inside_the_bound_and_a_missing_tap_does_not(name, route):
    (operation, arguments), roundings = SUMS[name]
    y = operation.by("plain", *arguments)
    dy = noise(*y.shape, seed=4, grad=False)
    exact = results(operation, arguments, dy)
    totals = results(operation, tensors(torch.abs, arguments), dy.abs())
    terms = results(operation, tensors(torch.ones_like, arguments), torch.ones_like(dy))
    low = tensors(torch.Tensor.bfloat16, arguments)
    assert operation.routes(*low) == ["plain", "vendor"]  # the compiled forms leave bfloat16 to PyTorch's operators
    got = results(operation, low, dy.bfloat16(), route)
    less = missing(operation, arguments, dy)
    for number, roundings_here in enumerate(roundings[route]):
        # The terms of an average are counted by no ones: its weights add up to 1. No window here has more than 16 taps.
        count = (terms[number] if operation in (correlate, transposed) else 16 * terms[number].ceil()) + 2  # two: the bias, the division
        limit = bound(exact[number], totals[number], count, roundings_here)
        off = (got[number] - exact[number]).abs()
        assert (off <= limit).all(), f"result {number}: {(off / limit).max():.3g} times the bound"
        if number in less:
            seen = ((less[number] - exact[number]).abs() > limit).double().mean()
            assert seen > 0.1, f"result {number}: the bound overlooks a missing tap in {1 - seen:.0%} of the numbers"


def missing(operation, arguments, dy):
    """Which result -> what it is without the contribution of one tap: y and dx without the weights of one, dW and pools without a pixel."""
    x, *rest = arguments
    if operation in (correlate, transposed):
        weight = rest[0].clone()
        weight.flatten(2)[:, :, weight[0, 0].numel() // 2] = 0
        y, dx, *_ = results(operation, (x, weight, *rest[1:]), dy)
        return {0: y, 1: dx}
    thinned = x.clone()
    thinned.flatten(2)[:, :, ::2] = 0
    return {0: results(operation, (thinned, *rest), dy)[0]}


class Bounded(NamedTuple):
    """A number of the exact computation and how far that of the rounded one may be from it."""

    value: torch.Tensor
    error: torch.Tensor

    def rounded(self, unit):
        return Bounded(self.value, self.error + unit * (self.value.abs() + self.error))

    def plus(self, other, unit, sign=1):
        return Bounded(self.value + sign * other.value, self.error + other.error).rounded(unit)

    def times(self, other, unit):
        error = self.value.abs() * other.error + other.value.abs() * self.error + self.error * other.error
        return Bounded(self.value * other.value, error).rounded(unit)

    def sum(self, axes, unit, share=1.0):
        """share times the sum along the axes, added in float32."""
        n = torch.ones_like(self.value).sum(axes, keepdim=True)
        size, error = self.value.abs().sum(axes, keepdim=True), self.error.sum(axes, keepdim=True)
        error = share * (error + gamma(n + 1) * (size + error))
        return Bounded(share * self.value.sum(axes, keepdim=True), error).rounded(unit)

    def rsqrt(self, unit):
        """The slope is steepest where the number is smallest; two roundings: of the root and of the division."""
        assert (self.error < self.value).all()
        value = self.value.rsqrt()
        return Bounded(value, (self.value - self.error).rsqrt() - value).rounded(unit).rounded(unit)


def rounded_input(value):
    return Bounded(value, torch.zeros_like(value)).rounded(U)


EPS = 1e-3


def standardized(x, axes, unit, given=None):
    """(n, r), as layer_norm.py says it. A single pass (mean x^2 - m^2) has one more error, gamma of what it subtracts."""
    share = 1 / torch.ones_like(x.value).sum(axes).flatten()[0].item()
    if given is None:
        mean = x.sum(axes, unit, share)
        apart = x.plus(mean, unit, -1)
        variance = apart.times(apart, unit).sum(axes, unit, share)
        single_pass = 2 * gamma(1 / share) * share * x.value.square().sum(axes, keepdim=True)
        variance = Bounded(variance.value, variance.error + single_pass)
    else:
        mean, variance = given
        apart = x.plus(mean, unit, -1)
    eps = Bounded(torch.tensor(EPS).double(), torch.tensor(EPS * U).double())
    rate = variance.plus(eps, unit).rsqrt(unit)
    return apart.times(rate, unit), rate, share


def normalized(x, scale, shift, dy, axes, others, unit, held=U, given=None):
    """Bounds of y, dx, dscale and dshift. unit: of the steps between; held: of what backward is given of the forward pass."""
    normal, _, share = standardized(x, axes, unit, given)
    y = normal.times(scale, unit).plus(shift, unit).rounded(U)
    normal, rate, share = standardized(x, axes, held, given)
    dnormal = dy.times(scale, unit)
    if given is None:
        mean = dnormal.sum(axes, unit, share)
        along = dnormal.times(normal, unit).sum(axes, unit, share)
        dnormal = dnormal.plus(mean, unit, -1).plus(normal.times(along, unit), unit, -1)
    dx = dnormal.times(rate.rounded(unit), unit).rounded(U)
    dscale, dshift = (part.sum(others, unit).rounded(U) for part in (dy.times(normal, unit), dy))
    return y, dx, dscale, dshift


def normalization(name):
    """(x by groups, scale and shift shaped to meet it, the axes of the mean, the axes that the weights' gradients are summed along)"""
    if name == "layer":
        shape, values, axes, others = (6, 8), (8,), (1,), (0,)
    elif name == "group":
        shape, values, axes, others = (3, 2, 2, 5), (1, 2, 2, 1), (2, 3), (0, 3)
    else:
        shape, values, axes, others = (3, 4, 5), (1, 4, 1), (0, 2), (0, 2)
    x = noise(*shape, seed=1, grad=False) + 0.5
    scale, shift = (noise(*values, seed=seed, grad=False) for seed in (2, 3))
    return x, scale, shift, axes, others


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("name", ["layer", "group", "batch", "running"])
def test_normalisation_stays_inside_the_bound_and_a_mean_that_lacks_a_value_does_not(name, route):
    x, scale, shift, axes, others = normalization(name)
    dy = noise(*x.shape, seed=4, grad=False)
    given = None
    if name == "running":
        statistics = noise(4, seed=5, grad=False), noise(4, seed=6, grad=False).square() + 0.5
        given = [rounded_input(value.reshape(1, 4, 1)) for value in statistics]
    operation = {"layer": layer_norm, "group": group_norm, "batch": batch_norm, "running": running_norm}[name]
    merged = (lambda t: t.flatten(1, 2)) if name == "group" else lambda t: t
    leaves = [merged(x), scale.flatten(), shift.flatten()]
    options = {"layer": (1, EPS), "group": (2, EPS), "batch": (EPS,), "running": (EPS,)}[name]
    fixed = () if given is None else tuple(s.bfloat16() for s in statistics)
    low = [leaf.bfloat16().requires_grad_() for leaf in leaves]
    y = operation.by(route, *low, *fixed, *options)
    got = [y, *torch.autograd.grad(y, low, merged(dy).bfloat16())]
    units = (U, U) if route == "plain" else (V, U)
    inputs = [rounded_input(t) for t in (x, scale, shift, dy)]
    wanted = normalized(*inputs, axes, others, units[0], units[1], given)
    for number, (part, limit) in enumerate(zip(got, wanted, strict=True)):
        off = (part.detach().double().reshape(limit.value.shape) - limit.value).abs()
        assert (off <= limit.error).all(), f"result {number}: {(off / limit.error).max():.3g} times the bound"
    if given is None:
        _, rate, share = standardized(inputs[0], axes, V)
        wrong = x.abs().amax(axes, keepdim=True) * share * rate.value * scale.abs()  # what y is off by
        assert (wrong > wanted[0].error).double().mean() > 0.1
    y_exact = operation.by("plain", *leaves, *(() if given is None else statistics), *options)
    assert torch.allclose(y_exact.reshape(x.shape), wanted[0].value, rtol=1e-12)
