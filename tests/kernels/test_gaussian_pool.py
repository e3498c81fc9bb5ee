"""The compiled Gaussian pooling: its weights, and when they would vanish."""

import pytest
import torch
import torch.nn.functional as F

from twofold import kernels
from twofold.kernels import gaussian_pool
from twofold.space.windows import Window

needs_library = pytest.mark.skipif(not kernels.available(), reason=kernels.reason())


@needs_library
@pytest.mark.parametrize("count_padding", [True, False])
def test_the_weights_are_those_of_the_distance(count_padding):
    window, sigma = Window((3, 5), (1, 2), (1, 1, 2, 2), (2, 1)), (1.5, 0.8)
    down, across = torch.tensor([-2.0, 0.0, 2.0]), torch.arange(-2.0, 3.0)
    kernel = torch.exp(-((down[:, None] / 1.5) ** 2 + (across / 0.8) ** 2) / 2).double()[None, None]
    x = torch.randn(2, 1, 9, 20, dtype=torch.float64, requires_grad=True)
    sums, n = (F.conv2d(t, kernel, None, (1, 2), (1, 2), (2, 1)) for t in (x, torch.ones_like(x)))
    theirs = sums / (kernel.sum() if count_padding else n)
    dy = torch.randn(theirs.shape, dtype=torch.float64)
    (dx,) = torch.autograd.grad(theirs, x, dy)
    given = x.detach().float()
    assert gaussian_pool.unfit(given, window, sigma, count_padding) == ""
    torch.testing.assert_close(gaussian_pool.forward(given, window, sigma, count_padding).double(), theirs, rtol=1e-6, atol=1e-6)
    ours = gaussian_pool.backward(dy.float(), window, (9, 20), sigma, count_padding)
    torch.testing.assert_close(ours.double(), dx, rtol=1e-6, atol=1e-6)


@needs_library
def test_weights_that_would_vanish_are_refused():
    x = torch.zeros(1, 1, 30, 30)
    assert gaussian_pool.unfit(x, Window((3, 13)), (1.0, 1.0)) == ""
    words = "needs windows of at most 6 sigmas to either side, not 14 taps for a sigma of 1"
    assert gaussian_pool.unfit(x, Window((3, 14)), (1.0, 1.0)) == words
    assert gaussian_pool.unfit(x.double(), Window((3, 14)), (1.0, 1.0)).startswith("needs float32")
