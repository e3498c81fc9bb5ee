"""Average pooling of float32 maps, compiled: the weighted mean whose weights are all 1.

    forward    y[p,q] = sum_k x[window(p,q,k)] / n[p,q]                                                   padding counts as 0
    backward   dx[h,w] = sum of dy[p,q] / n[p,q] over the windows that hold (h,w)

n is the number of taps on the map and its padding, or on the map alone, or `divisor`.
"""

from torch import Tensor

from twofold.kernels import weighted_mean
from twofold.kernels.fit import Window


def unfit(x_BCHW: Tensor, window: Window, count_padding: bool = True, divisor: int | None = None) -> str:
    """Why the compiled form cannot serve this input, or ''."""
    return weighted_mean.unfit(x_BCHW)


def forward(x_BCHW: Tensor, window: Window, count_padding: bool = True, divisor: int | None = None) -> Tensor:
    """y_BCPQ, in the layout of x."""
    return weighted_mean.forward(x_BCHW, window, ones(window), count_padding, divisor)


def backward(dy_BCPQ: Tensor, window: Window, size: tuple[int, int], count_padding: bool = True, divisor: int | None = None) -> Tensor:
    """dx_BCHW, in the layout of dy."""
    return weighted_mean.backward(dy_BCPQ, window, size, ones(window), count_padding, divisor)


def ones(window: Window) -> weighted_mean.Weights:
    """The weights of the taps."""
    return (1.0,) * window.kernel[0], (1.0,) * window.kernel[1]
