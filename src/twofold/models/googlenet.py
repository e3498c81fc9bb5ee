"""GoogLeNet (Inception v1): blocks that look through windows of several sizes at once, and two auxiliary heads on the way.

    inception(a, b1 b, c1 c, d)    conv 1x1, a | conv 1x1, b1 -> conv 3x3, b | conv 1x1, c1 -> conv 5x5, c | max pool 3x3 -> conv 1x1, d
                                   side by side: a + b + c + d channels; every convolution is followed by batch norm and ReLU

    conv 7x7, 64, stride 2 -> max pool 3x3, stride 2           112x112, 56x56
    conv 1x1, 64 -> conv 3x3, 192 -> max pool 3x3, stride 2    56x56, 28x28
    inception 3a, 3b -> max pool 3x3, stride 2                 28x28, 14x14
    inception 4a [head 1] 4b 4c 4d [head 2] 4e -> max pool     14x14, 7x7
    inception 5a, 5b                                           7x7
    the mean of every channel -> dropout -> N logits

    head     average to 4x4 -> conv 1x1, 128 -> 1024 -> ReLU -> dropout 0.7 -> N logits, in training only; their losses count 0.3 each

The preset `googlenet` is torchvision's: with batch norm, and with 3x3 in place of 5x5 (a slip of the first translation that its published
weights keep). `googlenet-2014` is the paper's: 5x5, no batch norm, local response normalisation before and behind the second
convolutions (figure 3); its constants, which the paper does not tell, are those of the Caffe reference model, and so are its first weights.
Names are torchvision's. Its published weights take pictures as 2x - 1, x from 0 to 1: `rescale` makes that of pictures that are
normalised by the mean and deviation of ImageNet.

Szegedy et al., "Going deeper with convolutions", CVPR 2015, sections 4 to 6, table 1, figures 2 and 3; batch norm: Ioffe and Szegedy, ICML
2015; first weights: torchvision's, normal with deviation 0.01, cut at 2 (without batch norm variance 1 / fan_in, biases 0.2)
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from twofold import nn
from twofold.layers.heads import WithHeads
from twofold.layers.initialize import lecun_uniform
from twofold.models.config import Config, at_least, big_enough, fraction

SMALLEST: Final = 15  # 15 -> 8 -> 4 -> 2 -> 1
OUTPUTS: Final = ("fc", "aux1.fc2", "aux2.fc2")
IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of its pixels, red, green, blue

# a, b1, b, c1, c, d of table 1
INCEPTIONS: Final = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


@dataclass(frozen=True)
class GoogLeNetConfig(Config):
    """C in, H W picture, N classes; `heads`: auxiliary ones; `window`: 3 or 5, of the third branch; `rescale`: see above."""

    in_channels: int = 3
    height: int = 224
    width: int = 224
    classes: int = 1000
    heads: bool = True
    batch_norm: bool = True
    window: int = 3
    dropout: float = 0.2
    rescale: bool = False

    def __post_init__(self) -> None:
        at_least("googlenet", 1, in_channels=self.in_channels)
        at_least("googlenet", 2, classes=self.classes)
        fraction("googlenet", dropout=self.dropout)
        if self.window not in (3, 5):
            raise ValueError(f"googlenet: expected window to be 3 (torchvision's) or 5 (the paper's), got {self.window}.")
        if self.rescale and self.in_channels != 3:
            raise ValueError(f"googlenet: rescale is for colour pictures: expected in_channels to be 3, got {self.in_channels}.")
        big_enough("googlenet", SMALLEST, self.height, self.width)


PRESETS = {"googlenet": GoogLeNetConfig(), "googlenet-2014": GoogLeNetConfig(batch_norm=False, window=5, dropout=0.4)}

Convolve = Callable[..., nn.Sequential]


class Inception(nn.Module):
    """(B, C, H, W) become (B, a + b + c + d, H, W)."""

    def __init__(self, channels: int, sizes: tuple[int, ...], window: int, convolve: Convolve) -> None:
        super().__init__()
        a, b1, b, c1, c, d = sizes
        self.branch1 = convolve(channels, a, 1)
        self.branch2 = nn.Sequential(convolve(channels, b1, 1), convolve(b1, b, 3))
        self.branch3 = nn.Sequential(convolve(channels, c1, 1), convolve(c1, c, window))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), convolve(channels, d, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.cat((self.branch1(x_BCHW), self.branch2(x_BCHW), self.branch3(x_BCHW), self.branch4(x_BCHW)), 1)


class Head(nn.Sequential):
    """Logits (B, N) from the maps on the way."""

    def __init__(self, channels: int, classes: int, convolve: Convolve) -> None:
        super().__init__(
            OrderedDict(
                pool=nn.AdaptiveAvgPool2d((4, 4)),
                conv=convolve(channels, 128, 1),
                flatten=nn.Flatten(),
                fc1=nn.Linear(128 * 4 * 4, 1024),
                relu=nn.ReLU(),
                dropout=nn.Dropout(0.7),
                fc2=nn.Linear(1024, classes),
            )
        )


class GoogLeNet(nn.Module):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W); in training, with heads, WithHeads."""

    def __init__(self, config: GoogLeNetConfig) -> None:
        super().__init__()
        self.config = config
        convolve = normed if config.batch_norm else plain
        self.conv1 = convolve(config.in_channels, 64, 7, stride=2)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm1 = nn.Identity() if config.batch_norm else response_norm()
        self.conv2 = convolve(64, 64, 1)
        self.conv3 = convolve(64, 192, 3)
        self.norm2 = nn.Identity() if config.batch_norm else response_norm()
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        channels, made = 192, {}
        for name, sizes in INCEPTIONS.items():
            self.add_module(f"inception{name}", Inception(channels, sizes, config.window, convolve))
            made[name] = channels = sizes[0] + sizes[2] + sizes[4] + sizes[5]
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.aux1 = Head(made["4a"], config.classes, convolve) if config.heads else None
        self.aux2 = Head(made["4d"], config.classes, convolve) if config.heads else None
        self.avgpool = nn.GlobalAvgPool(flatten=True)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(channels, config.classes)

    def forward(self, x_BCHW: Tensor) -> Tensor | WithHeads:
        x = centred(x_BCHW) if self.config.rescale else x_BCHW
        x = self.norm1(self.maxpool1(self.conv1(x)))
        x = self.maxpool2(self.norm2(self.conv3(self.conv2(x))))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        early = x = self.inception4a(x)
        late = x = self.inception4d(self.inception4c(self.inception4b(x)))
        x = self.maxpool4(self.inception4e(x))
        x = self.inception5b(self.inception5a(x))
        logits_BN: Tensor = self.fc(self.dropout(self.avgpool(x)))
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return WithHeads(logits_BN, (self.aux1(early), self.aux2(late)))
        return logits_BN


