"""VGG: 8 to 16 convolutions of 3x3 in five stages, and three linear layers.

    vgg11  A    64 M 128 M 256 256 M 512 512 M 512 512 M
    vgg13  B    64 64 M 128 128 M 256 256 M 512 512 M 512 512 M
    vgg16-c C   64 64 M 128 128 M 256 256 256x1 M 512 512 512x1 M 512 512 512x1 M
    vgg16  D    64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M
    vgg19  E    64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M

    a number: conv 3x3 with so many filters -> ReLU (512x1: conv 1x1);    M: max pool 2x2;    -bn: batch norm before every ReLU
    maps of a picture of 224x224 behind the stages: 112, 56, 28, 14, 7
    then 512 maps of 7x7 -> 4096 -> ReLU -> dropout -> 4096 -> ReLU -> dropout -> N logits

Two convolutions of 3x3 see what one of 5x5 sees, three what one of 7x7 sees, with fewer weights and more ReLU between. The names of the
weights are torchvision's; so are the first weights: convolutions He normal by the fan-out, linear layers normal with deviation 0.01,
biases 0. The paper began the deeper nets with the layers of a trained A, and notes that first weights as Glorot's make that needless.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, section 2, tables 1 and 2;
Ioffe and Szegedy, "Batch normalization", ICML 2015
"""

from dataclasses import dataclass, replace

from twofold import nn
from twofold.models.config import LARGEST, at_most, big_enough
from twofold.models.dense_head import ThreeLayerConfig, ThreeLayerNet


@dataclass(frozen=True)
class VGGConfig(ThreeLayerConfig):
    """`stages` in letters; norm: batch norm; C in, H W picture, N classes; dropout; pooling behind the stages: average or pyramid."""

    stages: str = "64 M 128 M 256 256 M 512 512 M 512 512 M"
    norm: bool = False

    def __post_init__(self) -> None:
        self.expect_head("vgg")
        big_enough("vgg", 2 ** parsed(self.stages).count(POOL), self.height, self.width)


POOL = (0, 0)


def parsed(stages: str) -> list[tuple[int, int]]:
    """(filters, kernel) for every convolution, POOL for every M. Raises ValueError for other letters.

    >>> parsed("64 M 128x1")
    [(64, 3), (0, 0), (128, 1)]
    """
    found = []
    for word in stages.split():
        filters, _, kernel = word.partition("x")
        if word != "M" and not (filters.isdecimal() and int(filters) > 0 and kernel in ("", "1")):
            raise ValueError(f'vgg: expected stages like "64 M 128 128x1 M" (filters of 3x3, with x1 of 1x1, M for pooling), got {word!r}.')
        found.append(POOL if word == "M" else (int(filters), 1 if kernel else 3))
    if not found or found[0] == POOL:
        raise ValueError(f'vgg: expected stages that begin with a convolution, like "64 M 128 M", got {stages!r}.')
    at_most("vgg", LARGEST, filters=max(filters for filters, _ in found))
    return found


PLAIN = {
    "vgg11": VGGConfig("64 M 128 M 256 256 M 512 512 M 512 512 M"),
    "vgg13": VGGConfig("64 64 M 128 128 M 256 256 M 512 512 M 512 512 M"),
    "vgg16": VGGConfig("64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M"),
    "vgg16-c": VGGConfig("64 64 M 128 128 M 256 256 256x1 M 512 512 512x1 M 512 512 512x1 M"),
    "vgg19": VGGConfig("64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M"),
}
PRESETS = {**PLAIN, **{f"{name}-bn": replace(config, norm=True) for name, config in PLAIN.items() if name != "vgg16-c"}}


class VGG(ThreeLayerNet):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W)."""

    def __init__(self, config: VGGConfig) -> None:
        super().__init__(
            config,
            nn.Sequential(*_layers(config)),
            filters=[filters for filters, _ in parsed(config.stages) if filters][-1],
            grid=7,
            classes=config.classes,
            dropout=config.dropout,
            pooling=config.pooling,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the first weights; batch norm keeps its 1 and 0."""
        for layer in (*self.features, *self.classifier):
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)


def _layers(config: VGGConfig) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = config.in_channels
    for filters, kernel in parsed(config.stages):
        if (filters, kernel) == POOL:
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(channels, filters, kernel, padding=kernel // 2))
        if config.norm:
            layers.append(nn.BatchNorm2d(filters))
        layers.append(nn.ReLU())
        channels = filters
    return layers


def build(config: VGGConfig) -> VGG:
    """The net with torchvision's first weights."""
    return VGG(config)
