"""The convolution layers, for signals, maps and volumes.     B images, C channels, F filters, P windows, k taps along an axis

    y = correlate(x, weight, bias)                       the kernel is not turned around: correlation.py says the law and its gradients
    P = floor((n + before + after - d (k - 1) - 1) / s) + 1        along an axis of n numbers, with stride s and dilation d

padding        one number, one per axis, one per side (before, after; for each axis), pairs, or a word (padding.py): "valid", "same",
               "same_upper", "same_lower", "full"
padding_mode   what lies beyond the map: "zeros", "reflect", "replicate", "circular"
algorithm      None: the fastest (routes); else always that one of algorithms.py: "columns", "taps", "winograd", "fourier"

LeCun et al., "Gradient-based learning applied to document recognition", Proceedings of the IEEE 86, 1998, section II
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from twofold.layers.expect import expect_floating, expect_positive, expect_shape, expect_tensor
from twofold.layers.routes import Routed, traced, wanted_route
from twofold.space.algorithms import ALGORITHMS, expect_algorithm, prefers_fourier
from twofold.space.correlation import correlate
from twofold.space.padding import BY_SIZE, MODES, expect_room, pad, sides_of
from twofold.space.pooling import expect_countable
from twofold.space.windows import LETTERS, Window, remember, whole_numbers


class Convolving(Routed):
    """Mixed into torch's convolution layers: more ways to pad, a choice of algorithm, routes and clear errors."""

    axes: ClassVar[int]
    in_channels: int
    out_channels: int
    groups: int
    kernel_size: Any
    stride: Any
    padding: Any
    dilation: Any
    padding_mode: Any
    weight: Tensor
    bias: Any

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
        *,
        algorithm: str | None = None,
    ) -> None:
        who = type(self).__name__
        expect_positive(who, in_channels=in_channels, out_channels=out_channels, groups=groups)
        expect_divisible(who, groups, in_channels=in_channels, out_channels=out_channels)
        if padding_mode not in ("zeros", *MODES):
            raise ValueError(f"{who}: expected padding_mode to be one of zeros, {', '.join(MODES)}, got {padding_mode!r}.")
        if algorithm is not None:
            expect_algorithm(who, algorithm)
        kernel = window_of(who, self.axes, kernel_size, stride, padding, dilation).kernel
        expect_countable(who, "weights", (out_channels, in_channels // groups, *kernel), "Use fewer channels or more groups.")
        theirs = padding if isinstance(padding, int) or padding == "valid" else 0  # torch refuses what it lacks
        super().__init__(in_channels, out_channels, kernel_size, stride, theirs, dilation, groups, bias, padding_mode, device, dtype)
        if theirs != padding:
            self.padding = as_torch_writes(padding, self.axes)
        self.algorithm = algorithm

    def window(self, size: Sequence[int] | None = None) -> Window:
        """The geometry that the settings say; for maps of this size, where the padding depends on it."""
        settings = (type(self).__name__, self.axes, self.kernel_size, self.stride, self.padding, self.dilation)
        if self.padding in BY_SIZE and size is not None:
            return remember(self, (*settings, tuple(map(int, size))), window_of)
        return remember(self, settings, window_of)

    def fitting(self, input: Any) -> Window:
        """The window, once the input is known to fit; a shape that has passed is not looked at again."""
        watched = traced()
        passed = None if watched else self.__dict__.get("_passed")
        if (
            passed is not None
            and isinstance(input, Tensor)
            and passed[1] == input.shape
            and passed[2] is input.dtype
            and passed[3] is self.weight.dtype
            and passed[4] == input.device
            and passed[0] is self.window(input.shape[2:])
        ):
            return passed[0]
        who = f"{type(self).__name__} input"
        expect_tensor(who, input)
        if input.dim() != self.axes + 2 or input.shape[1] != self.in_channels:
            expect_shape(who, input, f"B C {LETTERS[self.axes]}", {"C": self.in_channels}, self._cause(input))
        expect_floating(who, input, self.weight)
        window = self.window(input.shape[2:])
        counts = window.output_size(input.shape[2:], who)
        if self.padding_mode != "zeros":
            expect_room(who, input.shape[2:], window.padding, self.padding_mode)
        if not watched:
            expect_countable(who, "outputs", (input.shape[0], self.out_channels, *counts), "Use smaller batches or larger strides.")
            self.__dict__["_passed"] = (window, input.shape, input.dtype, self.weight.dtype, input.device)
        return window

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, window = input, self.fitting(input)
        if self.padding_mode != "zeros":
            x, window = pad(x, window.padding, self.padding_mode), Window(window.kernel, window.stride, (0,), window.dilation)
        name = self.algorithm
        if name is None and window.taps >= 200 and not traced() and wanted_route() == "auto" and prefers_fourier(x, weight, window):
            name = "fourier"
        if name is None:
            y: Tensor = self.run(correlate, x, weight, bias, window, self.groups)
            return y
        self.took(name)
        return ALGORITHMS[name].by("plain", x, weight, bias, window, self.groups)

    def _cause(self, input: Tensor) -> str:
        if input.dim() == self.axes + 1:
            one, many = {1: ("signal", ""), 2: ("image", "A batch of grey images? x.unsqueeze(1)."), 3: ("volume", "")}[self.axes]
            return f"One {one}? x.unsqueeze(0). {many}".rstrip()
        if input.dim() != self.axes + 2:
            return ""
        if input.shape[-1] == self.in_channels:
            return f"Channels last? x.permute({', '.join(map(str, (0, self.axes + 1, *range(1, self.axes + 1))))})."
        found = {1: "Grey", 3: "Colour", 4: "Transparent"}.get(input.shape[1]) if self.axes == 2 else None
        return f"{found} images? Build the model with in_channels={input.shape[1]}." if found else ""

    def extra_repr(self) -> str:
        shown: str = super().extra_repr()
        return shown + (f", algorithm={self.algorithm}" if self.algorithm else "")


class Conv1d(Convolving, nn.Conv1d):
    """Convolution over signals (B, C, T); torch.nn.Conv1d with more ways to pad, algorithms, routes and clear errors.

    Settings as above. Raises ValueError for settings that cannot be, and for input of another rank, channel number, dtype or device,
    too small, or with more than 2^31 - 1 outputs.

    >>> import torch
    >>> layer = Conv1d(1, 1, 2, bias=False)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[[1.0, 10.0]]])})
    >>> layer(torch.tensor([[[1.0, 2.0, 3.0]]])).tolist()
    [[[21.0, 32.0]]]
    """

    axes = 1


class Conv2d(Convolving, nn.Conv2d):
    """Convolution over maps (B, C, H, W); torch.nn.Conv2d with more ways to pad, algorithms, routes and clear errors.

    Settings and errors as Conv1d.

    >>> import torch
    >>> Conv2d(3, 8, 3, stride=2, padding="same_upper")(torch.zeros(1, 3, 224, 224)).shape
    torch.Size([1, 8, 112, 112])
    """

    axes = 2


class Conv3d(Convolving, nn.Conv3d):
    """Convolution over volumes (B, C, D, H, W); torch.nn.Conv3d with more ways to pad, algorithms, routes and clear errors.

    Settings and errors as Conv1d.

    >>> import torch
    >>> Conv3d(1, 2, 3, padding="full")(torch.zeros(1, 1, 4, 5, 6)).shape
    torch.Size([1, 2, 6, 7, 8])
    """

    axes = 3


class DepthwiseConv2d(Conv2d):
    """Every channel with `multiplier` filters of its own: Conv2d with groups = channels.

    Followed by a 1x1 convolution it is a separable convolution: Chollet, "Xception", CVPR 2017; Howard et al., "MobileNets", 2017.

    >>> import torch
    >>> DepthwiseConv2d(3, 3, multiplier=2, padding="same")(torch.zeros(1, 3, 8, 8)).shape
    torch.Size([1, 6, 8, 8])
    """

    def __init__(self, channels: int, kernel_size: Any, multiplier: int = 1, **settings: Any) -> None:
        expect_positive("DepthwiseConv2d", channels=channels, multiplier=multiplier)
        refuse = {"groups", "in_channels", "out_channels"} & set(settings)
        if refuse:
            raise ValueError(f"DepthwiseConv2d: {', '.join(sorted(refuse))} follow from channels={channels} and multiplier={multiplier}.")
        super().__init__(channels, channels * multiplier, kernel_size, groups=channels, **settings)


def window_of(who: str, axes: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, size: Sequence[int] | None = None) -> Window:
    """The window that a convolution's settings say; ValueError for settings that cannot be."""
    kernel = whole_numbers(who, "kernel_size", kernel_size, axes, 1)
    steps = whole_numbers(who, "stride", stride, axes, 1)
    gaps = whole_numbers(who, "dilation", dilation, axes, 1)
    return Window(kernel, steps, sides_of(who, padding, kernel, steps, gaps, size), gaps)


def as_torch_writes(padding: Any, axes: int) -> Any:
    """The padding as torch's layers keep it, where they have it: one number per axis; words and sides as they were given."""
    if isinstance(padding, (tuple, list)):
        return tuple(tuple(side) if isinstance(side, list) else side for side in padding)
    return padding if isinstance(padding, str) else (int(padding),) * axes


def expect_divisible(who: str, groups: int, **channels: int) -> None:
    """Raise ValueError unless every number of channels can be split into the groups."""
    for name, number in channels.items():
        if number % groups:
            raise ValueError(f"{who}: expected {name} to be a multiple of groups={groups}, got {number}.")
