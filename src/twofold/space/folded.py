"""Convolution and the batch normalisation behind it as one convolution, for use.     B images, C channels, F filters, P windows

    y = (W * x + b - m) r + shift = W' * x + b'        r = scale / sqrt(v + eps), for each filter
    W'[f] = W[f] r[f]        b'[f] = (b[f] - m[f]) r[f] + shift[f]                   m, v: the running statistics

In use the statistics stand still, so the two linear maps are one. The sum with another map (a shortcut), or the ReLU behind it, is done
while a number is in its register. What is left to choose is the layout, for the whole net: channels last, 3x3 taps by Winograd's algorithm,
1x1 in float32 by products of our own, others by oneDNN, which sums or rectifies, too; or channels first by the layers' own routes. Both
are tried on the first input of a size, and the faster is kept; without measuring (measured.py) channels last.

With `precision("bf16")` and channels last, what only convolutions and max pooling read stays in bfloat16, where that is faster here.

Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR 2018, section 3.2
"""

import copy
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from twofold.kernels import convolution_last
from twofold.layers.activation import ReLU
from twofold.layers.forms import bf16_faster, bf16_permitted
from twofold.layers.measured import allowed
from twofold.layers.normalization import BatchNorm2d
from twofold.layers.routes import Routed, route, traced, wanted_route
from twofold.space.convolution import Conv2d, DepthwiseConv2d
from twofold.space.correlation import correlate, worth_last
from twofold.space.fused import convolve_relu_pool
from twofold.space.max_pooling import MaxPool2d
from twofold.space.sequential import NOT_SUITED, pool_after

APART, FIRST, LAST = "apart", "channels first", "channels last"

SLOPE = 1e-30  # below 0: oneDNN's ReLU without one makes 0 of NaN

_way: ContextVar[str] = ContextVar("way", default=APART)


def folded(model: nn.Module) -> "Folded":
    """A copy of the model for use, with equal outputs: batch normalisation is folded into the convolution before it.

    The model stays as it is. The copy has the weights as they are now, in evaluation mode, and is not for training. What the model does
    with its input must not depend on the input's numbers.
    Raises ValueError for a model whose way from input to output cannot be followed.

    >>> from twofold import nn
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).eval()
    >>> x = torch.linspace(-1, 1, 25).reshape(1, 1, 5, 5)
    >>> torch.allclose(folded(net)(x), net(x), atol=1e-6)
    True
    """
    return Folded(model)


class Folded(nn.Module):
    """The copy that `folded` makes. `last_way`: how the last input went through, "channels first", "channels last" or "apart"."""

    last_way = APART

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.net = graph_of(copy.deepcopy(model).eval())
        self.eval()
        self._known: dict[Any, str] = {}

    def train(self, mode: bool = True) -> "Folded":
        """Raises ValueError for training: the normalisation has gone into the weights."""
        if mode:
            raise ValueError("folded: expected evaluation mode, for the normalisation has gone into the weights. Train the model itself.")
        return super().train(False)

    def forward(self, input: Any) -> Any:
        way = self.way(input)
        self.__dict__["last_way"] = way
        return self.run(way, input)

    def run(self, way: str, input: Any) -> Any:
        token = _way.set(way)
        try:
            return self.net(input)
        finally:
            _way.reset(token)

    def way(self, input: Any) -> str:
        """The fastest way that is right for the input."""
        watched = traced() or torch._C._get_tracing_state() is not None
        if watched or wanted_route() not in ("auto", "native") or torch.is_autocast_enabled("cpu"):
            return APART
        plain = type(input) is Tensor and input.is_cpu and input.dtype == torch.float32 and input.dim() == 4 and input.numel() > 0
        if not plain or (torch.is_grad_enabled() and input.requires_grad) or not torch.backends.mkldnn.is_available():
            return APART
        if not allowed():
            return LAST
        question = (input.shape, input.stride(), bf16_permitted(), torch.get_num_threads())
        if question not in self._known:
            self._known[question] = self.fastest(input)
        return self._known[question]

    def fastest(self, input: Tensor) -> str:
        """The way that took the least time in three turns, after one that warms up."""
        taken: dict[str, list[float]] = {FIRST: [], LAST: []}
        with torch.no_grad():
            for _ in range(4):
                for way, times in taken.items():
                    start = time.perf_counter()
                    self.run(way, input)
                    times.append(time.perf_counter() - start)
        return min(taken, key=lambda way: min(taken[way][1:]))


