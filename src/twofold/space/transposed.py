"""Transposed convolution, the adjoint of correlation.     B images, F maps in, C maps out, P all axes of the maps in, H of the maps out

A rubber stamp: every pixel that comes in stamps the kernel, as strong as it is, onto the map that goes out; where stamps overlap they add
up. With the window of the correlation from H to P that this one turns around, and its K taps (see windows.py):

    dcolumns[b,c,k,p] = sum_f W[f,c,k] x[b,f,p]
    forward    y = fold(dcolumns) + bias[c]                                           what correlation computes for its dx
    backward   columns = unfold(dy)
               dx[b,f,p] = sum_c,k W[f,c,k] columns[b,c,k,p]                          correlation of dy
               dW[f,c,k] = sum_b,p x[b,f,p] columns[b,c,k,p]                          correlation of dy with x
               dbias[c] = sum_b,h dy[b,c,h]
    law        <correlate(x, W), y> = <x, transposed(y, W)>
    equally    a full convolution of x, with s - 1 zeros put between its rows and columns
    size       H = (P - 1) s - before - after + d (k - 1) + 1 + extra                 along each axis

extra, torch's output_padding, does not surround the result with zeros. A correlation with stride s drops what does not fill a whole
step: for k = 3, s = 2 and padding 1, maps of 7 and of 8 both become 4. Back from 4 the formula says 7; extra = 1 says that it was 8.
The row that it adds at the end receives whatever part of the last stamps lies there, and the bias.

Zeiler, Krishnan, Taylor and Fergus, "Deconvolutional networks", CVPR 2010; Dumoulin and Visin, "A guide to convolution arithmetic for deep
learning", arXiv:1603.07285, chapter 4, relationship 14
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating, expect_positive, expect_shape, expect_tensor
from twofold.layers.routes import Routed, traced
from twofold.space.convolution import as_torch_writes, expect_divisible, window_of
from twofold.space.correlation import bias_gradient, matrix
from twofold.space.padding import BY_SIZE, last_first
from twofold.space.pooling import expect_countable
from twofold.space.windows import LETTERS, Window, by, fold, remember, unfold, whole_numbers


class Saved(NamedTuple):
    """What backward needs."""

    x_BFP: Tensor
    weight_FCk: Tensor
    has_bias: bool
    window: Window
    groups: int


def forward(
    x_BFP: Tensor, weight_FCk: Tensor, bias_C: Tensor | None, window: Window, groups: int, extra: tuple[int, ...]
) -> tuple[Tensor, Saved]:
    """y_BCH; weight_FCk has C / groups channels, and `extra` rows are added at the end of each axis."""
    batch, maps, *counts = x_BFP.shape
    channels, size = weight_FCk.shape[1] * groups, map_size(counts, window, extra)
    cause = "Use smaller batches or another route."
    expect_countable("transposed", "columns", (batch, channels, window.taps, *counts), cause)
    expect_countable("transposed", "padded maps", (batch, channels, *map_size(counts, bare(window), extra)), cause)
    x_BGFP = x_BFP.reshape(batch, groups, maps // groups, prod(counts))
    dcolumns_BGKP = matrix(weight_FCk, groups).transpose(1, 2) @ x_BGFP
    y_BCH = fold(dcolumns_BGKP.reshape(batch, channels, window.taps, *counts), window, size)
    if bias_C is not None:
        y_BCH = y_BCH + bias_C.reshape(-1, *[1] * window.axes)
    return y_BCH, Saved(x_BFP, weight_FCk, bias_C is not None, window, groups)


def backward(dy_BCH: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor | None]:
    """(dx_BFP, dweight_FCk, dbias_C)"""
    x_BFP, weight_FCk, has_bias, window, groups = saved
    batch, maps, *counts = x_BFP.shape
    columns_BCKP = unfold(dy_BCH, window)[:, :, :, *(slice(n) for n in counts)]  # with much extra, more windows fit than stamps were made
    columns_BGKP = columns_BCKP.reshape(batch, groups, weight_FCk.shape[1] * window.taps, prod(counts))
    dx_BGFP = matrix(weight_FCk, groups) @ columns_BGKP
    x_BGFP = x_BFP.reshape(batch, groups, maps // groups, prod(counts))
    dweight_GFK = (x_BGFP @ columns_BGKP.transpose(2, 3)).sum(0)
    return dx_BGFP.reshape(x_BFP.shape), dweight_GFK.reshape(weight_FCk.shape), bias_gradient(dy_BCH) if has_bias else None


OPERATORS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def vendor(x_BFP: Tensor, weight_FCk: Tensor, bias_C: Tensor | None, window: Window, groups: int, extra: tuple[int, ...]) -> Tensor:
    """PyTorch's own, which cuts both sides alike and adds less than a step: what differs is cut from the whole or added to it."""
    operator, sides = OPERATORS[window.axes], window.sides()
    most = [max(s, d) - 1 for s, d in zip(window.stride, window.dilation, strict=True)]
    added = [before - after + n for (before, after), n in zip(sides, extra, strict=True)]
    if all(0 <= n <= high for n, high in zip(added, most, strict=True)):
        return operator(x_BFP, weight_FCk, bias_C, window.stride, window.padding[::2], added, groups, window.dilation)
    whole = operator(x_BFP, weight_FCk, None, window.stride, 0, 0, groups, window.dilation)
    ends = [side for (before, after), n in zip(sides, extra, strict=True) for side in (-before, n - after)]
    y_BCH = F.pad(F.pad(whole, [max(n, 0) for n in last_first(ends)]), [min(n, 0) for n in last_first(ends)])
    return y_BCH if bias_C is None else y_BCH + bias_C.reshape(-1, *[1] * window.axes)


