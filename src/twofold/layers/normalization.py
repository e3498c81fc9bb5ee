"""Batch normalisation.     B rows, C channels, H the map (of 0 to 3 axes), M = B H values a channel, sums over b and h

    training   m[c] = sum x / M        v[c] = sum (x - m)^2 / M                       statistics of the batch
    use        m[c], v[c] as remembered from training: running = (1 - f) running + f new, of v the unbiased v M / (M - 1)

    forward    r = 1 / sqrt(v + eps)   n = (x - m) r       y = n scale[c] + shift[c]
    backward   dshift[c] = sum dy      dscale[c] = sum dy n
       use        dx = dy scale r
       training   dx = (dy - sum dy / M - n (sum dy n) / M) scale r                   three terms:

dy itself; its mean, because m moves with x; its part along n, because v moves with x. Hence dx is orthogonal to 1 and to n.
f is the momentum, or 1 over the number of batches so far, which makes the running values plain averages.

Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift", ICML 2015,
algorithm 1, its gradients in section 3, and algorithm 2
"""

from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.kernels import norm_join
from twofold.kernels.norm_join import join
from twofold.layers.differentiable import Native, differentiable
from twofold.layers.expect import expect_floating, expect_positive, expect_shape, expect_tensor, sentence
from twofold.layers.routes import Routed


class Saved(NamedTuple):
    """What backward needs: n, r, and scale where there is one."""

    normal_BCH: Tensor
    rate_C: Tensor
    scale_C: Tensor | None
    has_shift: bool


Gradients = tuple[Tensor, Tensor | None, Tensor | None]


def batch_forward(x_BCH: Tensor, scale_C: Tensor | None, shift_C: Tensor | None, eps: float) -> tuple[Tensor, Saved]:
    """y_BCH by the statistics of the batch itself"""
    mean_C, variance_C = statistics(x_BCH)
    return running_forward(x_BCH, scale_C, shift_C, mean_C, variance_C, eps)


def batch_backward(dy_BCH: Tensor, saved: Saved) -> Gradients:
    """(dx_BCH, dscale_C, dshift_C)"""
    M = others(dy_BCH)
    along_normal_C = (dy_BCH * saved.normal_BCH).mean(M)
    moved_BCH = dy_BCH - on_maps(dy_BCH.mean(M), dy_BCH) - saved.normal_BCH * on_maps(along_normal_C, dy_BCH)
    _, dscale_C, dshift_C = running_backward(dy_BCH, saved)
    return moved_BCH * on_maps(slope(saved), dy_BCH), dscale_C, dshift_C


def running_forward(
    x_BCH: Tensor, scale_C: Tensor | None, shift_C: Tensor | None, mean_C: Tensor, variance_C: Tensor, eps: float
) -> tuple[Tensor, Saved]:
    """y_BCH by given statistics, in the precision of x"""
    rate_C = torch.rsqrt(variance_C + eps)
    normal_BCH = (x_BCH - on_maps(mean_C, x_BCH)) * on_maps(rate_C, x_BCH)
    y_BCH = normal_BCH if scale_C is None else normal_BCH * on_maps(scale_C, x_BCH)
    if shift_C is not None:
        y_BCH = y_BCH + on_maps(shift_C, x_BCH)
    return y_BCH.to(x_BCH.dtype), Saved(normal_BCH, rate_C, scale_C, shift_C is not None)


def running_backward(dy_BCH: Tensor, saved: Saved) -> Gradients:
    """(dx_BCH, dscale_C, dshift_C)"""
    M = others(dy_BCH)
    dscale_C = None if saved.scale_C is None else (dy_BCH * saved.normal_BCH).sum(M)
    return dy_BCH * on_maps(slope(saved), dy_BCH), dscale_C, dy_BCH.sum(M) if saved.has_shift else None


def statistics(x_BCH: Tensor) -> tuple[Tensor, Tensor]:
    """(m_C, v_C)"""
    M = others(x_BCH)
    mean_C = x_BCH.mean(M)
    return mean_C, ((x_BCH - on_maps(mean_C, x_BCH)) ** 2).mean(M)


def slope(saved: Saved) -> Tensor:
    """dy / dx with the statistics held still: scale r"""
    return saved.rate_C if saved.scale_C is None else saved.rate_C * saved.scale_C


