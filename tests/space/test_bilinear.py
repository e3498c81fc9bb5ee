"""Bilinear kernels of transposed convolution: constants, ramps, the published kernel, resizing, messages."""

import pytest
import torch

from twofold.layers.check import check_message, noise
from twofold.space.bilinear import bilinear_
from twofold.space.resize import resize
from twofold.space.transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d

LAYERS = {1: ConvTranspose1d, 2: ConvTranspose2d, 3: ConvTranspose3d}


@pytest.mark.parametrize(
    ("stride", "kernel"), [(2, 4), (2, 3), (3, 5), (3, 6), (3, 7), (4, 8), (4, 7), (1, 1), (1, 4), (2, 2), (3, 4), (4, 6)]
)
@pytest.mark.parametrize("axes", [1, 2])
def test_bilinear_keeps_constants_and_ramps(stride, kernel, axes):
    layer, size = bilinear_(LAYERS[axes](2, 2, kernel, stride).double()), (9, 8)[:axes]
    slope = torch.tensor([3.0, -2.0], dtype=torch.float64)[:axes]
    ramp = (torch.stack(torch.meshgrid(*(torch.arange(n).double() for n in size), indexing="ij"), -1) * slope).sum(-1)
    constant, y = layer(torch.stack([ramp * 0 + 5, ramp])[None])[0]
    inside = [slice(kernel, -kernel)] * axes
    assert torch.allclose(constant[*inside], torch.tensor(5.0).double(), rtol=1e-12)
    if kernel >= 2 * stride - 1 + (kernel + 1) % 2:
        places = torch.stack(torch.meshgrid(*(torch.arange(n).double() for n in y.shape), indexing="ij"), -1)
        assert torch.allclose(y[*inside], (((places - (kernel - 1) / 2) / stride) * slope).sum(-1)[*inside], rtol=1e-12, atol=1e-10)


def test_bilinear_is_long_shelhamer_and_darrells_kernel_and_bilinear_resizing():
    layer = bilinear_(ConvTranspose2d(4, 4, 4, 2, 1, groups=2).double())
    row = torch.tensor([0.25, 0.75, 0.75, 0.25]).double()
    for c in range(4):
        assert torch.equal(layer.weight[c, c % 2], torch.outer(row, row)) and not layer.weight[c, 1 - c % 2].any()
    x = noise(1, 4, 5, 6)
    assert torch.allclose(layer(x)[..., 1:-1, 1:-1], resize(x, scale_factor=2, mode="bilinear")[..., 1:-1, 1:-1], rtol=1e-12)
    signal = bilinear_(ConvTranspose3d(1, 1, (3, 4, 5), (2, 2, 3)))
    assert torch.allclose(signal.weight.flatten(2).sum(), torch.tensor(12.0)) and not signal.bias.any()


BAD = {
    "maps": (
        lambda: bilinear_(ConvTranspose2d(2, 4, 4, 2)),
        "bilinear_: expected a layer with as many maps out as in, got 2 in and 4 out",
    ),
    "kernel": (
        lambda: bilinear_(ConvTranspose2d(2, 2, 2, 3)),
        "expected a kernel of at least the stride 3x3, got 2x2: gaps would stay.",
    ),
    "dilation": (lambda: bilinear_(ConvTranspose2d(2, 2, 4, 2, dilation=2)), "expected a layer without dilation, got 2x2."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    check_message(*BAD[name])
