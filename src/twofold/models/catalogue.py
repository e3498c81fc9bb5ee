"""The architectures by name: a plain dict, and `build`. A scheme (scheme.py) is a name, too.

>>> [name for name in MODELS if name.startswith("resnet")]
['resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152', 'resnet18-cifar']
>>> model = build("lenet5", classes=4)
>>> model.config.classes
4
"""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NamedTuple

from torch import nn

from twofold.models import (
    airbench,
    alexnet,
    cifar_resnet,
    densenet,
    googlenet,
    language,
    lenet,
    lenet_1998,
    mobilenet,
    mobilenet_v2,
    preact_resnet,
    resnet,
    signal_cnn,
    squeezenet,
    symmetric_resnet,
    vgg,
    vgg_small,
    zfnet,
)
from twofold.models.config import Config
from twofold.models.memory import refuse_beyond_memory
from twofold.models.scheme import looks_like
from twofold.models.scheme_net import SchemeConfig, build_scheme, configure_scheme, made_for


class Model(NamedTuple):
    """One named preset of an architecture."""

    task: str  # "classify", "signal" or "language"
    preset: Config
    build: Callable[[Any], nn.Module]
    line: str  # one sentence for the list


def _of(module: Any, task: str = "classify", **lines: str) -> dict[str, Model]:
    """The presets of a file: their names, with _ for -, and a sentence for each."""
    names = {name.replace("_", "-"): line for name, line in lines.items()}
    assert names.keys() == module.PRESETS.keys(), f"{module.__name__}: {names.keys() ^ module.PRESETS.keys()}"
    return {name: Model(task, module.PRESETS[name], module.build, line) for name, line in names.items()}


MODELS: dict[str, Model] = {
    **_of(lenet, lenet5="LeNet-5 (1998) in its modern form, for pictures from 12x12"),
    **_of(lenet_1998, lenet5_1998="LeNet-5 as published (1998): trainable subsampling, table of connections, distances to codes"),
    **_of(
        alexnet,
        alexnet="AlexNet (2012) in one column, as torchvision has it, for pictures from 63x63",
        alexnet_2012="AlexNet as published: two columns and response normalisation, for pictures from 67x67",
    ),
    **_of(zfnet, zfnet="ZFNet (2013): AlexNet with a finer first layer, for pictures from 47x47"),
    **_of(
        vgg,
        vgg11="VGG-11 (2014): stages of 3x3 convolutions and three linear layers, for pictures from 32x32",
        vgg13="VGG-13, for pictures from 32x32",
        vgg16="VGG-16, for pictures from 32x32",
        vgg16_c="VGG-16 with 1x1 convolutions, configuration C, for pictures from 32x32",
        vgg19="VGG-19, for pictures from 32x32",
        vgg11_bn="VGG-11 with batch norm, for pictures from 32x32",
        vgg13_bn="VGG-13 with batch norm, for pictures from 32x32",
        vgg16_bn="VGG-16 with batch norm, for pictures from 32x32",
        vgg19_bn="VGG-19 with batch norm, for pictures from 32x32",
    ),
    **_of(
        vgg_small,
        vgg_mini="four 3x3 convolutions with batch norm, for 8x8 to 32x32",
        vgg_small="seven 3x3 convolutions with batch norm, for 32x32 to 96x96",
    ),
    **_of(
        resnet,
        resnet18="residual net (2016) of 18 layers, for photographs",
        resnet34="residual net of 34 layers",
        resnet50="residual net of 50 layers, in bottlenecks",
        resnet101="residual net of 101 layers, in bottlenecks",
        resnet152="residual net of 152 layers, in bottlenecks",
        wide_resnet50_2="ResNet-50 with twice as many filters inside its bottlenecks",
        resnet18_cifar="ResNet-18 with a 3x3 stem and no pool, for 32x32",
    ),
    **_of(
        cifar_resnet,
        cifar_resnet20="residual net (2016) of 20 layers for 32x32, 0.27 million weights",
        cifar_resnet32="residual net of 32 layers for 32x32",
        cifar_resnet44="residual net of 44 layers for 32x32",
        cifar_resnet56="residual net of 56 layers for 32x32",
        cifar_resnet110="residual net of 110 layers for 32x32",
    ),
    **_of(
        preact_resnet,
        cifar_preresnet20="residual net (2016) whose blocks normalise first, 20 layers for 32x32",
        cifar_preresnet56="the same with 56 layers",
        cifar_preresnet110="the same with 110 layers",
        cifar_preresnet164="the same with 164 layers, in bottlenecks",
        wrn_16_4="wide residual net (2016) of 16 layers, 4 times as wide, for 32x32",
        wrn_28_10="wide residual net of 28 layers, 10 times as wide, 36 million weights",
    ),
    **_of(symmetric_resnet, p4_resnet="residual net of group convolutions (2016): a turned picture gets the same logits"),
    **_of(airbench, airbench="the net of the CIFAR-10 speed runs (2024): whitening, three blocks, for 9x9 to 64x64"),
    **_of(
        googlenet,
        googlenet="GoogLeNet (2014), Inception v1 with batch norm and auxiliary heads, for pictures from 15x15",
        googlenet_2014="GoogLeNet as its paper has it: 5x5 windows, response normalisation, for pictures from 15x15",
    ),
    **_of(
        squeezenet,
        squeezenet1_0="SqueezeNet 1.0 (2016): fire modules, 1.2 million weights, for pictures from 21x21",
        squeezenet1_1="SqueezeNet 1.1: the same accuracy for less than half the work, for pictures from 17x17",
    ),
    **_of(
        densenet,
        densenet121="DenseNet-121 (2017): every layer sees all before it, for pictures from 29x29",
        densenet169="DenseNet-169, for pictures from 29x29",
        densenet201="DenseNet-201, for pictures from 29x29",
        densenet161="DenseNet-161, the wide one, for pictures from 29x29",
    ),
    **_of(signal_cnn, "signal", signal_cnn="three convolutions over time (2017), for signals of any length"),
    **_of(mobilenet, mobilenet_v1="MobileNet (2017): depthwise separable convolutions, for pictures of any size"),
    **_of(mobilenet_v2, mobilenet_v2="MobileNetV2 (2018): inverted residuals, for pictures of any size"),
    **_of(
        language,
        "language",
        char_lstm="one LSTM layer over characters, tied output",
        word_lstm="two LSTM layers over words, tied output",
    ),
}