def others(x_BCH: Tensor) -> tuple[int, ...]:
    """The axes that one channel's values stand on: all but the channels'."""
    return (0, *range(2, x_BCH.dim()))


def on_maps(values_C: Tensor, like_BCH: Tensor) -> Tensor:
    """One value a channel, shaped to meet like_BCH"""
    return values_C.reshape(-1, *(1,) * (like_BCH.dim() - 2))


def batch_vendor(x_BCH: Tensor, scale_C: Tensor | None, shift_C: Tensor | None, eps: float) -> Tensor:
    """PyTorch's own"""
    return F.batch_norm(x_BCH, None, None, scale_C, shift_C, True, 0.0, eps)


def running_vendor(x_BCH: Tensor, scale_C: Tensor | None, shift_C: Tensor | None, mean_C: Tensor, variance_C: Tensor, eps: float) -> Tensor:
    """PyTorch's own"""
    return F.batch_norm(x_BCH, mean_C, variance_C, scale_C, shift_C, False, 0.0, eps)


LEAST = 16  # pixels of a map, below which the compiled form is the slower one, channels first


def compiled(x_BCHW: Tensor, scale_C: Tensor | None, shift_C: Tensor | None, *given: Any) -> Tensor:
    """y_BCHW; given: the statistics, where they are not the batch's own, and eps"""
    mean_C, variance_C, eps = given if len(given) == 3 else (None, None, *given)
    return join(x_BCHW, None, scale_C, shift_C, mean_C, variance_C, eps, False)[0]


def unfit(x_BCHW: Tensor, scale_C: Tensor | None, shift_C: Tensor | None, *given: Any) -> str:
    """Why the compiled form cannot serve, or ''."""
    if len(given) == 1 and not x_BCHW.numel():
        return "needs a batch that is not empty"
    return norm_join.unfit(x_BCHW, None, scale_C, shift_C, *given[:-1])


def worth(x_BCHW: Tensor, scale_C: Tensor | None, shift_C: Tensor | None, *given: Any) -> bool:
    """Whether the compiled form is the faster one: by the batch's statistics, but for small maps that lie channels first."""
    if len(given) != 1 or x_BCHW.dim() != 4:
        return False
    return not x_BCHW.is_contiguous() or x_BCHW.shape[2:].numel() >= LEAST


batch_norm = differentiable(batch_forward, batch_backward, vendor=batch_vendor, native=Native(compiled, None, unfit, worth))
running_norm = differentiable(running_forward, running_backward, vendor=running_vendor, native=Native(compiled, None, unfit, worth))


