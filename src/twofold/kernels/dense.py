"""A linear layer over few rows of float32, compiled (cpu/dense.h): R rows, D features in, U out.

General matrix products spend more time on preparing such small work than on doing it. For many rows or weights they are the faster ones.
"""

import torch
from torch import Tensor

from twofold.kernels.fit import obstacle

MOST = 3_000_000  # multiply-adds, beyond which general matrix products on all threads are faster (measured on two)
HELD = 1 << 17  # weights that the second cache holds


def unfit(x_RD: Tensor, weight_UD: Tensor, bias_U: Tensor | None) -> str:
    """Why the compiled form cannot serve, or ''."""
    return "needs rows: an input of two axes" if x_RD.dim() != 2 else obstacle(x_RD, weight_UD, bias_U)


def worth(x_RD: Tensor, weight_UD: Tensor, bias_U: Tensor | None) -> bool:
    """Whether the compiled form is the faster one: in training, on little work."""
    weights = weight_UD.numel()
    if x_RD.dim() != 2 or weights > HELD or x_RD.shape[0] * weights > MOST:
        return False
    return torch.is_grad_enabled() and weight_UD.requires_grad and not torch.is_autocast_enabled("cpu")
