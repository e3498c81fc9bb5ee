"""Where the pixels of a resized map look.     n pixels of the map become m along each axis

r = m / n, or the scale factor that was asked for. Pixel p of the result looks at t(p):

    half_pixel            t = (p + 1/2) / r - 1/2                 pixels are squares: the edges of both maps meet
    pytorch_half_pixel    the same, but t = 0 where m = 1
    half_pixel_symmetric  the same, moved by (n - m / r) / 2: the middles meet, even where r was no ratio of sizes
    align_corners         t = p (n - 1) / (m - 1), 0 where m = 1  the middles of the first and last pixels meet
    asymmetric            t = p / r                               the first edges meet

nearest rounds t (see ROUNDINGS), linear weighs the two pixels beside it; pixels beyond the map are those at its edge.

ONNX, operator Resize, opset 19
"""

from collections.abc import Sequence
from math import isclose, isfinite
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twofold.layers.routes import traced
from twofold.space.windows import whole_numbers

COORDINATES = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric")
ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")  # the last two to the nearest pixel, from the middle down or up
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
MODES = {"nearest": ("asymmetric", "floor"), "nearest-exact": ("half_pixel", "round_prefer_ceil"), "linear": ("half_pixel", None)}


class Axis(NamedTuple):
    """How one axis is resized. `scale`: where it is not size / before. `rounding`: None for linear."""

    before: int
    size: int
    scale: float | None
    coordinates: str
    rounding: str | None = None


def positions(axis: Axis, device: torch.device | None = None) -> Tensor:
    """t for every pixel of the result.

    >>> positions(Axis(4, 2, None, "half_pixel")).tolist(), positions(Axis(3, 5, None, "align_corners")).tolist()
    ([0.5, 2.5], [0.0, 0.5, 1.0, 1.5, 2.0])
    """
    n, m, scale, coordinates, _ = axis
    p = torch.arange(m, dtype=torch.float64, device=device)
    if coordinates == "align_corners":
        return p * (n - 1) / max(m - 1, 1)
    if coordinates == "asymmetric":
        return p * n / m if scale is None else p / scale
    if coordinates == "pytorch_half_pixel" and m == 1:
        return p
    # One fraction each, so that whole numbers and halves come out exactly.
    if scale is None:
        return ((2 * p + 1) * n - m) / (2 * m)
    moved = n * scale - m if coordinates == "half_pixel_symmetric" else 0
    return (2 * p + 1 - scale + moved) / (2 * scale)


def nearest_pixels(axis: Axis, device: torch.device | None = None) -> Tensor:
    """For every pixel of the result the pixel that it shows."""
    t = positions(axis, device)
    if axis.rounding == "round_prefer_floor":
        t = (t - 0.5).ceil()
    elif axis.rounding == "round_prefer_ceil":
        t = (t + 0.5).floor()
    else:
        t = t.floor() if axis.rounding == "floor" else t.ceil()
    return t.long().clamp(0, axis.before - 1)


def linear_pixels(axis: Axis, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """i, the pixel behind it, and u, shaped as the last axis of `like`."""
    t = positions(axis, like.device).clamp(0, axis.before - 1)
    i = t.floor()
    return i.long(), (i.long() + 1).clamp(max=axis.before - 1), (t - i).to(like.dtype)


def convention(who: str, mode: Any, align_corners: bool | None, coordinates: str | None, rounding: str | None) -> tuple[str, str | None]:
    """(coordinates, rounding), or ValueError where the settings are unknown or contradict each other."""
    kind = "linear" if mode in LINEAR.values() else mode
    if kind not in MODES:
        names = ", ".join(f'"{name}"' for name in ("nearest", "nearest-exact", *LINEAR.values()))
        hint = {"area": " Use AdaptiveAvgPool.", "bicubic": " Use torch.nn.functional.interpolate."}.get(mode, "")
        raise ValueError(f"{who}: expected mode to be one of {names}, got {mode!r}.{hint}")
    for name, value, known in (("coordinates", coordinates, COORDINATES), ("rounding", rounding, ROUNDINGS)):
        if value is not None and value not in known:
            raise ValueError(f"{who}: expected {name} to be one of {', '.join(known)}, got {value!r}.")
    if kind == "linear" and rounding is not None:
        raise ValueError(f'{who}: rounding={rounding!r} is for mode "nearest"; "{mode}" rounds nothing.')
    if align_corners is not None and kind != "linear":
        raise ValueError(f'{who}: align_corners is for linear modes; "{mode}" takes coordinates="align_corners".')
    if align_corners is not None and coordinates is not None:
        raise ValueError(f"{who}: align_corners={align_corners} and coordinates={coordinates!r} say the same thing twice. Give one.")
    usual = "align_corners" if align_corners else MODES[kind][0]
    return coordinates or usual, rounding or MODES[kind][1]


def axes_of(
    who: str,
    before: Sequence[int],
    size: Any,
    scale_factor: Any,
    mode: str,
    align_corners: bool | None,
    recompute_scale_factor: bool | None,
    coordinates: str | None,
    rounding: str | None,
) -> tuple[Axis, ...]:
    """How each axis of maps of this size is resized; ValueError for settings that cannot be."""
    meant = convention(who, mode, align_corners, coordinates, rounding)
    if (size is None) == (scale_factor is None):
        raise ValueError(f"{who}: expected size or scale_factor, got {'neither' if size is None else 'both'}.")
    if size is not None:
        if recompute_scale_factor:
            raise ValueError(f"{who}: recompute_scale_factor is for scale_factor; got size={size!r}.")
        watched = traced() and isinstance(size, (tuple, list))  # sizes may be symbols
        sizes = tuple(size) if watched else whole_numbers(who, "size", size, len(before), 1)
        return tuple(Axis(n, m, None, *meant) for n, m in zip(before, sizes, strict=True))
    factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * len(before)
    right = all(isinstance(f, Real) and not isinstance(f, bool) and isfinite(f) and float(f) > 0 for f in factors)
    if len(factors) != len(before) or not right:
        raise ValueError(f"{who}: expected scale_factor to be a number above 0 or {len(before)} of them, got {scale_factor!r}.")
    axes = []
    for n, factor in zip(before, factors, strict=True):
        whole = float(factor).is_integer()
        m = n * int(factor) if whole else torch.sym_int(n * float(factor))
        ratio = whole or recompute_scale_factor or (not traced() and isclose(m, n * float(factor), rel_tol=1e-12))
        axes.append(Axis(n, m, None if ratio else float(factor), *meant))
    return tuple(axes)