def normed(channels: int, filters: int, size: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    conv = nn.Conv2d(channels, filters, size, stride=stride, padding=size // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(filters, eps=1e-3), relu=nn.ReLU()))


def plain(channels: int, filters: int, size: int, stride: int = 1) -> nn.Sequential:
    """Convolution with a bias, ReLU."""
    conv = nn.Conv2d(channels, filters, size, stride=stride, padding=size // 2)
    return nn.Sequential(OrderedDict(conv=conv, relu=nn.ReLU()))


def response_norm() -> nn.LocalResponseNorm:
    """With the constants of the Caffe reference model."""
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)


def centred(x_BCHW: Tensor) -> Tensor:
    """Pictures normalised by ImageNet's mean m and deviation d, x = (p - m) / d, as 2p - 1."""
    mean_C11, deviation_C11 = (x_BCHW.new_tensor(values)[:, None, None] for values in IMAGENET)
    return 2 * (x_BCHW * deviation_C11 + mean_C11) - 1


def build(config: GoogLeNetConfig) -> GoogLeNet:
    """The net with torchvision's initialisation; without batch norm with that of the Caffe reference model."""
    net = GoogLeNet(config)
    for name, part in net.named_modules():
        if not isinstance(part, nn.Conv2d | nn.Linear):
            continue
        if config.batch_norm:
            nn.init.trunc_normal_(part.weight, std=0.01, a=-2, b=2)
        else:
            lecun_uniform(part.weight)
            nn.init.constant_(part.bias, 0.0 if name in OUTPUTS else 0.2)
    return net
