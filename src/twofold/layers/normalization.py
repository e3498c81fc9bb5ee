"""Batch normalisation of maps.     B images, C channels, H W map, M = B H W values a channel, sums over b, h, w

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

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating, expect_positive, expect_shape, expect_tensor, sentence
from twofold.layers.routes import Routed

MAPS = (0, 2, 3)  # the axes that one channel's values stand on


class Saved(NamedTuple):
    """What backward needs: n, r, and scale where there is one."""

    normal_BCHW: Tensor
    rate_C: Tensor
    scale_C: Tensor | None
    has_shift: bool


Gradients = tuple[Tensor, Tensor | None, Tensor | None]


def batch_forward(x_BCHW: Tensor, scale_C: Tensor | None, shift_C: Tensor | None, eps: float) -> tuple[Tensor, Saved]:
    """y_BCHW by the statistics of the batch itself"""
    mean_C, variance_C = statistics(x_BCHW)
    return running_forward(x_BCHW, scale_C, shift_C, mean_C, variance_C, eps)


def batch_backward(dy_BCHW: Tensor, saved: Saved) -> Gradients:
    """(dx_BCHW, dscale_C, dshift_C)"""
    along_normal_C = (dy_BCHW * saved.normal_BCHW).mean(MAPS)
    moved_BCHW = dy_BCHW - on_maps(dy_BCHW.mean(MAPS)) - saved.normal_BCHW * on_maps(along_normal_C)
    _, dscale_C, dshift_C = running_backward(dy_BCHW, saved)
    return moved_BCHW * slope(saved), dscale_C, dshift_C


def running_forward(
    x_BCHW: Tensor, scale_C: Tensor | None, shift_C: Tensor | None, mean_C: Tensor, variance_C: Tensor, eps: float
) -> tuple[Tensor, Saved]:
    """y_BCHW by given statistics"""
    rate_C = torch.rsqrt(variance_C + eps)
    normal_BCHW = (x_BCHW - on_maps(mean_C)) * on_maps(rate_C)
    y_BCHW = normal_BCHW if scale_C is None else normal_BCHW * on_maps(scale_C)
    if shift_C is not None:
        y_BCHW = y_BCHW + on_maps(shift_C)
    return y_BCHW, Saved(normal_BCHW, rate_C, scale_C, shift_C is not None)


def running_backward(dy_BCHW: Tensor, saved: Saved) -> Gradients:
    """(dx_BCHW, dscale_C, dshift_C)"""
    dscale_C = None if saved.scale_C is None else (dy_BCHW * saved.normal_BCHW).sum(MAPS)
    return dy_BCHW * slope(saved), dscale_C, dy_BCHW.sum(MAPS) if saved.has_shift else None


def statistics(x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """(m_C, v_C)"""
    mean_C = x_BCHW.mean(MAPS)
    return mean_C, ((x_BCHW - on_maps(mean_C)) ** 2).mean(MAPS)


def slope(saved: Saved) -> Tensor:
    """dy / dx with the statistics held still: scale r, on the maps"""
    return on_maps(saved.rate_C if saved.scale_C is None else saved.rate_C * saved.scale_C)


def on_maps(values_C: Tensor) -> Tensor:
    """One value a channel, shaped to meet maps"""
    return values_C[:, None, None]


def batch_vendor(x_BCHW: Tensor, scale_C: Tensor | None, shift_C: Tensor | None, eps: float) -> Tensor:
    """PyTorch's own"""
    return F.batch_norm(x_BCHW, None, None, scale_C, shift_C, True, 0.0, eps)


def running_vendor(
    x_BCHW: Tensor, scale_C: Tensor | None, shift_C: Tensor | None, mean_C: Tensor, variance_C: Tensor, eps: float
) -> Tensor:
    """PyTorch's own"""
    return F.batch_norm(x_BCHW, mean_C, variance_C, scale_C, shift_C, False, 0.0, eps)


