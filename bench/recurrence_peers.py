"""What bench/recurrence.py measures ours against beside torch.nn's layers: loops over torch's cells, JAX and Keras."""

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn as torch_nn


class ByCells(torch_nn.Module):
    """An LSTM with an option that torch.nn.LSTM lacks, as a user of torch writes it: a loop over a cell, the input's part hoisted out.

    Recurrent dropout needs no cell of one's own: it is torch.nn.LSTMCell on a state that was multiplied by one mask.
    """

    def __init__(self, ours: Any, option: str) -> None:
        super().__init__()
        self.option, self.units = option, ours.hidden_size
        cell = torch_nn.LSTMCell(ours.input_size, ours.hidden_size) if option == "recurrent dropout" else torch_nn.Module()
        for name, weight in ours.named_parameters():
            cell.register_parameter(name.removesuffix("_l0"), torch_nn.Parameter(weight.detach().clone()))
        self.cell: Any = cell

    def same_order(self, ours: Any) -> list[Tensor]:
        """The parameters of ours, in the order of these."""
        return [ours.get_parameter(f"{name.removeprefix('cell.')}_l0") for name, _ in self.named_parameters()]

    def forward(self, x_TBD: Tensor) -> Tensor:
        cell, norm, peephole = self.cell, self.option == "layer norm", self.option == "peephole"
        h = c = x_TBD.new_zeros(x_TBD.shape[1], self.units)
        outputs = []
        if self.option == "recurrent dropout":
            mask = F.dropout(torch.ones_like(h), 0.25)
            for x in x_TBD.unbind():
                h, c = cell(x, (h * mask, c))
                outputs.append(h)
            return torch.stack(outputs)
        drive = F.linear(x_TBD, cell.weight_ih)
        if norm:
            drive = F.layer_norm(drive, drive.shape[-1:], cell.norm_ih)
        p_i, p_f, p_o = cell.peephole.chunk(3) if peephole else (None, None, None)
        for driven in (drive + (cell.bias_ih + cell.bias_hh)).unbind():
            carried = F.linear(h, cell.weight_hh)
            if norm:
                carried = F.layer_norm(carried, carried.shape[-1:], cell.norm_hh)
            i, f, g, o = (driven + carried).chunk(4, 1)
            if peephole:
                i, f = torch.addcmul(i, p_i, c), torch.addcmul(f, p_f, c)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            o = torch.addcmul(o, p_o, c) if peephole else o
            read = F.layer_norm(c, c.shape[-1:], cell.norm_c, cell.norm_c_bias) if norm else c
            h = o.sigmoid() * read.tanh()
            outputs.append(h)
        return torch.stack(outputs)


@cache
def installed(package: str) -> bool:
    """Whether the package is there; one line where it is not."""
    there = find_spec(package) is not None
    if not there:
        print(f"{package} is not installed: no rows of it")
    return there


def peers(kind: str, size: Any) -> dict[str, Callable[[], Any]]:
    """Training steps by JAX and Keras, compiled, where they are installed. They use all cores: on two, two."""
    ways = {}
    if installed("jax"):
        ways["JAX scan"] = jax_step(kind, *size)
        if installed("keras"):
            ways["Keras on JAX"] = keras_step(kind, *size)
    return ways


def jax_step(kind: str, B: int, T: int, D: int, U: int) -> Callable[[], Any]:
    """lax.scan over the cell, the input's part hoisted out; all gradients."""
    import jax
    import jax.numpy as jnp

    def rnn(state: Any, drive: Any, weight: Any, bias: Any) -> Any:
        (h,) = state
        return (jnp.tanh(drive + h @ weight + bias),)

    def gru(state: Any, drive: Any, weight: Any, bias: Any) -> Any:
        (h,) = state
        (d_r, d_z, d_n), (a_r, a_z, a_n) = (jnp.split(part, 3, -1) for part in (drive, h @ weight + bias))
        r, z = jax.nn.sigmoid(d_r + a_r), jax.nn.sigmoid(d_z + a_z)
        n = jnp.tanh(d_n + r * a_n)
        return ((1 - z) * n + z * h,)

    def lstm(state: Any, drive: Any, weight: Any, bias: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(drive + h @ weight + bias, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    step, gates, states = {"RNN": (rnn, 1, 1), "GRU": (gru, 3, 1), "LSTM": (lstm, 4, 2)}[kind]
    keys = iter(jax.random.split(jax.random.PRNGKey(0), 6))

    def drawn(*shape: int) -> Any:
        return jax.random.uniform(next(keys), shape, minval=-1, maxval=1) / U**0.5

    x, dy = jax.random.normal(next(keys), (T, B, D)), jax.random.normal(next(keys), (T, B, U))
    weights = (drawn(D, gates * U), drawn(U, gates * U), drawn(gates * U), drawn(gates * U))

    def loss(weights: Any, x: Any) -> Any:
        weight_ih, weight_hh, bias_ih, bias_hh = weights

        def one(state: Any, drive: Any) -> Any:
            state = step(state, drive, weight_hh, bias_hh)
            return state, state[0]

        _, y = jax.lax.scan(one, (jnp.zeros((B, U)),) * states, x @ weight_ih + bias_ih)
        return (y * dy).sum()

    gradients = jax.jit(jax.grad(loss, (0, 1)))
    return lambda: jax.block_until_ready(gradients(weights, x))


def keras_step(kind: str, B: int, T: int, D: int, U: int) -> Callable[[], Any]:
    """Keras' layer on JAX; all gradients."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import jax
    import keras

    layer = getattr(keras.layers, {"RNN": "SimpleRNN"}.get(kind, kind))(U, return_sequences=True)
    layer.build((B, T, D))
    weights, others = ([variable.value for variable in group] for group in (layer.trainable_variables, layer.non_trainable_variables))
    x, dy = (jax.random.normal(jax.random.PRNGKey(seed), (B, T, width)) for seed, width in ((0, D), (1, U)))

    def loss(weights: Any, x: Any) -> Any:
        y, _ = layer.stateless_call(weights, others, x)
        return (y * dy).sum()

    gradients = jax.jit(jax.grad(loss, (0, 1)))
    return lambda: jax.block_until_ready(gradients(weights, x))
