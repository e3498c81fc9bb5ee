"""What each word of a scheme makes: the shape that comes out, found with whole numbers alone, and the layer.

    a window (conv, dw, pools)     P = floor((H + 2p - d(k-1) - 1) / s) + 1, the same for the columns
    conv  (F, P, Q)     dw  (C m, P, Q)     pools  (C, P, Q)     adapt  (C, P, Q) as it says     maxout  C / pieces
    gap, gmp  (C)       spp  (C (1 + 4 + 16))       flatten  (C H W)       fc  (D)       all others: as it came

Shapes are (C, H, W) for maps and (D,) for features, without the batch.
"""

from collections.abc import Callable
from math import gcd, prod
from typing import NamedTuple

from twofold import nn
from twofold.models.scheme import Layer
from twofold.models.scheme_words import Number

Shape = tuple[int, ...]
MOST_VALUES = (1 << 31) - 1  # of a weight, or of what one picture becomes
GROUPS = 32  # of gn without a number, where they divide the channels
POOLS = {
    "pool": nn.MaxPool2d, "avgpool": nn.AvgPool2d, "lppool": nn.LPPool2d, "gausspool": nn.GaussianPool2d, "stochpool": nn.StochasticPool2d,
}  # fmt: skip
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "prelu": nn.PReLU, "elu": nn.ELU, "selu": nn.SELU, "celu": nn.CELU, "gelu": nn.GELU,
    "silu": nn.SiLU, "mish": nn.Mish, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "softplus": nn.Softplus, "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid, "hardswish": nn.Hardswish,
}  # fmt: skip


class Site(NamedTuple):
    """Where a layer stands: what comes in, what conv and fc have without a number, and whether batch norm follows at once."""

    shape: Shape
    filters: int
    features: int
    normed: bool = False


class Step(NamedTuple):
    """What a layer makes of a shape, and how it is built."""

    shape: Shape
    make: Callable[[], nn.Module]


class MisfitError(ValueError):
    """A layer that cannot stand where it stands. small: a larger picture would do."""

    def __init__(self, why: str, small: bool = False) -> None:
        super().__init__(why)
        self.small = small


def step(layer: Layer, site: Site) -> Step:
    """The layer at its site. Raises MisfitError where it cannot stand there."""
    word, shape = layer.word, site.shape
    if word in ACTIVATIONS:
        return Step(shape, ACTIVATIONS[word])
    if word == "leaky":
        return Step(shape, lambda: nn.LeakyReLU(_decimal(layer)))
    if word == "dropout":
        return Step(shape, lambda: nn.Dropout(_decimal(layer)))
    if word in NORMS:
        return Step(shape, NORMS[word](layer, shape))
    if word == "fc":
        return _linear(layer, site)
    if word == "maxout":
        return _maxout(layer, shape)
    if len(shape) != 3:
        raise MisfitError(f"{layer} works on maps, and what comes here are {shape[0]:,} features. Put it before gap, spp, flatten and fc.")
    if word in ("conv", "dw"):
        return _convolution(layer, site)
    if word in POOLS:
        return _pool(layer, shape)
    return _whole(layer, shape)


def flatten(shape: Shape) -> Step:
    """Maps as features."""
    return Step((prod(shape),), nn.Flatten)


