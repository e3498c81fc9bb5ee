"""What holds for every layer of the house: it stands in for torch's, tells its route, and has its equation and its source on top."""

import ast
import inspect
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

# One layer of each class, and an input for it.
LAYERS = {
    "AvgPool2d": (lambda n: n.AvgPool2d(2), torch.randn(2, 3, 6, 5)),
    "BatchNorm2d": (lambda n: n.BatchNorm2d(3), torch.randn(2, 3, 6, 5)),
    "Conv2d": (lambda n: n.Conv2d(3, 4, (3, 2), padding=1), torch.randn(2, 3, 6, 5)),
    "CrossEntropyLoss": (lambda n: n.CrossEntropyLoss(), None),
    "Dropout": (lambda n: n.Dropout(0.5), torch.randn(2, 3)),
    "Embedding": (lambda n: n.Embedding(7, 3), torch.randint(0, 7, (4, 2))),
    "LSTM": (lambda n: n.LSTM(3, 4), torch.randn(5, 2, 3)),
    "LSTMCell": (lambda n: n.LSTMCell(3, 4), torch.randn(2, 3)),
    "Linear": (lambda n: n.Linear(3, 4), torch.randn(2, 3)),
    "LogSoftmax": (lambda n: n.LogSoftmax(1), torch.randn(2, 3)),
    "MaxPool2d": (lambda n: n.MaxPool2d(2), torch.randn(2, 3, 6, 5)),
    "ReLU": (lambda n: n.ReLU(), torch.randn(2, 3)),
    "Sigmoid": (lambda n: n.Sigmoid(), torch.randn(2, 3)),
    "Softmax": (lambda n: n.Softmax(1), torch.randn(2, 3)),
    "Tanh": (lambda n: n.Tanh(), torch.randn(2, 3)),
}


def test_every_layer_of_the_face_is_questioned_here():
    assert set(nn.__all__) == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
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
    if x is None:
        return layer(torch.randn(4, 3, requires_grad=True), torch.tensor([0, 2, 1, 1]))
    return layer(x)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("route", ["plain", "vendor", "auto"])
def test_the_layer_tells_the_route_it_took(name, route):
    build, x = LAYERS[name]
    layer = build(nn)
    with twofold.route(route):
        run(layer, x)
    assert layer.last_route == route or (route == "auto" and layer.last_route in ("vendor", "native"))


@pytest.mark.parametrize("name", [name for name, (_, x) in LAYERS.items() if x is not None and name != "Dropout"])
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
    assert "forward" in top or "backward" in top or "=" in top, f"{path.name} has no equation on top"
    assert any(year in top for year in ("19", "20")), f"{path.name} names no source"


def test_names_that_we_lack_are_torchs_own():
    assert nn.Transformer is torch_nn.Transformer and nn.functional is torch_nn.functional and nn.init is torch_nn.init
    with pytest.raises(AttributeError, match="NoSuchLayer"):
        nn.NoSuchLayer  # noqa: B018
