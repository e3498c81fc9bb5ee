"""LeNet-5 as it was published: trainable subsampling, a scaled tanh, a connection table, and an output of distances to codes.

    in     32x32       smaller pictures lie in the middle of 32x32, and their edge pixels go on around them
    C1   6@28x28       conv 5x5                                            f
    S2   6@14x14       f(gain[c] * sum of 2x2 + bias[c])
    C3  16@10x10       conv 5x5, each map sees the maps of S2 that table I says     f
    S4  16@5x5         as S2
    C5 120@1x1         conv 5x5                                            f
    F6  84             linear                                              f
    out  N             distance y[n] = |x - code[n]|^2                     f(a) = 1.7159 tanh(2a/3)

    logits             z[n] = -y[n] / sqrt(84)

On pictures larger than 32x32 the kernels of C5 are as large as the maps of S4, so that C5 still sees the whole and has one pixel.
The logits: |x|^2 and |code[n]|^2 = 84 are the same for all classes and fall out of the softmax. What is left is 2 code[n].x / sqrt(84),
a linear layer whose 84 weights have variance 4/84: the scale of an ordinary last layer, on which cross-entropy begins near log N and
can come near 0. The paper's own loss is competitive_loss (radial.py) of `model.distances(x)`.

A code of +-1 lies where f bends most; its 84 numbers are a picture of 7x12. Ten classes have the digits, others codes drawn at random.
First weights and biases: uniform within 2.4 / fan-in of 0, which is 4 for subsampling.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", Proceedings of the IEEE 86(11), 1998,
section II.B, fig. 2, table I, eq. 5 to 7, and appendix A (f, first weights)
"""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold import nn
from twofold.models.config import Config, at_least
from twofold.models.radial import UNITS, RadialBasis, codes
from twofold.space.connection import LENET5_C3

FIELD = 32  # pixels of the paper's input, along each side
HEIGHT, SLOPE = 1.7159, 2 / 3  # of f: f(1) = 1, f(-1) = -1
SPREAD = 2.4  # first weights, times the fan-in


@dataclass(frozen=True)
class LeNet1998Config(Config):
    """C in, H W picture, N classes; trainable_codes: the codes of the classes are learnt, too."""

    in_channels: int = 1
    height: int = FIELD
    width: int = FIELD
    classes: int = 10
    trainable_codes: bool = False

    def __post_init__(self) -> None:
        at_least("lenet5-1998", 1, in_channels=self.in_channels, height=self.height, width=self.width)
        at_least("lenet5-1998", 2, classes=self.classes)


PRESETS = {"lenet5-1998": LeNet1998Config()}


class ScaledTanh(nn.Tanh):
    """f(a) = 1.7159 tanh(2a/3)

    >>> [round(f, 3) for f in ScaledTanh()(torch.tensor([-1.0, 0.0, 1.0])).tolist()]
    [-1.0, 0.0, 1.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        return HEIGHT * super().forward(SLOPE * input)


class Subsampling(nn.Module):
    """gain[c] * (sum of 2x2 pixels) + bias[c] for maps (B, C, H, W); a last odd row or column is left out.

    >>> layer = Subsampling(1)
    >>> with torch.no_grad(): _ = layer.gain.fill_(0.5), layer.bias.fill_(1.0)
    >>> layer(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).item()
    6.0
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sum = nn.AvgPool2d(2, divisor_override=1)
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.gain[:, None, None] * self.sum(x_BCHW) + self.bias[:, None, None]


class LeNet1998(nn.Module):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W)."""

    def __init__(self, config: LeNet1998Config) -> None:
        super().__init__()
        self.config = config
        last = tuple(((max(size, FIELD) - 4) // 2 - 4) // 2 for size in (config.height, config.width))
        self.c1 = nn.Conv2d(config.in_channels, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = nn.ConnectedConv2d(6, 16, 5, table=LENET5_C3)
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, last)
        self.f6 = nn.Linear(120, UNITS)
        self.output = RadialBasis(self.c1.weight.new_empty(config.classes, UNITS), config.trainable_codes)
        self.squash = ScaledTanh()
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the first weights anew; the codes are what they are."""
        for layer in (self.s2, self.s4):
            layer.gain.uniform_(-SPREAD / 4, SPREAD / 4)
            layer.bias.uniform_(-SPREAD / 4, SPREAD / 4)
        for whole in (self.c1, self.c5, self.f6):
            bound = SPREAD / prod(whole.weight.shape[1:])
            whole.weight.uniform_(-bound, bound)
            whole.bias.uniform_(-bound, bound)
        bound_F = SPREAD / (25 * self.c3.table.sum(1).to(self.c3.bias.dtype))
        self.c3.weight.uniform_(-1, 1).mul_(bound_F[self.c3.places // 6][:, None, None, None])
        self.c3.bias.uniform_(-1, 1).mul_(bound_F)
        if not self.output.codes.is_meta:
            self.output.codes.copy_(codes(self.config.classes))

    def distances(self, x_BCHW: Tensor) -> Tensor:
        """y_BN: how far F6 is from the code of each class, squared; for competitive_loss."""
        x = framed(x_BCHW)
        for layer in (self.c1, self.s2, self.c3, self.s4, self.c5):
            x = self.squash(layer(x))
        y_BN: Tensor = self.output(self.squash(self.f6(x.flatten(1))))
        return y_BN

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.distances(x_BCHW) * -(UNITS**-0.5)


def framed(x_BCHW: Tensor) -> Tensor:
    """Pictures in the middle of 32x32 at least; the pixels of the edge go on, as paper around ink does, whatever the normalisation."""
    rows, columns = (max(0, FIELD - size) for size in x_BCHW.shape[2:])
    if not rows and not columns:
        return x_BCHW
    return F.pad(x_BCHW, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2), "replicate")


class Count(NamedTuple):
    """One layer in the paper's text."""

    layer: str
    maps: str
    parameters: int  # that are trained
    connections: int  # every use of a weight or a bias


def counts(model: LeNet1998) -> list[Count]:
    """The layers with their trainable parameters and their connections, counted as section II.B counts them.

    >>> for count in counts(build(PRESETS["lenet5-1998"])): print(*count)
    C1 6@28x28 156 122304
    S2 6@14x14 12 5880
    C3 16@10x10 1516 151600
    S4 16@5x5 32 2000
    C5 120@1x1 48120 48120
    F6 84 10164 10164
    output 10 0 840
    """
    rows, columns = (max(size, FIELD) for size in (model.config.height, model.config.width))
    found = []
    for name in ("c1", "s2", "c3", "s4", "c5", "f6", "output"):
        layer = getattr(model, name)
        parameters = sum(weight.numel() for weight in layer.parameters())
        if name in ("f6", "output"):
            units = layer.out_features if name == "f6" else len(layer.codes)
            found.append(Count({"f6": "F6"}.get(name, name), str(units), parameters, parameters or layer.codes.numel()))
            continue
        if isinstance(layer, Subsampling):
            filters, rows, columns = len(layer.bias), rows // 2, columns // 2
            each = 5 * filters  # a map's units have four inputs and a bias
        else:
            kernel = layer.kernel_size
            filters, rows, columns, each = layer.out_channels, rows - kernel[0] + 1, columns - kernel[1] + 1, parameters
        found.append(Count(name.upper(), f"{filters}@{rows}x{columns}", parameters, each * rows * columns))
    return found


def build(config: LeNet1998Config) -> LeNet1998:
    """LeNet-5 of 1998 with the paper's first weights."""
    return LeNet1998(config)
