"""A net from a scheme: the tree laid out in a row, every shape found in advance, then layers with names.

    "[conv32 relu pool]*2 fc"   of 1x28x28, 10 classes:
    conv1 32x28x28 -> relu1 -> pool1 32x14x14 -> conv2 32x14x14 -> relu2 -> pool2 32x7x7 -> flatten 1568 -> fc1 10

What is not written: a conv without a number has 32 filters where it is the first, later as many as the one before, twice as many behind
each pooling. An fc without a number has as many outputs as there are classes where it is the last layer, else 128. A conv or fc right
before bn has no bias. Maps are flattened before an fc. A residual group {...}+ is y = f(x) + S x: S is the identity where f keeps the
shape, else a 1x1 convolution with the stride that f has in all (an fc for features), followed by a norm of the kind that f has first.

The net must end in class scores: an fc, or gap or gmp over as many maps as there are classes; nothing is added.

Residual: He et al., "Deep residual learning for image recognition", CVPR 2016, eq. 1 and 2
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil, lcm
from typing import Any, NamedTuple, NoReturn

from torch import Tensor

from twofold import nn
from twofold.models.config import LARGEST, Config, at_least
from twofold.models.scheme import Group, Item, Layer, Scheme, parse, wrong
from twofold.models.scheme_layers import NORMS, POOLS, MisfitError, Shape, Site, Step, flatten, step

FILTERS, FEATURES, CLASSES = 32, 128, 10  # where nothing is written and nothing is known
ENDS = ("fc", "gap", "gmp")
ONCE = ("flatten", "gap", "gmp", "spp")  # their names need no number
SIDES = (28, 32, 64, 224, 1024, 4096)  # of pictures that a net may be made for
LARGEST_SIDE = 1 << 14  # up to which the smallest picture is searched
SHOWN = 12  # steps of the way to a mistake


@dataclass(frozen=True)
class SchemeConfig(Config):
    """The scheme, kept in its canonical text; C in, H W picture, N classes."""

    scheme: str
    in_channels: int = 1
    height: int = 28
    width: int = 28
    classes: int = CLASSES

    def __post_init__(self) -> None:
        at_least("scheme", 1, in_channels=self.in_channels, height=self.height, width=self.width)
        at_least("scheme", 2, classes=self.classes)
        tree = parse(self.scheme)
        _Plan(self.scheme, self.classes).whole(tree, (self.in_channels, self.height, self.width))
        object.__setattr__(self, "scheme", str(tree))


class Planned(NamedTuple):
    """A layer of the net: its name among its neighbours, what comes out of it, and how it is built."""

    name: str
    shape: Shape
    make: Callable[[], nn.Module]


class Residual(nn.Module):
    """y = f(x) + S x: `body` is f, `shortcut` is S."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x) + self.shortcut(x)
        return y


class SchemeNet(nn.Sequential):
    """Logits of shape (B, N) for pictures of shape (B, C, H, W)."""

    def __init__(self, config: SchemeConfig) -> None:
        super().__init__(_layers(plan(config)))
        self.config = config

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BN: Tensor = super().forward(x_BCHW)
        return y_BN


def build_scheme(config: SchemeConfig) -> SchemeNet:
    """The net with torch's default initialisation."""
    return SchemeNet(config)


def plan(config: SchemeConfig) -> list[Planned]:
    """The layers in a row, with their shapes."""
    return _Plan(config.scheme, config.classes).whole(parse(config.scheme), (config.in_channels, config.height, config.width))


def made_for(text: str) -> SchemeConfig:
    """A configuration of pictures that the scheme can take, 1x28x28 where that will do. Raises ValueError for a scheme without any."""
    tree = parse(text)
    in_groups = lcm(*_groups_of(tree.items))
    for side in SIDES:
        for channels in dict.fromkeys((1, 3, min(in_groups, LARGEST))):
            with suppress(_StopError):
                planned = _Plan(text, None).ended(tree, (channels, side, side))
                return SchemeConfig(text, channels, side, side, planned[-1].shape[0])
    return SchemeConfig(text)  # tells what is wrong