transposed = differentiable(forward, backward, vendor=vendor)


def map_size(counts: Sequence[int], window: Window, extra: Sequence[int]) -> tuple[int, ...]:
    """H

    >>> map_size((4, 4), Window((3, 3), (2, 2), (1, 1, 1, 1)), (0, 1))
    (7, 8)
    """
    axes = zip(counts, window.stride, window.sides(), window.spread, extra, strict=True)
    return tuple((n - 1) * s - before - after + spread + more for n, s, (before, after), spread, more in axes)


def bare(window: Window) -> Window:
    """The window without its padding: its map is the whole that the stamps cover."""
    return Window(window.kernel, window.stride, (0,), window.dilation)


def expect_map(who: str, counts: Sequence[int], window: Window, extra: Sequence[int]) -> tuple[int, ...]:
    """H, or ValueError where the padding cuts all of it away."""
    size = map_size(counts, window, extra)
    if min(size) < 1:
        sides = ", ".join(f"{before}+{after}" for before, after in window.sides())
        whole = by(map_size(counts, bare(window), extra))
        raise ValueError(
            f"{who}: the padding {sides} cuts away all of the {whole} that maps of {by(counts)} become. Use less padding or larger maps."
        )
    return size


def size_limits(counts: Sequence[int], window: Window, padding: Any) -> list[tuple[int, int]]:
    """The sizes (from, to) of the maps that this window turns into so many windows, along each axis.

    >>> size_limits((4, 3), Window((3, 3), (2, 2), (1, 1, 1, 1)), 1)
    [(7, 8), (5, 6)]
    """
    limits = []
    usual = map_size(counts, window, (0,) * window.axes)
    for n, s, size, before in zip(counts, window.stride, usual, window.padding[::2], strict=True):
        low, high = size, size + s - 1
        if padding in BY_SIZE:
            low, high = (n - 1) * s + 1, n * s
        elif window.ceil:
            low, high = max(size - s, (n - 1) * s - before) + 1, max(size, n * s - before)
        limits.append((max(low, 1), high))
    return limits


def stamp_of(
    who: str, axes: int, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool, size: Sequence[int] | None = None
) -> Window:
    """The window of the correlation or pool that is turned around; ValueError for settings that cannot be."""
    return replace(window_of(who, axes, kernel, stride, padding, dilation, size), ceil=ceil)


def expect_output_padding(who: str, output_padding: Any, window: Window, padding: Any) -> tuple[int, ...]:
    """`extra`, or ValueError where the correlation could not have dropped so much."""
    extra = whole_numbers(who, "output_padding", output_padding, window.axes, 0)
    if padding in BY_SIZE and any(extra):
        raise ValueError(
            f'{who}: padding="{padding}" makes maps of stride times the size; output_padding={output_padding!r} has no place there.'
        )
    if any(n >= max(s, d) for n, s, d in zip(extra, window.stride, window.dilation, strict=True)):
        raise ValueError(
            f"{who}: expected output_padding below the stride {by(window.stride)} or the dilation {by(window.dilation)}, got "
            f"{output_padding!r}: it says how many rows at the end the convolution had dropped. To surround the result with zeros pad it."
        )
    return extra


