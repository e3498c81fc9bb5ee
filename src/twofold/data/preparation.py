"""Preparation: how any picture becomes what the model was trained on.     B pictures, C channels, H W their size

    picture     file -> upright, opaque, mode L or RGB -> height x width (antialiased, sides stretched) -> uint8 CHW
    normalise   y = (x / 255 - mean) / std          per channel; mean and std are of the training pictures in 0..1

It is stored with the model and repeated at prediction: a model never sees pictures prepared in another way.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from twofold.data.moments import Moments, moments, sums
from twofold.data.pictures import read_image

CHANNELS = {"L": 1, "RGB": 3}
LARGEST_SIDE = 4096  # pixels


class Preparation(NamedTuple):
    """mode "L" or "RGB"; height and width in pixels; mean and std one number per channel, std never 0."""

    mode: str
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, x_BCHW: Tensor) -> Preparation:
        """The preparation that uint8 training pictures call for: their mode and size, their mean and standard deviation, exact."""
        B, _, H, W = x_BCHW.shape
        return cls.by(moments(B * H * W, sums(x_BCHW.numpy())), H, W)

    @classmethod
    def by(cls, known: Moments, height: int, width: int) -> Preparation:
        """The same from the moments of the training pictures. A constant channel gets std 1."""
        mode = {channels: mode for mode, channels in CHANNELS.items()}[len(known.sums)]
        return cls(mode, height, width, known.mean(), known.std())

    def picture(self, path: str | Path) -> Tensor:
        """The picture file as a uint8 CHW tensor. Raises PictureError."""
        return self.fit(read_image(path, shrink_to=max(self.height, self.width)))

    def fit(self, image: Image.Image) -> Tensor:
        """An 8-bit opaque picture, converted and resized, as a uint8 CHW tensor."""
        return torch.from_numpy(fit(image, self.mode, self.height, self.width))

    def normalise(self, x_BCHW: Tensor) -> Tensor:
        """uint8 BCHW in 0..255 -> float32 BCHW with mean 0 and standard deviation 1 over the training pictures."""
        C = CHANNELS[self.mode]
        if x_BCHW.dtype != torch.uint8 or x_BCHW.ndim != 4 or x_BCHW.shape[1] != C:
            raise ValueError(
                f"Preparation.normalise: expected a uint8 tensor (B, C={C}, H, W) with values 0 to 255, got {x_BCHW.dtype} "
                f"{tuple(x_BCHW.shape)}. Make pictures with Preparation.picture and stack them"
            )
        mean_C11, std_C11 = _in_bytes(self.mean, self.std, x_BCHW.device)
        return torch.sub(x_BCHW, mean_C11).div_(std_C11)  # bytes become float32 within the subtraction

    def as_dict(self) -> dict[str, Any]:
        """Plain values for model.json."""
        return {**self._asdict(), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: object) -> Preparation:
        """The inverse of as_dict. Raises ValueError on anything that no preparation can be."""
        if not isinstance(values, dict) or set(values) != set(cls._fields):
            raise _wrong(f"expected an object with the keys {', '.join(cls._fields)}, got {_shown(values)}")
        mode = values["mode"]
        if not isinstance(mode, str) or mode not in CHANNELS:
            raise _wrong(f'mode: expected "L" or "RGB", got {_shown(mode)}')
        for side in ("height", "width"):
            size = values[side]
            if type(size) is not int or not 1 <= size <= LARGEST_SIDE:
                raise _wrong(f"{side}: expected a whole number from 1 to {LARGEST_SIDE}, got {_shown(size)}")
        mean = _numbers("mean", values["mean"], CHANNELS[mode])
        std = _numbers("std", values["std"], CHANNELS[mode])
        if min(std) <= 0:
            raise _wrong(f"std: expected numbers above 0, got {list(std)}")
        return cls(mode, values["height"], values["width"], mean, std)


def fit(image: Image.Image, mode: str, height: int, width: int) -> np.ndarray:
    """An 8-bit opaque picture as a uint8 CHW array of that mode and size; averaged down, never sampled (no aliasing)."""
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    x = np.array(image, dtype=np.uint8)
    return x[None] if mode == "L" else np.ascontiguousarray(x.transpose(2, 0, 1))


@functools.lru_cache(maxsize=16)
def _in_bytes(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """mean and std in 0..255, per channel: made once, used for every batch."""
    both = torch.tensor([mean, std], dtype=torch.float64) * 255
    mean_C11, std_C11 = both.to(device, torch.float32)[..., None, None]
    return mean_C11, std_C11


def _numbers(what: str, values: object, count: int) -> tuple[float, ...]:
    if not isinstance(values, list | tuple) or len(values) != count:
        raise _wrong(f"{what}: expected a list of {count} numbers, one per channel, got {_shown(values)}")
    if not all(type(v) in (int, float) and math.isfinite(v) for v in values):
        raise _wrong(f"{what}: expected finite numbers, got {_shown(values)}")
    return tuple(float(v) for v in values)


def _shown(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 100 else f"{said[:97]}..."


def _wrong(what: str) -> ValueError:
    return ValueError(f"preparation {what}. Was model.json edited by hand?")
