"""The node tests of ONNX through our layers: every vector in the wheel of onnx 1.22 whose operator we have a layer for.

A translator renames and arranges: settings become ours, axes are moved, maps are framed with zeros, places are numbered anew. All
arithmetic is the layer's. Each setting of a node must be read by its translator; one that is left over is an error.
docs/onnx.md says how many pass and lists the others with the reason; here that page is held to the truth.
"""

import re
from collections import Counter
from collections.abc import Callable
from itertools import product
from math import isclose
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor

import twofold
from twofold import nn
from twofold.space.average_pooling import average_pool
from twofold.space.max_pooling import max_pool, max_pool_with_places
from twofold.space.power_pooling import power_pool
from twofold.space.resize import resize
from twofold.space.windows import Window

FOLDERS = Path(onnx.__file__).parent / "backend" / "test" / "data" / "node"
RELATIVE, ABSOLUTE = 1e-3, 1e-7  # those of onnx.backend.test.loader; none of these vectors has its own
ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "onnx.md").read_text(encoding="utf-8")


class Node(NamedTuple):
    """One call of an operator: `outputs` are their names, '' for those that are not wanted."""

    settings: dict[str, Any]
    inputs: list[Tensor | None]
    outputs: list[str]

    def take(self, name: str, usual: Any = None) -> Any:
        """The setting, which counts as read."""
        return self.settings.pop(name, usual)

    @property
    def x(self) -> Tensor:
        """The first input."""
        assert self.inputs[0] is not None
        return self.inputs[0]

    @property
    def axes(self) -> int:
        """The number of axes of the map."""
        return self.x.dim() - 2


Outputs = tuple[Tensor | None, ...]  # None: an output that our layer does not have


def filled(layer: Any, **weights: Tensor | None) -> Any:
    """The layer with these weights, all of them."""
    layer.load_state_dict({name: value for name, value in weights.items() if value is not None})
    return layer


def geometry(node: Node) -> dict[str, Any]:
    """Stride, padding (in words, or before and after for each axis) and dilation."""
    axes, word = node.axes, node.take("auto_pad", "NOTSET").lower()
    sides = node.take("pads", [0] * 2 * axes)
    padding = tuple(side for pair in zip(sides[:axes], sides[axes:], strict=True) for side in pair)
    return {
        "stride": tuple(node.take("strides", [1] * axes)),
        "padding": padding if word == "notset" else word,
        "dilation": tuple(node.take("dilations", [1] * axes)),
    }


def weights(node: Node) -> tuple[Tensor, Tensor | None]:
    """Kernel and bias of a convolution."""
    weight, bias = (*node.inputs[1:], None)[:2]
    assert weight is not None and node.take("kernel_shape", [*weight.shape[2:]]) == [*weight.shape[2:]]
    return weight, bias


def conv(node: Node) -> Outputs:
    weight, bias = weights(node)
    settings = {**geometry(node), "groups": node.take("group", 1), "bias": bias is not None}
    layer = getattr(nn, f"Conv{node.axes}d")(node.x.shape[1], len(weight), tuple(weight.shape[2:]), **settings)
    return (filled(layer, weight=weight, bias=bias)(node.x),)


def conv_transpose(node: Node) -> Outputs:
    weight, bias = weights(node)
    groups, extra = node.take("group", 1), tuple(node.take("output_padding", [0] * node.axes))
    settings = {**geometry(node), "groups": groups, "output_padding": extra, "bias": bias is not None}
    layer = getattr(nn, f"ConvTranspose{node.axes}d")(node.x.shape[1], weight.shape[1] * groups, tuple(weight.shape[2:]), **settings)
    return (filled(layer, weight=weight, bias=bias)(node.x, node.take("output_shape")),)


