"""The public face of all layers: write `from twofold import nn` where you wrote `from torch import nn`.

A name that Twofold lacks is torch.nn's own, so that changing the import never breaks a program.
"""

from typing import Any

import torch.nn as _torch_nn

from twofold.layers.activation import LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from twofold.layers.dropout import Dropout
from twofold.layers.embedding import Embedding
from twofold.layers.linear import Linear
from twofold.layers.losses import CrossEntropyLoss
from twofold.layers.normalization import BatchNorm2d
from twofold.space.convolution import Conv2d
from twofold.space.pooling import AvgPool2d, MaxPool2d
from twofold.time.cells import LSTMCell
from twofold.time.lstm import LSTM

__all__ = [
    "LSTM",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "LSTMCell",
    "Linear",
    "LogSoftmax",
    "MaxPool2d",
    "ReLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):  # torch.nn's __path__ would make a package of this file, with a second set of torch's classes
        raise AttributeError(f"module 'twofold.nn' has no attribute {name!r}")
    return getattr(_torch_nn, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(_torch_nn)})
