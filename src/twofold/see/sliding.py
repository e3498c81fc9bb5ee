"""The arithmetic of layers with windows: convolution, transposed convolution, pooling, unpooling.

Along an axis: n numbers in, P out; k taps, stride s, dilation d, padding before and after. C channels in, F filters out, g groups, B images

    convolution, pooling    P = floor((n + before + after - d (k - 1) - 1) / s) + 1        ceil instead of floor where a pool rounds up
    transposed              P = (n - 1) s - before - after + d (k - 1) + output padding + 1
    unpooling               P = (n - 1) s - before - after + d (k - 1) + 1
    adaptive                P as asked

    parameters              ((k k C/g) + 1) F        transposed: (k k F/g) C + F        pools have none
    multiply-adds           (B F P P) (k k C/g)      transposed: (B C n n) (k k F/g)

Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, relationships 6, 14 and 15
"""

import re
from collections.abc import Sequence
from math import prod
from typing import Any

from torch import nn

from twofold.see.law import ALL, Counted, Law, plus, times
from twofold.see.receptive import Sight, looking, sliding, stamping, stretching
from twofold.space import convolution, coordinates, pooling
from twofold.space.adaptive import largest
from twofold.space.connection import ConnectedConv2d
from twofold.space.gaussian_pooling import GaussianPooling
from twofold.space.padding import BY_SIZE
from twofold.space.transposed import Transposing
from twofold.space.windows import Window, whole_numbers

NAMES = {1: ("steps",), 2: ("rows", "columns"), 3: ("planes", "rows", "columns")}


def axes_of(layer: nn.Module) -> int | None:
    """The axes of the maps that the layer is made for: the number that its class, or one it comes from, ends with.

    >>> axes_of(nn.MaxPool2d(2)), axes_of(nn.ReLU())
    (2, None)
    """
    for kind in type(layer).__mro__:
        found = re.search(r"([123])d$", kind.__name__)
        if found:
            return int(found.group(1))
    return None