def configure_scheme(text: str, preset: SchemeConfig, changes: Mapping[str, Any]) -> SchemeConfig:
    """The configuration with some values changed; mistakes are shown in the text as it was written. Raises ValueError for others."""
    given = changes.get("scheme", text)
    if isinstance(given, str) and parse(given) != parse(text):
        raise ValueError(f"scheme: the model is {preset.scheme}, and its config says {parse(given)}. Give the scheme as the model alone.")
    return SchemeConfig.of("scheme", {**preset.as_dict(), **changes, "scheme": text if isinstance(given, str) else given})


class _StopError(Exception):
    """Where the walk along a net cannot go on."""

    def __init__(self, place: int, why: str, small: bool = False) -> None:
        super().__init__(why)
        self.place, self.why, self.small = place, why, small


class _Plan:
    """One walk along the net. classes: None where they are not known, so that any end with 2 scores or more will do."""

    def __init__(self, text: str, classes: int | None) -> None:
        self.text, self.classes = text, classes
        self.filters, self.convolved = FILTERS, False
        self.way: list[str] = []

    def whole(self, tree: Scheme, shape: Shape) -> list[Planned]:
        """The layers. Raises ValueError with the place in the text, and where a layer does not fit, with the sizes up to it."""
        try:
            return self.ended(tree, shape)
        except _StopError as stop:
            sizes = f" The sizes up to it: {' -> '.join(_shortened([_by(shape), *self.way]))}."
            cure = self.cure(tree, shape[0]) if stop.small else ""
            raise wrong(self.text, stop.place, f"{stop.why}{sizes}{cure}") from None

    def ended(self, tree: Scheme, shape: Shape) -> list[Planned]:
        """The layers, which end in class scores. Raises ValueError where they do not, and _StopError where one does not fit."""
        nodes = list(_in_a_row(tree.items))
        end = self.end_of(nodes)
        planned = self.row(nodes, shape, True)
        scores = planned[-1].shape[0]
        if self.classes not in (None, scores):
            cure = "Leave its number out" if end.word == "fc" else f"End with an fc, or give the last conv {self.classes} filters"
            raise wrong(self.text, end.place, f"expected {self.classes} class scores at the end, and {end} gives {scores:,}. {cure}.")
        if scores < 2:
            raise wrong(self.text, end.place, f"expected at least 2 class scores at the end, and {end} gives {scores}.")
        return planned

    def end_of(self, nodes: Sequence[Item]) -> Layer:
        """The last layer. Raises ValueError for one that gives no class scores."""
        if not nodes:
            raise wrong(self.text, 0, "no layer is left: everything is repeated 0 times.")
        end = nodes[-1]
        if isinstance(end, Layer) and end.word in ENDS:
            return end
        why = f"expected class scores at the end, and the last layer is {end if isinstance(end, Layer) else 'a residual group'}."
        cure = "Add an fc: it has as many outputs as there are classes."
        if any(isinstance(node, Layer) and node.word == "fc" for node in nodes):
            cure = "End with an fc: what stands behind it would change the scores."
        raise wrong(self.text, len(self.text.rstrip()), f"{why} {cure}")

    def row(self, nodes: Sequence[Item], shape: Shape, outermost: bool = False) -> list[Planned]:
        """The nodes one after the other, from this shape on."""
        planned: list[Planned] = []
        names: Counter[str] = Counter()

        def add(kind: str, made: Step) -> None:
            names[kind] += 1
            parted = "_" if kind[-1].isdecimal() else ""  # the sixth relu is no relu6
            planned.append(Planned(kind if kind in ONCE else f"{kind}{parted}{names[kind]}", made.shape, made.make))

        for node, after in zip(nodes, (*nodes[1:], None), strict=True):
            if isinstance(node, Group):
                add("block", self.residual(node, shape))
            else:
                if node.word == "fc" and len(shape) == 3:
                    add("flatten", flatten(shape))
                    shape = planned[-1].shape
                at_end = outermost and after is None
                features = (self.classes or CLASSES) if at_end else FEATURES
                normed = isinstance(after, Layer) and after.word == "bn"
                add(node.word, self.layer(node, Site(shape, self.filters, features, normed)))
            shape = planned[-1].shape
        return planned

    def layer(self, node: Layer, site: Site) -> Step:
        try:
            made = step(node, site)
        except MisfitError as error:
            raise _StopError(node.place, str(error), error.small) from None
        if made.shape != site.shape:
            self.way.append(f"{node} {_by(made.shape)}")
        if node.word == "conv":
            self.filters, self.convolved = made.shape[0], True
        elif node.word == "dw":
            self.filters *= made.shape[0] // site.shape[0]
        elif node.word in POOLS and self.convolved:
            self.filters *= 2
        return made

    def residual(self, group: Group, shape: Shape) -> Step:
        nodes = list(_in_a_row(group.items))
        if not nodes:
            raise _StopError(group.place, "no layer is left in this residual group: everything is repeated 0 times.")
        body = self.row(nodes, shape)
        shortcut = nn.Identity if body[-1].shape == shape else self.projection(group, nodes, shape, body[-1].shape)
        return Step(body[-1].shape, lambda: Residual(nn.Sequential(_layers(body)), shortcut()))

    def projection(self, group: Group, nodes: Sequence[Item], shape: Shape, goal: Shape) -> Callable[[], nn.Module]:
        """What brings the input of a residual group to the shape of its output."""

        def refuse(why: str) -> NoReturn:
            raise _StopError(group.place, f"a residual group adds its input, {_by(shape)}, to its output, {_by(goal)}: {why}")

        norm = next((node for node in nodes if isinstance(node, Layer) and node.word in NORMS and node.word != "lrn"), None)
        if len(shape) != len(goal):
            refuse("maps cannot become features in it. Put gap, spp, flatten or fc behind the group.")
        if len(shape) == 1:
            linear = Layer("fc", goal)
        else:
            strides = tuple(ceil(length / count) for length, count in zip(shape[1:], goal[1:], strict=True))
            if any((length - 1) // s + 1 != count for length, s, count in zip(shape[1:], strides, goal[1:], strict=True)):
                refuse("no stride of a 1x1 convolution leads from one map to the other. Keep the size by padding, or halve it by s2.")
            linear = Layer.of("conv", goal[:1], {"k": (1, 1), "s": strides})
        try:
            made = {linear.word: step(linear, Site(shape, FILTERS, FEATURES, norm is not None and norm.word == "bn")).make}
            if norm is not None:
                made[norm.word] = NORMS[norm.word](norm, goal)
        except MisfitError as error:
            refuse(f"in the convolution between them, {error}")
        return lambda: nn.Sequential(OrderedDict((name, make()) for name, make in made.items()))

    def cure(self, tree: Scheme, channels: int) -> str:
        """The smallest picture that the net takes, in words; "" where there is none of a size that could be meant."""

        nodes = list(_in_a_row(tree.items))

        def stopped(side: int) -> _StopError | None:
            try:
                _Plan(self.text, self.classes).row(nodes, (channels, side, side), True)
            except _StopError as stop:
                return stop
            return None

        def too_small(side: int) -> bool:
            stop = stopped(side)
            return stop is not None and stop.small

        small, large = 0, LARGEST_SIDE
        hopeless = too_small(large)
        while large - small > 1 and not hopeless:
            middle = (small + large) // 2
            small, large = (middle, large) if too_small(middle) else (small, middle)
        if hopeless or stopped(large) is not None:
            return " Take fewer poolings and strides, or more padding."
        return f" It works for pictures from {large}x{large}: take a larger --image-size, fewer poolings and strides, or more padding."


def _layers(planned: Sequence[Planned]) -> OrderedDict[str, nn.Module]:
    return OrderedDict((layer.name, layer.make()) for layer in planned)


def _in_a_row(items: Sequence[Item]) -> Iterator[Item]:
    """The items without brackets; residual groups stay whole."""
    for item in items:
        if isinstance(item, Group) and not item.residual:
            inside: list[Item] = list(_in_a_row(item.items))
            if inside:  # nothing, many times, would take long
                for _ in range(item.times):
                    yield from inside
        else:
            yield from [item if item.times == 1 else replace(item, times=1)] * item.times


def _groups_of(items: Sequence[Item]) -> Iterator[int]:
    """The groups of every convolution."""
    for item in items:
        if isinstance(item, Group):
            yield from _groups_of(item.items)
        elif item.word == "conv":
            groups = item.settings["g"]
            assert isinstance(groups, tuple)
            yield groups[0]


def _shortened(way: Sequence[str]) -> Sequence[str]:
    return way if len(way) <= SHOWN else (*way[:3], "...", *way[4 - SHOWN :])


def _by(shape: Shape) -> str:
    return "x".join(map(str, shape))
