"""DenseNet: every layer of a block sees what all layers before it have made.     k the growth

    layer    x_l = H([x_0, x_1, ..., x_l-1])       H: batch norm -> ReLU -> conv 1x1, 4k -> batch norm -> ReLU -> conv 3x3, k
    block    [x_0, x_1, ..., x_L]                  L layers make C channels C + L k
    transition                                     batch norm -> ReLU -> conv 1x1 to half the channels -> average pool 2x2

    conv 7x7, 64, stride 2 -> batch norm -> ReLU   112x112
    max pool 3x3, stride 2                         56x56
    block of 6      64 + 6*32 = 256                56x56, transition to 128
    block of 12     128 + 12*32 = 512              28x28, transition to 256
    block of 24     256 + 24*32 = 1024             14x14, transition to 512
    block of 16     512 + 16*32 = 1024             7x7
    batch norm -> ReLU -> the mean of every channel -> N logits

(DenseNet-121.) A layer only adds k channels, but all concatenations are kept for the way back, which grows with the square of L:
`recompute` forgets what is inside a layer and makes it again on the way back, for the time of one more forward pass. Names are
torchvision's.

Huang, Liu, van der Maaten and Weinberger, "Densely connected convolutional networks", CVPR 2017, section 3 and table 1; recomputing:
Pleiss et al., "Memory-efficient implementation of DenseNets", arXiv:1707.06990, 2017, section 3; first weights as torchvision's:
convolutions normal with variance 2 / fan_in (He et al., ICCV 2015, eq. 10), bias 0
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from twofold import nn
from twofold.layers.initialize import he_normal
from twofold.models.config import LARGEST, Config, at_least, at_most, big_enough, fraction

WIDENING = 4  # the paper's 4k maps of the 1x1 convolution
SMALLEST = 29  # 29 -> 15 -> 8 -> 4 -> 2 -> 1


@dataclass(frozen=True)
class DenseNetConfig(Config):
    """`blocks`: layers in each; `growth` k; `first`: filters of the first convolution; C in, H W picture, N classes; `dropout`."""

    blocks: str = "6 12 24 16"
    growth: int = 32
    first: int = 64
    in_channels: int = 3
    height: int = 224
    width: int = 224
    classes: int = 1000
    dropout: float = 0.0
    recompute: bool = False

    def __post_init__(self) -> None:
        at_least("densenet", 1, in_channels=self.in_channels, growth=self.growth, first=self.first)
        at_least("densenet", 2, classes=self.classes)
        fraction("densenet", dropout=self.dropout)
        words = self.blocks.split()
        if len(words) != 4 or not all(word.isdecimal() and int(word) > 0 for word in words):
            raise ValueError(f'densenet: expected blocks as four numbers of layers, such as "6 12 24 16", got {self.blocks!r}.')
        at_most("densenet", 1000, layers=max(map(int, words)))
        at_most("densenet", LARGEST, growth=self.growth, first=self.first)
        big_enough("densenet", SMALLEST, self.height, self.width)


PRESETS = {
    "densenet121": DenseNetConfig(),
    "densenet169": DenseNetConfig("6 12 32 32"),
    "densenet201": DenseNetConfig("6 12 48 32"),
    "densenet161": DenseNetConfig("6 12 36 24", growth=48, first=96),
}


class Layer(nn.Sequential):
    """H: the k new maps of all maps before."""

    def __init__(self, channels: int, config: DenseNetConfig) -> None:
        inner = WIDENING * config.growth
        super().__init__(
            OrderedDict(
                norm1=nn.BatchNorm2d(channels),
                relu1=nn.ReLU(),
                conv1=nn.Conv2d(channels, inner, 1, bias=False),
                norm2=nn.BatchNorm2d(inner),
                relu2=nn.ReLU(),
                conv2=nn.Conv2d(inner, config.growth, 3, padding=1, bias=False),
                dropout=nn.Dropout(config.dropout),
            )
        )
        self.recompute = config.recompute

    def forward(self, input: list[Tensor]) -> Tensor:
        if self.recompute and self.training and torch.is_grad_enabled():
            new: Tensor = checkpoint(self.grow, *input, use_reentrant=False, context_fn=self.again)
            return new
        return self.grow(*input)

    def grow(self, *maps_BCHW: Tensor) -> Tensor:
        """The new maps (B, k, H, W)."""
        new: Tensor = super().forward(torch.cat(maps_BCHW, 1))
        return new

    def again(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """The blocks in which a layer is computed at first, and once more."""
        return nullcontext(), apart(self)


@contextmanager
def apart(layer: nn.Module) -> Iterator[None]:
    """A block in which running values are copies: batch norm has taken account of this batch already."""
    own = [(part, dict(part._buffers)) for part in layer.modules()]
    for part, buffers in own:
        part._buffers.update({name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()})
    try:
        yield
    finally:
        for part, buffers in own:
            part._buffers.update(buffers)


class Block(nn.Module):
    """(B, C, H, W) become (B, C + L k, H, W)."""

    def __init__(self, channels: int, layers: int, config: DenseNetConfig) -> None:
        super().__init__()
        for place in range(layers):
            self.add_module(f"denselayer{place + 1}", Layer(channels + place * config.growth, config))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps = [x_BCHW]
        for layer in self.children():
            maps.append(layer(maps))
        return torch.cat(maps, 1)


class DenseNet(nn.Sequential):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W)."""

    def __init__(self, config: DenseNetConfig) -> None:
        channels = config.first
        features = nn.Sequential(
            OrderedDict(
                conv0=nn.Conv2d(config.in_channels, channels, 7, stride=2, padding=3, bias=False),
                norm0=nn.BatchNorm2d(channels),
                relu0=nn.ReLU(),
                pool0=nn.MaxPool2d(3, 2, 1),
            )
        )
        counts = [int(word) for word in config.blocks.split()]
        for number, layers in enumerate(counts, 1):
            features.add_module(f"denseblock{number}", Block(channels, layers, config))
            channels += layers * config.growth
            if number < len(counts):
                features.add_module(f"transition{number}", transition(channels))
                channels //= 2
        features.add_module("norm5", nn.BatchNorm2d(channels))
        features.add_module("relu5", nn.ReLU())
        classifier = nn.Linear(channels, config.classes)
        super().__init__(OrderedDict(features=features, pool=nn.GlobalAvgPool(flatten=True), classifier=classifier))
        self.config = config

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return super().forward(x_BCHW)


def transition(channels: int) -> nn.Sequential:
    """Half the channels, half the side."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(),
            conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )


def build(config: DenseNetConfig) -> DenseNet:
    """The net with torchvision's initialisation."""
    net = DenseNet(config)
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            he_normal(part.weight)
        elif isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)
    return net
