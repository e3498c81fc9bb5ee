"""LeNet-5 in its modern form: two convolutions, each pooled, then three fully connected layers.

    x_BCHW -> conv 5x5, 6 -> ReLU -> max pool 2 -> conv 5x5, 16 -> ReLU -> max pool 2 -> 120 -> ReLU -> 84 -> ReLU -> N logits

The first convolution is padded by 2, so that a picture of 28x28 gives the maps of the paper's 32x32. Modern: ReLU for the scaled tanh,
max pooling for trainable subsampling, full connections for the table of C3, logits for radial basis functions.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998, section II.B
"""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

from twofold import nn
from twofold.models.config import Config, at_least


@dataclass(frozen=True)
class LeNetConfig(Config):
    """C in, H W picture, N classes."""

    in_channels: int = 1
    height: int = 28
    width: int = 28
    classes: int = 10

    def __post_init__(self) -> None:
        at_least("lenet5", 1, in_channels=self.in_channels)
        at_least("lenet5", 2, classes=self.classes)
        if min(self.height, self.width) < 12:
            raise ValueError(
                f"lenet5: expected pictures of at least 12x12, got {self.height}x{self.width}: its second 5x5 convolution "
                "would not fit. Take a model for small pictures (vgg-mini) or a larger --image-size."
            )


PRESETS = {"lenet5": LeNetConfig()}


class LeNet5(nn.Sequential):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W)."""

    def __init__(self, config: LeNetConfig) -> None:
        rows, columns = (((size // 2) - 4) // 2 for size in (config.height, config.width))
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(config.in_channels, 6, 5, padding=2),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(6, 16, 5),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                fc1=nn.Linear(16 * rows * columns, 120),
                relu3=nn.ReLU(),
                fc2=nn.Linear(120, 84),
                relu4=nn.ReLU(),
                fc3=nn.Linear(84, config.classes),
            )
        )
        self.config = config

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return super().forward(x_BCHW)


def build(config: LeNetConfig) -> LeNet5:
    """LeNet-5 with torch's default initialisation."""
    return LeNet5(config)
