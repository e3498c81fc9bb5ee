"""GroupNorm: the witnesses on rows, sequences and maps, NumPy loops, its two extremes, and wrong variants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn as torch_nn
from torch.nn import functional as F

import twofold
from twofold.layers import group_norm as page
from twofold.layers.check import Case, check, check_differences, check_drop_in, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.layers.group_norm import GroupNorm, group_norm

EPS = 1e-3
X = (2 * noise(3, 6, 2, 3, seed=1) + 1).detach().requires_grad_()
SCALE, SHIFT = noise(6, seed=2), noise(6, seed=3)


def by_rows(x, scale, shift, groups, eps):
    """Group by group, its statistics by torch's own."""
    parts = []
    for part in x.split(x.shape[1] // groups, 1):
        axes = tuple(range(1, x.dim()))
        variance, mean = torch.var_mean(part, axes, correction=0, keepdim=True)
        parts.append((part - mean) / (variance + eps) ** 0.5)
    y = torch.cat(parts, 1).transpose(1, -1)
    return (y * (1 if scale is None else scale) + (0 if shift is None else shift)).transpose(1, -1)


CASES = {
    "maps": (X, SCALE, SHIFT, 3, EPS),
    "two groups": (X, SCALE, SHIFT, 2, EPS),
    "one group": (X, SCALE, SHIFT, 1, EPS),
    "a group each": (X, SCALE, SHIFT, 6, EPS),
    "rows": (noise(4, 6, seed=4), SCALE, SHIFT, 3, EPS),
    "sequences": (noise(2, 6, 5, seed=5), SCALE, SHIFT, 2, EPS),
    "volumes": (noise(2, 6, 2, 1, 3, seed=6), SCALE, SHIFT, 2, EPS),
    "no scale": (X, None, SHIFT, 3, EPS),
    "no shift": (X, SCALE, None, 3, EPS),
    "neither": (X, None, None, 3, EPS),
    "frozen input": (X.detach(), SCALE, SHIFT, 3, EPS),
    "channels last": (X.detach().contiguous(memory_format=torch.channels_last).requires_grad_(), SCALE, SHIFT, 3, EPS),
    "sliced": (noise(3, 12, 4, seed=7).detach()[:, ::2, 1:].requires_grad_(), SCALE, SHIFT, 3, EPS),
    "expanded": (noise(1, 6, 4, seed=8).detach().expand(3, 6, 4).requires_grad_(), SCALE, SHIFT, 3, EPS),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    check(Case(group_norm, CASES[name], by_rows))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.lists(st.integers(1, 3), max_size=3), st.integers(0, 99))
def test_drawn_shapes_by_loops(rows, groups, width, size, seed):
    channels = groups * width
    x, scale, shift = noise(rows, channels, *size, seed=seed), noise(channels, seed=seed + 1), noise(channels, seed=seed + 2)
    check_expression(Case(group_norm, (x, scale, shift, groups, EPS), by_rows))
    y, _ = group_norm.explain(x, scale, shift, groups, EPS)
    for b, g in np.ndindex(rows, groups):
        values = x.detach().numpy()[b, g * width : (g + 1) * width]
        mean = sum(values.flatten()) / values.size
        rate = (sum((values.flatten() - mean) ** 2) / values.size + EPS) ** -0.5
        for c in range(width):
            expected = (values[c] - mean) * rate * scale[g * width + c].item() + shift[g * width + c].item()
            assert np.allclose(y.numpy()[b, g * width + c], expected, rtol=0, atol=1e-12)


def test_a_group_a_channel_is_instance_normalisation_and_one_group_a_normalised_row():
    x = X.detach()
    assert torch.allclose(group_norm.explain(x, SCALE, SHIFT, 6, EPS)[0], F.instance_norm(x, weight=SCALE, bias=SHIFT, eps=EPS), atol=1e-12)
    assert torch.allclose(group_norm.explain(x, None, None, 1, EPS)[0], F.layer_norm(x, x.shape[1:], eps=EPS), atol=1e-12)


OPTIONS = {"plain": {}, "eps": {"eps": 0.1}, "no affine": {"affine": False}, "no shift": {"bias": False}}


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("name", OPTIONS)
def test_stands_in_for_torch(name, route):
    if name == "no shift" and "bias" not in (torch_nn.GroupNorm.__init__.__kwdefaults__ or {}):
        pytest.skip("this torch has no group normalisation without bias")
    pair = [module(3, 6, dtype=torch.float64, **OPTIONS[name]) for module in (GroupNorm, torch_nn.GroupNorm)]
    for layer in pair:
        for number, weight in enumerate(layer.parameters()):
            weight.data.copy_(noise(*weight.shape, seed=number))
    with twofold.route(route):
        check_drop_in(*pair, X)
    assert pair[0].last_route == route


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("shape", [(0, 6, 2, 3), (2, 6, 0)])
def test_an_empty_batch_or_map_teaches_nothing(route, shape):
    layer = GroupNorm(3, 6)
    x = torch.zeros(shape, requires_grad=True)
    with twofold.route(route):
        layer(x).sum().backward()
    assert x.grad is not None and x.grad.shape == shape
    assert all(w.grad is not None and w.grad.count_nonzero() == 0 for w in layer.parameters())


def test_nan_stays_in_its_group_and_half_precision_meets_weights_of_full():
    layer, results = GroupNorm(3, 6), []
    x = X.detach().bfloat16()
    x[0, 2, 0, 0] = float("nan")
    for route in ("plain", "vendor"):
        with twofold.route(route):
            results.append(layer(x))
    assert results[0].dtype == results[1].dtype == torch.bfloat16
    assert torch.allclose(*results, rtol=2e-2, atol=2e-2, equal_nan=True)
    assert results[0].isnan().sum() == 12 and results[0][0, 2:4].isnan().all()


def changed(place, change):
    def backward(dy, saved):
        gradients = list(page.backward(dy, saved))
        gradients[place] = change(gradients[place])
        return tuple(gradients)

    return backward


def rearranged(x, groups):
    return x.unflatten(1, (-1, groups)).transpose(1, 2).flatten(1, 2)


MUTANTS = {
    "groups that interleave": (
        lambda x, scale, shift, G, eps: (
            rearranged(page.forward(rearranged(x, G), None, None, G, eps)[0], 6 // G),
            page.forward(x, scale, shift, G, eps)[1],
        ),
        page.backward,
    ),
    "another number of groups": (lambda x, scale, shift, G, eps: page.forward(x, scale, shift, 2, eps), page.backward),
    "over the batch too": (lambda x, scale, shift, G, eps: page.forward(x, scale, shift, G, eps + x.var().item()), page.backward),
    "gradient of other groups": (page.forward, lambda dy, s: page.backward(dy, s._replace(rate_BG1=s.rate_BG1.flip(1)))),
    "without the terms of the statistics": (
        page.forward,
        lambda dy, s: ((page.by_group(dy * page.on_maps(s.scale_C, dy), 3) * s.rate_BG1).flatten(1, 2), *page.backward(dy, s)[1:]),
    ),
    "scale forgotten in dx": (page.forward, lambda dy, s: (page.backward(dy, s._replace(scale_C=None))[0], *page.backward(dy, s)[1:])),
    "dscale reversed": (page.forward, changed(1, lambda d: d.flip(0))),
    "dshift averaged": (page.forward, changed(2, lambda d: d / 18)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_variants_are_caught(name):
    case = Case(differentiable(*MUTANTS[name]), CASES["maps"], by_rows)
    with pytest.raises(AssertionError):
        check_expression(case)
    if MUTANTS[name][0] is page.forward:
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(case)


BAD = {
    "groups": (lambda: GroupNorm(4, 6), "GroupNorm: expected num_groups to divide num_channels=6, got 4. These divide: 1, 2, 3, 6."),
    "no groups": (lambda: GroupNorm(0, 6), "GroupNorm: expected num_groups to be a whole number of at least 1, got 0."),
    "eps": (lambda: GroupNorm(3, 6, eps=-1), "GroupNorm: expected eps, which is added to the variance, to be above 0, got -1."),
    "channels": (lambda: GroupNorm(3, 6)(torch.zeros(2, 5, 4)), "GroupNorm input: expected (B, C=6, ...), got (2, 5, 4): C is 5, not 6."),
    "channels last": (lambda: GroupNorm(3, 6)(torch.zeros(2, 5, 4, 6)), "C is 5, not 6. Channels last? x.movedim(-1, 1)."),
    "one row": (lambda: GroupNorm(3, 6)(torch.zeros(6)), "got (6,): 1 axes, not 2 or more."),
    "one value": (
        lambda: GroupNorm(6, 6)(torch.zeros(2, 6, 1, 1)),
        "expected more than one value a group, to take the variance of, got (2, 6, 1, 1): one a group. Use fewer groups or larger maps.",
    ),
    "bytes": (lambda: GroupNorm(3, 6)(torch.zeros(2, 6, dtype=torch.uint8)), "Convert and scale: x.float() / 255."),
    "dtype": (lambda: GroupNorm(3, 6)(torch.zeros(2, 6).double()), "expected float32, the dtype of the weights, got float64."),
    "list": (lambda: GroupNorm(3, 6)([1.0]), "GroupNorm input: expected a torch tensor, got list."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
