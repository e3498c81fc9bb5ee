"""One layer of each class, and an input for it: a new layer is one line here, and all checks of the contract and the harness ask it."""

from functools import partial

import torch

randn = partial(torch.randn, generator=torch.Generator().manual_seed(0))
SIGNAL, MAPS, VOLUME, ROWS = (randn(2, 4, *size) for size in ((9,), (6, 5), (4, 5, 6), ()))


def along_axes(kind, *settings):
    """The three layers of this kind, for signals, maps and volumes."""
    inputs = {f"{kind}{axes}d": x for axes, x in enumerate((SIGNAL, MAPS, VOLUME), 1)}
    return {name: (lambda n, name=name: getattr(n, name)(*settings), x) for name, x in inputs.items()}


# One layer of each class, and an input for it.
LAYERS = {
    **along_axes("AdaptiveAvgPool", 2),
    **along_axes("AdaptiveMaxPool", 2),
    **along_axes("AvgPool", 2),
    **along_axes("BatchNorm", 4),
    **along_axes("Conv", 4, 6, 3, 1, 1),
    **along_axes("ConvTranspose", 4, 6, 3),
    **along_axes("GaussianPool", 2),
    **along_axes("LPPool", 2, 2),
    **along_axes("MaxPool", 2),
    **along_axes("MaxUnpool", 2),
    **along_axes("StochasticPool", 2),
    "AdditiveAttention": (lambda n: n.AdditiveAttention(3, 3, 4), randn(2, 3)),
    "ConnectedConv2d": (lambda n: n.ConnectedConv2d(4, 4, 3, table=[[0, 1], [1, 2], [2, 3], [3]]), MAPS),
    "CrossEntropyLoss": (lambda n: n.CrossEntropyLoss(), randn(4, 3)),
    "DepthwiseConv2d": (lambda n: n.DepthwiseConv2d(4, 3), MAPS),
    "DotAttention": (lambda n: n.DotAttention(), randn(2, 3)),
    "Dropout": (lambda n: n.Dropout(0.5), ROWS),
    "ELU": (lambda n: n.ELU(), ROWS),
    "Embedding": (lambda n: n.Embedding(7, 3), torch.tensor([[0, 6], [3, 3], [5, 1], [6, 2]])),
    "GELU": (lambda n: n.GELU(), ROWS),
    "GRU": (lambda n: n.GRU(3, 4), randn(5, 2, 3)),
    "GRUCell": (lambda n: n.GRUCell(3, 4), randn(2, 3)),
    "GeneralAttention": (lambda n: n.GeneralAttention(3, 3), randn(2, 3)),
    "GlobalAvgPool": (lambda n: n.GlobalAvgPool(), MAPS),
    "GlobalMaxPool": (lambda n: n.GlobalMaxPool(), MAPS),
    "GroupConv2d": (lambda n: n.GroupConv2d(1, 2, 3), randn(2, 1, 4, 6, 5)),
    "GroupNorm": (lambda n: n.GroupNorm(2, 4), MAPS),
    "GroupPool2d": (lambda n: n.GroupPool2d(), randn(2, 1, 4, 6, 5)),
    "Hardsigmoid": (lambda n: n.Hardsigmoid(), ROWS),
    "Hardswish": (lambda n: n.Hardswish(), ROWS),
    "Hardtanh": (lambda n: n.Hardtanh(), ROWS),
    "LSTM": (lambda n: n.LSTM(3, 4), randn(5, 2, 3)),
    "LSTMCell": (lambda n: n.LSTMCell(3, 4), randn(2, 3)),
    "LayerNorm": (lambda n: n.LayerNorm(5), MAPS),
    "LeakyReLU": (lambda n: n.LeakyReLU(), ROWS),
    "LiftingConv2d": (lambda n: n.LiftingConv2d(4, 2, 3), MAPS),
    "Linear": (lambda n: n.Linear(4, 3), ROWS),
    "LocalResponseNorm": (lambda n: n.LocalResponseNorm(3), MAPS),
    "LogSoftmax": (lambda n: n.LogSoftmax(1), ROWS),
    "LookAhead": (lambda n: n.LookAhead(n.GRU(3, 4, bidirectional=True), 1), randn(5, 2, 3)),
    "Maxout": (lambda n: n.Maxout(2), ROWS),
    "MinGRU": (lambda n: n.MinGRU(3, 4), randn(5, 2, 3)),
    "MinLSTM": (lambda n: n.MinLSTM(3, 4), randn(5, 2, 3)),
    "PReLU": (lambda n: n.PReLU(), ROWS),
    "RNN": (lambda n: n.RNN(3, 4), randn(5, 2, 3)),
    "RNNCell": (lambda n: n.RNNCell(3, 4), randn(2, 3)),
    "ReLU": (lambda n: n.ReLU(), ROWS),
    "ReLU6": (lambda n: n.ReLU6(), ROWS),
    "Recurrent": (lambda n: n.Recurrent(n.GRUCell(3, 4)), randn(5, 2, 3)),
    "Sequential": (lambda n: n.Sequential(n.Conv2d(4, 2, 3), n.ReLU()), MAPS),
    "SiLU": (lambda n: n.SiLU(), ROWS),
    "Sigmoid": (lambda n: n.Sigmoid(), ROWS),
    "Softmax": (lambda n: n.Softmax(1), ROWS),
    "Softplus": (lambda n: n.Softplus(), ROWS),
    "SpatialPyramidPool2d": (lambda n: n.SpatialPyramidPool2d((1, 2)), MAPS),
    "SymmetricConv2d": (lambda n: n.SymmetricConv2d(4, 2, 3), MAPS),
    "Tanh": (lambda n: n.Tanh(), ROWS),
    "Upsample": (lambda n: n.Upsample(scale_factor=2), MAPS),
}

