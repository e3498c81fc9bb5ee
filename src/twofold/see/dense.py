"""The arithmetic of layers without windows: linear, embedding, recurrent, normalisation, and all that take each number alone.

    linear       parameters (D + 1) U              multiply-adds: D U for every row
    embedding    parameters V D                    none: a row of the table is looked up
    recurrent    parameters G U (D + R + 2)        multiply-adds: G U (D + R) for every step and row; G gates (LSTM 4, GRU 3, RNN 1),
                 U units, D inputs, R fed back (R = U, or the projection's: then + U R); each layer and direction; two biases

B rows, T steps, V entries, C channels
"""

from math import prod
from typing import Any

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


def recur(layer: Any, shape: tuple[int, ...]) -> Law:
    """The law of a recurrent layer over sequences."""
    G, U, R = layer.weight_ih_l0.shape[0] // layer.hidden_size, layer.hidden_size, layer.proj_size or layer.hidden_size
    S = 2 if layer.bidirectional else 1
    weights, work, parameters, products = [], [], 0, 0
    for depth in range(layer.num_layers):
        D = layer.input_size if depth == 0 else S * R
        directions, projection = f"{S}*" * (S > 1), f" + {U}*{R}" * (layer.proj_size > 0)
        biases = "+2" if layer.bias else ""
        weights.append(_each(directions, f"{G}*{U}*({D}+{R}{biases}){projection}"))
        work.append(_each(directions, f"{G}*{U}*({D}+{R}){projection}"))
        matrix = G * U * (D + R) + (U * R if projection else 0)
        products += S * matrix
        parameters += S * (matrix + (2 * G * U if layer.bias else 0))
    rows = shape[:-1]
    return Law(
        (*rows, S * R),
        (("features", f"{S} direction{'s' if S > 1 else ''}: {S}*{R} = {S * R}"),),
        Counted(parameters, plus(weights)),
        Counted(prod(rows) * products, f"{times(*rows)}*({plus(work)})"),
        "",
    )


def _each(directions: str, text: str) -> str:
    return f"{directions}({text})" if directions else text


def step(layer: Any, shape: tuple[int, ...]) -> Law:
    """The law of a recurrent cell, one step."""
    G, U, D = layer.weight_ih.shape[0] // layer.hidden_size, layer.hidden_size, layer.input_size
    biases = "+2" if layer.bias else ""
    return Law(
        (shape[0], U),
        (("features", f"{U} units"),),
        Counted(G * U * (D + U + (2 if biases else 0)), f"{G}*{U}*({D}+{U}{biases})"),
        Counted(shape[0] * G * U * (D + U), f"{shape[0]}*({G}*{U}*({D}+{U}))"),
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
