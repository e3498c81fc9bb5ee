"""ZFNet: AlexNet with a first layer that looks closer, found by looking at what the layers of AlexNet see.

    224  conv 7x7/2, 96 -> 110    pool -> 55    norm     conv 5x5/2, 256 -> 26    pool -> 13    norm
         conv 3x3, 384 -> 13    conv 3x3, 384 -> 13    conv 3x3, 256 -> 13    pool -> 6
         256 maps of 6x6 -> 4096 -> 4096 -> N logits                                                           62,357,608 weights

ReLU behind every layer but the last; dropout on the two of 4096. pool: max 3x3 with stride 2; norm: across neighbouring maps, with the
numbers of AlexNet. The figure gives sizes and no padding. They follow from a padding of 1 in the first layer, and poolings
whose last window may reach over the edge (ceil_mode): 110 -> 55 and 26 -> 13, while 13 -> 6 fits.
First weights: normal with deviation 0.01; biases 0.

Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, sections 3 and 4.1, fig. 3
"""

from dataclasses import dataclass

from twofold import nn
from twofold.models.alexnet import response_norm
from twofold.models.config import big_enough
from twofold.models.dense_head import ThreeLayerConfig, ThreeLayerNet

SMALLEST = 47  # pixels: the last pooling still has a pixel


@dataclass(frozen=True)
class ZFNetConfig(ThreeLayerConfig):
    """C in, H W picture, N classes; dropout; pooling behind the maps: average or pyramid."""

    def __post_init__(self) -> None:
        self.expect_head("zfnet")
        big_enough("zfnet", SMALLEST, self.height, self.width)


PRESETS = {"zfnet": ZFNetConfig()}


class ZFNet(ThreeLayerNet):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W)."""

    def __init__(self, config: ZFNetConfig) -> None:
        features = nn.Sequential(
            nn.Conv2d(config.in_channels, 96, 7, stride=2, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            response_norm(),
            nn.Conv2d(96, 256, 5, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            response_norm(),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        )
        super().__init__(config, features, filters=256, grid=6, classes=config.classes, dropout=config.dropout, pooling=config.pooling)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the first weights of the paper, section 3."""
        for layer in (*self.features, *self.classifier):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)


def build(config: ZFNetConfig) -> ZFNet:
    """The net with the paper's first weights."""
    return ZFNet(config)