KINDS = {
    1: (nn.Conv1d, nn.MaxPool1d, nn.AvgPool1d, nn.LPPool1d),
    2: (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d),
    3: (nn.Conv3d, nn.MaxPool3d, nn.AvgPool3d, nn.LPPool3d),
}


def geometry_of(who: str, axes: int, layer: Any) -> dict[str, Any]:
    """The settings of the convolution or pool that is to be undone."""
    slides = isinstance(layer, KINDS[axes]) or getattr(layer, "axes", None) == axes
    if not slides or isinstance(layer, Transposing) or not hasattr(layer, "kernel_size"):
        raise ValueError(f"{who}: expected match to be a convolution or pool along {LETTERS[axes]}, got {type(layer).__name__}.")
    kernel, padding = layer.kernel_size, getattr(layer, "padding", 0)
    stride = kernel if layer.stride is None else layer.stride
    ceil = bool(getattr(layer, "ceil_mode", False)) and (not isinstance(padding, str) or padding == "valid")
    return {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": getattr(layer, "dilation", 1), "ceil_mode": ceil}


class Transposing(Routed):
    """Mixed into torch's transposed layers: more ways to pad, the geometry of another layer to be undone, routes and clear errors."""

    axes: ClassVar[int]
    in_channels: int
    out_channels: int
    groups: int
    kernel_size: Any
    stride: Any
    padding: Any
    dilation: Any
    output_padding: Any
    weight: Tensor
    bias: Any

    def __init__(  # type: ignore[no-untyped-def]
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any = None,
        stride: Any = None,
        padding: Any = None,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = None,
        padding_mode: str = "zeros",
        device=None,
        dtype=None,
        *,
        match: nn.Module | None = None,
    ) -> None:
        who = type(self).__name__
        expect_positive(who, in_channels=in_channels, out_channels=out_channels, groups=groups)
        expect_divisible(who, groups, in_channels=in_channels, out_channels=out_channels)
        if padding_mode != "zeros":
            raise ValueError(f'{who}: expected padding_mode "zeros", got {padding_mode!r}: what is stamped beyond the map is cut away.')
        given = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
        given = {name: value for name, value in given.items() if value is not None}
        if match is None and kernel_size is None:
            raise ValueError(f"{who}: expected kernel_size, or match=layer to take the geometry of the layer that is to be undone.")
        if match is not None and given:
            raise ValueError(f"{who}: {', '.join(given)} follow from match={type(match).__name__}. Give the one or the other.")
        geometry = {
            "stride": 1,
            "padding": 0,
            "dilation": 1,
            "ceil_mode": False,
            **(given if match is None else geometry_of(who, self.axes, match)),
        }
        kernel_size, stride, padding, dilation = (geometry[name] for name in ("kernel_size", "stride", "padding", "dilation"))
        window = stamp_of(who, self.axes, kernel_size, stride, padding, dilation, geometry["ceil_mode"])
        expect_output_padding(who, output_padding, window, padding)
        theirs = padding if isinstance(padding, int) else 0  # torch refuses what it lacks
        super().__init__(
            in_channels, out_channels, kernel_size, stride, theirs, output_padding, groups, bias, dilation, "zeros", device, dtype
        )
        if theirs != padding or isinstance(padding, str):
            self.padding = as_torch_writes(padding, self.axes)
        self.ceil_mode = geometry["ceil_mode"]

    def window(self, size: Sequence[int] | None = None) -> Window:
        """The window of the correlation that is turned around; for maps of this size going out, where the padding depends on it."""
        settings = (type(self).__name__, self.axes, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        return remember(self, settings if size is None or self.padding not in BY_SIZE else (*settings, tuple(size)), stamp_of)

    def stamping(self, counts: Sequence[int], wanted: Sequence[int] | None) -> tuple[Window, tuple[int, ...]]:
        """The window and `extra` that make maps of the wanted size, or of the usual one, of maps with these counts."""
        who, window = type(self).__name__, self.window()
        if wanted is None and self.padding not in BY_SIZE:
            return window, expect_output_padding(who, self.output_padding, window, self.padding)
        if wanted is None:
            wanted = [n * s for n, s in zip(counts, window.stride, strict=True)]
        elif not traced():
            limits = size_limits(counts, window, self.padding)
            if any(not low <= n <= high for n, (low, high) in zip(wanted, limits, strict=True)):
                between = " x ".join(f"{low}..{high}" for low, high in limits)
                raise ValueError(
                    f"{who}: expected output_size within {between}, got {by(wanted)}: the layer that this one turns around makes maps of "
                    f"{by(counts)} from no others. Is it the size of the map that went into that layer?"
                )
        window = self.window(wanted)
        usual = map_size(counts, window, (0,) * self.axes)
        return window, tuple(n - u for n, u in zip(wanted, usual, strict=True))

    def wanted(self, output_size: Any) -> tuple[int, ...] | None:
        """The sizes along the axes of the map: from these, from a whole shape, or from a tensor that has it."""
        who = f"{type(self).__name__} output_size"
        if output_size is None:
            return None
        if isinstance(output_size, Tensor):
            expect_shape(who, output_size, f"B C {LETTERS[self.axes]}", cause="Give the input of the layer that is to be undone.")
            output_size = output_size.shape
        given = tuple(output_size)[2:] if isinstance(output_size, Sequence) and len(output_size) == self.axes + 2 else output_size
        if traced():  # sizes may be symbols
            return tuple(given) if isinstance(given, Sequence) else (given,) * self.axes
        return whole_numbers(type(self).__name__, "output_size", given, self.axes, 1)

    def fitting(self, input: Any, output_size: Any) -> tuple[Window, tuple[int, ...]]:
        """The window and `extra`, once the input is known to fit."""
        who = f"{type(self).__name__} input"
        expect_tensor(who, input)
        if input.dim() != self.axes + 2 or input.shape[1] != self.in_channels:
            expect_shape(who, input, f"B C {LETTERS[self.axes]}", {"C": self.in_channels}, self._cause(input))
        expect_floating(who, input, self.weight)
        counts = tuple(input.shape[2:])
        if not traced() and min(counts) < 1:
            raise ValueError(f"{who}: expected maps of at least {by([1] * self.axes)}, got {by(counts)}.")
        window, extra = self.stamping(counts, self.wanted(output_size))
        if not traced():
            size = expect_map(who, counts, window, extra)
            expect_countable(who, "outputs", (input.shape[0], self.out_channels, *size), "Use smaller batches or smaller strides.")
        return window, extra

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        window, extra = self.fitting(input, output_size)
        y: Tensor = self.run(transposed, input, self.weight, self.bias, window, self.groups, extra)
        return y

    def overlap_counts(self, size: Any, output_size: Any = None) -> Tensor:
        """overlap_counts of this layer."""
        return overlap_counts(self, size, output_size)

    def _cause(self, input: Tensor) -> str:
        if input.dim() == self.axes + 1:
            return f"One {({1: 'signal', 2: 'image', 3: 'volume'})[self.axes]}? x.unsqueeze(0)."
        if input.dim() == self.axes + 2 and input.shape[-1] == self.in_channels:
            return f"Channels last? x.permute({', '.join(map(str, (0, self.axes + 1, *range(1, self.axes + 1))))})."
        return ""


class ConvTranspose1d(Transposing, nn.ConvTranspose1d):
    """Transposed convolution over signals (B, C, T); torch.nn.ConvTranspose1d with more ways to pad, routes and clear errors.

    padding: what the correlation had added and what is now cut away: a number, one per axis, one per side (before, after; for each axis),
    pairs, or a word of padding.py. "same_upper" and "same_lower" make maps of stride times the size.
    match: a convolution or pool that is to be undone; kernel_size, stride, padding and dilation are then its own.
    forward(input, output_size): several sizes lead to the same number of windows; output_size names the right one: the sizes along the
    axes, the whole shape, or the very tensor that went into that layer. Without it output_padding (`extra` above) says it.
    Raises ValueError for settings that cannot be, for input of another rank, channel number, dtype or device, for an output_size that the
    other layer could not have had, and for more than 2^31 - 1 outputs.

    >>> stamp = ConvTranspose1d(1, 1, 3, stride=2, bias=False)
    >>> _ = stamp.load_state_dict({"weight": torch.tensor([[[1.0, 2.0, 3.0]]])})
    >>> stamp(torch.tensor([[[1.0, 10.0]]])).tolist()  # 1 2 3 and, two places on, 10 20 30
    [[[1.0, 2.0, 13.0, 20.0, 30.0]]]
    """

    axes = 1


class ConvTranspose2d(Transposing, nn.ConvTranspose2d):
    """Transposed convolution over maps (B, C, H, W); torch.nn.ConvTranspose2d with more ways to pad, routes and clear errors.

    Settings and errors as ConvTranspose1d.

    >>> down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    >>> up = ConvTranspose2d(8, 3, match=down)
    >>> x = torch.zeros(1, 3, 8, 9)
    >>> up(down(x)).shape, up(down(x), x).shape
    (torch.Size([1, 3, 7, 9]), torch.Size([1, 3, 8, 9]))
    """

    axes = 2


class ConvTranspose3d(Transposing, nn.ConvTranspose3d):
    """Transposed convolution over volumes (B, C, D, H, W); torch.nn.ConvTranspose3d with more ways to pad, routes and clear errors.

    Settings and errors as ConvTranspose1d.

    >>> ConvTranspose3d(2, 1, 2, stride=2)(torch.zeros(1, 2, 2, 3, 4)).shape
    torch.Size([1, 1, 4, 6, 8])
    """

    axes = 3


def overlap_counts(layer: Transposing, size: Any, output_size: Any = None) -> Tensor:
    """How many taps of stamps lie on every pixel that goes out, for maps of this size coming in: the checkerboard.

    Where the counts differ from pixel to pixel, constant maps come out as a pattern unless training learns to undo it. Away from the edges
    they are all equal where the stride divides the kernel (without dilation). Odena, Dumoulin and Olah, "Deconvolution and checkerboard
    artifacts", Distill, 2016

    >>> overlap_counts(ConvTranspose1d(1, 1, 3, stride=2), 4).tolist(), overlap_counts(ConvTranspose1d(1, 1, 4, stride=2), 4).tolist()
    ([1, 1, 2, 1, 2, 1, 2, 1, 1], [1, 1, 2, 2, 2, 2, 2, 2, 1, 1])
    """
    who = f"{type(layer).__name__} overlap_counts"
    counts = whole_numbers(who, "size", size, layer.axes, 1)
    window, extra = layer.stamping(counts, layer.wanted(output_size))
    expect_countable(who, "taps", (window.taps, *counts), "")
    return fold(torch.ones((1, 1, window.taps, *counts), dtype=torch.int64), window, expect_map(who, counts, window, extra))[0, 0]


def bilinear_(layer: Transposing) -> Transposing:
    """Fill the layer, in place, so that it enlarges every map by its stride s with straight lines between the pixels.

        W[c,c,i] = hat(i - (k - 1) / 2) / sum of the hats on the taps that lie whole steps from i        hat(t) = max(1 - |t| / s, 0)

    The product of that along all axes (linear, bilinear, trilinear); 0 between different maps, and for the bias. Inside, constants stay
    constants; ramps stay ramps where the whole hat fits: for odd kernels from 2 s - 1 on, for even ones from 2 s on. There the sum is 1.
    With k = 2 s and padding s / 2 it is bilinear resizing (resize.py).
    Raises ValueError where the layer has another number of maps out than in, dilation, or a kernel below its stride (which leaves gaps).

    Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015, section 3.3

    >>> bilinear_(ConvTranspose1d(1, 1, 4, stride=2)).weight.tolist()
    [[[0.25, 0.75, 0.75, 0.25]]]
    """
    window, maps = layer.window(), layer.in_channels
    if layer.out_channels != maps:
        raise ValueError(f"bilinear_: expected a layer with as many maps out as in, got {maps} in and {layer.out_channels} out.")
    if max(window.dilation) > 1:
        raise ValueError(f"bilinear_: expected a layer without dilation, got {by(window.dilation)}.")
    if any(k < s for k, s in zip(window.kernel, window.stride, strict=True)):
        raise ValueError(
            f"bilinear_: expected a kernel of at least the stride {by(window.stride)}, got {by(window.kernel)}: gaps would stay."
        )
    kernel = torch.ones((), dtype=torch.float64)
    for k, s in zip(window.kernel, window.stride, strict=True):
        hat = (1 - (torch.arange(k, dtype=torch.float64) - (k - 1) / 2).abs() / s).clamp(min=0)
        sums = torch.stack([hat[i % s :: s].sum() for i in range(k)])
        kernel = kernel.unsqueeze(-1) * (hat / sums)
    with torch.no_grad():
        layer.weight.zero_()
        own = torch.arange(maps, device=layer.weight.device)
        layer.weight[own, own % (maps // layer.groups)] = kernel.to(layer.weight)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer
