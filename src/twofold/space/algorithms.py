"""The plain algorithms of correlation, behind one name: the same law, the same gradients, other costs.

    columns    im2col and a product of matrices            C F K P multiplications, K times the map in memory     correlation.py
    taps       a product for every tap                     the same, nothing in memory                            taps.py
    winograd   4 multiplications an output instead of 9    3x3 taps, stride 1                                     winograd.py
    fourier    products of spectra                         about 2 log2 N instead of K: for large kernels         fourier.py

`auto` takes fourier where K > 16 log2(K) + 160 c, c being 1 + 1 / C + 1 / F: below, PyTorch's and our compiled direct kernels win.

Cost of each: Mathieu, Henaff and LeCun, ICLR 2014, table 1; Lavin and Gray, CVPR 2016, section 4
"""

from math import log2

from torch import Tensor

from twofold.layers.differentiable import Operation
from twofold.space.correlation import correlate
from twofold.space.fourier import correlate_by_fourier
from twofold.space.taps import correlate_by_taps
from twofold.space.windows import Window
from twofold.space.winograd import correlate_by_winograd

ALGORITHMS: dict[str, Operation] = {
    "columns": correlate,
    "taps": correlate_by_taps,
    "winograd": correlate_by_winograd,
    "fourier": correlate_by_fourier,
}


def correlate_by(algorithm: str, x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> Tensor:
    """The plain form of the named algorithm; ValueError for a name that is none, and where it cannot serve.

    >>> import torch
    >>> x, weight = torch.arange(16.0).reshape(1, 1, 4, 4), torch.ones(1, 1, 3, 3)
    >>> [correlate_by(name, x, weight, None, Window((3, 3))).flatten().tolist() for name in ("columns", "taps")]
    [[45.0, 54.0, 81.0, 90.0], [45.0, 54.0, 81.0, 90.0]]
    """
    expect_algorithm("correlate_by", algorithm)
    y: Tensor = ALGORITHMS[algorithm].by("plain", x_BCH, weight_FCi, bias_F, window, groups)
    return y


def prefers_fourier(x_BCH: Tensor, weight_FCi: Tensor, window: Window) -> bool:
    """Whether the kernel is so large that spectra cost less than products; measured (bench/convolution.py)."""
    taps = window.taps
    if taps < 200 or not x_BCH.is_floating_point() or x_BCH.element_size() < 4:
        return False
    few = 1 + 1 / weight_FCi.shape[1] + 1 / weight_FCi.shape[0]
    return taps > 16 * log2(taps) + 160 * few


def expect_algorithm(who: str, name: str) -> None:
    """Raise ValueError for a name that is no algorithm's."""
    if name not in ALGORITHMS:
        raise ValueError(f"{who}: expected algorithm to be one of {', '.join(ALGORITHMS)}, got {name!r}.")
