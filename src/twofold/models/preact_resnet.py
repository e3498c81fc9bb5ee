"""Residual nets whose blocks normalise first: pre-activation nets and wide nets for pictures of 32x32.

    block        a = relu(bn1(x))          y = F(a) + shortcut(x)
    shared       a = relu(bn1(x))          y = F(a) + shortcut(a)        the net's first block, and every block that changes the shape
    basic        F(a) = conv2(dropout(relu(bn2(conv1(a)))))              3x3, 3x3
    bottleneck   F(a) = conv3(relu(bn3(conv2(relu(bn2(conv1(a)))))))     1x1, 3x3, 1x1 to four times as many channels

    output map   32x32                32x32     16x16     8x8
    filters      16                   16 k      32 k      64 k           basic; 4 times as many of a bottleneck
    layers       3x3 convolution   -> layer1 -> layer2 -> layer3 -> batch norm -> ReLU -> global average pool -> N-way linear

Nothing but sums lies on the way along the shortcuts, so every signal and gradient passes from any block to any other as it is. Where
the shape changes, the shortcut is without weights (option A: every second row and column, zeros for the new channels) or a 1x1
convolution (option B, here without norm). layer2 and layer3 begin with stride 2, in the 3x3 convolution.

cifar-preresnet   20, 56, 110: basic, n = 3, 9, 18, option A as in the nets that they improve; 164: bottleneck, n = 18, option B
wrn-d-k           basic, n = (d - 4) / 6, k times wider, option B; dropout 0.3 between the convolutions is the paper's for CIFAR

He, Zhang, Ren and Sun, "Identity mappings in deep residual networks", ECCV 2016, equations 7 to 10, figure 4(e), sections 4.1 and 5
Zagoruyko and Komodakis, "Wide residual networks", BMVC 2016, table 1 and sections 2.3, 2.4
First weights of both: normal with variance 2 / fan_out (He et al., ICCV 2015, equation 14); the last bias 0
"""

from dataclasses import dataclass

from torch import Tensor

from twofold import nn
from twofold.models.cifar_resnet import expect_shortcut
from twofold.models.config import Config, at_least, fraction
from twofold.models.residual import Padded, in_turn, initialise_by_fan_out, stages_of


@dataclass(frozen=True)
class PreActConfig(Config):
    """`stages` as text, "basic*10 4 4 4" for blocks ten times as wide; C in, H W picture, N classes; `shortcut`: option "A" or "B"."""

    stages: str = "basic 3 3 3"
    in_channels: int = 3
    height: int = 32
    width: int = 32
    classes: int = 10
    shortcut: str = "A"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        at_least("preresnet", 1, in_channels=self.in_channels, height=self.height, width=self.width)
        at_least("preresnet", 2, classes=self.classes)
        fraction("preresnet", dropout=self.dropout)
        expect_shortcut("preresnet", self.shortcut)
        if stages_of("preresnet", self.stages, 3).kind == "bottleneck" and self.dropout:
            raise ValueError(f"preresnet: expected dropout only in basic blocks, got dropout={self.dropout} with {self.stages!r}.")


PRESETS = {
    "cifar-preresnet20": PreActConfig("basic 3 3 3"),
    "cifar-preresnet56": PreActConfig("basic 9 9 9"),
    "cifar-preresnet110": PreActConfig("basic 18 18 18"),
    "cifar-preresnet164": PreActConfig("bottleneck 18 18 18", shortcut="B"),
    "wrn-16-4": PreActConfig("basic*4 2 2 2", shortcut="B"),
    "wrn-28-10": PreActConfig("basic*10 4 4 4", shortcut="B"),
}


class PreActBasic(nn.Module):
    """Two 3x3 convolutions, each behind its norm and ReLU."""

    def __init__(self, channels: int, filters: int, stride: int, shared: bool, config: PreActConfig) -> None:
        super().__init__()
        self.shared = shared
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.relu2 = nn.ReLU()
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.shortcut = beside(channels, filters, stride, config.shortcut)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        active = in_turn(x_BCHW, self.bn1, self.relu1)
        inner = in_turn(active, self.conv1, self.bn2, self.relu2, self.dropout, self.conv2)
        return inner + self.shortcut(active if self.shared else x_BCHW)


class PreActBottleneck(nn.Module):
    """1x1 to a quarter of the channels, 3x3, 1x1, each behind its norm and ReLU."""

    def __init__(self, channels: int, filters: int, stride: int, shared: bool, config: PreActConfig) -> None:
        super().__init__()
        self.shared = shared
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, filters // 4, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters // 4)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(filters // 4, filters // 4, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(filters // 4)
        self.relu3 = nn.ReLU()
        self.conv3 = nn.Conv2d(filters // 4, filters, 1, bias=False)
        self.shortcut = beside(channels, filters, stride, config.shortcut)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        active = in_turn(x_BCHW, self.bn1, self.relu1)
        inner = in_turn(active, self.conv1, self.bn2, self.relu2, self.conv2, self.bn3, self.relu3, self.conv3)
        return inner + self.shortcut(active if self.shared else x_BCHW)


class PreActResNet(nn.Module):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W) of any size."""

    def __init__(self, config: PreActConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv2d(config.in_channels, 16, 3, padding=1, bias=False)
        self.layer1, channels = stage(config, 1, 16)
        self.layer2, channels = stage(config, 2, channels)
        self.layer3, channels = stage(config, 3, channels)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.average = nn.GlobalAvgPool(flatten=True)
        self.linear = nn.Linear(channels, config.classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps = self.layer3(self.layer2(self.layer1(self.conv1(x_BCHW))))
        return self.linear(self.average(in_turn(maps, self.bn, self.relu)))


def beside(channels: int, filters: int, stride: int, option: str) -> nn.Module:
    """The shortcut: x itself, or by the option where the shape changes."""
    if stride == 1 and channels == filters:
        return nn.Identity()
    if option == "A":
        return Padded(channels, filters, stride)
    return nn.Conv2d(channels, filters, 1, stride=stride, bias=False)


def stage(config: PreActConfig, number: int, channels: int) -> tuple[nn.Sequential, int]:
    """(the blocks of stage 1, 2 or 3, their channels); the first block has the stride."""
    stages = stages_of("preresnet", config.stages, 3)
    bottleneck = stages.kind == "bottleneck"
    filters = (16 << (number - 1)) * stages.widening * (4 if bottleneck else 1)
    blocks = []
    for place in range(stages.blocks[number - 1]):
        stride = 2 if number > 1 and place == 0 else 1
        shared = (number == 1 and place == 0) or stride > 1 or channels != filters
        blocks.append((PreActBottleneck if bottleneck else PreActBasic)(channels, filters, stride, shared, config))
        channels = filters
    return nn.Sequential(*blocks), channels


def build(config: PreActConfig) -> PreActResNet:
    """The net with normal first weights of variance 2 / fan_out in the convolutions, torch's own in the last layer, and its bias 0."""
    model = PreActResNet(config)
    initialise_by_fan_out(model)
    nn.init.zeros_(model.linear.bias)
    return model
