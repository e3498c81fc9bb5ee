"""What holds for every layer of the house: it stands in for torch's, tells its route, and has its equation and its source on top."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn as torch_nn

import twofold
from twofold import nn
from twofold.layers.differentiable import Operation
from twofold.layers.routes import Routed

ROOT = Path(twofold.__file__).parent

SIGNAL, MAPS, VOLUME, ROWS = (torch.randn(2, 4, *size) for size in ((9,), (6, 5), (4, 5, 6), ()))


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
    "ConnectedConv2d": (lambda n: n.ConnectedConv2d(4, 4, 3, table=[[0, 1], [1, 2], [2, 3], [3]]), MAPS),
    "CrossEntropyLoss": (lambda n: n.CrossEntropyLoss(), None),
    "DepthwiseConv2d": (lambda n: n.DepthwiseConv2d(4, 3), MAPS),
    "Dropout": (lambda n: n.Dropout(0.5), ROWS),
    "ELU": (lambda n: n.ELU(), ROWS),
    "Embedding": (lambda n: n.Embedding(7, 3), torch.randint(0, 7, (4, 2))),
    "GELU": (lambda n: n.GELU(), ROWS),
    "GlobalAvgPool": (lambda n: n.GlobalAvgPool(), MAPS),
    "GlobalMaxPool": (lambda n: n.GlobalMaxPool(), MAPS),
    "GroupConv2d": (lambda n: n.GroupConv2d(1, 2, 3), torch.randn(2, 1, 4, 6, 5)),
    "GroupNorm": (lambda n: n.GroupNorm(2, 4), MAPS),
    "GroupPool2d": (lambda n: n.GroupPool2d(), torch.randn(2, 1, 4, 6, 5)),
    "Hardsigmoid": (lambda n: n.Hardsigmoid(), ROWS),
    "Hardswish": (lambda n: n.Hardswish(), ROWS),
    "Hardtanh": (lambda n: n.Hardtanh(), ROWS),
    "LSTM": (lambda n: n.LSTM(3, 4), torch.randn(5, 2, 3)),
    "LSTMCell": (lambda n: n.LSTMCell(3, 4), torch.randn(2, 3)),
    "LayerNorm": (lambda n: n.LayerNorm(5), MAPS),
    "LeakyReLU": (lambda n: n.LeakyReLU(), ROWS),
    "LiftingConv2d": (lambda n: n.LiftingConv2d(4, 2, 3), MAPS),
    "Linear": (lambda n: n.Linear(4, 3), ROWS),
    "LocalResponseNorm": (lambda n: n.LocalResponseNorm(3), MAPS),
    "LogSoftmax": (lambda n: n.LogSoftmax(1), ROWS),
    "Maxout": (lambda n: n.Maxout(2), ROWS),
    "PReLU": (lambda n: n.PReLU(), ROWS),
    "ReLU": (lambda n: n.ReLU(), ROWS),
    "ReLU6": (lambda n: n.ReLU6(), ROWS),
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
    *("SpatialPyramidPool2d", "SymmetricConv2d"),
}
RANDOM = {"Dropout", *(f"StochasticPool{n}d" for n in (1, 2, 3))}
UNPOOLING = {f"MaxUnpool{n}d" for n in (1, 2, 3)}  # takes places too
MADE_OF_LAYERS = {"Sequential", "SpatialPyramidPool2d", "SymmetricConv2d", "LiftingConv2d", "GroupConv2d"}  # these tell their own routes
NO_VENDOR = {  # torch has no such operator, or a wrong one (LPPool)
    *(f"{kind}Pool{n}d" for kind in ("LP", "Stochastic") for n in (1, 2, 3)),
    *(f"MaxUnpool{n}d" for n in (1, 2, 3)),
}


def test_every_layer_of_the_face_is_questioned_here():
    assert set(nn.__all__) == set(LAYERS)


@pytest.mark.parametrize("name", sorted(set(LAYERS) - OURS_ALONE - {"Sequential"}))
def test_the_layer_is_torchs_with_routes(name):
    ours, theirs = getattr(nn, name), getattr(torch_nn, name)
    assert issubclass(ours, Routed) and issubclass(ours, theirs) and ours is not theirs
    wanted = inspect.signature(theirs.__init__).parameters
    given = inspect.signature(ours.__init__).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in given.values()):
        assert [p for p in given if p in wanted] == [p for p in wanted if p in given] and set(wanted) - {"args", "kwargs"} <= set(given)
    additions = [p for p in given.values() if p.name not in wanted and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if "args" not in wanted:
        assert all(p.kind is p.KEYWORD_ONLY for p in additions), f"{name}: what torch lacks is keyword-only"


def run(layer, x):
    if "MaxUnpool" in type(layer).__name__:
        return layer(x.relu(), torch.arange(x[0, 0].numel()).reshape(x.shape[2:]).expand(x.shape))
    if x is None:
        return layer(torch.randn(4, 3, requires_grad=True), torch.tensor([0, 2, 1, 1]))
    return layer(x)


@pytest.mark.parametrize("name", sorted(set(LAYERS) - MADE_OF_LAYERS))
@pytest.mark.parametrize("route", ["plain", "vendor", "auto"])
def test_the_layer_tells_the_route_it_took(name, route):
    build, x = LAYERS[name]
    layer = build(nn)
    with twofold.route(route):
        run(layer, x)
    if route == "auto" or (route == "vendor" and name in NO_VENDOR):
        assert layer.last_route in (("plain", "native") if name in NO_VENDOR else ("vendor", "native"))
    else:
        assert layer.last_route == route


@pytest.mark.parametrize("name", [name for name, (_, x) in LAYERS.items() if x is not None and name not in RANDOM | UNPOOLING])
def test_the_compiler_and_the_exporter_see_torchs_operators(name):
    build, x = LAYERS[name]
    layer = build(nn).eval()
    exported = torch.export.export(layer, (x,), strict=False).module()
    wanted, got = run(layer, x), exported(x)
    for a, b in zip(leaves(wanted), leaves(got), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def leaves(y):
    return [y] if isinstance(y, torch.Tensor) else [leaf for part in y for leaf in leaves(part)]


def mathematics():
    return [path for floor in ("layers", "space", "time") for path in sorted((ROOT / floor).glob("*.py")) if path.name != "__init__.py"]


def operations():
    for path in mathematics():
        module = import_module(f"twofold.{path.parent.name}.{path.stem}")
        for name, value in vars(module).items():
            if isinstance(value, Operation) and value.plain.forward.__module__ == module.__name__:
                yield pytest.param(path, name, value, id=f"{path.stem}.{name}")


@pytest.mark.parametrize(("path", "name", "operation"), list(operations()))
def test_backward_stands_beneath_forward_and_the_law_on_top(path, name, operation):
    """A derivative can only be checked by a reader who sees both."""
    functions = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    forward, backward = (part.__name__ for part in operation.plain)
    if {forward, backward} <= set(functions):
        assert functions.index(backward) == functions.index(forward) + 1, f"{path.name}: {backward} is not beneath {forward}"
    top = inspect.getdoc(import_module(operation.plain.forward.__module__)) or ""
    assert any(re.search(r"\S\s*=\s*\S", line) for line in top.splitlines()), f"{path.name} has no equation on top"
    assert re.search(r"\b(18|19|20)\d\d\b", top), f"{path.name} names no source"


def test_names_that_we_lack_are_torchs_own():
    assert nn.Transformer is torch_nn.Transformer and nn.functional is torch_nn.functional and nn.init is torch_nn.init
    with pytest.raises(AttributeError, match="NoSuchLayer"):
        nn.NoSuchLayer  # noqa: B018
