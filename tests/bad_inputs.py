"""Bad input, one case a line: what is done, whose message must answer, and the words that it must hold. test_bad_input.py asks them.

Run as a program it reads names of cases and writes, a line of JSON each, first that a case begins and then what came of it.
"""

import json
import resource
import sys
from pathlib import Path

import numpy as np
import torch

from twofold import nn
from twofold.space import filters
from twofold.space.connection import full, one_to_one
from twofold.space.connection import random as random_table
from twofold.space.matched import matched_filter
from twofold.space.resize import resize
from twofold.time.convert import from_keras, from_onnx, to_keras, to_onnx
from twofold.time.recurrent import gradient_norms
from twofold.time.truncated import TBPTT, windows
from twofold.time.unrolled import Recurrent

CASES = {}
SPACE = 4 << 30  # bytes of address space for a child, besides what the libraries take


def case(name, call, *words):
    """The message must begin with the first word, the layer's name."""
    assert name not in CASES, name
    CASES[name] = (call, words)


def maps(axes, channels=4, size=6, batch=2, **kind):
    """Zeros (B, C, H ...)"""
    return torch.zeros((batch, channels, *(size,) * axes), **kind)


def vast(*shape):
    """As many numbers as the shape says, in the room of one."""
    return torch.zeros(()).expand(shape)


def settings(who, build, **wrong):
    """A case for each setting, built with all others as usual: name=(value, words ...)."""
    for name, (value, *words) in wrong.items():
        setting = name.rstrip("_")
        case(f"{who} {name}={value!r}", lambda setting=setting, value=value: build(**{setting: value}), who, setting, *words)


def inputs(who, layer, axes, **others):
    """What no layer takes that computes with numbers: the layer is made by layer(), its input has 4 channels."""
    numbers = {
        "numpy array": (lambda: np.zeros((2, 4, 6), np.float32), "torch tensor", "numpy.ndarray", "torch.as_tensor"),
        "list": (lambda: [[1.0, 2.0]], "torch tensor", "got list"),
        "nothing": (lambda: None, "torch tensor", "NoneType"),
        "bytes": (lambda: maps(axes, dtype=torch.uint8), "floating point", "uint8", "/ 255"),
        "whole numbers": (lambda: maps(axes, dtype=torch.int64), "floating point", "int64", "x.float()"),
        "complex numbers": (lambda: maps(axes, dtype=torch.complex64), "floating point", "complex64"),
        "truth values": (lambda: maps(axes, dtype=torch.bool), "bool", "x.float()"),
        "one number": (lambda: torch.zeros(()), "expected", "got ()"),
    }
    for name, found in {**numbers, **others}.items():
        if found is not None:
            x, *words = found
            case(f"{who} on {name}", lambda x=x: layer()(x()), f"{who} input", *words)


def weighted(axes):
    """What layers with weights refuse besides."""
    return {
        "float64": (lambda: maps(axes, dtype=torch.float64), "float32", "float64", "x.to(torch.float32)"),
        "bfloat16": (lambda: maps(axes, dtype=torch.bfloat16), "float32", "bfloat16"),
        "another device": (lambda: maps(axes, device="meta"), "device cpu", "meta", ".to(device)"),
    }


