"""Layers one after the other, and what is faster together computed together.

    y = f_n(... f_2(f_1(x)))

    Conv2d, ReLU [, MaxPool2d]             space/fused.py
    BatchNorm2d, ReLU [, MaxPool2d]        space/fused_norm.py; in bfloat16 or channels last, without the pool, space/joined_norm.py
    BatchNorm2d, + shortcut, ReLU          space/joined_norm.py: `join`, the end of a residual block
    Linear, ReLU                           layers/linear_relu.py

The layers stay what they are: their names, weights and settings are read anew with every call, and `last_route` says "fused" of each that
was. Where a hook watches one of them, a route other than auto or native is asked for, a compiler looks on, or the compiled form
cannot serve the input, they are called one by one.

Chen et al., "TVM: an automated end-to-end optimizing compiler for deep learning", OSDI 2018, section 3: operator fusion
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from twofold.kernels.dense import worth as few_rows
from twofold.layers.activation import ReLU
from twofold.layers.forms import bf16_permitted
from twofold.layers.linear import Linear
from twofold.layers.linear_relu import linear_relu
from twofold.layers.normalization import BatchNorm2d
from twofold.layers.routes import Routed, traced, wanted_route
from twofold.space.convolution import Conv2d
from twofold.space.correlation import correlate, worth
from twofold.space.fused import convolve_relu_pool
from twofold.space.fused_norm import norm_relu_pool
from twofold.space.joined_norm import compiled as joined_compiled
from twofold.space.joined_norm import unfit as joined_unfit
from twofold.space.max_pooling import MaxPool2d, expect_ordered
from twofold.space.windows import Window

Chain = tuple[nn.Module, ...]

LEAST = 16  # pixels of a map, below which PyTorch's separate operators normalise faster: ours begin anew with every map


class Sequential(nn.Sequential):
    """Layers one after the other; torch.nn.Sequential that fuses convolution or normalisation with the ReLU and pool behind it.

    >>> from twofold import nn
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
    >>> net(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 4, 3, 3])
    """

    def forward(self, input: Any) -> Any:
        layers = tuple(self._modules.values())
        known = self.__dict__.get("_chains")
        if known is None or known[0] != layers:
            known = self.__dict__["_chains"] = (layers, tuple(chains(layers)))
        return through(known[1], input)


Fuse = Callable[[Chain, Any], Tensor | None]


def in_turn(x: Any, *layers: nn.Module) -> Any:
    """Sequential(*layers)(x), for layers that belong to a module that names them itself."""
    return through(chains(layers), x)


def through(parts: Iterable[tuple[Fuse | None, Chain]], x: Any) -> Any:
    """What comes out of the layers, those together that can be."""
    together = not traced() and wanted_route() in ("auto", "native")
    for fuse, chain in parts:
        fused = fuse(chain, x) if fuse is not None and together and not watched(chain) else None
        if fused is not None:
            x = fused
            continue
        for layer in chain:
            x = layer(x)
    return x


def chains(layers: Chain) -> Iterator[tuple[Fuse | None, Chain]]:
    """The layers in order, those together that can be fused."""
    at = 0
    while at < len(layers):
        fuse: Fuse | None = {Conv2d: convolved, BatchNorm2d: normalised, Linear: mapped}.get(type(layers[at]))
        length = 1
        if fuse is not None and at + 1 < len(layers) and type(layers[at + 1]) in (ReLU, nn.ReLU):
            pooled = fuse is not mapped and at + 2 < len(layers) and type(layers[at + 2]) is MaxPool2d
            length = 3 if pooled else 2
        yield fuse if length > 1 else None, layers[at : at + length]
        at += length


def watched(chain: Chain) -> bool:
    """Whether a hook wants to see what goes in or comes out of one of the layers."""
    if hooks._has_any_global_hook():
        return True
    return any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in chain)


def convolved(chain: Chain, x: Any) -> Tensor | None:
    """Convolution, ReLU and perhaps a pool in one go, or None where the compiled form does not suit."""
    conv = chain[0]
    assert isinstance(conv, Conv2d)
    if conv.groups != 1 or conv.padding_mode != "zeros" or conv.algorithm is not None:
        return None
    window = conv.fitting(x)
    arguments = (x, conv.weight, conv.bias, window)
    chosen = "native"
    if bf16_permitted() or not worth(*arguments):
        chosen = correlate.choose(*arguments, conv.groups)
    if chosen not in ("native", "native bf16"):
        return None
    pool = pool_after(chain, x, window)
    if pool is NOT_SUITED:
        return None
    y: Tensor | None = take(chain, "fused" + chosen.removeprefix("native"), convolve_relu_pool, *arguments, pool, chosen == "native bf16")
    return y


def normalised(chain: Chain, x: Any) -> Tensor | None:
    """Normalisation, ReLU and perhaps a pool in one go, or None where the compiled form does not suit."""
    norm = chain[0]
    assert isinstance(norm, BatchNorm2d)
    norm.expect_input(x)
    if x.dtype != torch.float32 or not x.is_contiguous():
        y = normalised_with(norm, x, None, chain[1])
        return y if y is None or len(chain) < 3 else chain[2](y)
    pool = pool_after(chain, x, None)
    if pool is NOT_SUITED or too_small(x):
        return None
    came = take(chain, "fused", norm_relu_pool, x, norm.weight, norm.bias, *statistics_of(norm, x), norm.eps, pool)
    return None if came is None else remembered(norm, x, *came)


def join(norm: nn.Module, x: Tensor, shortcut: Tensor, relu: nn.Module) -> Tensor:
    """relu(norm(x) + shortcut), the end of a residual block: in one go where the compiled form suits, else layer by layer.

    >>> from twofold import nn
    >>> x = torch.tensor([[[[1.0, 5.0]]]])
    >>> join(nn.BatchNorm2d(1, eps=1e-12), x, x, nn.ReLU()).tolist()
    [[[[0.0, 6.0]]]]
    """
    together = not traced() and wanted_route() in ("auto", "native") and not watched((norm, relu))
    if together and isinstance(shortcut, Tensor) and type(norm) is BatchNorm2d and type(relu) in (ReLU, nn.ReLU):
        norm.expect_input(x)
        y = normalised_with(norm, x, shortcut, relu)
        if y is not None:
            return y
    joined: Tensor = relu(norm(x) + shortcut)
    return joined


def normalised_with(norm: BatchNorm2d, x: Tensor, shortcut: Tensor | None, relu: nn.Module) -> Tensor | None:
    """relu(norm(x) + shortcut) in one go, or None where the compiled form does not suit."""
    if too_small(x):
        return None
    arguments = (x, shortcut, norm.weight, norm.bias, *statistics_of(norm, x), norm.eps, True)
    if joined_unfit(*arguments):
        return None
    norm.took("fused")
    if isinstance(relu, Routed):
        relu.took("fused")
    return remembered(norm, x, *joined_compiled(*arguments))  # not by the operation: under autocast it would widen x


def too_small(x: Tensor) -> bool:
    """Whether there is nothing in the maps, or, channels first, too little of each."""
    return not x.numel() or (x.is_contiguous() and x.shape[2] * x.shape[3] < LEAST)


def statistics_of(norm: BatchNorm2d, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The mean and variance that the layer normalises by now, or neither for the batch's own."""
    if norm.training or norm.running_mean is None:
        norm.expect_several(x)
        return None, None
    return norm.running_mean, norm.running_var


