"""Layers that turn a convolution or a pool around: signals, maps, volumes.     The law is that of stamping.py

    y = transposed(x, W) + bias                   W (F, C / groups, ...): F maps in, C maps out
    match                                         the geometry of the layer that is to be undone
    output_size, else output_padding              which of the sizes that lead to as many windows

What their stamps make of even maps: overlap_counts. Weights that only enlarge: bilinear.py.

Zeiler, Krishnan, Taylor and Fergus, "Deconvolutional networks", CVPR 2010
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from twofold.layers.expect import expect_floating, expect_positive, expect_shape, expect_tensor
from twofold.layers.routes import Routed, traced
from twofold.space.convolution import as_torch_writes, expect_divisible, window_of
from twofold.space.padding import BY_SIZE
from twofold.space.pooling import expect_countable
from twofold.space.stamping import expect_map, map_size, size_limits, transposed
from twofold.space.windows import LETTERS, Window, by, fold, remember, whole_numbers


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
        expect_countable(who, "weights", (in_channels, out_channels // groups, *window.kernel), "Use fewer channels or more groups.")
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
