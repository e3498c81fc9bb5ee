"""A residual net that does not care which way up a picture is: logits(turned picture) = logits(picture).

    output map    HxW              HxW       H/2xW/2    H/4xW/4      rounded up; at every pixel G forms of every filter, 4 for p4, 8 for p4m
    layers        1 + 2 n          2 n       2 n        lifting convolution, then group convolutions, 3x3, each with batch norm
    filters       F                F         2 F        4 F          F = filters / sqrt(G), rounded

    block         y = relu(bn2(conv2(relu(bn1(conv1(x))))) + x)
    halving       y = relu(bn2(conv2(half(relu(bn1(conv1(x)))))) + norm(1x1 group convolution of half(x)))
    end           mean over all pixels and forms -> N-way linear

The law. A group convolution turns its maps as the picture is turned, and changes the places of the forms (space/symmetric.py); norm, ReLU
and sum treat all pixels and forms alike; the mean over both forgets the turn. p4: quarter turns; p4m: mirror images, too.

A 3x3 convolution of stride 2 would break the law on maps of even size, for its windows lie one pixel nearer to the upper left. So it has
stride 1, and `half` is the mean of 2x2 windows (of odd sizes: adaptive windows, which lie symmetrically), as Zhang does it for shifts.

sqrt(G) times fewer filters make about as many weights as the plain net of that many `filters` has: each filter has G times as many.
The net of the paper is depth=44, filters=32: 32, 64, 128 filters of the plain net become 11, 23, 45 of p4m.

Cohen and Welling, "Group equivariant convolutional networks", ICML 2016, sections 6 and 8.2
Zhang, "Making convolutional networks shift-invariant again", ICML 2019, section 3.2; first weights: He et al., ICCV 2015, equation 10
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any

from torch import Tensor

from twofold import nn
from twofold.layers.initialize import initialize
from twofold.models.config import Config, at_least
from twofold.models.residual import depth_of, in_turn, join
from twofold.space.adaptive import adaptive_average_pool
from twofold.space.group import GROUPS, group_elements


@dataclass(frozen=True)
class SymmetricResNetConfig(Config):
    """`group`: "p4" or "p4m"; `depth` = 6 n + 2 layers; `filters` of the plain net; C in, H W picture, N classes."""

    group: str = "p4"
    depth: int = 20
    filters: int = 16
    in_channels: int = 3
    height: int = 32
    width: int = 32
    classes: int = 10

    def __post_init__(self) -> None:
        at_least("p4-resnet", 1, in_channels=self.in_channels, height=self.height, width=self.width, filters=self.filters)
        at_least("p4-resnet", 2, classes=self.classes)
        group_elements("p4-resnet", self.group)
        depth_of("p4-resnet", self.depth)

    def widths(self) -> tuple[int, int, int]:
        """The filters of each stage."""
        first, second, third = (max(1, round(self.filters * times / sqrt(len(GROUPS[self.group])))) for times in (1, 2, 4))
        return first, second, third


PRESETS = {"p4-resnet": SymmetricResNetConfig()}


class Halving(nn.Module):
    """Maps (B, F, G, H, W) become (B, F, G, H/2, W/2), rounded up, by means over windows that lie symmetrically."""

    def forward(self, x_BFGHW: Tensor) -> Tensor:
        rows, columns = (-(-size // 2) for size in x_BFGHW.shape[3:])
        halved: Tensor = adaptive_average_pool(x_BFGHW.flatten(1, 2), (rows, columns))
        return halved.unflatten(1, x_BFGHW.shape[1:3])


class Block(nn.Module):
    """Two 3x3 group convolutions and the shortcut around them; `halved`: to maps of half the size."""

    def __init__(self, channels: int, filters: int, group: str, halved: bool) -> None:
        super().__init__()
        self.conv1 = nn.GroupConv2d(channels, filters, 3, padding=1, bias=False, group=group)
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu1 = nn.ReLU()
        self.halving = Halving() if halved else nn.Identity()
        self.conv2 = nn.GroupConv2d(filters, filters, 3, padding=1, bias=False, group=group)
        self.bn2 = nn.BatchNorm2d(filters)
        self.relu2 = nn.ReLU()
        if halved:
            self.shortcut = nn.GroupConv2d(channels, filters, 1, bias=False, group=group)
            self.shortcut_bn = nn.BatchNorm2d(filters)

    def forward(self, x_BFGHW: Tensor) -> Tensor:
        inner = on_forms(self.conv1(x_BFGHW), self.bn1, self.relu1)
        inner, beside = self.conv2(self.halving(inner)), self.halving(x_BFGHW)
        if hasattr(self, "shortcut"):
            beside = on_forms(self.shortcut(beside), self.shortcut_bn)
        y = join(self.bn2, inner.flatten(2, 3), beside.flatten(2, 3), self.relu2)
        return y.unflatten(2, inner.shape[2:4])


def on_forms(x_BFGHW: Tensor, *layers: Any) -> Tensor:
    """Layers that know nothing of forms: the maps of all forms of a filter lie under each other, as one map."""
    return in_turn(x_BFGHW.flatten(2, 3), *layers).unflatten(2, x_BFGHW.shape[2:4])


class SymmetricResNet(nn.Module):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W) of any size, the same for all moves of the group."""

    def __init__(self, config: SymmetricResNetConfig) -> None:
        super().__init__()
        self.config = config
        first, second, third = config.widths()
        blocks = depth_of("p4-resnet", config.depth)
        self.conv1 = nn.LiftingConv2d(config.in_channels, first, 3, padding=1, bias=False, group=config.group)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        self.layer1 = stage(first, first, blocks, config.group, halved=False)
        self.layer2 = stage(first, second, blocks, config.group, halved=True)
        self.layer3 = stage(second, third, blocks, config.group, halved=True)
        self.average = nn.GlobalAvgPool(flatten=True)
        self.fc = nn.Linear(third, config.classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps_BFGHW = on_forms(self.conv1(x_BCHW), self.bn1, self.relu)
        return self.fc(self.average(self.layer3(self.layer2(self.layer1(maps_BFGHW)))))


def stage(channels: int, filters: int, blocks: int, group: str, halved: bool) -> nn.Sequential:
    """The blocks of one stage; the first halves the maps, where that is asked."""
    rest = [Block(filters, filters, group, False) for _ in range(blocks - 1)]
    return nn.Sequential(Block(channels, filters, group, halved), *rest)


def build(config: SymmetricResNetConfig) -> SymmetricResNet:
    """The net with normal first weights of variance 2 / fan_in."""
    model = SymmetricResNet(config)
    initialize(model, "he_normal", bias=None)
    return model
