"""Resizing maps: nearest, linear, bilinear and trilinear.     B images, C channels, H all axes of the map, P those of the resized one

Along each axis, n pixels become m; r = m / n, or the scale factor that was asked for. Pixel p of the result looks at t(p):

    half_pixel            t = (p + 1/2) / r - 1/2                 pixels are squares: the edges of both maps meet
    pytorch_half_pixel    the same, but t = 0 where m = 1
    half_pixel_symmetric  the same, moved by (n - m / r) / 2: the middles meet, even where r was no ratio of sizes
    align_corners         t = p (n - 1) / (m - 1), 0 where m = 1  the middles of the first and last pixels meet
    asymmetric            t = p / r                               the first edges meet

    nearest    y[b,c,p] = x[b,c,round(t)]                         rounding: see ROUNDINGS; pixels beyond the map are those at its edge
    linear     y[b,c,p] = (1 - u) x[b,c,i] + u x[b,c,i+1]         i = floor(t), u = t - i; one axis after the other
    backward   dx[b,c,h] = sum of dy[b,c,p] times the weight with which p looks at h                          the adjoint

By an integer factor f, nearest (asymmetric, floor) repeats every pixel f times, or keeps the pixels 0, f, 2 f, ... Nothing is blurred
before it is made smaller (no antialiasing): finer detail than the result can hold turns into false patterns.

Keys, "Cubic convolution interpolation for digital image processing", IEEE Transactions on Acoustics, Speech and Signal Processing 29(6),
1981, section I (nearest, linear); the conventions: ONNX, operator Resize, opset 19
"""

from array import array
from collections.abc import Sequence
from functools import lru_cache
from math import gcd, isclose, isfinite
from numbers import Real
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.differentiable import Operation, differentiable
from twofold.layers.expect import expect_floating, expect_shape, expect_tensor
from twofold.layers.routes import Routed, traced
from twofold.space.pooling import expect_countable
from twofold.space.windows import LETTERS, by, whole_numbers

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


Saved = tuple[Axis, ...]  # what backward needs: the map itself does not matter


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
    t = ((2 * p + 1) * n - m) / (2 * m) if scale is None else (p + 0.5) / scale - 0.5  # so whole numbers and halves come out exactly
    return t + (n - m / scale) / 2 if coordinates == "half_pixel_symmetric" and scale is not None else t


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


def nearest_forward(x_BCH: Tensor, axes: tuple[Axis, ...]) -> tuple[Tensor, Saved]:
    """y_BCP"""
    for place in reversed(range(len(axes))):
        x_BCH = x_BCH.index_select(2 + place, nearest_pixels(axes[place], x_BCH.device))
    return x_BCH, axes


def nearest_backward(dy_BCP: Tensor, saved: Saved) -> Tensor:
    """dx_BCH"""
    for place, axis in enumerate(saved):
        dy_BCP = add_up(dy_BCP, 2 + place, axis.before, nearest_pixels(axis, dy_BCP.device))
    return dy_BCP


def linear_forward(x_BCH: Tensor, axes: tuple[Axis, ...]) -> tuple[Tensor, Saved]:
    """y_BCP; half precision is computed in single."""
    y = x_BCH.to(torch.promote_types(x_BCH.dtype, torch.float32))
    for place in reversed(range(len(axes))):
        low, high, u = linear_pixels(axes[place], y)
        u = u.reshape(-1, *[1] * (len(axes) - 1 - place))
        y = (1 - u) * y.index_select(2 + place, low) + u * y.index_select(2 + place, high)
    return y.to(x_BCH.dtype), axes


def linear_backward(dy_BCP: Tensor, saved: Saved) -> Tensor:
    """dx_BCH"""
    dx = dy_BCP.to(torch.promote_types(dy_BCP.dtype, torch.float32))
    for place, axis in enumerate(saved):
        low, high, u = linear_pixels(axis, dx)
        u = u.reshape(-1, *[1] * (len(saved) - 1 - place))
        dx = add_up((1 - u) * dx, 2 + place, axis.before, low) + add_up(u * dx, 2 + place, axis.before, high)
    return dx.to(dy_BCP.dtype)


