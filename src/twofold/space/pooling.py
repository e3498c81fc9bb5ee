"""What all pooling layers share: the settings of their windows, and what they expect of maps.

B images, C channels, H all axes of the map, P all axes of the windows, K taps (see windows.py)

    y[b,c,p] = pool over the taps k of x[b,c, h(p,k)]        each channel alone; every window holds at least one pixel

padding       one number, one per axis, one per side (before, after; for each axis), at most half the kernel; or in words:
"valid"       none
"same"        d (k - 1) along each axis, the odd one after: with stride s that makes ceil(H / s) windows
"same_upper"  only as much as ceil(H / s) windows need, the odd one after: it depends on the size of the map
"same_lower"  likewise, the odd one before

The last two are auto_pad of the operators MaxPool and AveragePool in ONNX (opset 22, 2024).
Pooling as such: Fukushima, "Neocognitron", Biological Cybernetics 36, 1980, section 2 (the C-cells)
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, ClassVar

from torch import Tensor

from twofold.layers.expect import expect_shape, expect_tensor
from twofold.layers.routes import Routed, traced
from twofold.space.windows import LETTERS, LIMIT, Window, by, remember, whole_numbers

WORDS = ("valid", "same", "same_upper", "same_lower")
LINES = {1: ("step",), 2: ("row", "column"), 3: ("plane", "row", "column")}  # what lies along each axis


class Pooling(Routed):
    """Mixed into torch's pooling layers: their settings as a window, and an input that is looked at once per shape."""

    axes: int
    kernel_size: Any
    stride: Any
    padding: Any
    dilation: Any
    ceil_mode: bool

    def window(self, size: Sequence[int] | None = None) -> Window:
        """The geometry that the settings say; for maps of this size, where the padding depends on it."""
        settings = (type(self).__name__, self.axes, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        if not isinstance(self.padding, str):
            return remember(self, settings, window_of)
        return remember(self, (*settings, None if size is None else tuple(map(int, size))), window_of)

    def fitting(self, input: Tensor, expect_numbers: Callable[[str, Tensor], None]) -> Window:
        """The window, once the input is known to fit; a shape that has passed is not looked at again."""
        who = type(self).__name__
        if not isinstance(input, Tensor) or not self.axes < input.dim() < self.axes + 3:
            expect_images(f"{who} input", input, self.axes)
        window = self.window(input.shape[-self.axes :])
        watched = traced()
        passed = None if watched else self.__dict__.get("_passed")
        if passed is None or passed[0] is not window or passed[1] != input.shape or passed[2] is not input.dtype:
            expect_numbers(f"{who} input", input)
            expect_maps(f"{who} input", input, window)
            if not watched:
                self.__dict__["_passed"] = (window, input.shape, input.dtype)
        return window

    def pool(self, operation: Callable[..., Any], input: Tensor, *options: Any) -> Any:
        """Apply the operation to a batch of images, or to one image alone."""
        if input.dim() == self.axes + 2:
            return self.run(operation, input, *options)
        y = self.run(operation, input.unsqueeze(0), *options)
        return tuple(part.squeeze(0) for part in y) if isinstance(y, tuple) else y.squeeze(0)


class OwnPooling(Pooling):
    """A pool that torch has no layer for: its settings stand on it as they were given, and in its text. `settings`: their names."""

    settings: ClassVar[tuple[str, ...]] = ("kernel_size", "stride", "padding", "ceil_mode", "dilation")

    def __init__(self, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, dilation: Any) -> None:
        window_of(type(self).__name__, self.axes, kernel_size, stride, padding, dilation, ceil_mode)
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.dilation = dilation

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.settings)


def window_of(
    who: str, axes: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil: Any, size: Sequence[int] | None = None
) -> Window:
    """The window that a pooling layer's settings say (stride None: as the kernel); ValueError for settings that cannot be."""
    kernel = whole_numbers(who, "kernel_size", kernel_size, axes, 1)
    steps = whole_numbers(who, "stride", kernel_size if stride is None else stride, axes, 1)
    gaps = whole_numbers(who, "dilation", dilation, axes, 1)
    if not isinstance(padding, str):
        return Window(kernel, steps, padding_in_numbers(who, padding, kernel), gaps, bool(ceil))
    if padding not in WORDS:
        names = ", ".join(f'"{word}"' for word in WORDS)
        raise ValueError(f"{who}: expected padding to be whole numbers or one of {names}, got {padding!r}.")
    sides = padding_in_words(padding, size or (1,) * axes, kernel, steps, gaps)
    return Window(kernel, steps, sides, gaps, bool(ceil) and padding == "valid")