class FoldedConv2d(Routed):
    """A convolution with what was behind it: normalisation, the sum with another map, ReLU, max pooling."""

    def __init__(self, conv: Conv2d, norm: BatchNorm2d | None, relu: bool, pool: MaxPool2d | None) -> None:
        super().__init__()
        self.conv, self.relu, self.pool = conv, relu, pool
        self.stays = False  # whether y may stay in bfloat16
        if norm is not None:
            conv.weight, conv.bias = folded_weights(conv, norm)
        for weight in conv.parameters():
            weight.requires_grad_(False)
        self._packed: tuple[Tensor, Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        return {APART: self.apart, FIRST: self.first, LAST: self.last}[_way.get()](x, other)

    def apart(self, x: Tensor, other: Tensor | None) -> Tensor:
        """Layer by layer."""
        y: Tensor = self.conv(x)
        self.took(self.conv.last_route or "")
        return self.finished(y if other is None else y + other)

    def finished(self, y: Tensor) -> Tensor:
        y = torch.relu(y) if self.relu else y
        return y if self.pool is None else self.pool(y)

    def first(self, x: Tensor, other: Tensor | None) -> Tensor:
        """By the routes of the layers, with ReLU and pool in one go where a compiled form serves."""
        conv = self.conv
        if x.dtype != torch.float32:
            return self.apart(x, other)
        window = conv.fitting(x)
        arguments = (x, conv.weight, conv.bias, window)
        chosen, why = correlate.decide(*arguments, conv.groups)
        self.took(chosen, why)
        if self.relu and other is None and conv.groups == 1 and chosen in ("native", "native bf16"):
            pool = None if self.pool is None else pool_after((conv, self.pool, self.pool), x, window)
            compiled = (*arguments, pool, chosen == "native bf16")
            if pool is not NOT_SUITED and convolve_relu_pool.native is not None and not convolve_relu_pool.native.unfit(*compiled):
                fused: Tensor = convolve_relu_pool.by("native", *compiled)
                return fused
        y: Tensor = correlate.by(chosen, *arguments, conv.groups)
        if other is not None:
            y = y.add_(other) if other.shape == y.shape else y + other
        y = y.relu_() if self.relu else y
        return y if self.pool is None else self.pool(y)

    def last(self, x: Tensor, other: Tensor | None) -> Tensor:
        """Channels last, by Winograd's algorithm where that is worth it, else by oneDNN; in bfloat16 where that is permitted and faster."""
        conv = self.conv
        dtype = torch.bfloat16 if bf16_permitted() and bf16_faster() else torch.float32
        if x.dtype == torch.float32:
            conv.fitting(x)
        window = conv.window(x.shape[2:])
        size = (x.shape[0], conv.out_channels, *window.output_size(x.shape[2:]))
        if window.padding[::2] != window.padding[1::2] or (other is not None and other.shape != size):
            return self.apart(x.float(), None if other is None else other.float())
        x = x.to(dtype, memory_format=torch.channels_last)
        if other is not None:
            other = other.to(dtype, memory_format=torch.channels_last)
        if (
            (window.taps > 1 or dtype == torch.float32)  # 1x1 of bfloat16 is left to oneDNN: as fast by itself, in use not measured
            and worth_last(x, conv.weight, None, window, conv.groups)
            and not convolution_last.unfit(x, conv.weight, conv.bias, window)
        ):
            self.took("native channels last")
            y = convolution_last.packed(x, self.laid_out(dtype), conv.out_channels, window, other, self.relu)
        else:
            self.took("vendor fused bf16" if dtype == torch.bfloat16 else "vendor fused")
            y = self.by_vendor(x, other, (window.padding[::2], window.stride, window.dilation, conv.groups))
        y = y if self.pool is None else self.pool(y)
        return y if self.stays else y.float()

    def by_vendor(self, x: Tensor, other: Tensor | None, geometry: Any) -> Tensor:
        """y by oneDNN, of x and other as they lie."""
        weight, bias = self.packed(x, geometry)
        y: Tensor
        if other is None:
            after = ("leaky_relu", [SLOPE]) if self.relu else ("none", [])
            y = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *geometry, *after, "")
            return y
        y = torch.ops.mkldnn._convolution_pointwise.binary(x, other, weight, bias, *geometry, "add", None, None, [], None)
        return y.relu_() if self.relu else y

    def packed(self, x: Tensor, geometry: Any) -> tuple[Tensor, Tensor | None]:
        """The weights as oneDNN wants them for x, and the bias."""

        def pack(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
            laid_out = weight.to(x.dtype, memory_format=torch.channels_last)
            reordered = torch.ops.mkldnn._reorder_convolution_weight(laid_out, *geometry, list(x.shape))
            return reordered, None if bias is None else bias.to(x.dtype)

        kept: tuple[Tensor, Tensor | None] = self.kept((x.shape, x.dtype, torch.get_num_threads()), pack)
        return kept

    def laid_out(self, dtype: torch.dtype) -> Tensor:
        """The weights as our kernels want them for maps of this dtype."""
        kept: Tensor = self.kept(("ours", dtype), lambda weight, bias: convolution_last.pack(weight, bias, dtype))
        return kept

    def kept(self, question: Any, pack: Callable[[Tensor, Tensor | None], Any]) -> Any:
        """pack(weight, bias); kept until a weight or the question is another."""
        weight, bias = self.conv.weight, self.conv.bias
        question = (question, weight._version, None if bias is None else bias._version)
        if self._packed is None or self._packed[0] is not weight or self._packed[1] != question:
            self._packed = (weight, question, pack(weight.detach(), None if bias is None else bias.detach()))
        return self._packed[2]

    def extra_repr(self) -> str:
        return "with ReLU" if self.relu else ""


def folded_weights(conv: Conv2d, norm: BatchNorm2d) -> tuple[nn.Parameter, nn.Parameter]:
    """(W', b'), computed in float64."""
    assert norm.running_mean is not None and norm.running_var is not None
    rate_F = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        rate_F = rate_F * norm.weight.detach().double()
    bias_F = -norm.running_mean.double() if conv.bias is None else conv.bias.detach().double() - norm.running_mean.double()
    bias_F = bias_F * rate_F if norm.bias is None else bias_F * rate_F + norm.bias.detach().double()
    weight = conv.weight.detach().double() * rate_F.reshape(-1, 1, 1, 1)
    return nn.Parameter(weight.to(conv.weight.dtype), False), nn.Parameter(bias_F.to(conv.weight.dtype), False)


def graph_of(model: nn.Module) -> Any:
    """The model as a graph of its layers, with every convolution and what can be computed with it as one."""
    from torch import fx

    class Follower(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, Routed) or not list(m.children()) or super().is_leaf_module(m, module_qualified_name)

    try:
        with route("vendor"):  # each layer by itself
            graph = Follower().trace(model)
    except Exception as error:
        raise ValueError(
            f"folded: {type(model).__name__} cannot be followed from input to output ({type(error).__name__}: {error}). "
            "Fold its parts instead."
        ) from error
    net = fx.GraphModule(model, graph)
    layers: dict[str, Any] = dict(net.named_modules())
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in list(graph.nodes):
        conv: Any = layers.get(node.target) if node.op == "call_module" and calls.count(node.target) == 1 else None
        if type(conv) in (Conv2d, DepthwiseConv2d) and conv.padding_mode == "zeros" and conv.algorithm is None:
            fold(net, node, layers)
    for node in reversed(graph.nodes):
        node.meta["stays"] = bool(node.users) and all(reads_half(user, layers) for user in node.users)
        layer = layers.get(node.target) if node.op == "call_module" else None
        if type(layer) is FoldedConv2d:
            layer.stays = node.meta["stays"]
    net.recompile()
    net.delete_all_unused_submodules()
    return net


def reads_half(node: Any, layers: dict[str, Any]) -> bool:
    """Whether what the node stands for takes bfloat16 and lets it stay."""
    kind = type(layers.get(node.target)) if node.op == "call_module" else None
    return kind is FoldedConv2d or (kind in (MaxPool2d, nn.Identity) and node.meta["stays"])


def fold(net: Any, node: Any, layers: dict[str, Any]) -> None:
    """Put a FoldedConv2d in the place of the convolution at `node` and of what follows it."""
    conv, end, norm, other, pool = layers[node.target], node, None, None, None
    assert isinstance(conv, Conv2d)
    behind = next_of(end, layers, BatchNorm2d)
    if behind is not None and layers[behind.target].running_mean is not None:
        norm, end = layers[behind.target], behind
    summed = sum_behind(end, layers)
    if summed is not None:
        other = next(part for part in summed.args if part is not end)
        end = summed
    rectified = next_of(end, layers, ReLU, nn.ReLU)
    if rectified is not None:
        end = rectified
        behind = next_of(end, layers, MaxPool2d) if other is None else None
        if behind is not None and not layers[behind.target].return_indices:
            pool, end = layers[behind.target], behind
    net.set_submodule(node.target, FoldedConv2d(conv, norm, rectified is not None, pool))
    layers[node.target] = net.get_submodule(node.target)
    with net.graph.inserting_after(end):
        one = net.graph.call_module(node.target, (node.args[0],) if other is None else (node.args[0], other))
    end.replace_all_uses_with(one)
    net.graph.eliminate_dead_code()


def next_of(node: Any, layers: dict[str, Any], *kinds: type) -> Any:
    """The only reader of the node, where it is a layer of these kinds."""
    reader = next(iter(node.users)) if len(node.users) == 1 else None
    if reader is None or reader.op != "call_module" or type(layers.get(reader.target)) not in kinds:
        return None
    return reader


def sum_behind(node: Any, layers: dict[str, Any]) -> Any:
    """The only reader of the node, where it is a sum with another map that is computed before it."""
    import operator

    reader = next(iter(node.users)) if len(node.users) == 1 else None
    if reader is None or reader.op != "call_function" or reader.target not in (operator.add, operator.iadd, torch.add) or reader.kwargs:
        return None
    if len(reader.args) != 2 or not all(hasattr(part, "users") for part in reader.args) or reader.args[0] is reader.args[1]:
        return None
    return reader
