"""What a vector brings to the gates of a cell: a product, normalised where the cell has layer norm.     v (..., K): input x or state h

    forward    a = v W'                   W (G, K)
               n = (a - m) r              m the mean and 1 / r^2 the variance (+ 1e-5) of a part of a: each part by itself
               q = n gain                 gain (G); without gains q = a
    backward   dgain = sum dq n           dn = dq gain
               da = r (dn - mean dn - n mean(dn n))         part by part; without gains da = dq
               dv = da W                  dW = sum da' v

In a simple RNN and an LSTM all G numbers are one part. In a GRU [r z] is one and n another: the reset gate acts on n alone.
There are gains and no shifts: the cell's biases do that.

Ba, Kiros and Hinton, "Layer normalization", arXiv:1607.06450, 2016, section 3.1 and the supplementary material
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from twofold.layers.layer_norm import standardize, standardize_backward

EPS = 1e-5


class Normal(NamedTuple):
    """What the backward of a normalisation needs: n and r of every part."""

    normals: tuple[Tensor, ...]
    rates: tuple[Tensor, ...]


def product(v: Tensor, weight: Tensor, gain: Tensor | None, parts: tuple[int, ...] = ()) -> tuple[Tensor, Normal | None]:
    """(q (..., G), saved). `parts`: how many numbers are normalised together, one part after the other; none named: all of them."""
    a = v @ weight.t()
    if gain is None:
        return a, None
    normal, saved = normalize(a, parts)
    return normal * gain, saved


def product_back(dq: Tensor, v: Tensor, weight: Tensor, gain: Tensor | None, saved: Normal | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """(dv, dweight, dgain)"""
    da, dgain = dq, None
    if gain is not None and saved is not None:
        dgain = (dq * torch.cat(saved.normals, -1)).flatten(0, -2).sum(0)
        da = normalize_back(dq * gain, saved)
    return da @ weight, da.flatten(0, -2).t() @ v.flatten(0, -2), dgain


def normalize(a: Tensor, parts: tuple[int, ...] = ()) -> tuple[Tensor, Normal]:
    """(n, saved)"""
    done = [standardize(part, (-1,), EPS) for part in a.split(parts or a.shape[-1], -1)]
    saved = Normal(tuple(normal for normal, _ in done), tuple(rate for _, rate in done))
    return torch.cat(saved.normals, -1), saved


def normalize_back(dn: Tensor, saved: Normal) -> Tensor:
    """da"""
    parts = zip(dn.split([normal.shape[-1] for normal in saved.normals], -1), *saved, strict=True)
    return torch.cat([standardize_backward(d, normal, rate, (-1,)) for d, normal, rate in parts], -1)


def expect_layer_norm(who: str, layer_norm: bool, hidden_size: int) -> None:
    """Raise ValueError where layer norm would have a single number to normalise."""
    if layer_norm and hidden_size < 2:
        raise ValueError(
            f"{who}: expected hidden_size of at least 2 with layer_norm=True, got {hidden_size}: "
            "the variance of one number is 0, and nothing of it would be left."
        )


def start_norms(layer: nn.Module) -> None:
    """Gains (norm_...) begin as 1 and shifts (norm_c_bias...) as 0, in every layer and direction of `layer`."""
    with torch.no_grad():
        for name, value in layer.named_parameters(recurse=False):
            if name.startswith("norm_"):
                value.fill_(0.0 if name.startswith("norm_c_bias") else 1.0)