def _convolution(layer: Layer, site: Site) -> Step:
    channels, settings = site.shape[0], layer.settings
    kernel, stride, padding, dilation = (_whole_numbers(settings[letter]) for letter in "kspd")
    depthwise = layer.word == "dw"
    multiplier = _whole_numbers(settings["m"])[0] if depthwise else 1
    groups = channels if depthwise else _whole_numbers(settings["g"])[0]
    filters = channels * multiplier if depthwise else site.filters if layer.number is None else _whole_numbers(layer.number)[0]
    for what, number in (("channels that come in", channels), ("filters", filters)):
        if number % groups:
            raise MisfitError(f"{layer} is in {groups} groups, and its {number} {what} are no multiple of {groups}.")
    shape = (filters, *_windows(layer, site.shape, kernel, stride, padding, dilation))
    _few("weights", layer, filters, channels // groups, *kernel)
    _few("outputs", layer, *shape)
    bias = not site.normed if settings["b"] is None else settings["b"] == (1,)
    options = {"stride": _one(stride), "padding": _one(padding), "dilation": _one(dilation), "bias": bias}
    if depthwise:
        return Step(shape, lambda: nn.DepthwiseConv2d(channels, _one(kernel), multiplier, **options))
    return Step(shape, lambda: nn.Conv2d(channels, filters, _one(kernel), groups=groups, **options))  # type: ignore[arg-type]


def _pool(layer: Layer, shape: Shape) -> Step:
    settings = layer.settings
    kernel, stride, padding = (_whole_numbers(settings[letter]) for letter in ("", "s", "p"))
    if any(2 * before > side for before, side in zip(padding, kernel, strict=True)):
        raise MisfitError(f"{layer} has more padding than half its window of {_by(kernel)}, so that some windows would hold nothing else.")
    counts = _windows(layer, shape, kernel, stride, padding, (1, 1))
    kind = POOLS[layer.word]
    if kind is nn.LPPool2d:
        power = _whole_numbers(settings["n"])[0]
        return Step((shape[0], *counts), lambda: nn.LPPool2d(power, _one(kernel), _one(stride), padding=_one(padding)))
    return Step((shape[0], *counts), lambda: kind(_one(kernel), _one(stride), _one(padding)))


def _whole(layer: Layer, shape: Shape) -> Step:
    """What takes the whole map, whatever its size: gap, gmp, spp, adapt, flatten."""
    word, numbers = layer.word, _whole_numbers(layer.settings[""] or ())
    if word == "flatten":
        return flatten(shape)
    if word == "adapt":
        _few("outputs", layer, shape[0], *numbers)
        return Step((shape[0], *numbers), lambda: nn.AdaptiveAvgPool2d(_one(numbers)))
    if word == "spp":
        features = shape[0] * sum(level * level for level in numbers)
        _few("outputs", layer, features)
        return Step((features,), lambda: nn.SpatialPyramidPool2d(numbers))
    kind = nn.GlobalAvgPool if word == "gap" else nn.GlobalMaxPool
    return Step(shape[:1], lambda: kind(flatten=True))


def _linear(layer: Layer, site: Site) -> Step:
    inputs = prod(site.shape)
    outputs = site.features if layer.number is None else _whole_numbers(layer.number)[0]
    _few("weights", layer, inputs, outputs)
    given = layer.settings["b"]
    bias = not site.normed if given is None else given == (1,)
    return Step((outputs,), lambda: nn.Linear(inputs, outputs, bias))


def _maxout(layer: Layer, shape: Shape) -> Step:
    pieces = _whole_numbers(layer.settings[""])[0]
    if shape[0] % pieces:
        raise MisfitError(f"{layer} takes the largest of every {pieces} channels, and {shape[0]} channels are no multiple of {pieces}.")
    return Step((shape[0] // pieces, *shape[1:]), lambda: nn.Maxout(pieces))


def _batch_norm(_: Layer, shape: Shape) -> Callable[[], nn.Module]:
    return lambda: nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(shape[0])


def _group_norm(layer: Layer, shape: Shape) -> Callable[[], nn.Module]:
    groups = gcd(GROUPS, shape[0]) if layer.number is None else _whole_numbers(layer.number)[0]
    if shape[0] % groups:
        raise MisfitError(f"{layer} makes {groups} groups, and {shape[0]} channels are no multiple of {groups}.")
    if prod(shape) == groups:
        raise MisfitError(f"{layer} would have one value a group, whose variance is 0. Take fewer groups.", small=len(shape) == 3)
    return lambda: nn.GroupNorm(groups, shape[0])


def _layer_norm(layer: Layer, shape: Shape) -> Callable[[], nn.Module]:
    if prod(shape) == 1:
        raise MisfitError(f"{layer} would have one value, whose variance is 0.", small=len(shape) == 3)
    return (lambda: nn.GroupNorm(1, shape[0])) if len(shape) == 3 else (lambda: nn.LayerNorm(shape[0]))


def _response_norm(layer: Layer, shape: Shape) -> Callable[[], nn.Module]:
    if len(shape) != 3:
        raise MisfitError(f"{layer} works on maps, and what comes here are {shape[0]:,} features. Put it before gap, spp, flatten and fc.")
    size = _whole_numbers(layer.settings[""])[0]
    return lambda: nn.LocalResponseNorm(size)


NORMS = {"bn": _batch_norm, "gn": _group_norm, "ln": _layer_norm, "lrn": _response_norm}


def _windows(layer: Layer, shape: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    """How many windows fit along each axis. Raises MisfitError where none does."""
    spread = tuple(gap * (side - 1) + 1 for side, gap in zip(kernel, dilation, strict=True))
    counts = tuple(
        (length + 2 * before - wide) // step + 1 for length, before, wide, step in zip(shape[1:], padding, spread, stride, strict=True)
    )
    if min(counts) < 1:
        least = tuple(max(1, wide - 2 * before) for wide, before in zip(spread, padding, strict=True))
        raise MisfitError(f"{layer} needs a map of at least {_by(least)}, and a map of {_by(shape[1:])} comes in.", small=True)
    return counts


def _few(what: str, layer: Layer, *sizes: int) -> None:
    if prod(sizes) > MOST_VALUES:
        raise MisfitError(f"{layer} would have {prod(sizes):,} {what}, and at most {MOST_VALUES:,} can be. Take smaller numbers.")


def _whole_numbers(value: Number | None) -> tuple[int, ...]:
    assert isinstance(value, tuple)
    return value


def _decimal(layer: Layer) -> float:
    value = layer.settings[""]
    assert isinstance(value, float)
    return value


def _one(pair: tuple[int, ...]) -> int | tuple[int, ...]:
    """As a person writes it: one number where both are the same."""
    return pair[0] if pair[0] == pair[1] else pair


def _by(sizes: Shape) -> str:
    return "x".join(map(str, sizes))
