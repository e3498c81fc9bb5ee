"""Resizing maps: nearest, linear, bilinear and trilinear.     B images, C channels, H all axes of the map, P those of the resized one

Pixel p of the result looks at t(p), a place between the n pixels of the map (coordinates.py):

    nearest    y[b,c,p] = x[b,c,round(t)]                         pixels beyond the map are those at its edge
    linear     y[b,c,p] = (1 - u) x[b,c,i] + u x[b,c,i+1]         i = floor(t), u = t - i; one axis after the other
    backward   dx[b,c,h] = sum of dy[b,c,p] times the weight with which p looks at h                          the adjoint

By an integer factor f, nearest (asymmetric, floor) repeats every pixel f times, or keeps the pixels 0, f, 2 f, ... Nothing is blurred
before it is made smaller (no antialiasing): finer detail than the result can hold turns into false patterns.

Keys, "Cubic convolution interpolation for digital image processing", IEEE Transactions on Acoustics, Speech and Signal Processing 29(6),
1981, section I (nearest, linear)
"""

from array import array
from functools import lru_cache
from math import gcd
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.differentiable import Operation, differentiable
from twofold.layers.expect import expect_floating, expect_shape, expect_tensor
from twofold.layers.routes import Routed, traced
from twofold.space.coordinates import LINEAR, MODES, Axis, axes_of, convention, linear_pixels, nearest_pixels
from twofold.space.pooling import expect_countable
from twofold.space.windows import LETTERS, by

Saved = tuple[Axis, ...]  # what backward needs: the map itself does not matter


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