def remembered(norm: BatchNorm2d, x: Tensor, y: Tensor, mean_C: Tensor, variance_C: Tensor) -> Tensor:
    """y, once the layer has moved its running values."""
    if norm.training and norm.track_running_stats:
        norm.remember(mean_C, variance_C, x.numel() // norm.num_features)
    return y


def mapped(chain: Chain, x: Any) -> Tensor | None:
    """A linear map and ReLU in one go, or None where the compiled form does not suit."""
    layer = chain[0]
    assert isinstance(layer, Linear)
    layer.expect_input(x)
    if not few_rows(x, layer.weight, layer.bias):
        return None
    y: Tensor | None = take(chain, "fused", linear_relu, x, layer.weight, layer.bias)
    return y


NOT_SUITED = Window((1, 1), padding=(1, 1, 1, 1))


def pool_after(chain: Chain, x: Tensor, window: Window | None) -> Window | None:
    """The window of the pool behind windows over x, or over x itself; None without a pool, NOT_SUITED for one that returns places, too.

    What was found is kept until the sizes or the settings are others.
    """
    if len(chain) < 3:
        return None
    pool = chain[2]
    assert isinstance(pool, MaxPool2d)
    settings = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, pool.return_indices)
    known = pool.__dict__.get("_behind")
    if known is not None and known[0] == x.shape and known[1] is window and known[2] == settings:
        return known[3]
    size = x.shape[2:] if window is None else window.output_size(x.shape[2:])
    fitting = NOT_SUITED if pool.return_indices else pool.fitting(x.new_empty(()).expand(*x.shape[:2], *size), expect_ordered)
    pool.__dict__["_behind"] = (x.shape, window, settings, fitting)
    return fitting


def take(chain: Chain, route: str, operation: Any, *arguments: Any) -> Any:
    """The operation by its compiled form where that serves, else None."""
    if torch.is_autocast_enabled("cpu"):  # asks for another precision
        return None
    if operation.native.unfit(*arguments):
        return None
    for layer in chain:
        if isinstance(layer, Routed):
            layer.took(route)
    return operation.by("native", *arguments)