def find(name: str) -> Model:
    """The preset of that name, or what a scheme says. Raises ValueError with the nearest names, or the place in the scheme."""
    if name in MODELS:
        return MODELS[name]
    if looks_like(name):
        return Model("classify", made_for(name), build_scheme, "a scheme")
    near = get_close_matches(name.lower(), MODELS, 1, cutoff=0.4)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    raise ValueError(f"no model {name!r}: {hint}There are {', '.join(MODELS)} (twofold models).")


def configure(name: str, **changes: Any) -> Config:
    """The preset's configuration with some values changed. Raises ValueError for names and values that it cannot have.

    >>> configure("vgg11", height=31, classes=2)
    Traceback (most recent call last):
    ValueError: vgg11: expected pictures of at least 32x32, got 31x224: its maps would shrink to nothing. Take a larger --image-size, or a
    net for small pictures (twofold models).
    """
    preset = find(name).preset
    if isinstance(preset, SchemeConfig):
        return configure_scheme(name, preset, changes)
    try:
        return type(preset).of(name, {**preset.as_dict(), **changes})
    except ValueError as error:  # which says "vgg: expected ..." of every preset of that file
        family, _, what = str(error).partition(": ")
        raise ValueError(f"{name}: {what or family}") from None


def canonical(name: str) -> str:
    """The name as model.json has it: that of a preset as it is, a scheme in its canonical text."""
    preset = find(name).preset
    return preset.scheme if isinstance(preset, SchemeConfig) else name


def build(name: str, **changes: Any) -> nn.Module:
    """A new network: the preset `name` with the changed values; torch's random generator decides the initial weights.

    Raises ValueError for what the configuration cannot have, and for more weights than this machine can hold.
    """
    found, config = find(name), configure(name, **changes)
    refuse_beyond_memory(name, lambda: found.build(config))
    return found.build(config)
