"""Reach: how much of the gradient arrives how far back.     loss L_T at the last step of a stretch, states s_t, B rows, lag k

    reach[k] = sqrt( (1/B) sum_b |dL_T,b / ds_{T-k},b|^2 )          k = 1 .. T

Row by row, over all layers and tensors of the state; dropout is off, and nothing is changed. A reach that falls by a factor at every step
is a gradient that vanishes: what lies further back than that cannot be learnt. One that grows explodes.

Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, section 2
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from twofold.layers.losses import cross_entropy
from twofold.tasks.language import Window
from twofold.time.stretch import own_start, restarted
from twofold.train.leaves import tensors
from twofold.train.moment import Moment


def reach(
    model: nn.Module, x_TB: Tensor, last_loss: Callable[[Tensor], Tensor], state: Any = None, starts_TB: Tensor | None = None
) -> list[float]:
    """The norms for the lags 1 to T. model: any with y, state = model(x, state), time first; last_loss(y of the last step): the sum of
    its loss over the rows. The model is called step by step, T times.
    """
    T, B = x_TB.shape[:2]
    moment, modes = Moment(model), [(module, module.training) for module in model.modules()]
    moment.take()
    model.eval()
    try:
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # cuDNN has no backward pass in evaluation
            state = _opened(own_start(model, x_TB) if state is None else state)
            trail, y = [], x_TB
            for t in range(T):
                before = state if starts_TB is None or not starts_TB[t].any() else restarted(state, starts_TB[t], model, x_TB)
                trail.append(state)
                y, state = model(x_TB[t : t + 1], before)
            parts = [list(tensors((part,)).values()) for part in trail]
            flat = [part for step in parts for part in step]
            found = torch.autograd.grad(last_loss(y), flat, allow_unused=True)
    finally:
        for module, mode in modes:
            module.training = mode
        moment.put_back()
    squares = [0.0 if g is None else g.double().square().sum().item() for g in found]
    each = len(parts[0])
    return [math.sqrt(sum(squares[t * each : (t + 1) * each]) / B) for t in range(T - 1, -1, -1)]


@dataclass(frozen=True)
class ReachRecord:
    """Every so many updates a row for the metrics: {"step": 400, "reach": [for lag 1, 2, ..]}. A norm that is no number stands as None."""

    every: int

    def row(self, step: int, model: nn.Module, batch: Window, carried: Any) -> dict[str, Any] | None:
        """The row of an update, before it is made; None where none is wanted. carried: what the stretch goes on from."""
        if self.every < 1 or step % self.every:
            return None
        starts_TB = getattr(batch, "starts_TB", None)
        norms = reach(model, batch.x_TB, _loss_of(batch), None if batch.fresh else carried, starts_TB)
        return {"step": step, "reach": [norm if math.isfinite(norm) else None for norm in norms]}


def _loss_of(batch: Window) -> Callable[[Tensor], Tensor]:
    """The loss of the last step's logits (1, B, V), summed over the rows."""
    return lambda logits_TBV: cross_entropy(logits_TBV.flatten(0, 1), batch.y_TB[-1], None, -100, "sum")


def _opened(state: Any) -> Any:
    """The same state, as numbers that a gradient can be asked of."""
    if isinstance(state, Tensor):
        return state.detach().clone().requires_grad_()
    parts = [_opened(part) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
