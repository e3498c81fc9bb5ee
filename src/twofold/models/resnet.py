"""Residual nets for photographs: four stages of blocks, each block adding to what it was given.

    output size   stage    18 layers         34 layers         50 layers                101 layers     152 layers
    112x112       conv1    7x7, 64, stride 2
    56x56         layer1   3x3 max pool, stride 2, then
                           [3x3 64] *2 x 2   [3x3 64] *2 x 3   [1x1 64, 3x3 64, 1x1 256] x 3       x 3            x 3
    28x28         layer2   [3x3 128]*2 x 2   [3x3 128]*2 x 4   [1x1 128, 3x3 128, 1x1 512] x 4     x 4            x 8
    14x14         layer3   [3x3 256]*2 x 2   [3x3 256]*2 x 6   [1x1 256, 3x3 256, 1x1 1024] x 6    x 23           x 36
    7x7           layer4   [3x3 512]*2 x 2   [3x3 512]*2 x 3   [1x1 512, 3x3 512, 1x1 2048] x 3    x 3            x 3
    1x1                    global average pool, N-way linear, softmax (in the loss)
    multiply-adds          1.8e9             3.6e9             3.8e9                               7.6e9          11.3e9

Every convolution is followed by batch norm, every norm but a block's last by ReLU; the last is added to the shortcut first. The shortcut
is x itself, or where the shape changes a 1x1 convolution with norm (option B). The first block of layer2, 3 and 4 has stride 2: in a
bottleneck in its 3x3 convolution, as is usual since fb.resnet.torch (2016; 4.1e9 multiply-adds for 50 layers), or with `stride_first`
in its first 1x1, as in the paper.

wide          the 3x3 convolution of a bottleneck, and what leads to it, with twice as many filters ("bottleneck*2")
CIFAR form    a 3x3 convolution of stride 1 and no pool in front, for pictures of about 32x32 (stem="3x3"); with the pool (stem="3x3 pool")
              a quarter of the work
zero_gamma    the last norm of each block begins with scale 0, so that the block begins as its shortcut

Names of the weights and first weights are torchvision's. He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR
2016, table 1, figure 5 and sections 3.3, 3.4; first weights: He et al., ICCV 2015, equation 14; wide: Zagoruyko and Komodakis, "Wide
residual networks", BMVC 2016, section 3.4; zero gamma: Goyal et al., "Accurate, large minibatch SGD", 2017, section 5.1
"""

from dataclasses import dataclass
from itertools import chain

from torch import Tensor

from twofold import nn
from twofold.models.config import Config, at_least
from twofold.models.residual import Basic, in_turn, initialise_by_fan_out, join, stages_of

STEMS = ("7x7", "3x3", "3x3 pool")


@dataclass(frozen=True)
class ResNetConfig(Config):
    """`stages` as text; C in, H W picture, N classes; `stem`: "7x7" or "3x3 pool" with a pool behind it, "3x3" without."""

    stages: str = "basic 2 2 2 2"
    in_channels: int = 3
    height: int = 224
    width: int = 224
    classes: int = 1000
    stem: str = "7x7"
    stride_first: bool = False
    zero_gamma: bool = False

    def __post_init__(self) -> None:
        at_least("resnet", 1, in_channels=self.in_channels, height=self.height, width=self.width)
        at_least("resnet", 2, classes=self.classes)
        stages = stages_of("resnet", self.stages, 4)
        if stages.kind == "basic" and stages.widening > 1:
            raise ValueError(
                f"resnet: expected only bottlenecks to be widened, got {self.stages!r}. Wide basic blocks: wrn-16-4, wrn-28-10."
            )
        if self.stem not in STEMS:
            raise ValueError(f"resnet: expected stem to be one of {', '.join(STEMS)}, got {self.stem!r}.")
        if stages.kind == "basic" and self.stride_first:
            raise ValueError("resnet: stride_first is for bottlenecks; a basic block has its stride in its first convolution anyway.")