batch_norm = differentiable(batch_forward, batch_backward, vendor=batch_vendor)
running_norm = differentiable(running_forward, running_backward, vendor=running_vendor)


class BatchNorm2d(Routed, nn.BatchNorm2d):
    """Every channel of maps (B, C, H, W) with mean 0 and variance 1, then scaled and shifted; torch.nn.BatchNorm2d with routes.

    momentum: f, or None for the average of all batches. affine: with scale and shift (`weight`, `bias`); bias=False: with scale alone.
    track_running_stats: False normalises by the batch in evaluation too. The running values change once a call in training.
    Raises ValueError for settings that cannot be, for input of another rank, channel number, dtype or device, and in training for
    one value a channel: its variance is 0.

    >>> BatchNorm2d(1, eps=1e-12)(torch.tensor([[[[1.0, 5.0]]]])).tolist()
    [[[[-1.0, 1.0]]]]
    """

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
        expect_positive("BatchNorm2d", num_features=num_features)
        if not eps > 0:
            raise ValueError(f"BatchNorm2d: expected eps, which is added to the variance, to be above 0, got {eps!r}.")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"BatchNorm2d: expected momentum, the weight of the new batch, from 0 to 1 or None, got {momentum!r}.")
        unshifted: dict[str, Any] = {} if bias else {"bias": False}  # the oldest torch that is supported lacks the option
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, **unshifted)

    def forward(self, input: Tensor) -> Tensor:
        self._expect_maps(input)
        operation = batch_norm
        arguments: tuple[Any, ...] = (input, self.weight, self.bias)
        if self.training or self.running_mean is None:
            self._expect_several(input)
        else:
            operation = running_norm
            arguments += (self.running_mean, self.running_var)
        chosen = operation.choose(*arguments, self.eps)
        self.took(chosen)
        if chosen == "vendor":
            return super().forward(input)  # torch's own operator normalises and remembers in one pass
        if self.training and self.track_running_stats:
            self._remember(input)
        y_BCHW: Tensor = operation.by(chosen, *arguments, self.eps)
        return y_BCHW

    @torch.no_grad()
    def _remember(self, x_BCHW: Tensor) -> None:
        """Move the running values towards those of the batch; an empty batch has none, it is only counted."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        number = x_BCHW.numel() // self.num_features
        if not number:
            return
        factor = 1 / self.num_batches_tracked.to(torch.float64) if self.momentum is None else self.momentum
        mean_C, variance_C = statistics(x_BCHW.to(self.running_mean.dtype))
        for running_C, new_C in ((self.running_mean, mean_C), (self.running_var, variance_C * (number / (number - 1)))):
            running_C.copy_(running_C * (1 - factor) + new_C * factor)

    def _expect_maps(self, x: Any) -> None:
        expect_tensor("BatchNorm2d input", x)
        if x.dim() != 4 or x.shape[1] != self.num_features:
            cause = {3: "One image? x.unsqueeze(0).", 2: "Features without maps? That is torch.nn.BatchNorm1d."}.get(x.dim(), "")
            if x.dim() == 4 and x.shape[3] == self.num_features:
                cause = "Channels last? x.permute(0, 3, 1, 2)."
            expect_shape("BatchNorm2d input", x, "B C H W", {"C": self.num_features}, cause)
        like = self.running_mean if self.weight is None else self.weight
        if like is not None and like.dtype == torch.float32 and x.dtype in (torch.bfloat16, torch.float16):
            return  # half precision between weights of full: torch's operator is made for it
        expect_floating("BatchNorm2d input", x, like)

    def _expect_several(self, x_BCHW: Tensor) -> None:
        if x_BCHW.numel() == self.num_features:
            wanted = "more than one value a channel, to take the variance of"
            cause = "Train with a batch of at least 2 or on larger maps; for use call layer.eval()."
            raise ValueError(sentence("BatchNorm2d input", wanted, str(tuple(x_BCHW.shape)), "B H W = 1", cause))
