"""Whitening: the outputs are uncorrelated and of unit size, both signs are there, and what is no picture is refused."""

import pytest
import torch
import torch.nn.functional as F

from twofold.layers.whitening import whitening_filters


def coloured(count=40):
    """Pictures whose neighbours and channels are alike, so that there is something to whiten."""
    noise = torch.randn(count, 3, 20, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    smooth = F.avg_pool2d(noise, 3, 1)
    return torch.einsum("cd,bdhw->bchw", torch.tensor([[1.0, 0.5, 0], [0.2, 1, 0.3], [0, 0.4, 2]], dtype=torch.float64), smooth) + 0.3


@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_the_outputs_are_white(kernel):
    x_BCHW = coloured()
    filters = whitening_filters(x_BCHW, kernel, small=0.0)
    D = 3 * kernel**2
    assert filters.shape == (2 * D, 3, kernel, kernel)
    y_BDP = F.conv2d(x_BCHW, filters[:D]).flatten(2)
    moments_DD = torch.einsum("bdp,bep->de", y_BDP, y_BDP) / y_BDP[:, 0].numel()
    torch.testing.assert_close(moments_DD, torch.eye(D, dtype=torch.float64), rtol=0, atol=1e-9)
    assert torch.equal(filters[:D], -filters[D:])


def test_a_direction_without_variance_is_held_by_the_small_number():
    x_BCHW = torch.zeros(2, 1, 4, 4)
    filters = whitening_filters(x_BCHW, 2, small=0.01)
    torch.testing.assert_close(filters.flatten(1).norm(dim=1), torch.full((8,), 10.0))


@pytest.mark.parametrize(
    ("x", "kernel", "said"),
    [
        (torch.zeros(3, 8, 8), 2, r"expected pictures \(B, C, H, W\) of floats, got torch.float32 \(3, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), 2, "of floats, got torch.uint8"),
        (torch.zeros(2, 3, 8, 4), 5, "expected a kernel from 1 to the picture's smaller side 4, got 5"),
    ],
)
def test_what_cannot_be_whitened_is_refused(x, kernel, said):
    with pytest.raises(ValueError, match=said):
        whitening_filters(x, kernel)
