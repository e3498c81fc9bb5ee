"""AlexNet: five convolutions and three linear layers, in one column and, as it was published, in two.

    alexnet         224  conv 11x11/4, 64, pad 2 -> 55   pool -> 27   conv 5x5, 192 -> 27   pool -> 13
                         conv 3x3, 384 -> 13   conv 3x3, 256 -> 13   conv 3x3, 256 -> 13   pool -> 6            61,100,840 weights
    alexnet-2012    227  conv 11x11/4, 96 -> 55   norm   pool -> 27   conv 5x5, 256 in two columns -> 27   norm   pool -> 13
                         conv 3x3, 384 -> 13   conv 3x3, 384 in two columns   conv 3x3, 256 in two columns   pool -> 6      60,965,224

    then            256 maps of 6x6 -> 4096 -> 4096 -> N logits; ReLU behind every layer but the last, dropout on the two of 4096

pool: max 3x3 with stride 2, so that windows overlap. norm: local response normalisation over 5 neighbouring maps, behind the ReLU.
Two columns: half of the maps each, on two graphics cards that had 3 GB; conv 2, 4 and 5 see their own column (groups=2), conv 3 and the
linear layers see both. The norm looks over the edge between the columns, as section 3.3 counts all maps of a layer.

Which size: the paper says 224, but (224 - 11) / 4 is no whole number; its map sizes (55, 27, 13) follow from 227 without padding, or from
224 with a padding of 2 and a remainder left over. The original form takes 227 here, the one of one column 224 and the padding, with
torchvision's numbers of maps and names of the weights.
First weights: one column as torch draws them; two columns as in the paper, normal with deviation 0.01, biases 1 in conv 2, 4 and 5 and in
the layers of 4096, else 0: so their ReLU begin with positive inputs.

Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012, sections 3, 4.2 and 5;
Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv:1404.5997, 2014 (one column)
"""

from dataclasses import dataclass
from typing import NamedTuple

from twofold import nn
from twofold.models.config import big_enough
from twofold.models.dense_head import ThreeLayerConfig, ThreeLayerNet


@dataclass(frozen=True)
class AlexNetConfig(ThreeLayerConfig):
    """columns: 1, or 2 for the form of 2012; C in, H W picture, N classes; dropout; pooling behind the maps: average or pyramid."""

    columns: int = 1

    def __post_init__(self) -> None:
        self.expect_head("alexnet")
        if self.columns not in COLUMNS:
            raise ValueError(f"alexnet: expected columns to be 1 or 2, got {self.columns}.")
        big_enough("alexnet", 67 - 2 * COLUMNS[self.columns][0].padding, self.height, self.width)


class Stage(NamedTuple):
    """One convolution with what comes behind it."""

    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    norm: bool = False
    pool: bool = False
    bias: float = 0.0  # the first bias, in the paper's form


COLUMNS = {
    1: (
        Stage(64, 11, 4, 2, pool=True),
        Stage(192, 5, padding=2, pool=True),
        Stage(384, 3, padding=1),
        Stage(256, 3, padding=1),
        Stage(256, 3, padding=1, pool=True),
    ),
    2: (
        Stage(96, 11, 4, norm=True, pool=True),
        Stage(256, 5, padding=2, groups=2, norm=True, pool=True, bias=1.0),
        Stage(384, 3, padding=1),
        Stage(384, 3, padding=1, groups=2, bias=1.0),
        Stage(256, 3, padding=1, groups=2, pool=True, bias=1.0),
    ),
}

PRESETS = {"alexnet": AlexNetConfig(), "alexnet-2012": AlexNetConfig(columns=2, height=227, width=227)}


class AlexNet(ThreeLayerNet):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W)."""

    def __init__(self, config: AlexNetConfig) -> None:
        super().__init__(
            config,
            nn.Sequential(*_layers(config)),
            filters=COLUMNS[config.columns][-1].filters,
            grid=6,
            classes=config.classes,
            dropout=config.dropout,
            pooling=config.pooling,
            dropout_first=config.columns == 1,
        )
        if config.columns == 2:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the first weights of the paper, section 5."""
        convolutions = [layer for layer in self.features if isinstance(layer, nn.Conv2d)]
        linear = [layer for layer in self.classifier if isinstance(layer, nn.Linear)]
        biases = [*(stage.bias for stage in COLUMNS[2]), 1.0, 1.0, 0.0]
        for layer, bias in zip([*convolutions, *linear], biases, strict=True):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, bias)


def _layers(config: AlexNetConfig) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = config.in_channels
    for stage in COLUMNS[config.columns]:
        layers += [nn.Conv2d(channels, stage.filters, stage.kernel, stage.stride, stage.padding, groups=stage.groups), nn.ReLU()]
        if stage.norm:
            layers.append(response_norm())
        if stage.pool:
            layers.append(nn.MaxPool2d(3, 2))
        channels = stage.filters
    return layers


def response_norm() -> nn.LocalResponseNorm:
    """The paper's: k = 2, n = 5, alpha = 1e-4, beta = 0.75; the layer divides its alpha by n."""
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def build(config: AlexNetConfig) -> AlexNet:
    """The net with the first weights of its form."""
    return AlexNet(config)