def add_up(dy: Tensor, dim: int, size: int, pixels: Tensor) -> Tensor:
    """Every pixel of the map receives the sum of what looks at it."""
    return dy.new_zeros((*dy.shape[:dim], size, *dy.shape[dim + 1 :])).index_add(dim, pixels, dy)


def nearest_vendor(x_BCH: Tensor, axes: tuple[Axis, ...]) -> Tensor:
    """PyTorch's own where it picks the same pixels; it computes in float32, which for some sizes rounds down to the pixel before."""
    mode = {meant: name for name, meant in MODES.items()}.get((axes[0].coordinates, axes[0].rounding))
    watched = traced()  # sizes may be symbols
    if mode is None or not x_BCH.is_floating_point() or not all(axis.scale is None and (watched or exact_in_torch(axis)) for axis in axes):
        return nearest_forward(x_BCH, axes)[0]
    return F.interpolate(x_BCH, tuple(axis.size for axis in axes), mode=mode)


def linear_vendor(x_BCH: Tensor, axes: tuple[Axis, ...]) -> Tensor:
    """PyTorch's own where it has the convention."""
    mode, coordinates, scales = LINEAR[len(axes)], axes[0].coordinates, [axis.scale for axis in axes]
    if coordinates == "align_corners" or (coordinates == "half_pixel" and all(scale is None for scale in scales)):
        return F.interpolate(x_BCH, tuple(axis.size for axis in axes), mode=mode, align_corners=coordinates == "align_corners")
    watched = traced()  # sizes may be symbols; else: for the same size torch copies
    factors = [axis.scale for axis in axes if axis.scale is not None and (watched or axis.size != axis.before)]
    if coordinates == "half_pixel" and len(factors) == len(axes):
        return F.interpolate(x_BCH, scale_factor=tuple(factors), mode=mode, align_corners=False)
    return linear_forward(x_BCH, axes)[0]


nearest = differentiable(nearest_forward, nearest_backward, vendor=nearest_vendor)
linear = differentiable(linear_forward, linear_backward, vendor=linear_vendor)


