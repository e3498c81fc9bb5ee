"""MobileNet: every 3x3 convolution in two steps, one over space and one over channels.

    separable(C -> F, s)     conv 3x3 of each channel by itself, stride s -> batch norm -> ReLU -> conv 1x1, C -> F -> batch norm -> ReLU

A convolution of C to F channels with 3x3 taps costs 9 C F multiply-adds a pixel, the two steps 9 C + C F: 8 to 9 times less.

    conv 3x3, 32, stride 2 -> batch norm -> ReLU     112x112
    separable 64                                     112x112
    separable 128, stride 2; 128                     56x56
    separable 256, stride 2; 256                     28x28
    separable 512, stride 2; five times 512          14x14
    separable 1024, stride 2; 1024                   7x7
    the mean of every channel -> dropout -> N logits

The paper's two ways to a smaller net: `multiplier` times every number of channels (rounded to a multiple of 8), and smaller pictures.
Table 1 gives the last separable convolution stride 2, which contradicts the 7x7 that it gives, too: the stride is 1.
Names are those of timm's mobilenetv1; weights published there were trained with relu6=true.

Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications", arXiv:1704.04861, 2017, sections 3.1
to 3.4 and table 1; first weights: He et al., "Delving deep into rectifiers", ICCV 2015, eq. 10
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from twofold import nn
from twofold.layers.initialize import he_normal
from twofold.models.config import LARGEST, Config, at_least, fraction

STEM: Final = 32
STAGES: Final = ((64,), (128, 128), (256, 256), (512,) * 6, (1024, 1024))  # filters; each stage but the first begins with stride 2


def eights(channels: float) -> int:
    """The nearest multiple of 8, at least 8; the next one where the nearest would lose more than a tenth.

    >>> [eights(channels) for channels in (1, 12, 16, 35, 42)]
    [8, 16, 16, 32, 40]
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def expect_multiplier(who: str, multiplier: float) -> None:
    """Raise ValueError unless the channels can be multiplied by it."""
    if not 0 < multiplier <= LARGEST:
        raise ValueError(f"{who}: expected a multiplier of the channels above 0, such as 0.25, 0.5 or 1.4, got {multiplier}.")


@dataclass(frozen=True)
class MobileNetConfig(Config):
    """C in, H W picture, N classes; `multiplier` of the channels; `dropout` before the last layer; `relu6`: no value above 6."""

    in_channels: int = 3
    height: int = 224
    width: int = 224
    classes: int = 1000
    multiplier: float = 1.0
    dropout: float = 0.0
    relu6: bool = False

    def __post_init__(self) -> None:
        at_least("mobilenet-v1", 1, in_channels=self.in_channels, height=self.height, width=self.width)
        at_least("mobilenet-v1", 2, classes=self.classes)
        fraction("mobilenet-v1", dropout=self.dropout)
        expect_multiplier("mobilenet-v1", self.multiplier)


PRESETS = {"mobilenet-v1": MobileNetConfig()}


class MobileNet(nn.Sequential):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W)."""

    def __init__(self, config: MobileNetConfig) -> None:
        act = nn.ReLU6 if config.relu6 else nn.ReLU
        first = channels = eights(STEM * config.multiplier)
        blocks = nn.Sequential()
        for place, stage in enumerate(STAGES):
            part = nn.Sequential()
            for number, filters in enumerate(eights(filters * config.multiplier) for filters in stage):
                part.append(separable(channels, filters, 2 if place and not number else 1, act))
                channels = filters
            blocks.append(part)
        super().__init__(
            OrderedDict(
                conv_stem=nn.Conv2d(config.in_channels, first, 3, stride=2, padding=1, bias=False),
                bn1=nn.BatchNorm2d(first),
                act1=act(),
                blocks=blocks,
                global_pool=nn.GlobalAvgPool(flatten=True),
                dropout=nn.Dropout(config.dropout),
                classifier=nn.Linear(channels, config.classes),
            )
        )
        self.config = config

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return super().forward(x_BCHW)


def separable(channels: int, filters: int, stride: int, act: type[nn.Module]) -> nn.Sequential:
    """Over space, then over channels."""
    return nn.Sequential(
        OrderedDict(
            conv_dw=nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False),
            bn1=nn.BatchNorm2d(channels),
            act1=act(),
            conv_pw=nn.Conv2d(channels, filters, 1, bias=False),
            bn2=nn.BatchNorm2d(filters),
            act2=act(),
        )
    )


def build(config: MobileNetConfig) -> MobileNet:
    """The net; convolutions start normal with variance 2 / fan_in, the last layer as torch's."""
    net = MobileNet(config)
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            he_normal(part.weight)
    return net
