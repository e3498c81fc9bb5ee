"""The net of the CIFAR-10 speed runs: a whitening convolution, three blocks of two, one linear layer.

    x 3x32x32 -> whitening 2x2, 2 x 12 filters, fixed but for the bias -> GELU                       24 x 31 x 31
              -> conv 3x3, 64 -> max pool 2 -> norm -> GELU -> conv 3x3, 64 -> norm -> GELU           64 x 15 x 15
              -> the same with 256                                                                   256 x 7 x 7
              -> the same with 256                                                                   256 x 3 x 3
              -> max over the map -> linear without bias, its logits times 1/9                         10

The first filters follow from the training pictures (layers/whitening.py); every 3x3 kernel begins as the identity on as many channels as it
can; norms have a bias and no scale, and forget quickly (momentum 0.4 of the new batch). Trained with a nearly linear fall of the rate,
label smoothing of 0.2, averaged weights, alternating flips and shifts, and judged over several views, it reaches 94 % in 3.3 seconds on
an A100.

Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, sections 3.1 to 3.6 and figure 3; the identity start: Zagoruyko and
Komodakis, "DiracNets", 2017
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from twofold import nn
from twofold.layers.whitening import whitening_filters
from twofold.models.config import LARGEST, Config, at_least, at_most, big_enough

KERNEL = 2  # of the whitening
LOGITS = 1 / 9


@dataclass(frozen=True)
class AirbenchConfig(Config):
    """`widths`: the filters of the three blocks; C in, H W picture, N classes."""

    widths: str = "64 256 256"
    in_channels: int = 3
    height: int = 32
    width: int = 32
    classes: int = 10

    def __post_init__(self) -> None:
        at_least("airbench", 1, in_channels=self.in_channels)
        at_least("airbench", 2, classes=self.classes)
        words = self.widths.split()
        if len(words) != 3 or not all(word.isdecimal() and int(word) > 0 for word in words):
            raise ValueError(f'airbench: expected widths as three numbers like "64 256 256", got {self.widths!r}.')
        at_most("airbench", LARGEST, widths=max(map(int, words)))
        big_enough("airbench", KERNEL + 7, self.height, self.width)


PRESETS = {"airbench": AirbenchConfig()}


class Airbench(nn.Module):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W)."""

    def __init__(self, config: AirbenchConfig) -> None:
        super().__init__()
        self.config = config
        channels = 2 * config.in_channels * KERNEL**2
        self.whiten = nn.Conv2d(config.in_channels, channels, KERNEL)
        self.whiten.weight.requires_grad = False
        nn.init.zeros_(self.whiten.bias)
        self.gelu = nn.GELU()
        blocks = []
        for filters in map(int, config.widths.split()):
            blocks.append(_block(channels, filters))
            channels = filters
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.head = nn.Linear(channels, config.classes, bias=False)

    def start_from(self, x_BCHW: Tensor) -> None:
        """Take the whitening filters from training pictures, as the model will see them."""
        with torch.no_grad():
            self.whiten.weight.copy_(whitening_filters(x_BCHW, KERNEL))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.blocks(self.gelu(self.whiten(x_BCHW)))
        return self.head(self.pool(y_BCHW).flatten(1)) * LOGITS


def _block(channels: int, filters: int) -> nn.Sequential:
    first, second = nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.Conv2d(filters, filters, 3, padding=1, bias=False)
    for layer in (first, second):
        nn.init.dirac_(layer.weight[: layer.weight.shape[1]])
    return nn.Sequential(first, nn.MaxPool2d(2), _norm(filters), nn.GELU(), second, _norm(filters), nn.GELU())


def _norm(filters: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(filters, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad = False  # stays 1
    return norm


def build(config: AirbenchConfig) -> Airbench:
    """The net with torch's default initialisation, but for the identities; `start_from` is for the loop to call."""
    return Airbench(config)