OURS_ALONE = {  # torch.nn has no such layer
    *(f"{kind}Pool{n}d" for kind in ("Gaussian", "Stochastic") for n in (1, 2, 3)),
    *("ConnectedConv2d", "DepthwiseConv2d", "GlobalAvgPool", "GlobalMaxPool", "GroupConv2d", "GroupPool2d", "LiftingConv2d", "Maxout"),
    *("SpatialPyramidPool2d", "SymmetricConv2d", "LookAhead", "MinGRU", "MinLSTM", "Recurrent"),
    *("AdditiveAttention", "DotAttention", "GeneralAttention"),
}
SEQUENCES = {"GRU", "LSTM", "LookAhead", "MinGRU", "MinLSTM", "RNN", "Recurrent"}  # their rows come second
RANDOM = {"Dropout", *(f"StochasticPool{n}d" for n in (1, 2, 3))}


def arguments(layer, x):
    """The input and what else the layer takes: targets, places, a state, keys."""
    if isinstance(layer, torch.nn.CrossEntropyLoss):
        return x, (torch.arange(len(x)) % 3 if x.dim() > 1 else torch.tensor(0))
    if isinstance(layer, torch.nn.RNNCellBase):
        h = x.new_full((*x.shape[:-1], 4), 0.5)
        return x, ((h, -h) if isinstance(layer, torch.nn.LSTMCell) else h)
    if "Attention" in type(layer).__name__:
        keys_SBK = torch.linspace(-1, 1, 2 * x.shape[-1]).to(x).reshape(2, *[1] * (x.dim() - 1), -1)
        return x, keys_SBK.expand(2, *x.shape)
    if "MaxUnpool" in type(layer).__name__:
        size = x.shape[-int(type(layer).__name__[-2]) :]
        return x, torch.arange(size.numel()).reshape(size).expand(x.shape)
    return (x,)


def leaves(y):
    """All tensors of an output."""
    return [y] if isinstance(y, torch.Tensor) else [leaf for part in y for leaf in leaves(part)]