def pool(node: Node, family: str, operation: Any, **options: Any) -> Any:
    """By the layer; where the padding is more than half the kernel, which the layers refuse, by the operation that they apply."""
    kernel, ceil, settings = tuple(node.take("kernel_shape")), bool(node.take("ceil_mode", 0)), geometry(node)
    sides = settings["padding"]
    if not isinstance(sides, str) and any(2 * side > kernel[place // 2] for place, side in enumerate(sides)):
        window = Window(kernel, settings["stride"], sides, settings["dilation"], ceil)
        return operation(node.x, window, *(value for name, value in options.items() if name != "return_indices"))
    return getattr(nn, f"{family}{node.axes}d")(kernel_size=kernel, ceil_mode=ceil, **settings, **options)(node.x)


def max_pooling(node: Node) -> Outputs:
    column_major = node.take("storage_order", 0)
    if len(node.outputs) == 1:
        return (pool(node, "MaxPool", max_pool),)
    y, place = pool(node, "MaxPool", max_pool_with_places, return_indices=True)
    assert node.x.shape[:2] == (1, 1)  # ONNX counts places through the whole batch, torch and we through one map
    height, width = node.x.shape[2:]
    return y, place % width * height + place // width if column_major else place


def average_pooling(node: Node) -> Outputs:
    return (pool(node, "AvgPool", average_pool, count_include_pad=bool(node.take("count_include_pad", 0))),)


def power_pooling(node: Node) -> Outputs:
    return (pool(node, "LPPool", power_pool, norm_type=node.take("p", 2)),)


def max_unpooling(node: Node) -> Outputs:
    x, place, shape = (*node.inputs, None)[:3]
    settings = geometry(node)
    assert settings.pop("dilation") == (1,) * node.axes
    y = getattr(nn, f"MaxUnpool{node.axes}d")(tuple(node.take("kernel_shape")), **settings)(x, place)
    if shape is not None:  # ONNX: places are those of the usual map, which is then framed
        y = F.pad(y, [n for axis in reversed(range(2, y.dim())) for n in (0, int(shape[axis]) - y.shape[axis])])
    return (y,)


def batch_normalization(node: Node) -> Outputs:
    x, scale, shift, mean, variance = node.inputs
    kind = getattr(nn, f"BatchNorm{node.axes}d")
    layer = kind(node.x.shape[1], node.take("epsilon", 1e-5), 1 - node.take("momentum", 0.9))
    filled(layer, weight=scale, bias=shift, running_mean=mean, running_var=variance, num_batches_tracked=torch.tensor(0))
    return layer.train(bool(node.take("training_mode", 0)))(x), layer.running_mean, layer.running_var


def layer_normalization(node: Node) -> Outputs:
    x, scale, shift = (*node.inputs, None)[:3]
    sizes = list(node.x.shape[node.take("axis", -1) :])
    layer = nn.LayerNorm(sizes, node.take("epsilon", 1e-5), bias=shift is not None)
    return filled(layer, weight=scale, bias=shift)(x), None, None


def group_normalization(node: Node) -> Outputs:
    x, scale, shift = node.inputs
    channels = node.x.shape[1]
    layer = nn.GroupNorm(node.take("num_groups", channels), channels, node.take("epsilon", 1e-5))
    return (filled(layer, weight=scale, bias=shift)(x),)


def local_response(node: Node) -> Outputs:
    layer = nn.LocalResponseNorm(node.take("size"), node.take("alpha", 1e-4), node.take("beta", 0.75), node.take("bias", 1.0))
    return (layer(node.x),)


def resizing(node: Node) -> Outputs:
    _, _, scales, sizes = (*node.inputs, None, None)[:4]
    axes, policy = node.take("axes", [*range(node.x.dim())]), node.take("keep_aspect_ratio_policy", "stretch")
    mode = node.take("mode", "nearest")
    settings: dict[str, Any] = {
        "mode": {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode),
        "antialias": bool(node.take("antialias", 0)),
        "coordinates": node.take("coordinate_transformation_mode", "half_pixel"),
        "rounding": node.take("nearest_mode", "round_prefer_floor") if mode == "nearest" else None,
    }
    given = scales if sizes is None else sizes
    assert given is not None
    wanted = dict(zip((axis % node.x.dim() for axis in axes), given.tolist(), strict=True))
    if policy != "stretch":  # one factor for all axes
        factor = (min if policy == "not_larger" else max)(n / node.x.shape[axis] for axis, n in wanted.items())
        wanted = {axis: int(node.x.shape[axis] * factor + 0.5) for axis in wanted}
    usual = [1.0] * node.x.dim() if sizes is None else list(node.x.shape)
    whole = [wanted.get(axis, n) for axis, n in enumerate(usual)]
    assert whole[:2] == usual[:2]  # images and channels stay
    settings["scale_factor" if sizes is None else "size"] = whole[2:]
    return (resize(node.x, **settings),)


def prelu(node: Node) -> Outputs:
    x, slope = node.inputs
    assert slope is not None
    row = node.x.reshape(1, -1)  # a slope for each number: each is a channel
    layer = filled(nn.PReLU(row.shape[1]), weight=slope.expand_as(node.x).flatten())
    return (layer(row).reshape(node.x.shape),)


def hard_sigmoid(node: Node) -> Outputs:
    rise, middle = node.take("alpha", 0.2), node.take("beta", 0.5)
    if not (isclose(rise, 1 / 6, rel_tol=1e-6) and middle == 0.5):
        raise ValueError(f"Hardsigmoid rises by 1/6 through 1/2, not by {rise:.6g} through {middle:.6g}")
    return (nn.Hardsigmoid()(node.x),)


def swish(node: Node) -> Outputs:
    assert node.take("alpha", 1.0) == 1
    return (nn.SiLU()(node.x),)


def in_order(rows: Tensor, order: tuple[int, ...]) -> Tensor:
    """The blocks of the gates in another order."""
    return torch.cat([rows.chunk(len(order))[place] for place in order])


def recurrent(node: Node, make: Any, gates: tuple[int, ...], **options: Any) -> Outputs:
    """gates: where ours stand among ONNX's. Peepholes are i o f in ONNX, i f o here; with layout=1 rows come before all else."""
    x, weight_ih, weight_hh, biases, lengths, *state, peephole = node.inputs + [None] * (8 - len(node.inputs))
    assert weight_ih is not None and weight_hh is not None and len(weight_ih) == 1  # no vector has two directions
    rows_first = bool(node.take("layout", 0))
    given = {"weight_ih_l0": in_order(weight_ih[0], gates), "weight_hh_l0": in_order(weight_hh[0], gates)}
    if biases is not None:
        given |= {f"bias_{side}_l0": in_order(bias, gates) for side, bias in zip(("ih", "hh"), biases[0].chunk(2), strict=True)}
    if peephole is not None:
        options["peephole"], given["peephole_l0"] = True, in_order(peephole[0], (0, 2, 1))
    layer = make(node.x.shape[2], node.take("hidden_size"), bias=biases is not None, batch_first=rows_first, **options)
    starts = [s.transpose(0, 1) if rows_first else s for s in state if s is not None]
    start = None if not starts else tuple(starts) if len(starts) > 1 else starts[0]
    y, last = filled(layer, **given)(x, start, lengths=lengths)
    finals = [s.transpose(0, 1) if rows_first else s for s in (last if isinstance(last, tuple) else (last,))]
    return y.unsqueeze(2 if rows_first else 1), *finals


def rnn(node: Node) -> Outputs:
    return recurrent(node, nn.RNN, (0,))


def gru(node: Node) -> Outputs:
    """z r h become r z n."""
    return recurrent(node, nn.GRU, (1, 0, 2), reset="after" if node.take("linear_before_reset", 0) else "before")


def lstm(node: Node) -> Outputs:
    """i o f c become i f g o."""
    return recurrent(node, nn.LSTM, (0, 2, 3, 1))


def alone(make: Callable[[Node], Any]) -> Callable[[Node], Outputs]:
    """The translator of an operator with one input."""
    return lambda node: (make(node)(node.x),)


OPERATORS: dict[str, Callable[[Node], Outputs]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": max_pooling,
    "AveragePool": average_pooling,
    "LpPool": power_pooling,
    "GlobalMaxPool": alone(lambda node: nn.GlobalMaxPool()),
    "GlobalAveragePool": alone(lambda node: nn.GlobalAvgPool()),
    "MaxUnpool": max_unpooling,
    "BatchNormalization": batch_normalization,
    "LayerNormalization": layer_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": group_normalization,
    "LRN": local_response,
    "Resize": resizing,
    "Relu": alone(lambda node: nn.ReLU()),
    "LeakyRelu": alone(lambda node: nn.LeakyReLU(node.take("alpha", 0.01))),
    "PRelu": prelu,
    "Elu": alone(lambda node: nn.ELU(node.take("alpha", 1.0))),
    "Gelu": alone(lambda node: nn.GELU(node.take("approximate", "none"))),
    "Sigmoid": alone(lambda node: nn.Sigmoid()),
    "Tanh": alone(lambda node: nn.Tanh()),
    "Swish": swish,
    "Softplus": alone(lambda node: nn.Softplus()),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": alone(lambda node: nn.Hardswish()),
    "Softmax": alone(lambda node: nn.Softmax(node.take("axis", -1))),
    "LogSoftmax": alone(lambda node: nn.LogSoftmax(node.take("axis", -1))),
    "RNN": rnn,
    "GRU": gru,
    "LSTM": lstm,
}


def vectors() -> dict[str, Any]:
    """The name and graph of every vector that is one node of an operator that we have."""
    graphs = {folder.name: onnx.load(folder / "model.onnx").graph for folder in sorted(FOLDERS.iterdir()) if folder.is_dir()}
    return {name: graph for name, graph in graphs.items() if [node.op_type in OPERATORS for node in graph.node] == [True]}


def listed() -> dict[str, str]:
    """The names in the page's list of those that do not pass, and what is said when they are tried."""
    rows = re.findall(r"^\| (`test_.+?) \| `(.+?)` \| .+ \|$", PAGE, re.MULTILINE)
    return {name: words for names, words in rows for name in re.findall(r"`(\w+)`", names)}


VECTORS, LISTED = vectors(), listed()


def tensors(name: str, kind: str, count: int) -> list[Tensor]:
    """The vector's inputs or outputs, in order."""
    data = FOLDERS / name / "test_data_set_0"
    return [torch.tensor(numpy_helper.to_array(onnx.load_tensor(data / f"{kind}_{number}.pb"))) for number in range(count)]


def follow(name: str, route: str, learning: bool) -> None:
    """Compute the vector by this route; AssertionError names the output that differs."""
    graph = VECTORS[name]
    call = graph.node[0]
    given = dict(zip((put.name for put in graph.input), tensors(name, "input", len(graph.input)), strict=True))
    settings = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in call.attribute}
    settings = {key: value.decode() if isinstance(value, bytes) else value for key, value in settings.items()}
    node = Node(settings, [given[put] if put else None for put in call.input], [*call.output])
    if learning and node.x.is_floating_point():
        node.x.requires_grad_()
    with twofold.route(route):
        results = OPERATORS[call.op_type](node)
    assert not settings, f"nobody read {settings}"
    truth = dict(zip((put.name for put in graph.output), tensors(name, "output", len(graph.output)), strict=True))
    assert len(results) >= len(call.output)
    for output, result in zip(call.output, results, strict=False):
        if output and result is not None:
            try:
                torch.testing.assert_close(result.detach(), truth[output], rtol=RELATIVE, atol=ABSOLUTE)
            except AssertionError as error:
                raise AssertionError(f"{output} differs: {error}") from None


def said_against(name: str, route: str, learning: bool) -> str:
    """What goes wrong with the vector by this route, or ''."""
    try:
        follow(name, route, learning)
    except (ValueError, AssertionError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", sorted(VECTORS | LISTED))
def test_a_vector_passes_or_fails_as_the_page_says(name: str) -> None:
    for route, learning in product(("plain", "vendor", "native", "auto"), (False, True)):
        words = said_against(name, route, learning)
        if name in LISTED:
            assert LISTED[name] in words, f"by {route}: {words or 'passes'}"
        elif words:
            assert route == "native" and words.startswith('route "native": '), f"by {route}: {words}"


def test_the_page_counts_right() -> None:
    every, failing = (Counter(VECTORS[name].node[0].op_type for name in names) for names in (VECTORS, LISTED))
    rows = re.findall(r"^\| (\w+) \| .+ \| (\d+ of \d+) \|$", PAGE, re.MULTILINE)
    assert dict(rows) == {name: f"{every[name] - failing[name]} of {every[name]}" for name in OPERATORS}
    count = f"{len(VECTORS) - len(LISTED)} of {len(VECTORS)}"
    assert f"**{count}** pass" in PAGE and f"**{len(VECTORS)}** in all" in PAGE
    assert f"[{count}](docs/onnx.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
