"""The public face of all layers: write `from twofold import nn` where you wrote `from torch import nn`.

A name that Twofold lacks is torch.nn's own, so that changing the import never breaks a program.
"""

from typing import Any

import torch.nn as _torch_nn

from twofold.layers.activation import LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from twofold.layers.dropout import Dropout
from twofold.layers.embedding import Embedding
from twofold.layers.group_norm import GroupNorm
from twofold.layers.layer_norm import LayerNorm
from twofold.layers.linear import Linear
from twofold.layers.local_response import LocalResponseNorm
from twofold.layers.losses import CrossEntropyLoss
from twofold.layers.maxout import Maxout
from twofold.layers.normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d
from twofold.layers.piecewise import Hardsigmoid, Hardswish, Hardtanh, LeakyReLU, PReLU, ReLU6
from twofold.layers.smooth import ELU, GELU, SiLU, Softplus
from twofold.space.adaptive import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
)
from twofold.space.average_pooling import AvgPool1d, AvgPool2d, AvgPool3d
from twofold.space.connection import ConnectedConv2d
from twofold.space.convolution import Conv1d, Conv2d, Conv3d, DepthwiseConv2d
from twofold.space.folded import folded
from twofold.space.gaussian_pooling import GaussianPool1d, GaussianPool2d, GaussianPool3d
from twofold.space.global_pooling import GlobalAvgPool, GlobalMaxPool
from twofold.space.max_pooling import MaxPool1d, MaxPool2d, MaxPool3d
from twofold.space.power_pooling import LPPool1d, LPPool2d, LPPool3d
from twofold.space.pyramid import SpatialPyramidPool2d
from twofold.space.resize import Upsample
from twofold.space.sequential import Sequential
from twofold.space.stochastic_pooling import StochasticPool1d, StochasticPool2d, StochasticPool3d
from twofold.space.symmetric import GroupConv2d, GroupPool2d, LiftingConv2d, SymmetricConv2d
from twofold.space.transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from twofold.space.unpooling import MaxUnpool1d, MaxUnpool2d, MaxUnpool3d
from twofold.time.attention import AdditiveAttention, DotAttention, GeneralAttention
from twofold.time.cells import GRUCell, LSTMCell, RNNCell
from twofold.time.gru import GRU
from twofold.time.lookahead import LookAhead
from twofold.time.lstm import LSTM
from twofold.time.minimal import MinGRU, MinLSTM
from twofold.time.rnn import RNN
from twofold.time.unrolled import Recurrent

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AdditiveAttention",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "ConnectedConv2d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CrossEntropyLoss",
    "DepthwiseConv2d",
    "DotAttention",
    "Dropout",
    "Embedding",
    "GRUCell",
    "GaussianPool1d",
    "GaussianPool2d",
    "GaussianPool3d",
    "GeneralAttention",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GroupConv2d",
    "GroupNorm",
    "GroupPool2d",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "LSTMCell",
    "LayerNorm",
    "LeakyReLU",
    "LiftingConv2d",
    "Linear",
    "LocalResponseNorm",
    "LogSoftmax",
    "LookAhead",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
    "Maxout",
    "MinGRU",
    "MinLSTM",
    "PReLU",
    "RNNCell",
    "ReLU",
    "ReLU6",
    "Recurrent",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "SpatialPyramidPool2d",
    "StochasticPool1d",
    "StochasticPool2d",
    "StochasticPool3d",
    "SymmetricConv2d",
    "Tanh",
    "Upsample",
    "folded",
]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):  # torch.nn's __path__ would make a package of this file, with a second set of torch's classes
        raise AttributeError(f"module 'twofold.nn' has no attribute {name!r}")
    return getattr(_torch_nn, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(_torch_nn)})
