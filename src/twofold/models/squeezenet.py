"""SqueezeNet: AlexNet's accuracy with a fiftieth of its weights.

    fire(C, s, e)     squeeze: conv 1x1, C -> s -> ReLU;   expand: (conv 1x1, s -> e -> ReLU | conv 3x3, s -> e -> ReLU), side by side: 2e

Most taps see few channels: s is an eighth of 2e. Pooling is late, so that the maps stay large.

    1.0    conv 7x7, 96, stride 2    109x109                         1.1    conv 3x3, 64, stride 2    111x111
           pool                      54x54                                  pool                      55x55
           fire 16,64; 16,64; 32,128                                        fire 16,64; 16,64
           pool                      27x27                                  pool                      27x27
           fire 32,128; 48,192; 48,192; 64,256                              fire 32,128; 32,128
           pool                      13x13                                  pool                      13x13
           fire 64,256               13x13                                  fire 48,192; 48,192; 64,256; 64,256

    then dropout -> conv 1x1, N -> ReLU -> the mean of every channel: N logits, none below 0

A pool is the largest of 3x3 with stride 2, begun as often as a window still begins within the map. 1.1 is the authors' later form: 2.4
times less work. Names and the sizes of the first convolution (unpadded) are torchvision's, and so are the first weights, but for the bias
of the last convolution, 1 in place of 0: with the ReLU behind it, a class that begins at 0 everywhere has no gradient and is never learnt.
To all logits the same is added, which changes no probability.

Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size", arXiv:1602.07360, 2016, section 3,
figures 1 and 2, table 1; 1.1: the authors' repository; first weights: uniform with variance 2 / fan_in (He et al., ICCV 2015, eq. 10), of
the last convolution normal with deviation 0.01, its bias 1, other biases 0
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from twofold import nn
from twofold.layers.initialize import he_uniform
from twofold.models.config import Config, at_least, big_enough, fraction


class Version(NamedTuple):
    """The first convolution, the layers behind it ("s,e" a fire, "M" a pool), and the smallest side of a picture that leaves a map."""

    size: int
    filters: int
    layers: str
    smallest: int


LAST: Final = "classifier.1"

VERSIONS: Final = {
    "1.0": Version(7, 96, "M 16,64 16,64 32,128 M 32,128 48,192 48,192 64,256 M 64,256", 21),
    "1.1": Version(3, 64, "M 16,64 16,64 M 32,128 32,128 M 48,192 48,192 64,256 64,256", 17),
}


@dataclass(frozen=True)
class SqueezeNetConfig(Config):
    """`version` 1.0 or 1.1; C in, H W picture, N classes; `dropout` before the last convolution."""

    version: str = "1.0"
    in_channels: int = 3
    height: int = 224
    width: int = 224
    classes: int = 1000
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise ValueError(f"squeezenet: expected version to be one of {', '.join(VERSIONS)}, got {self.version!r}.")
        who = f"squeezenet{self.version.replace('.', '-')}"
        at_least(who, 1, in_channels=self.in_channels)
        at_least(who, 2, classes=self.classes)
        fraction(who, dropout=self.dropout)
        big_enough(who, VERSIONS[self.version].smallest, self.height, self.width)


PRESETS = {"squeezenet1-0": SqueezeNetConfig(), "squeezenet1-1": SqueezeNetConfig("1.1")}


class Fire(nn.Module):
    """(B, C, H, W) become (B, 2e, H, W)."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.squeeze_activation = nn.ReLU()
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand1x1_activation = nn.ReLU()
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.expand3x3_activation = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        few = self.squeeze_activation(self.squeeze(x_BCHW))
        return torch.cat((self.expand1x1_activation(self.expand1x1(few)), self.expand3x3_activation(self.expand3x3(few))), 1)


class SqueezeNet(nn.Sequential):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W)."""

    def __init__(self, config: SqueezeNetConfig) -> None:
        version = VERSIONS[config.version]
        features = nn.Sequential(nn.Conv2d(config.in_channels, version.filters, version.size, stride=2), nn.ReLU())
        channels = version.filters
        for word in version.layers.split():
            if word == "M":
                features.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                continue
            squeezed, expanded = map(int, word.split(","))
            features.append(Fire(channels, squeezed, expanded))
            channels = 2 * expanded
        last = nn.Conv2d(channels, config.classes, 1)
        classifier = nn.Sequential(nn.Dropout(config.dropout), last, nn.ReLU(), nn.GlobalAvgPool(flatten=True))
        super().__init__(OrderedDict(features=features, classifier=classifier))
        self.config = config

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return super().forward(x_BCHW)


def build(config: SqueezeNetConfig) -> SqueezeNet:
    """The net with torchvision's initialisation, and every class alive."""
    net = SqueezeNet(config)
    for name, part in net.named_modules():
        if isinstance(part, nn.Conv2d):
            if name == LAST:
                nn.init.normal_(part.weight, std=0.01)
            else:
                he_uniform(part.weight)
            nn.init.constant_(part.bias, float(name == LAST))
    return net
