"""Colour: brightness, contrast, saturation and hue as one affine map of each pixel's colour.     v: a pixel's (red, green, blue)

    brightness   v -> b v
    contrast     v -> m + c (v - m)               m: the mean grey of the picture
    saturation   v -> g + s (v - g)               g = w.v, the pixel's own grey; w = (0.299, 0.587, 0.114)
    hue          v -> T^-1 R T v                  T to brightness and two axes of colour (YIQ), R turns these two by 2 pi h

    together     v -> c b Q v + (1 - c) b m       Q = T^-1 R T (s + (1 - s) 1 w');  grey stays grey under Q, so the last term needs none

One rounding and one clipping at the end, not four. Grey pictures have brightness and contrast alone: Q is 1.

Recommendation ITU-R BT.601 (w); Smith, "Color gamut transform pairs", SIGGRAPH 1978 (the idea of turning hue); NTSC 1953 (YIQ)
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data.augment_draws import Draws
from twofold.data.augment_warp import parts, to_kind

GREY = np.array([0.299, 0.587, 0.114])
YIQ = np.array([GREY, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
BACK = np.linalg.inv(YIQ)


@dataclass(frozen=True)
class Colour:
    """brightness, contrast, saturation: by a factor of 1 - amount to 1 + amount. hue: up to this share of the circle to either side."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5)):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 <= value <= most):
                meaning = "a share of the circle of colours" if name == "hue" else "factors from 1 - amount to 1 + amount"
                raise ValueError(f"augment {name}: expected a number from 0 to {most:g} ({meaning}), got {value!r}.")

    @property
    def still(self) -> bool:
        """Whether colours stay as they are."""
        return self == Colour()

    def apply(self, x_BCHW: Tensor, draws: Draws) -> Tensor:
        """The pictures in other colours, in their own type: uint8, or floats in 0..1. C is 1 or 3."""
        brightness_B = self._factor(draws, "brightness")
        contrast_B = self._factor(draws, "contrast")
        gain_B = brightness_B * contrast_B
        lift_B = (1 - contrast_B) * brightness_B * _mean_grey(x_BCHW) if self.contrast else np.zeros_like(gain_B)
        lift = _as(lift_B, x_BCHW)[:, None, None, None]
        y_BCHW = torch.empty_like(x_BCHW, memory_format=torch.contiguous_format)
        if x_BCHW.shape[1] == 1 or not (self.saturation or self.hue):
            gain = _as(gain_B, x_BCHW)[:, None, None, None]
            for part in parts(x_BCHW):
                y_BCHW[part] = to_kind((x_BCHW[part] * gain[part]).add_(lift[part]), x_BCHW.dtype)
            return y_BCHW
        mix = _as(gain_B[:, None, None] * self._mix(draws), x_BCHW)[..., None, None]
        for part in parts(x_BCHW):
            red, green, blue = x_BCHW[part].to(torch.float32).split(1, 1)
            mixed = red * mix[part, :, 0]  # elementwise and in one order: a product of matrices may round differently in another batch
            mixed.add_(green * mix[part, :, 1]).add_(blue * mix[part, :, 2]).add_(lift[part])
            y_BCHW[part] = to_kind(mixed, x_BCHW.dtype)
        return y_BCHW

    def _factor(self, draws: Draws, name: str) -> NDArray[np.float64]:
        amount = getattr(self, name)
        return draws.between(name, 1 - amount, 1 + amount)[:, 0]

    def _mix(self, draws: Draws) -> NDArray[np.float64]:
        """(B, 3, 3): Q."""
        saturation_B11 = self._factor(draws, "saturation")[:, None, None]
        dull_B33 = saturation_B11 * np.eye(3) + (1 - saturation_B11) * GREY
        angle_B = draws.between("hue", -self.hue, self.hue)[:, 0] * (2 * math.pi)
        turn_B33 = np.zeros((len(angle_B), 3, 3))
        turn_B33[:, 0, 0] = 1
        turn_B33[:, 1, 1] = turn_B33[:, 2, 2] = np.cos(angle_B)
        turn_B33[:, 2, 1] = np.sin(angle_B)
        turn_B33[:, 1, 2] = -turn_B33[:, 2, 1]
        return BACK @ turn_B33 @ YIQ @ dull_B33


def _mean_grey(x_BCHW: Tensor) -> NDArray[np.float64]:
    """(B,) m."""
    means_BC = channel_means(x_BCHW)
    return means_BC[:, 0] if means_BC.shape[1] == 1 else (means_BC * GREY).sum(1)


def channel_means(x_BCHW: Tensor) -> NDArray[np.float64]:
    """(B, C), the same in every batch and with any number of threads: bytes add up exactly, floats picture by picture in one order."""
    B, C, H, W = x_BCHW.shape
    if x_BCHW.dtype == torch.uint8:
        sums_BC = x_BCHW.sum(3, dtype=torch.int32).sum(2, dtype=torch.int64).cpu().numpy()
    else:
        sums_BC = np.array([x_CHW.cpu().numpy().reshape(C, -1).sum(1, dtype=np.float64) for x_CHW in x_BCHW]).reshape(B, C)
    return sums_BC / (H * W)


def _as(values: NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(like.device)
