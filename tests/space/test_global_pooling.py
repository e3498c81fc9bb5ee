"""Global pooling: one number a channel, along any number of axes."""

import pytest
import torch

import twofold
from twofold.layers.check import check_message, noise
from twofold.space.global_pooling import GlobalAvgPool, GlobalMaxPool


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_it_is_the_mean_and_the_maximum_of_every_channel(axes, route):
    x = noise(2, 3, *(4, 5, 2, 3)[:axes])
    every = tuple(range(2, 2 + axes))
    for layer, expected in ((GlobalAvgPool, x.mean(every)), (GlobalMaxPool, x.amax(every))):
        with twofold.route(route):
            kept, flat = layer()(x), layer(flatten=True)(x)
        assert kept.shape == (2, 3, *[1] * axes) and torch.equal(kept.flatten(1), flat)
        assert torch.allclose(flat, expected, rtol=1e-12)
        assert torch.allclose(*(torch.autograd.grad((y**2).sum(), x, retain_graph=True)[0] for y in (flat, expected)), rtol=1e-12)


def test_of_equal_values_the_first_learns_and_the_repr_says_flatten():
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    assert torch.autograd.grad(GlobalMaxPool()(x).sum(), x)[0].flatten().tolist() == [1, 0, 0, 0]
    assert repr(GlobalAvgPool(flatten=True)) == "GlobalAvgPool(flatten=True)" and repr(GlobalMaxPool()) == "GlobalMaxPool()"
    assert GlobalAvgPool()(torch.zeros(0, 2, 3)).shape == (0, 2, 1)


def test_the_exporter_takes_every_size():
    x = torch.randn(2, 3, 6, 5)
    for layer in (GlobalAvgPool(flatten=True), GlobalMaxPool()):
        sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=2, max=64)}
        exported = torch.export.export(layer, (x,), dynamic_shapes=(sizes,)).module()
        other = torch.randn(4, 3, 9, 5)
        assert torch.equal(exported(other), layer(other))


BAD = {
    "pooled already": (lambda: GlobalAvgPool()(torch.zeros(2, 3)), "GlobalAvgPool input: expected (B, C, ...)", "Is it pooled already?"),
    "empty": (
        lambda: GlobalMaxPool()(torch.zeros(2, 3, 0, 4)),
        "GlobalMaxPool input: expected at least one channel and maps",
    ),
    "list": (lambda: GlobalMaxPool()([1.0]), "GlobalMaxPool input: expected a torch tensor, got list."),
    "whole numbers": (lambda: GlobalAvgPool()(torch.zeros(2, 3, 4).int()), "expected floating point, got int32."),
    "truth": (lambda: GlobalMaxPool()(torch.zeros(2, 3, 4) > 0), "expected real numbers, got bool."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    check_message(*BAD[name])
