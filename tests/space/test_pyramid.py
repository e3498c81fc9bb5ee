"""Spatial pyramid pooling: the same number of values for every size of map, in the documented order."""

import pytest
import torch

import twofold
from twofold.layers.check import check_message, noise
from twofold.space.pyramid import SpatialPyramidPool2d


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize(("kind", "pool"), [("max", torch.amax), ("average", torch.mean)])
def test_it_pools_every_window_of_every_level(kind, pool, route):
    layer = SpatialPyramidPool2d((1, 2, 3), kind)
    for H, W in ((7, 5), (6, 9), (3, 3), (1, 2)):
        x = noise(2, 3, H, W)
        parts = [
            pool(x[:, c, i * H // n : -(-(i + 1) * H // n), j * W // n : -(-(j + 1) * W // n)], (1, 2))
            for n in (1, 2, 3)
            for c in range(3)
            for i in range(n)
            for j in range(n)
        ]
        expected = torch.stack(parts, 1)
        with twofold.route(route):
            y = layer(x)
        assert y.shape == (2, 3 * layer.features) == (2, 3 * 14) and layer.last_route == route
        assert torch.allclose(y, expected, rtol=1e-12)
        ours, theirs = (torch.autograd.grad((z**2).sum(), x)[0] for z in (y, expected))
        assert torch.allclose(ours, theirs, rtol=1e-11)
        assert torch.equal(layer(x[0]), layer(x)[0])


def test_gradients_by_differences():
    x = noise(2, 2, 3, 4)
    with twofold.route("plain"):
        for kind in ("max", "average"):
            layer = SpatialPyramidPool2d((1, 2), kind)
            assert torch.autograd.gradcheck(layer, x) and torch.autograd.gradgradcheck(layer, x)


def test_it_says_what_it_is():
    assert repr(SpatialPyramidPool2d([2, 3], "average")) == 'SpatialPyramidPool2d(levels=(2, 3), kind="average")'
    assert SpatialPyramidPool2d()(torch.zeros(0, 2, 5, 5)).shape == (0, 42)


BAD = {
    "level 0": (lambda: SpatialPyramidPool2d((1, 0)), "SpatialPyramidPool2d: expected levels to be", "got (1, 0)"),
    "no level": (lambda: SpatialPyramidPool2d(()), "SpatialPyramidPool2d: expected levels to be whole numbers like (1, 2, 4), got ()."),
    "number": (lambda: SpatialPyramidPool2d(4), "got 4."),
    "kind": (lambda: SpatialPyramidPool2d(kind="mean"), 'expected kind to be "max" or "average", got \'mean\'.'),
    "empty": (lambda: SpatialPyramidPool2d()(torch.zeros(1, 2, 3, 0)), "maps of at least 1x1, got (1, 2, 3, 0)."),
    "rank": (lambda: SpatialPyramidPool2d()(torch.zeros(3, 3)), "SpatialPyramidPool2d input: expected (B, C, H, W), got (3, 3): 2 axes"),
    "whole numbers": (lambda: SpatialPyramidPool2d(kind="average")(torch.zeros(1, 2, 3, 3).int()), "expected floating point, got int32."),
    "overflow": (lambda: SpatialPyramidPool2d((2**16,))(torch.zeros(1, 1, 3, 3)), "expected outputs of at most 2147483647 numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    check_message(*BAD[name])