@lru_cache(maxsize=1024)
def exact_in_torch(axis: Axis) -> bool:
    """Whether torch's float32 arithmetic picks the pixels of the law: products that are exact, or never near a whole number."""
    n, m = axis.before, axis.size
    halves = 2 * m // gcd(n, 2 * m)
    if halves & (halves - 1) == 0 and n // gcd(n, m) * m < 2**23:
        return True
    if axis.coordinates == "half_pixel":
        return halves % 2 == 0 and n * m < 2**20
    step = array("f", [n / m])[0]
    return [int(t) for t in array("f", (p * step for p in range(m)))] == [p * n // m for p in range(m)]


def resize(
    x: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
    *,
    coordinates: str | None = None,
    rounding: str | None = None,
) -> Tensor:
    """Maps (B, C, ...) of 1 to 3 axes with another size; torch.nn.functional.interpolate in these modes.

    size: the new one, a number for all axes or one per axis. scale_factor: or so many times the old one, rounded down; t then uses the
    factor itself, unless recompute_scale_factor says that r is the ratio of the sizes.
    mode: "nearest", "nearest-exact", and "linear" ("bilinear", "trilinear": the same for maps with two and three axes).
    coordinates, rounding: one of COORDINATES, one of ROUNDINGS (nearest only). Left out: asymmetric and floor for nearest, half_pixel and
    round_prefer_ceil for nearest-exact, half_pixel for linear; align_corners=True is coordinates="align_corners".
    nearest takes numbers of every kind (labels, too), linear floating point.
    Where torch differs: its nearest computes in float32 and for some sizes (2 to 82, say) picks the pixel before; and a factor that leads
    to the same size, or for nearest to twice the size, is taken for 1 or 2 by some of its kernels. This one keeps to the law.
    Raises ValueError for settings that cannot be and for input of another rank or dtype, empty, or with more than 2^31 - 1 results.

    >>> resize(torch.tensor([[[1, 2]]]), scale_factor=2).tolist(), resize(torch.tensor([[[0.0, 4.0]]]), 4, mode="linear").tolist()
    ([[[1, 1, 2, 2]]], [[[0.0, 1.0, 3.0, 4.0]]])
    """
    if antialias:
        raise ValueError("resize: expected antialias=False, got True. Blur before you make maps smaller, or use average pooling.")
    convention("resize", mode, align_corners, coordinates, rounding)
    expect_maps("resize", x, mode)
    axes = axes_of("resize", x.shape[2:], size, scale_factor, mode, align_corners, recompute_scale_factor, coordinates, rounding)
    expect_results("resize", x, axes)
    y: Tensor = operation_of(mode)(x, axes)
    return y


class Upsample(Routed, nn.Upsample):
    """Resizing as a layer; torch.nn.Upsample in the modes nearest, nearest-exact, linear, bilinear and trilinear.

    Settings and errors as resize.

    >>> Upsample(scale_factor=2, mode="bilinear", align_corners=True)(torch.zeros(1, 3, 4, 5)).shape
    torch.Size([1, 3, 8, 10])
    """

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
        *,
        coordinates: str | None = None,
        rounding: str | None = None,
    ) -> None:
        axes = next((len(given) for given in (size, scale_factor) if isinstance(given, (tuple, list))), 1)
        axes_of("Upsample", (2**31 - 1,) * axes, size, scale_factor, mode, align_corners, recompute_scale_factor, coordinates, rounding)
        super().__init__(size, scale_factor, mode, align_corners, recompute_scale_factor)
        self.coordinates, self.rounding = coordinates, rounding

    def forward(self, input: Tensor) -> Tensor:
        expect_maps("Upsample", input, self.mode)
        settings = (
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
            self.coordinates,
            self.rounding,
        )
        known = None if traced() else self.__dict__.get("_plan")
        if known is None or known[0] != input.shape or known[1] != settings:
            axes = axes_of("Upsample", input.shape[2:], *settings)
            expect_results("Upsample", input, axes)
            known = (input.shape, settings, axes)
            if not traced():
                self.__dict__["_plan"] = known
        y: Tensor = self.run(operation_of(self.mode), input, known[2])
        return y

    def extra_repr(self) -> str:
        own = {"coordinates": self.coordinates, "rounding": self.rounding}
        return super().extra_repr() + "".join(f", {name}={value!r}" for name, value in own.items() if value is not None)


def operation_of(mode: str) -> Operation:
    """nearest or linear"""
    return nearest if mode.startswith("nearest") else linear


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


def expect_maps(who: str, x: Any, mode: str) -> None:
    """Raise ValueError unless x is a batch of maps that the mode can resize."""
    expect_tensor(f"{who} input", x)
    wanted = next((axes for axes, name in LINEAR.items() if name == mode and axes > 1), x.dim() - 2)
    if wanted not in LETTERS or x.dim() != wanted + 2:
        axes = wanted if wanted in LETTERS else 2
        expect_shape(f"{who} input", x, f"B C {LETTERS[axes]}", cause="One without a batch? x.unsqueeze(0)." if x.dim() == axes + 1 else "")
    if not mode.startswith("nearest"):
        expect_floating(f"{who} input", x)


def expect_results(who: str, x: Tensor, axes: tuple[Axis, ...]) -> None:
    """Raise ValueError where there is nothing to resize, nothing is left, or the result cannot be counted."""
    if traced():
        return
    if min(x.shape[1:]) < 1:
        raise ValueError(f"{who} input: expected at least one channel and maps of at least {by([1] * len(axes))}, got {tuple(x.shape)}.")
    sizes = [axis.size for axis in axes]
    if min(sizes) < 1:
        raise ValueError(
            f"{who}: nothing is left of maps of {by(x.shape[2:])}: they become {by(sizes)}. Use a larger scale_factor, or size."
        )
    expect_countable(f"{who} output", "maps", (*x.shape[:2], *sizes), "Use a smaller size.")
