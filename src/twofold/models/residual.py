"""What all residual nets share: the two-layer block, shortcuts without weights, and the stages as text.

    block      y = relu(norm(F(x)) + shortcut(x))            F: convolutions with norms and ReLUs between them
    stages     "basic 2 2 2 2", "bottleneck*2 3 4 6 3"       the kind of the blocks, so many times wider, the blocks of each stage

    option A   shortcut(x) = [0; x at every second row and column; 0]      as many channels of zeros before as behind; no weights
    option B   shortcut(x) = norm(1x1 convolution of x)

He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, equations 1 and 2, section 3.3 (options A and B)
"""

from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from twofold import nn
from twofold.models.config import at_most
from twofold.space.sequential import in_turn, join

KINDS = ("basic", "bottleneck")
MOST_BLOCKS = 1000  # of a stage
MOST_WIDENING = 1000


class Basic(nn.Module):
    """Two 3x3 convolutions, the first with the stride; `beside(x)` is the shortcut, which families of nets name differently."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.relu2 = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inner = in_turn(x_BCHW, self.conv1, self.bn1, self.relu1, self.conv2)
        return join(self.bn2, inner, self.beside(x_BCHW), self.relu2)

    def beside(self, x_BCHW: Tensor) -> Tensor:
        """What is added to the last norm."""
        return x_BCHW


class Padded(nn.Module):
    """Option A: every `stride`-th row and column, and channels of zeros up to `filters`, half of them before and half behind.

    >>> import torch
    >>> Padded(1, 3, 2)(torch.arange(4.0).reshape(1, 1, 2, 2)).flatten().tolist()
    [0.0, 0.0, 0.0]
    >>> Padded(1, 3, 2)(torch.ones(1, 1, 3, 3)).sum((2, 3)).tolist()
    [[0.0, 4.0, 0.0]]
    """

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (filters - channels) // 2
        self.behind = filters - channels - self.before

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.pad(x_BCHW[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.behind))

    def extra_repr(self) -> str:
        return f"stride={self.stride}, zeros before {self.before}, behind {self.behind}"


class Stages(NamedTuple):
    """The kind of the blocks, how many times wider they are, and the number of blocks of each stage."""

    kind: str
    widening: int
    blocks: tuple[int, ...]


def stages_of(who: str, text: str, number: int) -> Stages:
    """The stages that the text says, `number` of them. Raises ValueError for another text.

    >>> stages_of("resnet", "bottleneck*2 3 4 6 3", 4)
    Stages(kind='bottleneck', widening=2, blocks=(3, 4, 6, 3))
    """
    words = text.split() or [""]
    kind, star, times = words[0].partition("*")
    numbers = [times] * bool(star) + words[1:]
    if kind not in KINDS or len(words) != number + 1 or not all(word.isdecimal() and int(word) > 0 for word in numbers):
        raise ValueError(
            f'{who}: expected stages like "basic {" ".join("3" * number)}" (basic or bottleneck, perhaps *2 for twice as wide, then the '
            f"blocks of each of the {number} stages), got {text!r}."
        )
    stages = Stages(kind, int(times) if star else 1, tuple(map(int, words[1:])))
    at_most(who, MOST_BLOCKS, blocks=max(stages.blocks))
    at_most(who, MOST_WIDENING, widening=stages.widening)
    return stages


def depth_of(who: str, depth: int) -> int:
    """n, the blocks of each of three stages of basic blocks in a net of 6 n + 2 layers. Raises ValueError for another depth."""
    if depth < 8 or depth % 6 != 2:
        raise ValueError(
            f"{who}: expected a depth of 6 n + 2 layers (8, 14, 20, ... 56, 110), got {depth}: three stages of n blocks of two "
            "convolutions, the first convolution and the last layer."
        )
    at_most(who, 6 * MOST_BLOCKS + 2, depth=depth)
    return (depth - 2) // 6


def initialise_by_fan_out(model: Any) -> None:
    """Every convolution normal with variance 2 / fan_out (He et al., ICCV 2015, equation 14): gradients keep their size on the way back."""
    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
