"""Residual nets for pictures of 32x32: three stages of n basic blocks, 6 n + 2 layers.

    output map    32x32            16x16       8x8
    layers        1 + 2 n          2 n         2 n           3x3 convolutions, each with batch norm
    filters       16               32          64

    3x3, 16 -> layer1 -> layer2 -> layer3 -> global average pool -> N-way linear                    n = 3, 5, 7, 9, 18

The first block of layer2 and layer3 has stride 2. Its shortcut has no weights in the paper (option A: every second row and column, and
zeros for the new channels); option B is a 1x1 convolution with norm. All other shortcuts are x itself.

Names of the weights as in the published nets of github.com/akamaster/pytorch_resnet_cifar10. First weights: normal with variance
2 / fan_in, in the last layer too. He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, section 4.2 and
its table; section 3.3 for the options
"""

from dataclasses import dataclass

from torch import Tensor

from twofold import nn
from twofold.layers.initialize import initialize
from twofold.models.config import Config, at_least
from twofold.models.residual import Basic, Padded, depth_of, in_turn

SHORTCUTS = ("A", "B")


@dataclass(frozen=True)
class CifarResNetConfig(Config):
    """`depth` = 6 n + 2 layers; C in, H W picture, N classes; `shortcut`: option "A" or "B"."""

    depth: int = 20
    in_channels: int = 3
    height: int = 32
    width: int = 32
    classes: int = 10
    shortcut: str = "A"

    def __post_init__(self) -> None:
        at_least("cifar-resnet", 1, in_channels=self.in_channels, height=self.height, width=self.width)
        at_least("cifar-resnet", 2, classes=self.classes)
        depth_of("cifar-resnet", self.depth)
        expect_shortcut("cifar-resnet", self.shortcut)


def expect_shortcut(who: str, shortcut: str) -> None:
    """Raise ValueError for another option than A and B."""
    if shortcut not in SHORTCUTS:
        raise ValueError(f'{who}: expected shortcut to be "A" (zeros for new channels) or "B" (a 1x1 convolution), got {shortcut!r}.')


PRESETS = {f"cifar-resnet{depth}": CifarResNetConfig(depth) for depth in (20, 32, 44, 56, 110)}


class Block(Basic):
    """Two 3x3 convolutions and the shortcut around them."""

    def __init__(self, channels: int, filters: int, stride: int, option: str) -> None:
        super().__init__(channels, filters, stride)
        if stride == 1 and channels == filters:
            self.shortcut = nn.Identity()
        elif option == "A":
            self.shortcut = Padded(channels, filters, stride)
        else:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, stride=stride, bias=False), nn.BatchNorm2d(filters))

    def beside(self, x_BCHW: Tensor) -> Tensor:
        return self.shortcut(x_BCHW)


class CifarResNet(nn.Module):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W) of any size."""

    def __init__(self, config: CifarResNetConfig) -> None:
        super().__init__()
        self.config = config
        blocks = depth_of("cifar-resnet", config.depth)
        self.conv1 = nn.Conv2d(config.in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = stage(16, 16, 1, blocks, config.shortcut)
        self.layer2 = stage(16, 32, 2, blocks, config.shortcut)
        self.layer3 = stage(32, 64, 2, blocks, config.shortcut)
        self.average = nn.GlobalAvgPool(flatten=True)
        self.linear = nn.Linear(64, config.classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps = in_turn(x_BCHW, self.conv1, self.bn1, self.relu)
        return self.linear(self.average(self.layer3(self.layer2(self.layer1(maps)))))


def stage(channels: int, filters: int, stride: int, blocks: int, option: str) -> nn.Sequential:
    """The blocks of one stage; the first has the stride and the new number of channels."""
    rest = [Block(filters, filters, 1, option) for _ in range(blocks - 1)]
    return nn.Sequential(Block(channels, filters, stride, option), *rest)


def build(config: CifarResNetConfig) -> CifarResNet:
    """The net with normal first weights of variance 2 / fan_in."""
    model = CifarResNet(config)
    initialize(model, "he_normal", bias=None)
    return model
