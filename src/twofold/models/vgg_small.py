"""Small nets in the manner of VGG: stages of 3x3 convolutions, each stage ended by a max pooling that halves the map.

    "32 32 M 64 64 M"       a number: conv 3x3 with so many filters -> batch norm -> ReLU;    M: max pool 2x2

What is left is averaged to 2x2, dropped out, and mapped to N logits by one linear layer. The stacks of small kernels are
VGG's; batch norm and the single linear layer in place of three are later habits that let 50 to 300 thousand weights suffice.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, section 2 and table 1;
Ioffe and Szegedy, "Batch normalization", ICML 2015
"""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

from twofold import nn
from twofold.models.config import LARGEST, Config, at_least, at_most, fraction


@dataclass(frozen=True)
class VGGConfig(Config):
    """`stages` in letters; C in, H W picture, N classes; `dropout` before the last layer."""

    stages: str = "32 32 M 64 64 M"
    in_channels: int = 1
    height: int = 8
    width: int = 8
    classes: int = 10
    dropout: float = 0.3

    def __post_init__(self) -> None:
        at_least("vgg", 1, in_channels=self.in_channels)
        at_least("vgg", 2, classes=self.classes)
        fraction("vgg", dropout=self.dropout)
        words = self.stages.split()
        if not words or words[0] == "M" or not all(word == "M" or (word.isdecimal() and int(word) > 0) for word in words):
            raise ValueError(f'vgg: expected stages like "32 32 M 64 64 M" (filters, M for pooling), got {self.stages!r}.')
        at_most("vgg", LARGEST, filters=max(int(word) for word in words if word != "M"))
        smallest = 2 ** words.count("M")
        if min(self.height, self.width) < smallest:
            raise ValueError(
                f'vgg: expected pictures of at least {smallest}x{smallest} for the stages "{self.stages}", got '
                f"{self.height}x{self.width}: {words.count('M')} poolings leave nothing. Take fewer stages or a larger --image-size."
            )


PRESETS = {
    "vgg-mini": VGGConfig(),
    "vgg-small": VGGConfig(stages="32 32 M 64 64 M 128 128 M 128 M", in_channels=3, height=64, width=64),
}


class VGG(nn.Module):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W)."""

    def __init__(self, config: VGGConfig) -> None:
        super().__init__()
        self.config = config
        self.features = nn.Sequential(_stages(config))
        filters = int([word for word in config.stages.split() if word != "M"][-1])
        halvings = config.stages.split().count("M")
        size = (config.height >> halvings, config.width >> halvings)
        rows, columns = min(size[0], 2), min(size[1], 2)
        self.average = nn.Identity() if size == (rows, columns) else nn.AdaptiveAvgPool2d((rows, columns))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(filters * rows * columns, config.classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.head(self.dropout(self.average(self.features(x_BCHW)).flatten(1)))


def _stages(config: VGGConfig) -> OrderedDict[str, nn.Module]:
    """conv1, norm1, relu1, conv2, ... pool1, ...: the letters as layers."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, convolutions, poolings = config.in_channels, 0, 0
    for word in config.stages.split():
        if word == "M":
            poolings += 1
            layers[f"pool{poolings}"] = nn.MaxPool2d(2)
            continue
        convolutions += 1
        filters = int(word)
        layers[f"conv{convolutions}"] = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
        layers[f"norm{convolutions}"] = nn.BatchNorm2d(filters)
        layers[f"relu{convolutions}"] = nn.ReLU()
        channels = filters
    return layers


def build(config: VGGConfig) -> VGG:
    """The net with torch's default initialisation."""
    return VGG(config)
