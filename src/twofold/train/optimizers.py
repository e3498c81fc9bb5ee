"""Optimisers, schedules of their rate, and clipping. torch's own fused optimisers do the arithmetic.

    cosine     rate * (0.01 + 0.99 (1 + cos(pi t)) / 2)       t: the part of the steps that is done
    step       rate * 1, 0.1 from t = 1/2, 0.01 from t = 3/4
    warm-up    times min(1, t / warmup)
    clipping   g * min(1, clip / |g|)                          |g|: the norm over all parameters

Kingma and Ba, "Adam", ICLR 2015; Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, and "SGDR", ICLR 2017,
eq. 5; Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, algorithm 1
"""

import math
from collections.abc import Iterable

import torch
from torch import nn

from twofold.train.settings import Optimisation


def build_optimizer(model: nn.Module, settings: Optimisation) -> torch.optim.Optimizer:
    """The optimiser of the settings. Only weights of two or more axes decay: not biases, not the scales of a normalisation."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    rate = settings.learning_rate
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, rate, settings.momentum, nesterov=settings.momentum > 0, fused=True)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, rate, betas=(settings.momentum, 0.999), fused=True)


def set_rate(optimizer: torch.optim.Optimizer, settings: Optimisation, step: int, steps: int) -> float:
    """Give the optimiser the rate for step `step` (from 0) of `steps`, and return it."""
    rate = settings.learning_rate * _factor(settings, (step + 1) / max(steps, 1))
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def clip_gradient(parameters: Iterable[nn.Parameter], largest: float) -> float:
    """Scale the gradient to at most the norm `largest` (0: leave it) and return the norm that it had."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))).item()
    if 0 < largest < norm < math.inf:  # the loop asks for the number anyway, so most steps need no pass over the gradient
        torch._foreach_mul_(gradients, largest / norm)
    return norm


def _factor(settings: Optimisation, done: float) -> float:
    factor = min(1.0, done / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "cosine":
        factor *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    elif settings.schedule == "step":
        factor *= 0.01 if done > 0.75 else 0.1 if done > 0.5 else 1.0
    return factor
