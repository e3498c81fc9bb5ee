"""Which law speaks for which layer, ours and torch's alike: a table, the special before the general.

A law is believed only where the layer bears it out: `law_of` compares the parameters with those that are there, and who calls it compares
the shape with a run. So a class that does more than its name says is measured, not misjudged.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from twofold.layers.maxout import Maxout
from twofold.see import dense, sliding, turning
from twofold.see.law import ALONE, Counted, Law
from twofold.space.connection import ConnectedConv2d
from twofold.space.global_pooling import Global
from twofold.space.pooling import Pooling
from twofold.space.pyramid import SpatialPyramidPool2d
from twofold.space.symmetric import GroupPool2d, SharedFilters

ALONE_KINDS = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Threshold, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink),
    *(nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LocalResponseNorm),
)
TOGETHER_KINDS = (
    *(nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin),
)
POOL_KINDS = (
    *(Pooling, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.LPPool1d, nn.LPPool2d, nn.LPPool3d),
)
ADAPTIVE_KINDS = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)


def maxout(layer: Any, shape: tuple[int, ...]) -> Law:
    """The law of Maxout: along one axis every `pieces` numbers become one."""
    axis = layer.dim % len(shape)
    size, pieces = shape[axis], layer.pieces
    line = ("features", f"{size} / {pieces} = {size // pieces}")
    output = (*shape[:axis], size // pieces, *shape[axis + 1 :])
    return Law(output, (line,), Counted(0, ""), Counted(0, ""), ALONE if axis == 1 else "")


def pyramid(layer: SpatialPyramidPool2d, shape: tuple[int, ...]) -> Law:
    """The law of spatial pyramid pooling."""
    features = " + ".join(f"{level}*{level}" for level in layer.levels)
    line = ("features", f"{shape[1]}*({features}) = {shape[1] * layer.features:,}")
    return Law((shape[0], shape[1] * layer.features), (line,), Counted(0, ""), Counted(0, ""), "")


LAWS: tuple[tuple[Any, Callable[[Any, tuple[int, ...]], Law]], ...] = (
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), sliding.transpose),
    (ConnectedConv2d, sliding.connect),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), sliding.convolve),
    ((nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d), sliding.unpool),
    (ADAPTIVE_KINDS, sliding.adapt),
    (POOL_KINDS, sliding.pool),
    (Global, sliding.whole),
    (SpatialPyramidPool2d, pyramid),
    (SharedFilters, turning.turn),
    (GroupPool2d, turning.gather),
    (nn.Upsample, sliding.rescale),
    (nn.Linear, dense.multiply),
    (nn.Embedding, dense.look_up),
    (nn.RNNBase, dense.recur),
    (nn.RNNCellBase, dense.step),
    (nn.Flatten, dense.flatten),
    (Maxout, maxout),
    (ALONE_KINDS, dense.alone),
    (TOGETHER_KINDS, dense.together),
)


def law_of(layer: nn.Module, shape: tuple[int, ...]) -> Law | None:
    """What the layer's kind says of an input of this shape, batch and all; None where no law is known or the layer breaks it."""
    law = next((law for kinds, law in LAWS if isinstance(layer, kinds)), None)
    if law is None:
        return None
    try:
        said = law(layer, shape)
    except ValueError:
        return None  # a class of that kind with other settings: the run tells
    return said if said.parameters.number == sum(p.numel() for p in layer.parameters()) else None