PRESETS = {
    "resnet18": ResNetConfig(),
    "resnet34": ResNetConfig("basic 3 4 6 3"),
    "resnet50": ResNetConfig("bottleneck 3 4 6 3"),
    "resnet101": ResNetConfig("bottleneck 3 4 23 3"),
    "resnet152": ResNetConfig("bottleneck 3 8 36 3"),
    "wide-resnet50-2": ResNetConfig("bottleneck*2 3 4 6 3"),
    "resnet18-cifar": ResNetConfig(height=32, width=32, classes=10, stem="3x3"),
}


class BasicBlock(Basic):
    """Two 3x3 convolutions; figure 5, left."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__(channels, filters, stride)
        self.downsample = projection(channels, filters, stride)

    def beside(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW if self.downsample is None else self.downsample(x_BCHW)


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3, 1x1 to four times as many; figure 5, right."""

    def __init__(self, channels: int, filters: int, stride: int, inner: int, stride_first: bool) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1 = nn.Conv2d(channels, inner, 1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(inner, filters, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(filters)
        self.relu3 = nn.ReLU()
        self.downsample = projection(channels, filters, stride)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inner = in_turn(x_BCHW, self.conv1, self.bn1, self.relu1, self.conv2, self.bn2, self.relu2, self.conv3)
        return join(self.bn3, inner, x_BCHW if self.downsample is None else self.downsample(x_BCHW), self.relu3)


class ResNet(nn.Module):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W) of any size."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        size, stride = (7, 2) if config.stem == "7x7" else (3, 1)
        self.conv1 = nn.Conv2d(config.in_channels, 64, size, stride=stride, padding=size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.Identity() if config.stem == "3x3" else nn.MaxPool2d(3, stride=2, padding=1)
        channels = 64
        self.layer1, channels = stage(config, 1, channels)
        self.layer2, channels = stage(config, 2, channels)
        self.layer3, channels = stage(config, 3, channels)
        self.layer4, channels = stage(config, 4, channels)
        self.avgpool = nn.GlobalAvgPool(flatten=True)
        self.fc = nn.Linear(channels, config.classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps = in_turn(x_BCHW, self.conv1, self.bn1, self.relu, self.maxpool)
        return self.fc(self.avgpool(self.layer4(self.layer3(self.layer2(self.layer1(maps))))))


def projection(channels: int, filters: int, stride: int) -> nn.Sequential | None:
    """Option B: a 1x1 convolution with norm where the shape changes; None where x itself can be added."""
    if stride == 1 and channels == filters:
        return None
    return nn.Sequential(nn.Conv2d(channels, filters, 1, stride=stride, bias=False), nn.BatchNorm2d(filters))


def stage(config: ResNetConfig, number: int, channels: int) -> tuple[nn.Sequential, int]:
    """(the blocks of stage 1, 2, 3 or 4, their channels); the first block has the stride."""
    stages = stages_of("resnet", config.stages, 4)
    planes = 64 << (number - 1)
    bottleneck = stages.kind == "bottleneck"
    filters = 4 * planes if bottleneck else planes
    blocks = []
    for place in range(stages.blocks[number - 1]):
        stride = 2 if number > 1 and place == 0 else 1
        if bottleneck:
            blocks.append(Bottleneck(channels, filters, stride, planes * stages.widening, config.stride_first))
        else:
            blocks.append(BasicBlock(channels, filters, stride))
        channels = filters
    return nn.Sequential(*blocks), channels


def build(config: ResNetConfig) -> ResNet:
    """The net with normal first weights of variance 2 / fan_out in the convolutions, torch's own in the last layer."""
    model = ResNet(config)
    initialise_by_fan_out(model)
    if config.zero_gamma:
        for block in chain(model.layer1, model.layer2, model.layer3, model.layer4):
            nn.init.zeros_(block.get_parameter("bn3.weight" if isinstance(block, Bottleneck) else "bn2.weight"))
    return model
