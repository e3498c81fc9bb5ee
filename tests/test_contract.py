"""What holds for every layer of the house: it stands in for torch's, tells its route, and has its equation and its source on top."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from runpy import run_path

import pytest
import torch
from torch import nn as torch_nn

import twofold
from twofold import nn
from twofold.layers.differentiable import Operation
from twofold.layers.routes import Routed

ROOT = Path(twofold.__file__).parent

TABLE = run_path(str(Path(__file__).parent / "layer_table.py"))
LAYERS, OURS_ALONE, RANDOM, arguments, leaves = (TABLE[name] for name in ("LAYERS", "OURS_ALONE", "RANDOM", "arguments", "leaves"))

MADE_OF_LAYERS = {
    "Sequential",
    "SpatialPyramidPool2d",
    "SymmetricConv2d",
    "LiftingConv2d",
    "GroupConv2d",
    "LookAhead",
}  # these tell their own routes
NO_VENDOR = {  # torch has no such operator, or a wrong one (LPPool)
    *(f"{kind}Pool{n}d" for kind in ("LP", "Stochastic") for n in (1, 2, 3)),
    *(f"MaxUnpool{n}d" for n in (1, 2, 3)),
    *("AdditiveAttention", "DotAttention", "GeneralAttention", "MinGRU", "MinLSTM", "Recurrent"),
}


def test_every_layer_of_the_face_is_questioned_here():
    assert {name for name in nn.__all__ if isinstance(getattr(nn, name), type)} == set(LAYERS)


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


@pytest.mark.parametrize("name", sorted(set(LAYERS) - MADE_OF_LAYERS))
@pytest.mark.parametrize("route", ["plain", "vendor", "auto"])
def test_the_layer_tells_the_route_it_took(name, route):
    build, x = LAYERS[name]
    layer = build(nn)
    with twofold.route(route):
        layer(*arguments(layer, x))
    if route == "auto" or (route == "vendor" and name in NO_VENDOR):
        assert layer.last_route in (("plain", "native", "parallel") if name in NO_VENDOR else ("vendor", "native"))
    else:
        assert layer.last_route == route


@pytest.mark.parametrize("name", sorted(set(LAYERS) - RANDOM))
def test_the_compiler_and_the_exporter_see_torchs_operators(name):
    build, x = LAYERS[name]
    layer = build(nn).eval()
    given = arguments(layer, x)
    exported = torch.export.export(layer, given, strict=False).module()
    for a, b in zip(leaves(layer(*given)), leaves(exported(*given)), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


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