def convolve(layer: Any, shape: tuple[int, ...]) -> Law:
    """The law of a convolution layer."""
    size = shape[2:]
    window = window_of(layer, size)
    counts = window.output_size(size)
    taps, filters = (*window.kernel, shape[1] // layer.groups), layer.out_channels
    one = f"({times(*taps)})" if layer.bias is None else f"(({times(*taps)})+1)"
    outputs = (shape[0], filters, *counts)
    return Law(
        outputs,
        (*padded(layer.padding, size, window), *along(size, window, counts)),
        Counted((prod(taps) + (layer.bias is not None)) * filters, f"{one}*{filters}"),
        Counted(prod(outputs) * prod(taps), f"({times(*outputs)})*({times(*taps)})"),
        *view(window),
    )


def connect(layer: ConnectedConv2d, shape: tuple[int, ...]) -> Law:
    """The law of a convolution with a connection table: the products with what is not connected are computed, too."""
    law, taps, filters = convolve(layer, shape), layer.weight[0].numel(), layer.out_channels
    bias = "" if layer.bias is None else f" + {filters}"
    kernels = len(layer.places)
    weights = Counted(taps * kernels + (filters if bias else 0), f"({times(*layer.weight.shape[2:])})*{kernels}{bias}")
    return law._replace(parameters=weights)


def transpose(layer: Any, shape: tuple[int, ...]) -> Law:
    """The law of a transposed convolution layer."""
    size, filters = shape[2:], layer.out_channels
    if isinstance(layer, Transposing):
        window, extra = layer.stamping(size, None)
    else:
        window, extra = window_of(layer, size), whole_numbers("ConvTranspose", "output_padding", layer.output_padding, len(size), 0)
    counts = tuple(back(n, window, axis) + more for axis, (n, more) in enumerate(zip(size, extra, strict=True)))
    taps = (*window.kernel, filters // layer.groups)
    bias = "" if layer.bias is None else f" + {filters}"
    lines = [(name, f"{sum_back(size[axis], window, axis, f'{extra[axis]} + 1')} = {counts[axis]}") for axis, name in named(size)]
    geometry = zip(window.kernel, window.stride, window.padding[::2], window.dilation, strict=True)
    most = [f"{name} ceil({k}/{s}) = {-(-k // s)}" for (_, name), k, s in zip(named(size), window.kernel, window.stride, strict=True)]
    return Law(
        (shape[0], filters, *counts),
        (*padded(layer.padding, counts, window), *lines),
        Counted(prod(taps) * shape[1] + (filters if bias else 0), f"({times(*taps)})*{shape[1]}{bias}"),
        Counted(prod(shape) * prod(taps), f"({times(*shape)})*({times(*taps)})"),
        tuple(stamping(*along_axis) for along_axis in geometry),
        ", ".join(most) if max(window.dilation) == 1 else "",
    )


def pool(layer: Any, shape: tuple[int, ...]) -> Law:
    """The law of a pooling layer."""
    size = shape[2:]
    window = window_of(layer, size)
    counts = window.output_size(size)
    outputs = (*shape[:2], *counts)
    lines = (*padded(getattr(layer, "padding", 0), size, window), *along(size, window, counts))
    if isinstance(layer, GaussianPooling):
        products = Counted(prod(outputs) * window.taps, f"({times(*outputs)})*({times(*window.kernel)})")
        return Law(outputs, lines, Counted(0, ""), products, *view(window))
    step = {"Max": "comparison", "Avg": "addition"}.get(type(layer).__name__[:3])
    work = f"{step}s, ({times(*outputs)})*({times(*window.kernel)} - 1) = {prod(outputs) * (window.taps - 1):,} of them" if step else ""
    return Law(outputs, lines, Counted(0, ""), Counted(0, work), *view(window))


def unpool(layer: Any, shape: tuple[int, ...]) -> Law:
    """The law of an unpooling layer whose output size is not asked for."""
    size = shape[2:]
    window = window_of(layer, size)
    counts = tuple(back(n, window, axis) for axis, n in enumerate(size))
    lines = tuple((name, f"{sum_back(size[axis], window, axis, '1')} = {counts[axis]}") for axis, name in named(size))
    return Law((*shape[:2], *counts), lines, Counted(0, ""), Counted(0, "every value goes back to its place"), "")


def adapt(layer: Any, shape: tuple[int, ...]) -> Law:
    """The law of an adaptive pooling layer."""
    size = shape[2:]
    wanted = layer.output_size if isinstance(layer.output_size, (tuple, list)) else (layer.output_size,) * len(size)
    counts = tuple(n if want is None else int(want) for want, n in zip(wanted, size, strict=True))
    lines = []
    for axis, name in named(size):
        n, count = size[axis], counts[axis]
        window = f"output q takes floor(q*{n} / {count}) to ceil((q + 1)*{n} / {count}) - 1"
        lines.append((name, f"{count} as asked; {window}, at most {largest((n,), (count,))[0]} of {n}"))
    outputs = (*shape[:2], *counts)
    return Law(outputs, tuple(lines), Counted(0, ""), Counted(0, ""), tuple(stretching(n, p) for n, p in zip(size, counts, strict=True)))


def rescale(layer: Any, shape: tuple[int, ...]) -> Law:
    """The law of a resizing layer in the modes nearest and linear."""
    settings = (layer.size, layer.scale_factor, layer.mode, layer.align_corners, layer.recompute_scale_factor)
    axes = coordinates.axes_of("Upsample", shape[2:], *settings, getattr(layer, "coordinates", None), getattr(layer, "rounding", None))
    factors = layer.scale_factor if isinstance(layer.scale_factor, (tuple, list)) else (layer.scale_factor,) * len(axes)
    lines = []
    for (_, name), axis, factor in zip(named(shape[2:]), axes, factors, strict=True):
        lines.append((name, f"{axis.size} as asked" if factor is None else f"floor({axis.before} * {factor:g}) = {axis.size}"))
    output = (*shape[:2], *(axis.size for axis in axes))
    sights = []
    for axis in axes:
        places = coordinates.positions(axis._replace(size=max(axis.size, 2))).tolist()
        sights.append(looking(places[0], places[1] - places[0], axis.rounding))
    work = Counted(0, "pixels are copied")
    if axes[0].rounding is None:
        work = Counted(prod(output) * 2 ** len(axes), f"({times(*output)})*({times(*[2] * len(axes))})")
    return Law(output, tuple(lines), Counted(0, ""), work, tuple(sights))


def whole(layer: Any, shape: tuple[int, ...]) -> Law:
    """The law of a global pooling layer."""
    output = shape[:2] if layer.flatten else (*shape[:2], *[1] * (len(shape) - 2))
    line = ("map", f"one number for every channel, out of {times(*shape[2:])} = {prod(shape[2:]):,}")
    return Law(output, (line,), Counted(0, ""), Counted(0, ""), ALL)


def window_of(layer: Any, size: Sequence[int]) -> Window:
    """The geometry of a layer, ours or torch's, over maps of this size."""
    who, axes, own = type(layer).__name__, len(size), getattr(layer, "window", None)
    if own is not None:
        window: Window = own(size) if isinstance(getattr(layer, "padding", 0), str) else own()
        return window
    gaps, padding = getattr(layer, "dilation", 1), getattr(layer, "padding", 0)
    if hasattr(layer, "weight"):
        return convolution.window_of(who, axes, layer.kernel_size, layer.stride, padding, gaps, size)
    return pooling.window_of(who, axes, layer.kernel_size, layer.stride, padding, gaps, getattr(layer, "ceil_mode", False), size)


def view(window: Window) -> tuple[tuple[Sight, ...], str]:
    """What an output sees, and its width worked out."""
    sights = tuple(sliding(*axis) for axis in zip(window.kernel, window.stride, window.padding[::2], window.dilation, strict=True))
    widths = zip(NAMES[window.axes], window.dilation, window.kernel, window.spread, strict=True)
    return sights, ", ".join(f"{name} {d}*({k}-1) + 1 = {w}" for name, d, k, w in widths)


def named(size: Sequence[int]) -> list[tuple[int, str]]:
    """The axes with their names."""
    return list(enumerate(NAMES[len(size)]))


def along(size: Sequence[int], window: Window, counts: Sequence[int]) -> list[tuple[str, str]]:
    """For each axis the number of windows, worked out."""
    lines, rounding = [], "ceil" if window.ceil else "floor"
    for axis, name in named(size):
        n, (before, after), k, s, d = size[axis], window.sides()[axis], window.kernel[axis], window.stride[axis], window.dilation[axis]
        room = n + before + after - d * (k - 1) - 1
        text = f"{rounding}(({n} + {before} + {after} - {d}*({k}-1) - 1) / {s}) + 1 = {rounding}({room}/{s}) + 1"
        most = -(-(n + before) // s)
        if counts[axis] < -(-room // s) + 1 and window.ceil:
            text += (
                f" = {-(-room // s) + 1}, but only ceil(({n} + {before}) / {s}) = {most} windows begin on the map or the padding before it"
            )
            lines.append((name, text))
            continue
        lines.append((name, f"{text} = {counts[axis]}"))
    return lines


def padded(word: Any, size: Sequence[int], window: Window) -> list[tuple[str, str]]:
    """Where the padding that was given in a word comes from."""
    if not isinstance(word, str) or word == "valid":
        return []
    lines = []
    for axis, name in named(size):
        n, (before, after), k, s, d = size[axis], window.sides()[axis], window.kernel[axis], window.stride[axis], window.dilation[axis]
        need = f"{d}*({k}-1)"
        if word in BY_SIZE:
            need = f"max((ceil({n} / {s}) - 1)*{s} + {need} + 1 - {n}, 0)"
        if word == "full":
            need = f"2*{need}"
        lines.append((f"padding of {name}", f"{need} = {before + after}: {before} before, {after} after"))
    return lines


def back(n: int, window: Window, axis: int) -> int:
    """The size that n stamps cover."""
    before, after = window.sides()[axis]
    return (n - 1) * window.stride[axis] - before - after + window.spread[axis]


def sum_back(n: int, window: Window, axis: int, end: str) -> str:
    """The size that n stamps cover, as it is written out."""
    before, after = window.sides()[axis]
    return plus([f"({n} - 1)*{window.stride[axis]} - {before} - {after}", f"{window.dilation[axis]}*({window.kernel[axis]}-1)", end])
