"""Muon: descent with orthogonalised momentum, for the matrices inside a network.     w: a matrix r x c, g: its gradient

    m <- mu m + (1 - mu) g          u = mu m + (1 - mu) g                             Nesterov's look ahead
    X_0 = u / |u|                   X_{k+1} = a X_k + (b A + c A A) X_k, A = X_k X_k'      five times: every singular value nears 1
    w <- (1 - rate decay) w - rate 0.2 sqrt(max(r, c)) X_5

X_5 is nearly U V' of u = U S V': a step of the same length in every direction that the momentum has. Each iteration maps a singular value s
to a s + b s^3 + c s^5, so after five they lie between about 0.7 and 1.2. The factor 0.2 sqrt(max(r, c)) makes a step's root mean square
that of AdamW's, so that one learning rate and one decay serve both.

A kernel (F, C, kh, kw) is the matrix F x (C kh kw). torch.optim.Muon refuses what is no matrix and takes the matrices one by one; here
those of one shape go through the products together. On CUDA the products are of bfloat16, as its author has them; elsewhere of the
weight's type. Of matrices that are cut over processes each process makes the products of the whole, and moves its own rows.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; Liu et al., "Muon is scalable for LLM training", 2025, eq. 4
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from twofold.train.sharded import joined, own, rows_of

QUINTIC = (3.4445, -4.7750, 2.0315)  # steepest at 0, at the price of not settling at 1: Jordan et al.
ITERATIONS = 5
SMALLEST = 1e-7  # of the norm that is divided by
LENGTH = 0.2  # AdamW's usual root mean square of a step, by Liu et al., section 2.2


class Muon(torch.optim.Optimizer):
    """Tensors of two or more axes, the first against all others. Every tensor keeps its momentum."""

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        vectors = [tuple(p.shape) for group in self.param_groups for p in group["params"] if p.dim() < 2]
        if vectors:
            raise ValueError(f"Muon: expected tensors of two or more axes, got {vectors[0]}. Give vectors and biases to AdamW.")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch overloads it
        """One step; `closure`, where given, is called first, as by torch's optimisers."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                self._step(weights, group["lr"], group["momentum"], group["weight_decay"])
        return loss

    def _step(self, weights: list[Tensor], rate: float, momentum: float, decay: float) -> None:
        gradients = [own(w.grad) for w in weights if w.grad is not None]
        for w in weights:
            if not self.state[w]:
                self.state[w]["momentum_buffer"] = torch.zeros_like(w)
        buffers = [own(self.state[w]["momentum_buffer"]) for w in weights]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, buffers, momentum)
        torch._foreach_mul_([own(w) for w in weights], 1 - rate * decay)
        by_shape: dict[Any, list[int]] = {}
        for index, w in enumerate(weights):
            by_shape.setdefault((len(w), w.numel() // len(w), w.dtype, w.device), []).append(index)
        for (rows, columns, *_), places in by_shape.items():
            those = [weights[index] for index in places]
            wholes = [joined(ahead[index], w).flatten(1) for index, w in zip(places, those, strict=True)]
            directions = orthogonalise(torch.stack(wholes)).to(those[0].dtype)
            moves = [rows_of(x.view(w.shape), w) for x, w in zip(directions.unbind(), those, strict=True)]
            torch._foreach_add_([own(w) for w in those], moves, alpha=-rate * LENGTH * math.sqrt(max(rows, columns)))


def orthogonalise(u_Nrc: Tensor) -> Tensor:
    """X_5 of each of N matrices, as in the law above; the matrix 0 stays 0."""
    a, b, c = QUINTIC
    wide = u_Nrc.shape[1] <= u_Nrc.shape[2]
    x = u_Nrc if wide else u_Nrc.mT  # the smaller of the two products A
    x = x.to(torch.bfloat16) if x.is_cuda else x
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=SMALLEST)
    for _ in range(ITERATIONS):
        A = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(A, A, A, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT
