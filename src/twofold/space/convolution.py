"""Convolution over maps.     B images, C channels, F filters, H W map, P Q windows, K = kh kw taps (see windows.py)

    columns[b,c,k,p,q] = what tap k of window (p,q) sees of x[b,c]                                        (unfold)

    forward    y[b,f,p,q] = sum_c,k W[f,c,k] columns[b,c,k,p,q] + bias[f]
    backward   dcolumns[b,c,k,p,q] = sum_f W[f,c,k] dy[b,f,p,q]          dx = fold(dcolumns)
               dW[f,c,k] = sum_b,p,q dy[b,f,p,q] columns[b,c,k,p,q]      dbias[f] = sum_b,p,q dy[b,f,p,q]

The kernel is not flipped: in mathematics this is correlation, which deep learning calls convolution. The textbook says the same
of dx in other words: put stride - 1 zeros between the rows and columns of dy, then dx is the full correlation of that with the
kernel turned by 180 degrees (equally: the convolution with the kernel as it is). A test proves that both are one.

With groups, channels and filters are split into as many parts, and each part of the filters sees its part of the channels alone.

LeCun et al., "Backpropagation applied to handwritten zip code recognition", Neural Computation 1, 1989;
the matrix form: Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing", 2006
"""

from dataclasses import replace
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating, expect_positive, expect_shape, expect_tensor
from twofold.layers.routes import Routed
from twofold.space.padding import MODES, expect_room, pad2d
from twofold.space.windows import Window, fold, remember, unfold, whole_numbers


class Saved(NamedTuple):
    """What backward needs. The columns are K times as large as x: they are made anew, not kept."""

    x_BCHW: Tensor
    weight_FCij: Tensor
    has_bias: bool
    window: Window
    groups: int


def forward(x_BCHW: Tensor, weight_FCij: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> tuple[Tensor, Saved]:
    """y_BFPQ; weight_FCij has C / groups channels."""
    rows, columns = window.output_size(x_BCHW.shape[2:])
    y_BGFP = matrix(weight_FCij, groups) @ grouped_columns(x_BCHW, window, groups)
    y_BFPQ = y_BGFP.reshape(x_BCHW.shape[0], weight_FCij.shape[0], rows, columns)
    if bias_F is not None:
        y_BFPQ = y_BFPQ + bias_F[:, None, None]
    return y_BFPQ, Saved(x_BCHW, weight_FCij, bias_F is not None, window, groups)


def backward(dy_BFPQ: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor | None]:
    """(dx_BCHW, dweight_FCij, dbias_F)"""
    x_BCHW, weight_FCij, has_bias, window, groups = saved
    batch, filters, rows, columns = dy_BFPQ.shape
    dy_BGFP = dy_BFPQ.reshape(batch, groups, filters // groups, rows * columns)
    dcolumns_BGKP = matrix(weight_FCij, groups).transpose(1, 2) @ dy_BGFP
    dcolumns_BCKPQ = dcolumns_BGKP.reshape(batch, x_BCHW.shape[1], window.taps, rows, columns)
    dx_BCHW = fold(dcolumns_BCKPQ, window, (x_BCHW.shape[2], x_BCHW.shape[3]))
    dweight_GFK = (dy_BGFP @ grouped_columns(x_BCHW, window, groups).transpose(2, 3)).sum(0)
    return dx_BCHW, dweight_GFK.reshape(weight_FCij.shape), dy_BFPQ.sum((0, 2, 3)) if has_bias else None


def matrix(weight_FCij: Tensor, groups: int) -> Tensor:
    """One matrix a group: its filters by all taps of its channels."""
    filters, channels, rows, columns = weight_FCij.shape
    return weight_FCij.reshape(groups, filters // groups, channels * rows * columns)


def grouped_columns(x_BCHW: Tensor, window: Window, groups: int) -> Tensor:
    """One matrix an image and group: all taps of its channels by all windows."""
    columns_BCKPQ = unfold(x_BCHW, window)
    batch, channels, taps, rows, columns = columns_BCKPQ.shape
    return columns_BCKPQ.reshape(batch, groups, channels // groups * taps, rows * columns)


def vendor(x_BCHW: Tensor, weight_FCij: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> Tensor:
    """PyTorch's own, which pads both sides alike: what differs is padded beforehand."""
    top, bottom, left, right = window.padding
    if top == bottom and left == right:
        return F.conv2d(x_BCHW, weight_FCij, bias_F, window.stride, (top, left), window.dilation, groups)
    return F.conv2d(F.pad(x_BCHW, (left, right, top, bottom)), weight_FCij, bias_F, window.stride, 0, window.dilation, groups)


conv2d = differentiable(forward, backward, vendor=vendor)


class Conv2d(Routed, nn.Conv2d):
    """Convolution over maps (B, C, H, W); torch.nn.Conv2d with routes and clear errors.

    padding: whole numbers, "valid" (none) or "same" (P Q = H W; stride 1; an even kernel pads one more below and on the right).
    padding_mode: "zeros", "reflect", "replicate" or "circular".
    Raises ValueError for settings that cannot be, and for input of another rank, channel number, dtype or device, or too small.

    >>> import torch
    >>> layer = Conv2d(1, 1, (1, 2), bias=False)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[[[1.0, 10.0]]]])})
    >>> layer(torch.tensor([[[[1.0, 2.0, 3.0]]]])).tolist()
    [[[[21.0, 32.0]]]]
    """

    def __init__(  # type: ignore[no-untyped-def]
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Any = "zeros",
        device=None,
        dtype=None,
    ) -> None:
        expect_positive("Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        expect_divisible("Conv2d", groups, in_channels=in_channels, out_channels=out_channels)
        if padding_mode not in ("zeros", *MODES):
            raise ValueError(f"Conv2d: expected padding_mode to be one of zeros, {', '.join(MODES)}, got {padding_mode!r}.")
        window_of(kernel_size, stride, padding, dilation)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype)

    def window(self) -> Window:
        """The geometry that the settings say."""
        return remember(self, (self.kernel_size, self.stride, self.padding, self.dilation), window_of)

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("Conv2d input", input)
        if input.dim() != 4 or input.shape[1] != self.in_channels:
            expect_shape("Conv2d input", input, "B C H W", {"C": self.in_channels}, self._cause(input))
        expect_floating("Conv2d input", input, self.weight)
        self.window().output_size(input.shape[2:], "Conv2d input")
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        window = self.window()
        if self.padding_mode == "zeros":
            return self.run(conv2d, input, weight, bias, window, self.groups)
        expect_room("Conv2d input", (input.shape[2], input.shape[3]), window.padding, self.padding_mode)
        framed = pad2d(input, window.padding, self.padding_mode)
        return self.run(conv2d, framed, weight, bias, replace(window, padding=(0, 0, 0, 0)), self.groups)

    def _cause(self, input: Tensor) -> str:
        if input.dim() == 3:
            return "One image? x.unsqueeze(0). A batch of grey images? x.unsqueeze(1)."
        if input.dim() != 4:
            return ""
        if input.shape[3] == self.in_channels:
            return "Channels last? x.permute(0, 3, 1, 2)."
        found = {1: "Grey", 3: "Colour", 4: "Transparent"}.get(input.shape[1])
        return f"{found} images? Build the model with in_channels={input.shape[1]}." if found else ""


def window_of(kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> Window:
    """The window that Conv2d's settings say; ValueError for settings that cannot be."""
    kernel = whole_numbers("Conv2d", "kernel_size", kernel_size, 2, 1)
    steps = whole_numbers("Conv2d", "stride", stride, 2, 1)
    spread = whole_numbers("Conv2d", "dilation", dilation, 2, 1)
    if isinstance(padding, str):
        sides = named_padding(padding, kernel, steps, spread)
    else:
        rows, columns = whole_numbers("Conv2d", "padding", padding, 2, 0)
        sides = (rows, rows, columns, columns)
    return Window((kernel[0], kernel[1]), (steps[0], steps[1]), sides, (spread[0], spread[1]))


def named_padding(name: str, kernel: Any, stride: Any, dilation: Any) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of "same" and "valid"."""
    if name == "valid":
        return 0, 0, 0, 0
    if name != "same":
        raise ValueError(f'Conv2d: expected padding to be whole numbers, "same" or "valid", got {name!r}.')
    if stride != (1, 1):
        rows, columns = (d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
        raise ValueError(
            f'Conv2d: padding="same" with stride {stride} is not defined here: with a stride the map shrinks in any case. '
            f"Give the padding in numbers, for an odd kernel padding=({rows}, {columns})."
        )
    rows, columns = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
    return rows // 2, rows - rows // 2, columns // 2, columns - columns // 2


def expect_divisible(who: str, groups: int, **channels: int) -> None:
    """Raise ValueError unless every number of channels can be split into the groups."""
    for name, number in channels.items():
        if number % groups:
            raise ValueError(f"{who}: expected {name} to be a multiple of groups={groups}, got {number}.")