class _BatchNorm(Routed, nn.modules.batchnorm._BatchNorm):
    """What the three layers share: they differ in the axes of the maps that they take."""

    maps: ClassVar[dict[int, str]]  # for each rank that the layer takes, the axes of one channel's map
    hints: ClassVar[dict[int, str]]  # what input of another rank probably is

    def __init__(  # type: ignore[no-untyped-def]
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device=None,
        dtype=None,
        *,
        bias: bool = True,
    ) -> None:
        who = type(self).__name__
        expect_positive(who, num_features=num_features)
        expect_eps(who, eps)
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"{who}: expected momentum, the weight of the new batch, from 0 to 1 or None, got {momentum!r}.")
        unshifted: dict[str, Any] = {} if bias else {"bias": False}  # the oldest torch that is supported lacks the option
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, **unshifted)

    def forward(self, input: Tensor) -> Tensor:
        self.expect_input(input)
        operation = batch_norm
        arguments: tuple[Any, ...] = (input, self.weight, self.bias)
        if self.training or self.running_mean is None:
            self.expect_several(input)
        else:
            operation = running_norm
            arguments += (self.running_mean, self.running_var)
        chosen = operation.choose(*arguments, self.eps)
        self.took(chosen)
        if chosen == "vendor":
            return super().forward(input)  # torch's own operator normalises and remembers in one pass
        if chosen == "native":  # so do the compiled kernels
            given = arguments[3:] or (None, None)
            y_BCH, mean_C, variance_C = join(input, None, self.weight, self.bias, given[0], given[1], self.eps, False)
            if self.training and self.running_mean is not None:
                self.remember(mean_C, variance_C, input.numel() // self.num_features)
            return y_BCH
        if self.training and self.running_mean is not None:
            self.remember(*statistics(input.detach().to(self.running_mean.dtype)), input.numel() // self.num_features)
        normalised_BCH: Tensor = operation.by(chosen, *arguments, self.eps)
        return normalised_BCH

    @torch.no_grad()
    def remember(self, mean_C: Tensor, variance_C: Tensor, number: int) -> None:
        """Move the running values towards those of a batch with so many values a channel; an empty batch is only counted."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        if not number:
            return
        factor = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C, factor)
        self.running_var.lerp_(variance_C * (number / (number - 1)), factor)

    def expect_input(self, x: Any) -> None:
        who = f"{type(self).__name__} input"
        expect_tensor(who, x)
        rank = x.dim()
        if rank not in self.maps or x.shape[1] != self.num_features:
            cause = self.hints.get(rank, "")
            if rank > 2 and rank in self.maps and x.shape[-1] == self.num_features:
                cause = f"Channels last? x.permute({', '.join(map(str, (0, rank - 1, *range(1, rank - 1))))})."
            expect_shape(who, x, f"B C {self.maps.get(rank, self.maps[max(self.maps)])}", {"C": self.num_features}, cause)
        expect_dtype(who, x, self.running_mean if self.weight is None else self.weight)

    def expect_several(self, x_BCH: Tensor) -> None:
        if x_BCH.numel() == self.num_features:
            who = f"{type(self).__name__} input"
            wanted = "more than one value a channel, to take the variance of"
            cause = "Train with a batch of at least 2 or on larger maps; for use call layer.eval()."
            raise ValueError(sentence(who, wanted, str(tuple(x_BCH.shape)), f"B {self.maps[x_BCH.dim()]}".rstrip() + " = 1", cause))


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """Every channel of rows (B, C) or of sequences (B, C, T) with mean 0 and variance 1; torch.nn.BatchNorm1d with routes.

    Settings and errors as BatchNorm2d.

    >>> BatchNorm1d(1, eps=1e-12)(torch.tensor([[1.0], [5.0]])).tolist()
    [[-1.0], [1.0]]
    """

    maps: ClassVar = {2: "", 3: "T"}
    hints: ClassVar = {1: "One row? x.unsqueeze(0).", 4: "Maps? That is BatchNorm2d.", 5: "Volumes? That is BatchNorm3d."}


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """Every channel of maps (B, C, H, W) with mean 0 and variance 1, then scaled and shifted; torch.nn.BatchNorm2d with routes.

    momentum: f, or None for the average of all batches. affine: with scale and shift (`weight`, `bias`); bias=False: with scale alone.
    track_running_stats: False normalises by the batch in evaluation too. The running values change once a call in training.
    Raises ValueError for settings that cannot be, for input of another rank, channel number, dtype or device, and in training for
    one value a channel: its variance is 0.

    >>> BatchNorm2d(1, eps=1e-12)(torch.tensor([[[[1.0, 5.0]]]])).tolist()
    [[[[-1.0, 1.0]]]]
    """

    maps: ClassVar = {4: "H W"}
    hints: ClassVar = {
        3: "One image? x.unsqueeze(0).",
        2: "Features without maps? That is BatchNorm1d.",
        5: "Volumes? That is BatchNorm3d.",
    }


class BatchNorm3d(_BatchNorm, nn.BatchNorm3d):
    """Every channel of volumes (B, C, D, H, W) with mean 0 and variance 1; torch.nn.BatchNorm3d with routes.

    Settings and errors as BatchNorm2d.

    >>> BatchNorm3d(1, eps=1e-12)(torch.tensor([[[[[1.0, 5.0]]]]])).tolist()
    [[[[[-1.0, 1.0]]]]]
    """

    maps: ClassVar = {5: "D H W"}
    hints: ClassVar = {4: "One volume? x.unsqueeze(0). Maps? That is BatchNorm2d."}


def expect_eps(who: str, eps: Any) -> None:
    """Raise ValueError unless eps is above 0."""
    if not eps > 0:
        raise ValueError(f"{who}: expected eps, which is added to the variance, to be above 0, got {eps!r}.")


def expect_dtype(who: str, x: Tensor, like: Tensor | None) -> None:
    """Raise ValueError unless x suits the weights; half precision between weights of full does: torch's operators are made for it."""
    if like is not None and like.dtype == torch.float32 and x.dtype in (torch.bfloat16, torch.float16) and x.device == like.device:
        return
    expect_floating(who, x, like)
