"""A convolutional network for signals: three convolutions over time, then the mean over all time.

    x_BCT -> conv 8 taps, 128 -> batch norm -> ReLU      the map keeps its T places ("same": zeros stand beyond the ends)
          -> conv 5 taps, 256 -> batch norm -> ReLU
          -> conv 3 taps, 128 -> batch norm -> ReLU
          -> the mean of every channel -> N logits

No pooling and no layer whose weights fix the length: a net that was built for T steps reads signals of any other length, from one step
on. The paper's fully convolutional network, a strong first net for the classification of series. `stages` says another: "taps x filters".

Wang, Yan and Oates, "Time series classification from scratch with deep neural networks: a strong baseline", IJCNN 2017, section II.B and
figure 1(b); first weights: Glorot and Bengio, AISTATS 2010, eq. 16, biases 0
"""

import re
from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

from twofold import nn
from twofold.layers.initialize import glorot_uniform
from twofold.models.config import LARGEST, Config, at_least, at_most, fraction


@dataclass(frozen=True)
class SignalConfig(Config):
    """`stages` as taps x filters; C channels in, T steps, N classes; `dropout` before the last layer."""

    stages: str = "8x128 5x256 3x128"
    in_channels: int = 1
    steps: int = 128
    classes: int = 2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        at_least("signal-cnn", 1, in_channels=self.in_channels, steps=self.steps)
        at_least("signal-cnn", 2, classes=self.classes)
        fraction("signal-cnn", dropout=self.dropout)
        words = self.stages.split()
        if not words or not all(re.fullmatch(r"[1-9]\d*x[1-9]\d*", word) for word in words):
            raise ValueError(f'signal-cnn: expected stages like "8x128 5x256 3x128" (taps x filters), got {self.stages!r}.')
        at_most("signal-cnn", LARGEST, **{"taps or filters": max(max(stage) for stage in self.convolutions())})

    def convolutions(self) -> list[tuple[int, int]]:
        """(taps, filters) of each convolution."""
        return [(int(taps), int(filters)) for taps, filters in (word.split("x") for word in self.stages.split())]


PRESETS = {"signal-cnn": SignalConfig()}


class SignalCNN(nn.Sequential):
    """Logits of shape (B, N) for signals of shape (B, C, T), of any length T from 1."""

    def __init__(self, config: SignalConfig) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = config.in_channels
        for number, (taps, filters) in enumerate(config.convolutions(), 1):
            layers[f"conv{number}"] = nn.Conv1d(channels, filters, taps, padding="same", bias=False)
            layers[f"norm{number}"] = nn.BatchNorm1d(filters)
            layers[f"relu{number}"] = nn.ReLU()
            channels = filters
        layers["average"] = nn.GlobalAvgPool(flatten=True)
        layers["dropout"] = nn.Dropout(config.dropout)
        layers["head"] = nn.Linear(channels, config.classes)
        super().__init__(layers)
        self.config = config

    def forward(self, x_BCT: Tensor) -> Tensor:
        return super().forward(x_BCT)


def build(config: SignalConfig) -> SignalCNN:
    """The net with Glorot's uniform weights, and biases 0."""
    net = SignalCNN(config)
    for part in net.modules():
        if isinstance(part, nn.Conv1d | nn.Linear):
            glorot_uniform(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return net