for n in (1, 2, 3):
    who, made = f"Conv{n}d", getattr(nn, f"Conv{n}d")
    usual = {"in_channels": 4, "out_channels": 6, "kernel_size": 3}
    build = lambda made=made, usual=usual, **changed: made(**{**usual, **changed})  # noqa: E731
    settings(
        who,
        build,
        kernel_size=(0, "from 1", "got 0"),
        kernel_size_=(2.5, "whole number", "2.5"),
        kernel_size__=((3,) * (n + 1), "whole number"),
        stride=(0, "from 1", "got 0"),
        padding=(-1, "from 0", "got -1"),
        padding_=("sane", '"same"', "'sane'"),
        dilation=(2**62, "2147483647", str(2**62)),
        groups=(0, "at least 1"),
        in_channels=(0, "at least 1", "got 0"),
        out_channels=(0, "at least 1", "got 0"),
    )
    case(f"{who} groups that do not divide", lambda b=build: b(groups=3), who, "in_channels", "multiple of groups=3", "got 4")
    case(f"{who} too many weights", lambda m=made: m(2**20, 2**20, 3), who, "weights", "2147483647")
    inputs(
        who,
        build,
        n,
        **weighted(n),
        **{
            "one image": (lambda n=n: maps(n)[0], "C=4", f"{n + 1} axes, not {n + 2}", "x.unsqueeze(0)"),
            "another number of channels": (lambda n=n: maps(n, 5), "C=4", "C is 5, not 4"),
            "maps smaller than the kernel": (lambda n=n: maps(n, size=2), "does not fit", "padding 0+0"),
            "maps that are empty": (lambda n=n: maps(n, size=0), "maps of at least 1"),
            "more outputs than can be counted": (lambda n=n: vast(2**20, 4, *(2 ** (12 // n),) * n), "outputs", "2147483647"),
        },
    )
    case(
        f"{who} mirrors further than the map", lambda b=build, n=n: b(padding=6, padding_mode="reflect")(maps(n)), who, "reflect", "least 7"
    )

    who, made = f"ConvTranspose{n}d", getattr(nn, f"ConvTranspose{n}d")
    build = lambda made=made, usual=usual, **changed: made(**{**usual, **changed})  # noqa: E731
    settings(
        who,
        build,
        kernel_size=(0, "from 1", "got 0"),
        kernel_size_=(2.5, "whole number", "2.5"),
        stride=(-1, "from 1", "got -1"),
        padding=(-1, "from 0", "got -1"),
        output_padding=(1, "below the stride"),
        dilation=(2**62, "2147483647"),
        groups=(4, "multiple of groups=4"),
        out_channels=(0, "at least 1", "got 0"),
    )
    case(f"{who} too many weights", lambda m=made: m(2**20, 2**20, 3), who, "weights", "2147483647")
    inputs(
        who,
        build,
        n,
        **weighted(n),
        **{
            "one image": (lambda n=n: maps(n)[0], "C=4", "x.unsqueeze(0)"),
            "another number of channels": (lambda n=n: maps(n, 5), "C=4", "C is 5, not 4"),
            "maps that are empty": (lambda n=n: maps(n, size=0), "maps of at least 1"),
            "more outputs than can be counted": (lambda n=n: vast(2**20, 4, *(2 ** (12 // n),) * n), "outputs", "2147483647"),
        },
    )
    case(f"{who} all cut away", lambda b=build, n=n: b(padding=9)(maps(n)), who, "cuts away all")
    case(f"{who} of no such size", lambda b=build, n=n: b(stride=2)(maps(n), (99,) * n), who, "output_size within", "99")

    for kind, first in (("Max", ()), ("Avg", ()), ("LP", (2,)), ("Gaussian", ()), ("Stochastic", ())):
        who, made = f"{kind}Pool{n}d", getattr(nn, f"{kind}Pool{n}d")
        build = lambda made=made, first=first, **changed: made(*first, **{"kernel_size": 2, **changed})  # noqa: E731
        settings(
            who,
            build,
            kernel_size=(0, "from 1", "got 0"),
            stride=(0, "from 1", "got 0"),
            padding=(2, "at most half the kernel", "got 2"),
            padding_=(-1, "from 0", "got -1"),
            dilation=(2**62, "2147483647"),
        )
        either = {name: None for name in ("bytes", "whole numbers") if kind == "Max"}  # which have an order
        if kind == "Max":
            either["complex numbers"] = (lambda n=n: maps(n, dtype=torch.complex64), "real numbers", "complex64")
        inputs(
            who,
            build,
            n,
            **either,
            **{
                "one row": (lambda n=n: maps(n)[(0,) * min(2, n + 1)] if n > 1 else torch.zeros(5), "expected (B, C"),
                "maps smaller than the window": (lambda n=n: maps(n, size=1), "does not fit"),
                "maps that are empty": (lambda n=n: maps(n, size=0), "maps of at least 1"),
                "no channels": (lambda n=n: maps(n, 0), "at least one channel"),
                "more than can be counted": (lambda n=n: vast(2**20, 4, *(2 ** (12 // n),) * n), "2147483647"),
            },
        )
        case(f"{who} sees padding alone", lambda b=build, n=n: b(padding=1, dilation=40)(maps(n, size=39)), who, "misses all 39")
    case(f"MaxPool{n}d windows beyond 2**31", lambda n=n: getattr(nn, f"MaxPool{n}d")(2**40), f"MaxPool{n}d", "2147483647")

    for kind in ("Avg", "Max"):
        who, made = f"Adaptive{kind}Pool{n}d", getattr(nn, f"Adaptive{kind}Pool{n}d")
        case(f"{who} output_size 0", lambda m=made: m(0), who, "output_size", "from 1", "got 0")
        case(f"{who} output_size 2.5", lambda m=made: m(2.5), who, "output_size", "got 2.5")
        case(f"{who} empty map", lambda m=made, n=n: m(2)(maps(n, size=0)), f"{who} input", "at least one channel and maps")
        case(f"{who} too much", lambda m=made, n=n: m(2**20)(vast(2**10, 4, *(3,) * n)), f"{who} input", "outputs", "2147483647")
        case(f"{who} numpy array", lambda m=made: m(2)(np.zeros((2, 4, 6))), f"{who} input", "numpy.ndarray")
        case(f"{who} wrong rank", lambda m=made, n=n: m(2)(maps(n + 2)), f"{who} input", f"{n + 4} axes")
        case(f"{who} truth values", lambda m=made, n=n: m(2)(maps(n, dtype=torch.bool)), f"{who} input", "bool")

    who, made = f"MaxUnpool{n}d", getattr(nn, f"MaxUnpool{n}d")
    places = lambda n=n, fill=0, size=6: torch.full((2, 4, *(size,) * n), fill)  # noqa: E731
    case(f"{who} kernel_size 0", lambda m=made: m(0), who, "kernel_size", "got 0")
    case(f"{who} place too far", lambda m=made, n=n, p=places: m(2)(maps(n), p(fill=12**n)), f"{who} indices", f"{12**n} at position")
    case(f"{who} place below 0", lambda m=made, n=n, p=places: m(2)(maps(n), p(fill=-1)), f"{who} indices", "got -1")
    case(f"{who} places of floats", lambda m=made, n=n, p=places: m(2)(maps(n), p().float()), f"{who} indices", "int64", "float32")
    case(f"{who} too few places", lambda m=made, n=n, p=places: m(2)(maps(n), p(size=5)), f"{who} indices", "one place for every value")
    case(f"{who} places elsewhere", lambda m=made, n=n, p=places: m(2)(maps(n), p().to("meta")), f"{who} indices", "device cpu", "meta")
    case(f"{who} values of int64", lambda m=made, n=n, p=places: m(2)(maps(n, dtype=torch.int64), p()), f"{who} input", "floating point")
    case(f"{who} no such size", lambda m=made, n=n, p=places: m(2)(maps(n), p(), (99,) * n), who, "output_size within", "99")
    if n > 1:
        case(f"{who} too large", lambda m=made, n=n, p=places: m(2**20)(maps(n), p()), f"{who} output", "2147483647")

    who, made = f"BatchNorm{n}d", getattr(nn, f"BatchNorm{n}d")
    build = lambda made=made: made(4)  # noqa: E731
    case(f"{who} num_features 0", lambda m=made: m(0), who, "num_features", "at least 1", "got 0")
    case(f"{who} eps 0", lambda m=made: m(4, eps=0), who, "eps", "above 0")
    case(f"{who} momentum 2", lambda m=made: m(4, momentum=2), who, "momentum", "from 0 to 1", "got 2")
    case(f"{who} one value", lambda m=made, n=n: m(4)(maps(n, size=1, batch=1)), f"{who} input", "more than one value a channel")
    inputs(
        who,
        build,
        n,
        **{name: found for name, found in weighted(n).items() if name != "bfloat16"},
        **{
            "another number of channels": (lambda n=n: maps(n, 5), "C=4", "C is 5, not 4"),
            "maps of other axes": (lambda n=n: maps(n + 1), "C=4", f"{n + 3} axes"),
        },
    )

Conv, Maps = nn.Conv2d, maps(2)
case("Conv2d grey images as one", lambda: Conv(28, 8, 3)(torch.zeros(28, 28, 28)), "Conv2d input", "3 axes, not 4", "x.unsqueeze(1)")
case("Conv2d grey into colour", lambda: Conv(3, 8, 3)(maps(2, 1)), "Conv2d input", "C is 1, not 3", "in_channels=1")
case("Conv2d transparent into colour", lambda: Conv(3, 8, 3)(maps(2, 4)), "Conv2d input", "C is 4, not 3", "in_channels=4")
case("Conv2d channels last", lambda: Conv(4, 8, 3)(torch.zeros(2, 6, 6, 4)), "Conv2d input", "x.permute(0, 3, 1, 2)")
case("Conv2d kernel True", lambda: Conv(4, 8, True), "Conv2d", "kernel_size", "True")
case("Conv2d kernel in words", lambda: Conv(4, 8, "3"), "Conv2d", "kernel_size", "'3'")
case("Conv2d channels 2.5", lambda: Conv(2.5, 8, 3), "Conv2d", "in_channels", "2.5")
case("Conv2d filters -2", lambda: Conv(4, -2, 3), "Conv2d", "out_channels", "-2")
case("Conv2d padding_mode", lambda: Conv(4, 8, 3, padding_mode="mirror"), "Conv2d", "padding_mode", "reflect", "'mirror'")
case("Conv2d algorithm", lambda: Conv(4, 8, 3, algorithm="direct"), "Conv2d", "algorithm", "columns", "direct")
case("Conv2d dilated beyond the map", lambda: Conv(4, 8, 3, dilation=3)(Maps), "Conv2d input", "3x3 (dilated 7x7)", "does not fit")
case("Conv2d sides that are missing", lambda: Conv(4, 8, 3, padding=(1, 2, 3)), "Conv2d", "padding", "(1, 2, 3)")
case("Conv2d wider than can be counted", lambda: Conv(4, 8, 3, padding=2**30)(Maps), "Conv2d input", "2147483647")
case("DepthwiseConv2d groups", lambda: nn.DepthwiseConv2d(4, 3, groups=2), "DepthwiseConv2d", "groups follow from channels=4")
case("DepthwiseConv2d multiplier 0", lambda: nn.DepthwiseConv2d(4, 3, 0), "DepthwiseConv2d", "multiplier", "got 0")
case("DepthwiseConv2d channels", lambda: nn.DepthwiseConv2d(4, 3)(maps(2, 5)), "DepthwiseConv2d input", "C is 5, not 4")
Down = nn.ConvTranspose2d
case("ConvTranspose2d of what", lambda: Down(8, 4), "ConvTranspose2d", "kernel_size", "match=layer")
case("ConvTranspose2d of a Linear", lambda: Down(8, 4, match=nn.Linear(2, 2)), "ConvTranspose2d", "match", "got Linear")
case("ConvTranspose2d twice", lambda: Down(8, 4, 3, match=Conv(4, 8, 3)), "ConvTranspose2d", "kernel_size follow from match=Conv2d")
case("ConvTranspose2d mirrored", lambda: Down(8, 4, 3, padding_mode="reflect"), "ConvTranspose2d", "padding_mode", "'reflect'")

for power in (0, -1, 0.5, float("nan"), "2"):
    case(f"LPPool2d p={power!r}", lambda power=power: nn.LPPool2d(power, 2), "LPPool2d", "norm_type", "at least 1", repr(power))
case("AvgPool2d divisor 0", lambda: nn.AvgPool2d(2, divisor_override=0), "AvgPool2d", "divisor_override", "got 0")
case("MaxPool2d half a pixel", lambda: nn.MaxPool2d(2.5), "MaxPool2d", "kernel_size", "2.5")
case("MaxPool2d padding in words", lambda: nn.MaxPool2d(2, padding="full"), "MaxPool2d", "padding", '"same"', "'full'")
case("GaussianPool2d sigma 0", lambda: nn.GaussianPool2d(3, sigma=0), "GaussianPool2d", "sigma", "above 0")
case("GaussianPool2d three sigmas", lambda: nn.GaussianPool2d(3, sigma=(1, 2, 3)), "GaussianPool2d", "sigma", "(1, 2, 3)")
case("GlobalAvgPool pooled already", lambda: nn.GlobalAvgPool()(torch.zeros(2, 4)), "GlobalAvgPool input", "2 axes", "pooled already")
case("GlobalAvgPool empty", lambda: nn.GlobalAvgPool()(maps(2, size=0)), "GlobalAvgPool input", "at least one channel and maps")
case("GlobalMaxPool complex", lambda: nn.GlobalMaxPool()(Maps.to(torch.complex64)), "GlobalMaxPool input", "real numbers")
Pyramid = nn.SpatialPyramidPool2d
case("SpatialPyramidPool2d level 0", lambda: Pyramid((1, 0)), "SpatialPyramidPool2d", "levels", "(1, 0)")
case("SpatialPyramidPool2d no levels", lambda: Pyramid(()), "SpatialPyramidPool2d", "levels", "()")
case("SpatialPyramidPool2d kind", lambda: Pyramid((1,), "mean"), "SpatialPyramidPool2d", "kind", "'mean'")
case("SpatialPyramidPool2d too fine", lambda: Pyramid((2**20,))(Maps), "SpatialPyramidPool2d input", "outputs", "Use fewer levels")
case("Maxout pieces 0", lambda: nn.Maxout(0), "Maxout", "pieces", "got 0")
case("Maxout pieces that do not divide", lambda: nn.Maxout(3)(Maps), "Maxout input", "multiple of pieces=3", "4 features")
case("Maxout axis", lambda: nn.Maxout(2, 7)(Maps), "Maxout input", "dim=7", "4 axes")

case("GroupNorm groups that do not divide", lambda: nn.GroupNorm(3, 4), "GroupNorm", "num_groups", "These divide: 1, 2, 4")
case("GroupNorm channels", lambda: nn.GroupNorm(2, 4)(maps(2, 6)), "GroupNorm input", "C is 6, not 4")
case("GroupNorm one value a group", lambda: nn.GroupNorm(4, 4)(maps(2, size=1)), "GroupNorm input", "more than one value a group")
case("GroupNorm device", lambda: nn.GroupNorm(2, 4)(Maps.to("meta")), "GroupNorm input", "device cpu", "meta")
case("LayerNorm one value", lambda: nn.LayerNorm(1), "LayerNorm", "at least two values")
case("LayerNorm axes", lambda: nn.LayerNorm(5)(Maps), "LayerNorm input", "(..., 5)", "last axes differ")
case("LayerNorm whole numbers", lambda: nn.LayerNorm(6)(Maps.long()), "LayerNorm input", "floating point", "int64")
case("LocalResponseNorm size 0", lambda: nn.LocalResponseNorm(0), "LocalResponseNorm", "size", "got 0")
case("LocalResponseNorm alpha", lambda: nn.LocalResponseNorm(3, alpha=-1.0), "LocalResponseNorm", "alpha", "at least 0")
case("LocalResponseNorm rows", lambda: nn.LocalResponseNorm(3)(torch.zeros(2, 4)), "LocalResponseNorm input", "2 axes, not 3")

Up = nn.Upsample
case("Upsample to nothing", lambda: Up(0), "Upsample", "size", "from 1", "got 0")
case("Upsample by what", lambda: Up(), "Upsample", "size or scale_factor", "neither")
case("Upsample by both", lambda: Up(4, 2), "Upsample", "size or scale_factor", "both")
case("Upsample by -1", lambda: Up(scale_factor=-1), "Upsample", "scale_factor", "above 0")
case("Upsample by NaN", lambda: Up(scale_factor=float("nan")), "Upsample", "scale_factor", "nan")
case("Upsample mode", lambda: Up(4, mode="bicubic"), "Upsample", "mode", "'bicubic'", "torch.nn.functional.interpolate")
case("Upsample corners", lambda: Up(4, mode="nearest", align_corners=True), "Upsample", "align_corners")
case("Upsample bytes", lambda: Up(4, mode="bilinear")(Maps.byte()), "Upsample input", "floating point", "uint8")
case("Upsample rank", lambda: Up(4, mode="bilinear")(maps(1)), "Upsample input", "3 axes, not 4")
case("Upsample empty maps", lambda: Up(4)(maps(2, size=0)), "Upsample input", "maps of at least 1x1")
case("Upsample nothing left", lambda: Up(scale_factor=0.1)(Maps), "Upsample", "nothing is left", "0x0")
case("Upsample beyond counting", lambda: Up(2**16)(Maps), "Upsample output", "2147483647")
case("Upsample beyond all numbers", lambda: Up(scale_factor=1e300)(Maps), "Upsample output", "2147483647")
case("resize numpy array", lambda: resize(np.zeros((1, 1, 4, 4)), 2), "resize input", "numpy.ndarray")
case("resize antialias", lambda: resize(Maps, 2, antialias=True), "resize", "antialias")
case("resize coordinates", lambda: resize(Maps, 2, coordinates="corners"), "resize", "coordinates", "half_pixel", "'corners'")

Table = nn.ConnectedConv2d
case("ConnectedConv2d rows", lambda: Table(4, 3, 3, table=[[0], [1]]), "ConnectedConv2d", "3 rows", "list of 2")
case("ConnectedConv2d channel", lambda: Table(4, 2, 3, table=[[0], [4]]), "ConnectedConv2d", "0..3", "got 4 in row 1")
case("ConnectedConv2d empty row", lambda: Table(4, 2, 3, table=[[0], []]), "ConnectedConv2d", "row 1", "empty")
case("ConnectedConv2d twice", lambda: Table(4, 2, 3, table=[[0], [1, 1]]), "ConnectedConv2d", "row 1", "channel 1 twice")
case("ConnectedConv2d turned", lambda: Table(4, 2, 3, table=torch.ones(4, 2).bool()), "ConnectedConv2d", "table.T")
case("ConnectedConv2d floats", lambda: Table(4, 2, 3, table=torch.ones(2, 4)), "ConnectedConv2d", "bool", "float32")
case("ConnectedConv2d groups", lambda: Table(4, 2, 3, groups=2, table=[[0], [1]]), "ConnectedConv2d", "groups are a table")
case("ConnectedConv2d input", lambda: Table(4, 2, 3, table=[[0], [1]])(maps(2, 5)), "ConnectedConv2d input", "C is 5, not 4")
case("full table", lambda: full(0, 2), "full", "in_channels", "got 0")
case("one_to_one table", lambda: one_to_one(-1), "one_to_one", "channels", "got -1")
case("random table", lambda: random_table(3, 2, 4), "random", "each", "at most in_channels=3")

Symmetric, Lifting, Group = nn.SymmetricConv2d, nn.LiftingConv2d, nn.GroupConv2d
case("SymmetricConv2d oblong", lambda: Symmetric(4, 2, (3, 5)), "SymmetricConv2d", "kernel_size", "(3, 5)")
case("SymmetricConv2d even", lambda: Symmetric(4, 2, 4, padding="same"), "SymmetricConv2d", "odd kernel_size", "got 4")
case("SymmetricConv2d scales", lambda: Symmetric(4, 2, 3, scales=(1, 1)), "SymmetricConv2d", "scales", "(1, 1)")
case("SymmetricConv2d even scaled", lambda: Symmetric(4, 2, 4, scales=(1, 2)), "SymmetricConv2d", "odd kernel_size")
case("SymmetricConv2d channels", lambda: Symmetric(4, 2, 3)(maps(2, 1)), "SymmetricConv2d input", "C is 1, not 4", "in_channels=1")
case("SymmetricConv2d small maps", lambda: Symmetric(4, 2, 7)(Maps), "SymmetricConv2d input", "does not fit")
case("SymmetricConv2d filters 0", lambda: Symmetric(4, 0, 3), "SymmetricConv2d", "out_channels", "got 0")
case("SymmetricConv2d too much", lambda: Symmetric(4, 8, 3)(vast(2**20, 4, 64, 64)), "SymmetricConv2d input", "2147483647")
case("LiftingConv2d group", lambda: Lifting(4, 2, 3, group="p6"), "LiftingConv2d", "group", '"p4m"', "'p6'")
case("LiftingConv2d bytes", lambda: Lifting(4, 2, 3)(Maps.byte()), "LiftingConv2d input", "uint8", "/ 255")
case("GroupConv2d pictures", lambda: Group(4, 2, 3)(Maps), "GroupConv2d input", "LiftingConv2d")
case("GroupConv2d another group", lambda: Group(4, 2, 3)(torch.zeros(2, 4, 8, 6, 6)), "GroupConv2d input", "G is 8, not 4", 'group="p4"')
case("GroupConv2d float64", lambda: Group(4, 2, 3)(torch.zeros(2, 4, 4, 6, 6).double()), "GroupConv2d input", "float64")
case("GroupPool2d kind", lambda: nn.GroupPool2d("sum"), "GroupPool2d", "kind", "'sum'")
case("GroupPool2d no forms", lambda: nn.GroupPool2d()(torch.zeros(2, 4, 0, 6, 6)), "GroupPool2d input", "G of at least 1")
case("GroupPool2d maps", lambda: nn.GroupPool2d()(Maps), "GroupPool2d input", "4 axes, not 5")

case("filters size 0", lambda: filters.box(0), "box", "size", "from 1", "got 0")
case("filters sigma", lambda: filters.gaussian(5, -1.0), "gaussian", "sigma", "above 0")
case("filters even identity", lambda: filters.identity(4), "identity", "odd")
case("filters edge", lambda: filters.sobel("verticle"), "sobel", "edge", 'Did you mean "vertical"?')
case("filters neighbours", lambda: filters.laplacian(6), "laplacian", "neighbours", "got 6")
case("filters wavelength", lambda: filters.gabor(21, 0), "gabor", "wavelength", "above 0")
case("filters angle", lambda: filters.gabor(21, 6.0, float("inf")), "gabor", "angle", "finite")
case("filters bank", lambda: filters.gabor_bank(21, ()), "gabor_bank", "wavelengths", "()")
case("filters on one image", lambda: filters.apply(Maps[0], filters.box()), "apply images", "x.unsqueeze(0)")
case("filters mirrored too far", lambda: filters.apply(Maps, filters.box(15)), "apply images", "at least 8 rows", "got 6")
case("filters mode", lambda: filters.apply(Maps, filters.box(), "mirror"), "apply", "mode", "reflect", "'mirror'")
case("filters kernel", lambda: filters.apply(Maps, torch.zeros(3)), "apply kernel", "(rows, columns)", "(3,)")
Signal, Flat = torch.arange(9.0), torch.ones(3)
case("matched_filter swapped", lambda: matched_filter(Signal[:3], Signal), "matched_filter pattern", "Signal and pattern swapped?")
case("matched_filter flat", lambda: matched_filter(Signal, Flat), "matched_filter pattern", "two different values", "1 everywhere")
case("matched_filter NaN", lambda: matched_filter(Signal / 0, Signal[:3]), "matched_filter signal", "finite", "nan at (0,)")
case("matched_filter rank", lambda: matched_filter(Maps, Maps[0, 0]), "matched_filter signal", "x.mean(1)")
case("matched_filter whole numbers", lambda: matched_filter(Signal.long(), Flat), "matched_filter signal", "floating point", "int64")
case("matched_filter empty", lambda: matched_filter(Signal, Signal[:0]), "matched_filter pattern", "It is empty")

for who in ("ELU", "GELU", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "PReLU", "ReLU6", "SiLU", "Sigmoid", "Softplus", "Tanh"):
    case(f"{who} whole numbers", lambda who=who: getattr(nn, who)()(Maps.long()), f"{who} input", "floating point", "int64")
    case(f"{who} numpy array", lambda who=who: getattr(nn, who)()(np.zeros(3)), f"{who} input", "numpy.ndarray")
case("ReLU truth values", lambda: nn.ReLU()(Maps.bool()), "ReLU input", "real numbers", "bool")
case("PReLU channels", lambda: nn.PReLU(3)(Maps), "PReLU input", "C is 4, not 3")
case("PReLU device", lambda: nn.PReLU()(Maps.to("meta")), "PReLU input", "device cpu", "meta")
case("Hardtanh turned", lambda: nn.Hardtanh(1.0, -1.0), "Hardtanh", "min_val below max_val")
case("Softplus beta 0", lambda: nn.Softplus(0), "Softplus", "beta", "above 0")
case("ELU alpha", lambda: nn.ELU(float("nan")), "ELU", "alpha", "finite")
case("GELU form", lambda: nn.GELU("sigmoid"), "GELU", "approximate", "'sigmoid'")
case("Softmax without axis", lambda: nn.Softmax(), "Softmax", "dim", "dim=1")
case("Softmax axis", lambda: nn.Softmax(4)(Maps), "Softmax input", "dim=4", "-4..3")
case("LogSoftmax whole numbers", lambda: nn.LogSoftmax(1)(Maps.long()), "LogSoftmax input", "floating point")
case("Dropout per cent", lambda: nn.Dropout(50), "Dropout", "from 0 to 1", "got 50", "Per cent?")
case("Dropout whole numbers", lambda: nn.Dropout()(Maps.long()), "Dropout input", "floating point")
case("Linear features", lambda: nn.Linear(4, 2)(Maps), "Linear input", "D=4", "x.flatten(1)")
case("Linear 0", lambda: nn.Linear(0, 2), "Linear", "in_features", "got 0")
case("Linear device", lambda: nn.Linear(6, 2)(Maps.to("meta")), "Linear input", "device cpu", "meta")
case("Embedding outside", lambda: nn.Embedding(7, 3)(torch.tensor([[1, 7]])), "Embedding input", "0..6", "7 at position (0, 1)")
case("Embedding floats", lambda: nn.Embedding(7, 3)(torch.ones(2)), "Embedding input", "float32", "x.long()")
case("CrossEntropyLoss class", lambda: nn.CrossEntropyLoss()(torch.zeros(1, 3), torch.tensor([3])), "CrossEntropyLoss target", "0..2", "3")
case("CrossEntropyLoss rows", lambda: nn.CrossEntropyLoss()(torch.zeros(2, 3), torch.zeros(3).long()), "CrossEntropyLoss target", "(2,)")
Steps, Row = torch.zeros(5, 2, 3), torch.zeros(1, 2, 4)
for who in ("RNN", "GRU", "LSTM"):
    made, pair = getattr(nn, who), who == "LSTM"
    build = lambda made=made, **changed: made(**{"input_size": 3, "hidden_size": 4, **changed})  # noqa: E731
    settings(
        who,
        build,
        input_size=(0, "at least 1", "got 0"),
        hidden_size=(0, "at least 1", "got 0"),
        hidden_size_=(-4, "at least 1", "got -4"),
        hidden_size__=(2.5, "whole number", "2.5"),
        num_layers=(0, "at least 1", "got 0"),
        bias=(0.5, "True or False", "0.5"),
        dropout=(1.5, "from 0 to 1", "1.5"),
        dropout_=(float("nan"), "from 0 to 1", "nan"),
        zoneout=(1.5, "from 0 to 1", "1.5"),
        zoneout_=(-0.1, "from 0 to 1", "-0.1"),
        zoneout__=((0.1, 0.2, 0.3), "(0.1, 0.2, 0.3)"),
        recurrent_dropout=(2, "from 0 to 1", "got 2"),
        weight_dropout=(-1, "from 0 to 1", "got -1"),
        weight_dropout_=("much", "'much'"),
        hidden_init=("diagonal", "orthogonal", "'diagonal'"),
        layer_norm=("yes", "True or False", "'yes'"),
        learn_state=(1.5, "True or False", "1.5"),
    )
    for name in ("input_size", "hidden_size", "num_layers"):
        case(f"{who} {name} 2**40", lambda b=build, name=name: b(**{name: 2**40}), who, "at most 2147483647", "weights")
    one = (lambda *shape, **kind: (torch.zeros(*shape, **kind),) * 2) if pair else torch.zeros
    inputs(
        who,
        build,
        1,
        **{
            "one number": (lambda: torch.zeros(()), "(T, B, D=3)", "got ()"),
            "float64": (lambda: Steps.double(), "float32", "float64", "x.to(torch.float32)"),
            "bfloat16": (lambda: Steps.bfloat16(), "float32", "bfloat16"),
            "another device": (lambda: Steps.to("meta"), "device cpu", "meta", ".to(device)"),
            "token numbers": (lambda: Steps.long(), "floating point", "int64", "Embedding"),
            "token numbers of two axes": (lambda: Steps[..., 0].long(), "floating point", "int64", "Embedding"),
            "a vector": (lambda: torch.zeros(3), "1 axes, not 3"),
            "pictures": (lambda: torch.zeros(5, 2, 3, 3), "4 axes, not 3", "x.flatten(2)"),
            "another number of features": (lambda: torch.zeros(5, 2, 7), "D=3", "D is 7, not 3"),
            "features before steps": (lambda: Steps.mT, "D=3", "x.transpose(1, 2)"),
            "no features": (lambda: torch.zeros(5, 2, 0), "D is 0, not 3"),
            "more steps than can be counted": (lambda: vast(2**30, 2, 3), "outputs", "2147483647"),
        },
    )
    for name, (lengths, *words) in {
        "beyond the steps": ((5, 6), "T=5", "got 6"),
        "below 0": ((5, -1), "-1"),
        "of floats": (torch.tensor([5.0, 2.0]), "whole numbers", "float32"),
        "of floats in a list": ([5.0, 2.0], "whole numbers", "5.0"),
        "of truth values": (torch.tensor([True, False]), "whole numbers", "bool"),
        "for another batch": ((5, 2, 1), "B=2", "3"),
        "for no rows": ((), "B=2"),
        "of two axes": (torch.tensor([[5, 2]]), "B=2", "(1, 2)"),
        "as one number": (5, "B=2"),
        "as words": ("52", "'52'"),
        "as a mask": (torch.ones(5, 2, dtype=torch.bool), "B=2"),
        "elsewhere": (torch.tensor([5, 2], device="meta"), "meta"),
        "beyond all counting": ((5, 2**62), "T=5", str(2**62)),
    }.items():
        case(f"{who} lengths {name}", lambda b=build, lengths=lengths: b()(Steps, lengths=lengths), who, "lengths", *words)
    packed = torch.nn.utils.rnn.pack_padded_sequence(Steps, [5, 2])
    case(f"{who} lengths of packed steps", lambda b=build, packed=packed: b()(packed, lengths=(5, 2)), who, "lengths", "PackedSequence")
    case(f"{who} lengths of one row", lambda b=build: b()(Steps[:, 0], lengths=(5, 2)), who, "lengths")
    first = " h" if pair else ""
    for name, (state, *words) in {
        "of another batch": (lambda one=one: one(1, 3, 4), "B=2", "B is 3, not 2"),
        "of other units": (lambda one=one: one(1, 2, 5), "U=4", "U is 5, not 4"),
        "of other layers": (lambda one=one: one(2, 2, 4), "L=1", "L is 2, not 1"),
        "without its layers": (lambda one=one: one(2, 4), "2 axes, not 3"),
        "of float64": (lambda one=one: one(1, 2, 4, dtype=torch.float64), "float32", "float64"),
        "of whole numbers": (lambda one=one: one(1, 2, 4, dtype=torch.int64), "int64"),
        "elsewhere": (lambda one=one: one(1, 2, 4, device="meta"), "device cpu", "meta"),
    }.items():
        case(f"{who} state {name}", lambda b=build, state=state: b()(Steps, state()), f"{who} state{first}", *words)
    case(f"{who} state as a list of numbers", lambda b=build: b()(Steps, [1.0, 2.0]), f"{who} state", "tensor", "float" if pair else "list")
    case(f"{who} state as numpy array", lambda b=build: b()(Steps, np.zeros((1, 2, 4))), f"{who} state", "numpy" if not pair else "array")
    case(f"{who} batch first", lambda b=build, one=one: b()(Steps.transpose(0, 1), one(1, 2, 4)), f"{who} state{first}", "batch_first=True")

    cell, one_row = getattr(nn, f"{who}Cell"), (torch.zeros(2, 4),) * 2 if pair else torch.zeros(2, 4)
    build = lambda cell=cell, **changed: cell(**{"input_size": 3, "hidden_size": 4, **changed})  # noqa: E731
    settings(
        f"{who}Cell",
        build,
        hidden_size=(0, "at least 1", "got 0"),
        input_size=(2.5, "whole number", "2.5"),
        bias=(2, "True or False", "got 2"),
        layer_norm=("yes", "True or False", "'yes'"),
    )
    case(f"{who}Cell hidden_size 2**40", lambda b=build: b(hidden_size=2**40), f"{who}Cell", "at most 2147483647 weights")
    case(f"{who}Cell sequence", lambda b=build: b()(Steps), f"{who}Cell input", "loop over x[t]")
    case(f"{who}Cell features", lambda b=build: b()(torch.zeros(2, 5)), f"{who}Cell input", "D is 5, not 3")
    case(f"{who}Cell tokens", lambda b=build: b()(torch.zeros(2, 3).long()), f"{who}Cell input", "int64", "Embedding")
    case(f"{who}Cell float64", lambda b=build: b()(torch.zeros(2, 3).double()), f"{who}Cell input", "float32", "float64")
    case(f"{who}Cell state rows", lambda b=build, s=one_row: b()(torch.zeros(3, 3), s), f"{who}Cell state", "B is 2, not 3")

for who in ("RNN", "GRU"):
    made = getattr(nn, who)
    case(f"{who} two states", lambda made=made: made(3, 4)(Steps, (Row, Row)), f"{who} state", "one tensor", "tuple")
    case(f"{who} projection", lambda made=made: made(3, 4, proj_size=2), who, "proj_size")
    case(f"{who} two zoneouts", lambda made=made: made(3, 4, zoneout=(0.1, 0.2)), who, "zoneout", "(0.1, 0.2)")
    case(f"{who} peephole", lambda made=made: made(3, 4, peephole=True), who, "peephole")
case("RNN nonlinearity", lambda: nn.RNN(3, 4, nonlinearity="sigmoid"), "RNN", "nonlinearity", "tanh", "relu", "'sigmoid'")
case("RNN reset", lambda: nn.RNN(3, 4, reset="before"), "RNN", "reset")
case("GRU reset", lambda: nn.GRU(3, 4, reset="never"), "GRU", "reset", "after", "before", "'never'")
case("GRUCell reset", lambda: nn.GRUCell(3, 4, reset=True), "GRUCell", "reset", "after", "before", "True")
case("LSTM one state", lambda: nn.LSTM(3, 4)(Steps, Row), "LSTM state", "2 tensors (h, c)", "one tensor")
case("LSTM one state in a tuple", lambda: nn.LSTM(3, 4)(Steps, (Row,)), "LSTM state", "2 tensors (h, c)")
case("LSTM three states", lambda: nn.LSTM(3, 4)(Steps, (Row, Row, Row)), "LSTM state", "2 tensors (h, c)")
case("LSTM cell of other units", lambda: nn.LSTM(3, 4)(Steps, (Row, Row[..., :3])), "LSTM state c", "U is 3, not 4")
case("LSTM projection as wide", lambda: nn.LSTM(3, 4, proj_size=4), "LSTM", "proj_size", "hidden_size - 1 = 3", "got 4")
case("LSTM projection wider", lambda: nn.LSTM(3, 4, proj_size=9), "LSTM", "proj_size", "got 9")
case("LSTM projection -1", lambda: nn.LSTM(3, 4, proj_size=-1), "LSTM", "proj_size", "got -1")
case("LSTM coupled with a forget bias", lambda: nn.LSTM(3, 4, coupled=True, forget_bias=1.0), "LSTM", "forget_bias", "coupled")
case("LSTM forget bias without bias", lambda: nn.LSTM(3, 4, bias=False, forget_bias=1.0), "LSTM", "forget_bias", "bias")
case("LSTM forget bias NaN", lambda: nn.LSTM(3, 4, forget_bias=float("nan")), "LSTM", "forget_bias", "nan")
case("LSTM identity under a projection", lambda: nn.LSTM(3, 4, proj_size=2, hidden_init="identity"), "LSTM", "hidden_init", "proj_size")
case("LSTM peephole in words", lambda: nn.LSTM(3, 4, peephole="yes"), "LSTM", "peephole", "True or False", "'yes'")
case("LSTM coupled in numbers", lambda: nn.LSTM(3, 4, coupled=1), "LSTM", "coupled", "True or False", "1")
case("LSTM learned projection's state", lambda: nn.LSTM(3, 4, proj_size=2)(Steps, (Row, Row)), "LSTM state h", "U is 4, not 2")
case("LSTMCell one state", lambda: nn.LSTMCell(3, 4)(Steps[0], Row[0]), "LSTMCell state", "2 tensors (h, c)")
case("LSTMCell coupled with a forget bias", lambda: nn.LSTMCell(3, 4, coupled=True, forget_bias=1.0), "LSTMCell", "forget_bias", "coupled")
for who in ("MinGRU", "MinLSTM"):
    made = getattr(nn, who, None)
    case(f"{who} hidden_size 0", lambda made=made: made(3, 0), who, "hidden_size", "got 0")
    case(f"{who} hidden_size 2**40", lambda made=made: made(3, 2**40), who, "weights", "2147483647")
    case(f"{who} features", lambda made=made: made(3, 4)(torch.zeros(5, 2, 7)), f"{who} input", "D is 7, not 3")
    case(f"{who} tokens", lambda made=made: made(3, 4)(Steps.long()), f"{who} input", "Embedding")
    case(f"{who} rank", lambda made=made: made(3, 4)(torch.zeros(3)), f"{who} input", "1 axes, not")
    case(f"{who} state", lambda made=made: made(3, 4)(Steps, torch.zeros(2, 2, 5)), f"{who} state")

Both, Keys, Query = lambda: nn.LSTM(3, 4, bidirectional=True), torch.zeros(5, 2, 4), torch.zeros(2, 3)
case("LookAhead of one direction", lambda: nn.LookAhead(nn.LSTM(3, 4), 2), "LookAhead", "two directions", "bidirectional=True")
case("LookAhead of Linear", lambda: nn.LookAhead(nn.Linear(3, 4), 2), "LookAhead", "bidirectional", "got Linear")
case("LookAhead steps -1", lambda: nn.LookAhead(Both(), -1), "LookAhead", "steps", "at least 0", "got -1")
case("LookAhead half a step", lambda: nn.LookAhead(Both(), 2.5), "LookAhead", "steps", "got 2.5")
case("LookAhead chunks of 0", lambda: nn.LookAhead(Both(), 0, chunked=True), "LookAhead", "steps", "at least 1", "got 0")
case("LookAhead features", lambda: nn.LookAhead(Both(), 1)(Keys), "LSTM input", "D is 4, not 3")
case("LookAhead lengths", lambda: nn.LookAhead(Both(), 1)(Steps, lengths=(9, 1)), "LookAhead lengths", "T=5", "got 9")
case("LookAhead packed", lambda: nn.LookAhead(Both(), 1)(packed), "LookAhead input", "PackedSequence", "lengths=")
case("LookAhead beyond counting", lambda: nn.LookAhead(Both(), 2)(vast(2**30, 2, 3)), "LSTM input", "outputs", "2147483647")
case("stream of no rows", lambda: nn.LSTM(3, 4).stream(rows=0), "LSTM stream", "rows", "got 0")
case("stream of two directions", lambda: Both().stream(), "LSTM stream", "one direction", "LookAhead")
case("stream of other rows", lambda: nn.LSTM(3, 4).stream(rows=3).push(Steps), "LSTM stream", "B is 2, not 3")
case("stream of numpy arrays", lambda: nn.GRU(3, 4).stream(2).push(np.zeros((5, 2, 3))), "GRU stream", "numpy.ndarray")
case("stream in training", lambda: nn.GRU(3, 4, 2, dropout=0.5).stream(2).push(Steps), "GRU stream", "dropout=0.5", "layer.eval()")
case("Recurrent of Linear", lambda: Recurrent(nn.Linear(3, 4)), "Recurrent", "expected a cell", "got Linear")
case("Recurrent of a class", lambda: Recurrent(nn.LSTMCell), "Recurrent", "expected a cell")
case("Recurrent features", lambda: Recurrent(nn.GRUCell(3, 4))(Keys), "Recurrent input", "D is 4, not 3")
case("Recurrent tokens", lambda: Recurrent(nn.GRUCell(3, 4))(Steps.long()), "Recurrent input", "Embedding")
case("Recurrent state", lambda: Recurrent(nn.GRUCell(3, 4))(Steps, torch.zeros(2, 5)), "Recurrent state h", "U is 5, not 4")
case("Recurrent one state", lambda: Recurrent(nn.LSTMCell(3, 4))(Steps, Row[0]), "Recurrent state", "2 tensors (h, c)")
case("Recurrent zoneout", lambda: Recurrent(nn.GRUCell(3, 4), zoneout=2), "Recurrent", "zoneout", "from 0 to 1", "got 2")
case("Recurrent lengths", lambda: Recurrent(nn.GRUCell(3, 4))(Steps, lengths=(5, -1)), "Recurrent lengths", "got -1")
case("windows of 0", lambda: list(windows(Steps, 0)), "windows", "at least 1", "got 0")
case("windows of nothing", lambda: list(windows(None, 2)), "windows input", "NoneType")
case("TBPTT of 0", lambda: TBPTT(0, 2), "TBPTT", "k1", "got 0")
case("TBPTT of half a step", lambda: TBPTT(2, 2.5), "TBPTT", "k2", "got 2.5")
case("gradient_norms of Linear", lambda: gradient_norms(nn.Linear(3, 4), Steps), "gradient_norms", "Linear")
case("gradient_norms dy", lambda: gradient_norms(nn.GRU(3, 4), Steps, Steps), "gradient_norms", "R is 3, not 4")
Additive = lambda: nn.AdditiveAttention(3, 4, 5)  # noqa: E731
case("AdditiveAttention hidden_size 0", lambda: nn.AdditiveAttention(3, 4, 0), "AdditiveAttention", "hidden_size", "got 0")
case("AdditiveAttention 2**40", lambda: nn.AdditiveAttention(3, 4, 2**40), "AdditiveAttention", "at most 2147483647 weights")
case("AdditiveAttention query", lambda: Additive()(Query[:, :2], Keys), "AdditiveAttention query", "Q is 2, not 3")
case("AdditiveAttention keys", lambda: Additive()(Query, Steps), "AdditiveAttention keys", "K is 3, not 4")
case("AdditiveAttention rows", lambda: Additive()(Query[:1], Keys), "AdditiveAttention query", "B is 1, not 2")
case("AdditiveAttention tokens", lambda: Additive()(Query, Keys.long()), "AdditiveAttention keys", "int64")
case("AdditiveAttention lengths", lambda: Additive()(Query, Keys, (6, 5)), "AdditiveAttention lengths", "got 6")
case("AdditiveAttention dtype", lambda: Additive()(Query.double(), Keys), "AdditiveAttention query", "float32", "float64")
case("AdditiveAttention pairs", lambda: Additive()(vast(2**20, 2, 3), vast(2**20, 2, 4)), "AdditiveAttention", "at most 2147483647")
case("GeneralAttention 2**40", lambda: nn.GeneralAttention(2**40, 4), "GeneralAttention", "at most 2147483647 weights")
case("DotAttention widths", lambda: nn.DotAttention()(Query, Keys), "DotAttention query", "Q is 3, not 4")
case("DotAttention dtype", lambda: nn.DotAttention()(Keys[0].double(), Keys), "DotAttention query", "float32", "float64")
case("DotAttention pairs", lambda: nn.DotAttention()(vast(2**20, 2, 4), vast(2**20, 2, 4)), "DotAttention", "at most 2147483647")
matrices = lambda gates, inputs=3: (np.zeros((1, gates * 4, inputs)), np.zeros((1, gates * 4, 4)))  # noqa: E731
case("from_onnx gates", lambda: from_onnx(nn.LSTM, *matrices(3)), "from_onnx", "4 gates", "another layer than LSTM")
case("from_onnx peephole", lambda: from_onnx(nn.GRU, *matrices(3), None, np.zeros((1, 12))), "from_onnx", "only the LSTM has peepholes")
case("from_onnx activation", lambda: from_onnx(nn.RNN, *matrices(1), activation="Affine"), "RNN", "nonlinearity", "'affine'")
case("from_onnx layout", lambda: from_onnx(nn.RNN, *matrices(1), layout=2), "from_onnx", "layout", "2")
case("from_onnx reset", lambda: from_onnx(nn.GRU, *matrices(3), linear_before_reset=3), "from_onnx", "linear_before_reset", "3")
case("from_keras one array", lambda: from_keras(nn.LSTM, [np.zeros((3, 16))]), "from_keras", "1 arrays")
case("from_keras Linear", lambda: from_keras(nn.Linear, [np.zeros((3, 16))]), "from_keras", "got Linear")
case("to_keras peephole", lambda: to_keras(nn.LSTM(3, 4, peephole=True)), "to_keras", "peepholes")
case("to_onnx layer norm", lambda: to_onnx(nn.GRU(3, 4, layer_norm=True)), "to_onnx", "layer norm")
case("to_onnx layer 4", lambda: to_onnx(nn.GRU(3, 4), 4), "to_onnx", "number", "got 4")


def most_held():
    """Bytes that this process ever held at once. (getrusage counts what its parent held before it.)"""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def answer(name):
    """What came of it: the kind of exception, its message, and how many bytes the process grew."""
    call, before = CASES[name][0], most_held()
    try:
        call()
        kind, message = "accepted", ""
    except Exception as error:
        kind, message = type(error).__name__, str(error)
    grown = most_held() - before
    return {"name": name, "kind": kind, "message": message, "grown": grown}


def serve():
    """Answer the cases that are named on the standard input, in little room."""
    torch.set_num_threads(1)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()  # by the libraries, in address space
    resource.setrlimit(resource.RLIMIT_AS, (SPACE + taken, SPACE + taken))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        print(json.dumps({"begins": line.rstrip("\n")}), flush=True)
        print(json.dumps(answer(line.rstrip("\n"))), flush=True)


if __name__ == "__main__":
    serve()
