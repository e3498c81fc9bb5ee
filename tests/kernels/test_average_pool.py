"""The compiled average pooling beside PyTorch's own: what it divides by."""

import pytest
import torch
import torch.nn.functional as F

from twofold import kernels
from twofold.kernels import average_pool
from twofold.space.windows import Window

needs_library = pytest.mark.skipif(not kernels.available(), reason=kernels.reason())


@needs_library
@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize("divisor", [None, 7])
@pytest.mark.parametrize("ceil", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_pytorchs_means(count_padding, divisor, ceil, last):
    x = torch.randn(2, 5, 12, 21, dtype=torch.float64, requires_grad=True)
    window = Window((3, 4), (2, 3), (1, 1, 2, 2), ceil=ceil)
    theirs = F.avg_pool2d(x, (3, 4), (2, 3), (1, 2), ceil, count_padding, divisor)
    dy = torch.randn(theirs.shape, dtype=torch.float64)
    (dx,) = torch.autograd.grad(theirs, x, dy)
    given, gradient = (t.detach().float().contiguous(memory_format=(torch.contiguous_format, torch.channels_last)[last]) for t in (x, dy))
    assert average_pool.unfit(given, window, count_padding, divisor) == ""
    torch.testing.assert_close(average_pool.forward(given, window, count_padding, divisor).double(), theirs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(average_pool.backward(gradient, window, (12, 21), count_padding, divisor).double(), dx, rtol=1e-6, atol=1e-6)
