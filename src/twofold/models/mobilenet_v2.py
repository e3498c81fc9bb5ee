"""MobileNetV2: blocks that are wide within and narrow between, with a way past them.

    block(C -> F, t, s)     y = P(D(E(x))), and x + y where s = 1 and C = F
                            E: conv 1x1, C -> tC -> batch norm -> ReLU6            left out where t = 1
                            D: conv 3x3 of each of the tC channels by itself, stride s -> batch norm -> ReLU6
                            P: conv 1x1, tC -> F -> batch norm                     no ReLU: it would lose what few channels carry

    conv 3x3, 32, stride 2 -> batch norm -> ReLU6    112x112
    t=1   16, once                                   112x112
    t=6   24, twice, the first with stride 2         56x56
    t=6   32, three times, the first with stride 2   28x28
    t=6   64, four times, the first with stride 2    14x14
    t=6   96, three times                            14x14
    t=6   160, three times, the first with stride 2  7x7
    t=6   320, once                                  7x7
    conv 1x1, 1280 -> batch norm -> ReLU6            7x7
    the mean of every channel -> dropout -> N logits

`multiplier` times every number of channels, rounded to a multiple of 8; the last 1280 grow, but do not shrink. Names are torchvision's.

Sandler, Howard, Zhu, Zhmoginov and Chen, "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018, sections 3 and 4, tables 1
and 2; first weights as torchvision's: convolutions normal with variance 2 / fan_out (He et al., ICCV 2015, eq. 14), the last layer normal
with deviation 0.01, biases 0
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from twofold import nn
from twofold.models.config import Config, at_least, fraction
from twofold.models.mobilenet import eights, expect_multiplier

STEM: Final = 32
LAST: Final = 1280
# t, F, how many, the stride of the first
STAGES: Final = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


@dataclass(frozen=True)
class MobileNetV2Config(Config):
    """C in, H W picture, N classes; `multiplier` of the channels; `dropout` before the last layer."""

    in_channels: int = 3
    height: int = 224
    width: int = 224
    classes: int = 1000
    multiplier: float = 1.0
    dropout: float = 0.2

    def __post_init__(self) -> None:
        at_least("mobilenet-v2", 1, in_channels=self.in_channels, height=self.height, width=self.width)
        at_least("mobilenet-v2", 2, classes=self.classes)
        fraction("mobilenet-v2", dropout=self.dropout)
        expect_multiplier("mobilenet-v2", self.multiplier)


PRESETS = {"mobilenet-v2": MobileNetV2Config()}


class Block(nn.Module):
    """x + conv(x), or conv(x) where the shapes differ."""

    def __init__(self, channels: int, filters: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = expansion * channels
        self.conv = nn.Sequential(
            *([normed(channels, inner, 1)] if expansion > 1 else []),
            normed(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, filters, 1, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.past = stride == 1 and channels == filters

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BFPQ: Tensor = self.conv(x_BCHW)
        return x_BCHW + y_BFPQ if self.past else y_BFPQ


class MobileNetV2(nn.Sequential):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W)."""

    def __init__(self, config: MobileNetV2Config) -> None:
        channels = eights(STEM * config.multiplier)
        features = nn.Sequential(normed(config.in_channels, channels, 3, stride=2))
        for expansion, width, times, stride in STAGES:
            filters = eights(width * config.multiplier)
            for number in range(times):
                features.append(Block(channels, filters, expansion, 1 if number else stride))
                channels = filters
        last = eights(LAST * max(1.0, config.multiplier))
        features.append(normed(channels, last, 1))
        super().__init__(
            OrderedDict(
                features=features,
                pool=nn.GlobalAvgPool(flatten=True),
                classifier=nn.Sequential(nn.Dropout(config.dropout), nn.Linear(last, config.classes)),
            )
        )
        self.config = config

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return super().forward(x_BCHW)


def normed(channels: int, filters: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU6."""
    conv = nn.Conv2d(channels, filters, size, stride=stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(filters), nn.ReLU6())


def build(config: MobileNetV2Config) -> MobileNetV2:
    """The net with torchvision's initialisation."""
    net = MobileNetV2(config)
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out")
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.01)
            nn.init.zeros_(part.bias)
    return net
