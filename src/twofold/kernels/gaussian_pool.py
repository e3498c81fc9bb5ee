"""Gaussian pooling of float32 maps, compiled: a weighted mean in which near counts more.

    forward    y[p,q] = sum_ij gh[i] gw[j] x[window(p,q,i,j)] / n[p,q]                                    padding counts as 0
               gh[i] = e^(-r^2 / 2), r = d (i - (k-1)/2) / sigma        tap i of a column, its distance from the window's centre
    backward   dx[h,w] = sum of gh[i] gw[j] dy[p,q] / n[p,q] over the windows (p,q) whose tap (i,j) lies on (h,w)

n is the sum of the weights of the taps on the map, or on the map and its padding.
"""

from functools import lru_cache
from math import exp

from torch import Tensor

from twofold.kernels import weighted_mean
from twofold.kernels.fit import Window

REACH = 6.0  # sigmas to either side of the centre: further out a weight is below 1e-8, and at an edge it may be all that is left


def unfit(x_BCHW: Tensor, window: Window, sigma: tuple[float, ...], count_padding: bool = False) -> str:
    """Why the compiled form cannot serve this input, or ''."""
    reason = weighted_mean.unfit(x_BCHW)
    if reason:
        return reason
    for taps, step, s in zip(window.kernel, window.dilation, sigma, strict=True):
        if step * (taps - 1) > 2 * REACH * s:
            return f"needs windows of at most {REACH:g} sigmas to either side, not {taps} taps for a sigma of {s:g}"
    return ""


def forward(x_BCHW: Tensor, window: Window, sigma: tuple[float, ...], count_padding: bool = False) -> Tensor:
    """y_BCPQ, in the layout of x; sigma in pixels, for each axis."""
    return weighted_mean.forward(x_BCHW, window, weights(window.kernel, window.dilation, sigma), count_padding)


def backward(dy_BCPQ: Tensor, window: Window, size: tuple[int, int], sigma: tuple[float, ...], count_padding: bool = False) -> Tensor:
    """dx_BCHW, in the layout of dy."""
    return weighted_mean.backward(dy_BCPQ, window, size, weights(window.kernel, window.dilation, sigma), count_padding)


@lru_cache(maxsize=256)
def weights(kernel: tuple[int, ...], dilation: tuple[int, ...], sigma: tuple[float, ...]) -> weighted_mean.Weights:
    """(gh, gw)"""
    gh, gw = (
        tuple(exp(-((step * (i - (taps - 1) / 2) / s) ** 2) / 2) for i in range(taps))
        for taps, step, s in zip(kernel, dilation, sigma, strict=True)
    )
    return gh, gw