def padding_in_numbers(who: str, padding: Any, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """(before, after) of each axis from one number, one per axis or one per side."""
    axes = len(kernel)
    if isinstance(padding, (tuple, list)) and len(padding) == 2 * axes:
        sides = whole_numbers(who, "padding", padding, 2 * axes, 0)
    else:
        sides = tuple(side for side in whole_numbers(who, "padding", padding, axes, 0) for _ in range(2))
    if any(2 * side > kernel[place // 2] for place, side in enumerate(sides)):
        raise ValueError(
            f"{who}: expected padding of at most half the kernel {by(kernel)}, got {padding!r}: "
            "windows at the edge would hold padding alone."
        )
    return sides


def padding_in_words(
    name: str, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """(before, after) of each axis.

    >>> padding_in_words("same", [5], [2], [2], [1]), padding_in_words("same_lower", [6], [2], [1], [1])
    ((0, 1), (1, 0))
    """
    sides: list[int] = []
    for length, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = {"valid": 0, "same": d * (k - 1)}.get(name, max((-(-length // s) - 1) * s + d * (k - 1) + 1 - length, 0))
        less, more = total // 2, total - total // 2
        sides += (more, less) if name == "same_lower" else (less, more)
    return tuple(sides)


def expect_images(who: str, x: Any, axes: int) -> None:
    """Raise ValueError unless x is a tensor (B, C, maps) or (C, maps)."""
    expect_tensor(who, x)
    if x.dim() not in (axes + 1, axes + 2):
        cause = {2: "Two axes? One map is x[None, None].", 1: "One axis? One signal is x[None, None]."}.get(x.dim(), "")
        expect_shape(who, x, f"B C {LETTERS[axes]}", None, cause if x.dim() == axes else "")


def expect_maps(who: str, x: Tensor, window: Window) -> None:
    """Raise ValueError unless there is a channel, every window holds a pixel, and the result can be counted."""
    if x.shape[-window.axes - 1] < 1:
        raise ValueError(f"{who}: expected at least one channel, got {tuple(x.shape)}.")
    size = x.shape[-window.axes :]
    counts = window.output_size(size, who)
    expect_countable(who, "maps", x.shape, "")
    expect_countable(who, "outputs", (*x.shape[: -window.axes], *counts), "Use smaller batches or larger strides.")
    expect_pixels(who, window, size)


def expect_countable(who: str, what: str, sizes: Sequence[int], cause: str) -> None:
    """Raise ValueError where the sizes, or all of them multiplied, are beyond what the operators can count; a tracer is not asked."""
    if not traced() and (max(sizes) > LIMIT or prod(sizes) > LIMIT):
        raise ValueError(f"{who}: expected {what} of at most {LIMIT} numbers, got {by(sizes)} = {prod(sizes)}. {cause}".rstrip())


def expect_columns(who: str, x_BCH: Tensor, window: Window) -> None:
    """Raise ValueError where the plain form would lay out more taps than can be counted."""
    size = x_BCH.shape[2:]
    cause = "Use smaller batches or another route."
    framed = [p + n + q for n, p, q in zip(reversed(size), window.frame(size)[::2], window.frame(size)[1::2], strict=True)]
    expect_countable(who, "padded maps", (*x_BCH.shape[:2], *reversed(framed)), cause)
    expect_countable(who, "columns", (*x_BCH.shape[:2], window.taps, *window.output_size(size)), cause)


def expect_pixels(who: str, window: Window, size: Sequence[int]) -> None:
    """Raise ValueError unless every window has a tap on the map: an average of none, or the largest of none, is no number.

    Not asked while a tracer watches: its sizes may be symbols, and the question would narrow them.
    """
    if traced():
        return
    for axis, number in enumerate(window.output_size(size, who)):
        if misses(window, axis, size[axis], number):
            line, (before, after), d = LINES[window.axes][axis], window.sides()[axis], window.dilation[axis]
            dilated = f" with dilation {d}" if d > 1 else ""
            cause = f"Use a dilation of at most {size[axis]}." if d > size[axis] else "Use less padding."
            raise ValueError(
                f"{who}: a window of {window.kernel[axis]} taps{dilated} misses all {size[axis]} {line}s of the map "
                f"(padding {before}+{after}). {cause}"
            )


def misses(window: Window, axis: int, size: int, number: int) -> bool:
    """Whether along this axis one of the windows has no tap on the map."""
    before, s, d = window.padding[2 * axis], window.stride[axis], window.dilation[axis]
    if (number - 1) * s - before >= size:
        return True
    for start in range(-before, min(0, number * s - before), s):
        tap = -(start // d)  # the first that lies on the map or beyond
        if tap >= window.kernel[axis] or start + tap * d >= size:
            return True
    return False
