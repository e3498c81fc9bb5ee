"""Batch normalisation over the batches of all processes.     C channels, M_r values a channel in process r, M = sum_r M_r

    statistics   m = sum_r M_r m_r / M        v = sum_r M_r (v_r + (m_r - m)^2) / M            m_r, v_r: those of process r alone
    forward      n = (x - m) / sqrt(v + eps)                  y = n scale + shift
    backward     dshift = sum dy              dscale = sum dy n                               of this process alone: they are averaged later
                 dx = (dy - D / M - n N / M) scale / sqrt(v + eps)      D, N: sum dy and sum dy n over all processes

So a net learns what one process would learn with the whole batch. Layers and weights keep their names; in evaluation, and in a process that
is alone, they are what they were.

Ioffe and Szegedy, "Batch normalization", ICML 2015, algorithm 1; the variances of parts put together: Chan, Golub and LeVeque, "Algorithms
for computing the sample variance", The American Statistician 37(3), 1983, eq. 2.1
"""

from copy import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from twofold.layers.normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d, on_maps, others, running_backward, running_forward, slope

KINDS: dict[type[nn.Module], type[nn.Module]] = {}  # of each layer the one that is synchronised


def synchronise(model: nn.Module) -> list[str]:
    """Let every batch normalisation within the model meet those of the other processes; the names of those that do from now on.

    Each is replaced by a layer with the same weights, buffers and name. Raises ValueError for one that is not ours.
    """
    names, made = [], dict[nn.Module, nn.Module]()
    for path, parent in list(model.named_modules()):
        for name, layer in parent.named_children():
            full = f"{path}.{name}".lstrip(".")
            if type(layer) in KINDS:
                if layer not in made:
                    made[layer] = copy(layer)
                    made[layer].__class__ = KINDS[type(layer)]
                setattr(parent, name, made[layer])
                names.append(full)
            elif isinstance(layer, nn.modules.batchnorm._BatchNorm) and type(layer) not in KINDS.values():
                raise ValueError(
                    f"sync_batchnorm: layer {full!r} is {type(layer).__module__}.{type(layer).__name__}, which cannot be synchronised "
                    "here. Build the model with `from twofold import nn`."
                )
    return names


class _Together(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCH: Tensor, scale_C: Tensor | None, shift_C: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor, int]:
        mean_C, variance_C, number = statistics_of_all(x_BCH)
        y_BCH, saved = running_forward(x_BCH, scale_C, shift_C, mean_C.to(x_BCH.dtype), variance_C.to(x_BCH.dtype), eps)
        ctx.save_for_backward(saved.normal_BCH, saved.rate_C, saved.scale_C)
        ctx.kind, ctx.has_shift, ctx.number = type(saved), saved.has_shift, number
        ctx.mark_non_differentiable(mean_C, variance_C)
        return y_BCH, mean_C, variance_C, number

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BCH: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
        saved = ctx.kind(*ctx.saved_tensors, ctx.has_shift)
        M = others(dy_BCH)
        sums_2C = torch.stack([dy_BCH.sum(M), (dy_BCH * saved.normal_BCH).sum(M)])
        dist.all_reduce(sums_2C)
        _, dscale_C, dshift_C = running_backward(dy_BCH, saved)
        mean_C, along_C = sums_2C / ctx.number
        dx_BCH = (dy_BCH - on_maps(mean_C, dy_BCH) - saved.normal_BCH * on_maps(along_C, dy_BCH)) * on_maps(slope(saved), dy_BCH)
        return dx_BCH, dscale_C, dshift_C, None


def statistics_of_all(x_BCH: Tensor) -> tuple[Tensor, Tensor, int]:
    """(m_C, v_C, M) over all processes, in float64."""
    number = x_BCH.numel() // x_BCH.shape[1]
    variance_C, mean_C = (
        torch.var_mean(x_BCH.double(), others(x_BCH), correction=0) if number else x_BCH.new_zeros(2, x_BCH.shape[1]).double()
    )
    own = torch.cat([mean_C, variance_C, mean_C.new_tensor([number])])
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    C = x_BCH.shape[1]
    means_PC, variances_PC, numbers_P1 = torch.stack(parts).split([C, C, 1], 1)
    weights_P1 = numbers_P1 / numbers_P1.sum()
    together_C = (weights_P1 * means_PC).sum(0)
    return together_C, (weights_P1 * (variances_PC + (means_PC - together_C).square())).sum(0), int(numbers_P1.sum())


class _Synchronised:
    """What the three layers share."""

    def forward(self: Any, input: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            alone: Tensor = super().forward(input)  # type: ignore[misc]
            return alone
        self.expect_input(input)
        y_BCH: Tensor
        y_BCH, mean_C, variance_C, number = _Together.apply(input, self.weight, self.bias, self.eps)
        self.took("synchronised")
        if self.running_mean is not None:
            self.remember(mean_C.to(self.running_mean.dtype), variance_C.to(self.running_mean.dtype), number)
        return y_BCH


class SynchronisedBatchNorm1d(_Synchronised, BatchNorm1d):
    """BatchNorm1d by the rows of all processes."""


class SynchronisedBatchNorm2d(_Synchronised, BatchNorm2d):
    """BatchNorm2d by the maps of all processes."""


class SynchronisedBatchNorm3d(_Synchronised, BatchNorm3d):
    """BatchNorm3d by the volumes of all processes."""


KINDS |= {BatchNorm1d: SynchronisedBatchNorm1d, BatchNorm2d: SynchronisedBatchNorm2d, BatchNorm3d: SynchronisedBatchNorm3d}
