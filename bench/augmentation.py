"""Batch augmentation: crop (padding of an eighth), flip and normalise, ours against Pillow picture by picture in two worker processes.

    ours           bytes in one tensor; a batch is gathered, augmented and normalised in this process (twofold.data.augment)
    Pillow         torch's DataLoader, two workers that stay; a sample is cropped and turned by Pillow, made a tensor and normalised
    Pillow, bytes  the same, but bytes come back and the batch is normalised here: a quarter of the bytes between processes
    kornia         where it is installed: its RandomCrop, RandomHorizontalFlip and Normalize on the batch

asked: at least 3 times the pictures a second of Pillow. An epoch of each in turn, medians.
"""

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from side_by_side import machine, seconds
from twofold.data.augment import Augmenter
from twofold.data.augment_text import read_recipe
from twofold.data.preparation import Preparation

# side, channels, pictures in a batch, pictures in an epoch
SIZES = ((28, 1, 64, 6400), (32, 3, 64, 6400), (224, 3, 32, 640))
WORKERS = 2


class PillowPictures(Dataset[Tensor]):
    """One picture at a time."""

    def __init__(self, x_BCHW: Tensor, kind: Preparation, padding: int, normalised: bool) -> None:
        self.pictures = [Image.fromarray(x.permute(1, 2, 0).squeeze(-1).numpy()) for x in x_BCHW]
        self.mean, self.std = (torch.tensor(values)[:, None, None] * 255 for values in (kind.mean, kind.std))
        self.padding, self.normalised = padding, normalised

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        picture, side = self.pictures[index], self.pictures[index].width
        left, top = (int(place) - self.padding for place in torch.randint(0, 2 * self.padding + 1, (2,)))
        picture = picture.crop((left, top, left + side, top + side))  # Pillow fills what lies outside with zeros
        if torch.rand(()) < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        values = np.array(picture)
        x_CHW = torch.from_numpy(values[None] if values.ndim == 2 else values).permute(*((0, 1, 2) if values.ndim == 2 else (2, 0, 1)))
        return x_CHW.float().sub_(self.mean).div_(self.std) if self.normalised else x_CHW.contiguous()


def through(loader: DataLoader[Tensor], finish: Callable[[Tensor], Tensor]) -> None:
    """An epoch of the loader."""
    for x_BCHW in loader:
        finish(x_BCHW)


def ours(x_BCHW: Tensor, kind: Preparation, augmenter: Augmenter, size: int) -> None:
    """An epoch of ours, shuffled too."""
    for chosen in torch.randperm(len(x_BCHW)).split(size):
        kind.normalise(augmenter.pictures(x_BCHW.index_select(0, chosen), 0, chosen))


def kornia(x_BCHW: Tensor, kind: Preparation, padding: int, size: int) -> Callable[[], None]:
    """An epoch of kornia's."""
    K = importlib.import_module("kornia.augmentation")
    side = x_BCHW.shape[-1]
    steps = torch.nn.Sequential(
        K.RandomCrop((side, side), padding=padding, cropping_mode="slice"),
        K.RandomHorizontalFlip(p=0.5),
        K.Normalize(torch.tensor(kind.mean), torch.tensor(kind.std)),
    )

    def epoch() -> None:
        for chosen in torch.randperm(len(x_BCHW)).split(size):
            steps(x_BCHW.index_select(0, chosen).float().div_(255))

    return epoch


def main() -> None:
    print(machine())
    for side, channels, size, count in SIZES:
        x_BCHW = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8)
        kind, padding = Preparation.of(x_BCHW), side // 8
        augmenter = Augmenter(read_recipe(f"flip crop={padding}"))
        contenders: dict[str, Callable[[], object]] = {"ours": partial(ours, x_BCHW, kind, augmenter, size)}
        for name, normalised in (("Pillow", True), ("Pillow, bytes", False)):
            data = PillowPictures(x_BCHW, kind, padding, normalised)
            loader = DataLoader(data, size, shuffle=True, num_workers=WORKERS, persistent_workers=True)
            contenders[name] = partial(through, loader, (lambda x: x) if normalised else kind.normalise)
        if importlib.util.find_spec("kornia"):
            contenders["kornia"] = kornia(x_BCHW, kind, padding, size)
        rates = {name: count / taken for name, taken in seconds(contenders, rounds=7, warm_up=2).items()}
        for name, rate in rates.items():
            beside = "" if name == "ours" else f"   ours is {rates['ours'] / rate:5.1f} times as fast"
            print(f"{side}x{side}x{channels}, batch {size}   {name:14} {rate:10,.0f} pictures/s{beside}")
        if not importlib.util.find_spec("kornia"):
            print(f"{side}x{side}x{channels}, batch {size}   kornia is not installed")


if __name__ == "__main__":
    main()
