"""Dialects: the names that others gave to the weights of these architectures, as rules that make ours of them.

    torchvision    ours: our modules have the names of its modules (resnet, vgg, alexnet, googlenet, squeezenet, densenet, mobilenet-v2)
                   before 2019: densenet's norm.1, conv.2                  norm1, conv2
    timm           resnet, densenet and mobilenetv1 as here
                   vgg: its linear layers are convolutions                 pre_logits.fc1, fc2 and head.fc are classifier.0, 3 and 6
                   mobilenetv2: blocks in stages                           features in a row
    shortcut       blocks' shortcut.0 and .1, linear at the end            downsample.0 and .1, fc         and the other way round

A rule changes a name, or a name and a shape; it never changes a number. Which dialect a file speaks is not asked: each is tried, and the
one that leaves the least over is taken. A batch norm's count of batches, which old files lack, may be missing.

torchvision, models/*.py; timm, models/vgg.py, models/_efficientnet_builder.py; the shortcuts: K. Liu's pytorch-cifar and Y. Idelbayev's
pytorch_resnet_cifar10, and the same nets in torchvision's form
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

State = Mapping[str, Tensor]
COUNTS = "num_batches_tracked"


class Dialect(NamedTuple):
    """A way to name weights: what people call it, and what makes a state of our names of one of its names."""

    name: str
    translate: Callable[[State], dict[str, Tensor]]


class Fit(NamedTuple):
    """How a state fits a model: in our names, and which names are missing, left over, or of another shape."""

    dialect: str
    state: dict[str, Tensor]
    missing: tuple[str, ...]
    over: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def faults(self) -> int:
        return len(self.missing) + len(self.over) + len(self.misshapen)


def fit(wanted: State, given: State) -> Fit:
    """The given weights in the dialect that suits the wanted names and shapes best."""
    return min((_fit(dialect, wanted, given) for dialect in DIALECTS), key=lambda found: found.faults)  # of equals the first


def _fit(dialect: Dialect, wanted: State, given: State) -> Fit:
    state = dialect.translate(given)
    missing = tuple(name for name in wanted if name not in state and not name.endswith(COUNTS))
    over = tuple(name for name in state if name not in wanted and not name.endswith(COUNTS))
    misshapen = tuple(name for name, value in wanted.items() if name in state and state[name].shape != value.shape)
    return Fit(dialect.name, state, missing, over, misshapen)


def _rules(*rules: tuple[str, str]) -> Callable[[State], dict[str, Tensor]]:
    """The first rule that fits a name from its beginning on, or none: (pattern, replacement)."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def renamed(name: str) -> str:
        for pattern, replacement in compiled:
            if pattern.match(name):
                return pattern.sub(replacement, name, count=1)
        return name

    return lambda state: {renamed(name): value for name, value in state.items()}


def _timm_vgg(state: State) -> dict[str, Tensor]:
    """Its two convolutions over the last maps are the linear layers over the flattened maps, in the same order of values."""
    named = _VGG_NAMES(state)
    linear = [name for name in named if name.startswith("classifier.") and named[name].dim() == 4]
    return {**named, **{name: named[name].flatten(1) for name in linear}}


_VGG_NAMES = _rules((r"pre_logits\.fc1\.", "classifier.0."), (r"pre_logits\.fc2\.", "classifier.3."), (r"head\.fc\.", "classifier.6."))


def _timm_mobilenet_v2(state: State) -> dict[str, Tensor]:
    """blocks.STAGE.BLOCK.LAYER -> features.NUMBER.conv.PLACE: the blocks are counted through."""
    blocks = sorted({(int(found[1]), int(found[2])) for name in state if (found := _BLOCK.match(name))})
    number = {block: place for place, block in enumerate(blocks, 1)}
    outer = {"conv_stem": "features.0.0", "bn1": "features.0.1", "classifier": "classifier.1"}
    outer |= {"conv_head": f"features.{len(blocks) + 1}.0", "bn2": f"features.{len(blocks) + 1}.1"}

    def renamed(name: str) -> str:
        found = _BLOCK.match(name)
        if found is None:
            first, dot, rest = name.partition(".")
            return f"{outer.get(first, first)}{dot}{rest}"
        block = (int(found[1]), int(found[2]))
        expands = f"blocks.{block[0]}.{block[1]}.conv_pwl.weight" in state  # the first block does not
        places = _EXPANDING if expands else _PLAIN
        return f"features.{number[block]}.conv.{places.get(found[3], found[3])}.{found[4]}"

    return {renamed(name): value for name, value in state.items()}


_BLOCK = re.compile(r"blocks\.(\d{1,3})\.(\d{1,3})\.(\w+)\.(\w+)$")
_EXPANDING = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"}
_PLAIN = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}

_ENDS = r"(weight|bias|running_mean|running_var|num_batches_tracked)$"
DIALECTS = (
    Dialect("the model's own", dict),
    Dialect("torchvision's of before 2019", _rules((r"(.*denselayer\d+\.(?:norm|conv))\.([12]\." + _ENDS[:-1] + ")", r"\1\2"))),
    Dialect("timm's", _timm_vgg),
    Dialect("timm's", _timm_mobilenet_v2),
    Dialect("shortcut and linear", _rules((r"(layer\d+\.\d+)\.shortcut\.", r"\1.downsample."), (r"linear\.", "fc."))),
    Dialect("downsample and fc", _rules((r"(layer\d+\.\d+)\.downsample\.", r"\1.shortcut."), (r"fc\.", "linear."))),
)
