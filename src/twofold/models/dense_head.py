"""The head of AlexNet, ZFNet and VGG: maps of any size become a fixed number of values, and three linear layers judge these.

    average     the mean over each of P x P windows, P as on the paper's pictures       C P^2 values
    pyramid     the largest of each of l x l windows, l = 1, 2, 3, 6                    C (1 + 4 + 9 + 36) = 50 C values

    values -> 4096 -> ReLU -> dropout -> 4096 -> ReLU -> dropout -> N logits            classifier.0, .3, .6
    values -> dropout -> 4096 -> ReLU -> dropout -> 4096 -> ReLU -> N logits            classifier.1, .4, .6, where dropout comes first

On pictures of the paper's size the windows of the average are single pixels, so nothing is lost; the pyramid keeps coarse and fine places
apart on every size.

He, Zhang, Ren and Sun, "Spatial pyramid pooling in deep convolutional networks", ECCV 2014, section 3.1 (levels 6, 3, 2, 1 behind ZF-5);
Hinton et al., "Improving neural networks by preventing co-adaptation of feature detectors", arXiv:1207.0580, 2012 (dropout)
"""

from dataclasses import dataclass

from torch import Tensor

from twofold import nn
from twofold.models.config import Config, at_least, fraction

POOLINGS = ("average", "pyramid")
LEVELS = (1, 2, 3, 6)
HIDDEN = 4096


@dataclass(frozen=True, kw_only=True)
class ThreeLayerConfig(Config):
    """C in, H W picture, N classes; dropout; pooling behind the maps: average or pyramid."""

    in_channels: int = 3
    height: int = 224
    width: int = 224
    classes: int = 1000
    dropout: float = 0.5
    pooling: str = "average"

    def expect_head(self, who: str) -> None:
        """Raise ValueError for what no such net can have."""
        at_least(who, 1, in_channels=self.in_channels)
        at_least(who, 2, classes=self.classes)
        fraction(who, dropout=self.dropout)
        if self.pooling not in POOLINGS:
            raise ValueError(f"{who}: expected pooling to be {' or '.join(POOLINGS)}, got {self.pooling!r}.")


class ThreeLayerNet(nn.Module):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W): features, then avgpool, then classifier.

    filters: maps of the features; grid: P. dropout_first: as torchvision's AlexNet has it.
    """

    def __init__(
        self,
        config: ThreeLayerConfig,
        features: nn.Sequential,
        *,
        filters: int,
        grid: int,
        classes: int,
        dropout: float,
        pooling: str,
        dropout_first: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.features = features
        pyramid = pooling == "pyramid"
        self.avgpool = nn.SpatialPyramidPool2d(LEVELS) if pyramid else nn.AdaptiveAvgPool2d(grid)
        values = filters * (sum(level * level for level in LEVELS) if pyramid else grid * grid)
        dropouts = (nn.Dropout(dropout), nn.Dropout(dropout))
        first = (nn.Linear(values, HIDDEN), nn.ReLU())
        second = (nn.Linear(HIDDEN, HIDDEN), nn.ReLU())
        layers = (dropouts[0], *first, dropouts[1], *second) if dropout_first else (*first, dropouts[0], *second, dropouts[1])
        self.classifier = nn.Sequential(*layers, nn.Linear(HIDDEN, classes))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits_BN: Tensor = self.classifier(self.avgpool(self.features(x_BCHW)).flatten(1))
        return logits_BN
