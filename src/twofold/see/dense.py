"""The arithmetic of layers without windows: linear, embedding, recurrent, normalisation, and all that take each number alone.

    linear       parameters (D + 1) U              multiply-adds: D U for every row
    embedding    parameters V D                    none: a row of the table is looked up
    recurrent    parameters G U (D + R + 2)        multiply-adds: G U (D + R) for every step and row; G gates (LSTM 4, coupled 3, GRU 3,
                 RNN 1), U units, D inputs, R fed back (R = U, or the projection's: then + U R); each layer and direction; two biases
      peepholes  + (G - 1) U                       + (G - 1) U
      layer norm + 2 G U, of an LSTM + 2 U more    none: each number is scaled alone
      learnt     + R, of an LSTM + R + U           none: the state to begin from, for each layer and direction

B rows, T steps, V entries, C channels
"""

from math import prod
from typing import Any, NamedTuple

from torch import nn

from twofold.see.law import ALL, ALONE, Counted, Law, plus, times


def count(layer: nn.Module) -> Counted:
    """The parameters, from the shapes of the layer's own tensors."""
    sizes = [tuple(p.shape) or (1,) for p in layer.parameters()]
    return Counted(sum(map(prod, sizes)), plus(times(*size) for size in sizes))


def multiply(layer: Any, shape: tuple[int, ...]) -> Law:
    """The law of a linear layer."""
    D, U = layer.in_features, layer.out_features
    return Law(
        (*shape[:-1], U),
        (("features", f"{D} in, {U} out"),),
        Counted((D + (layer.bias is not None)) * U, f"{D}*{U}" if layer.bias is None else f"({D}+1)*{U}"),
        Counted(prod(shape[:-1]) * D * U, f"{times(*shape[:-1])}*({D}*{U})"),
        ALL if len(shape) == 2 else "",
    )


def look_up(layer: Any, shape: tuple[int, ...]) -> Law:
    """The law of an embedding."""
    V, D = layer.num_embeddings, layer.embedding_dim
    line = ("features", f"{D} for every number, a row of the table")
    return Law((*shape, D), (line,), Counted(V * D, f"{V}*{D}"), Counted(0, "rows are looked up"), "")


class Cell(NamedTuple):
    """What a recurrent step is made of: G gates, U units, D inputs, R fed back, and what it has besides."""

    G: int
    U: int
    D: int
    R: int
    bias: bool
    projected: bool
    peephole: bool
    norm: bool
    norm_c: bool

    def parameters(self) -> Counted:
        """Those of one step's weights."""
        G, U, D, R = self[:4]
        terms = [f"{G}*{U}*({D}+{R}{'+2' * self.bias})"] + [f"{U}*{R}"] * self.projected + [f"{G - 1}*{U}"] * self.peephole
        terms += [f"2*{G}*{U}"] * self.norm + [f"2*{U}"] * self.norm_c
        number = G * U * (D + R + 2 * self.bias) + U * R * self.projected + (G - 1) * U * self.peephole
        return Counted(number + 2 * G * U * self.norm + 2 * U * self.norm_c, plus(terms))

    def products(self) -> Counted:
        """Those of one step and row."""
        G, U, D, R = self[:4]
        terms = [f"{G}*{U}*({D}+{R})"] + [f"{U}*{R}"] * self.projected + [f"{G - 1}*{U}"] * self.peephole
        return Counted(G * U * (D + R) + U * R * self.projected + (G - 1) * U * self.peephole, plus(terms))


def _cell(layer: Any, D: int, R: int, end: str = "") -> Cell:
    has = {name: getattr(layer, name + end, None) is not None for name in ("weight_hr", "peephole", "norm_ih", "norm_c")}
    return Cell(getattr(layer, f"weight_ih{end}").shape[0] // layer.hidden_size, layer.hidden_size, D, R, layer.bias, *has.values())


def recur(layer: Any, shape: tuple[int, ...]) -> Law:
    """The law of a recurrent layer over sequences."""
    U, R = layer.hidden_size, layer.proj_size or layer.hidden_size
    S, L = (2 if layer.bidirectional else 1), layer.num_layers
    weights, work, parameters, products = [], [], 0, 0
    for depth in range(L):
        cell = _cell(layer, layer.input_size if depth == 0 else S * R, R, f"_l{depth}")
        directions = f"{S}*" * (S > 1)
        weights.append(_each(directions, cell.parameters().derivation))
        work.append(_each(directions, cell.products().derivation))
        parameters += S * cell.parameters().number
        products += S * cell.products().number
    learnt = [width for name, width in (("h_0", R), ("c_0", U)) if getattr(layer, name, None) is not None]
    if learnt:
        weights.append(f"{S * L}*({'+'.join(map(str, learnt))})")
    rows = shape[:-1]
    return Law(
        (*rows, S * R),
        (("features", f"{S} direction{'s' if S > 1 else ''}: {S}*{R} = {S * R}"),),
        Counted(parameters + S * L * sum(learnt), plus(weights)),
        Counted(prod(rows) * products, f"{times(*rows)}*({plus(work)})"),
        "",
    )


def _each(directions: str, text: str) -> str:
    return f"{directions}({text})" if directions else text


def step(layer: Any, shape: tuple[int, ...]) -> Law:
    """The law of a recurrent cell, one step."""
    cell = _cell(layer, layer.input_size, layer.hidden_size)
    parameters, products = cell.parameters(), cell.products()
    return Law(
        (shape[0], cell.U),
        (("features", f"{cell.U} units"),),
        parameters,
        Counted(shape[0] * products.number, f"{shape[0]}*({products.derivation})"),
        "",
    )


def alone(layer: nn.Module, shape: tuple[int, ...]) -> Law:
    """The law of what takes each number alone; the statistics of batch normalisation are taken as known."""
    return Law(shape, (("shape", "as it came"),), count(layer), Counted(0, "each number alone"), ALONE)


def together(layer: nn.Module, shape: tuple[int, ...]) -> Law:
    """The law of what keeps the shape and looks at many numbers for each: a softmax, or statistics of the whole map."""
    return Law(shape, (("shape", "as it came"),), count(layer), Counted(0, ""), "")


def flatten(layer: nn.Flatten, shape: tuple[int, ...]) -> Law:
    """The law of flattening."""
    start, end = layer.start_dim % len(shape), layer.end_dim % len(shape)
    merged = shape[start : end + 1]
    line = ("features", f"{times(*merged)} = {prod(merged):,}")
    return Law((*shape[:start], prod(merged), *shape[end + 1 :]), (line,), Counted(0, ""), Counted(0, ""), ALONE)
