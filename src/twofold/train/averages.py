"""A running average of the weights.     w_t: the weights after step t (from 0), a: their average

    a <- d_t a + (1 - d_t) w_t          d_t = min(decay, (1 + t) / (10 + t))          a starts as the weights it is built on

About the last 1 / (1 - decay) steps count, and early on the last tenth of all: a constant decay would keep the untrained start for long,
and dividing by 1 - decay^t (Adam's correction) would count the first steps as much as the last until then.

Batch normalisation's running mean and variance are averaged along with the weights. They are smooth functions of them, so the average of
the statistics is to first order the statistics of the average; those of the last step belong to other weights. All other buffers (counts,
masks, tables) stay the model's own. Halves are averaged in float32, where a step of (1 - decay) is not lost in rounding.

Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; Tarvainen and Valpola, "Mean teachers are better role
models", NeurIPS 2017, section 2; d_t: TensorFlow, tf.train.ExponentialMovingAverage, num_updates
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from twofold.train.sharded import own, rows_of

STATISTICS = ("running_mean", "running_var")


class Average:
    """The average of the weights of a model, which lie where they shall stay: build it after the model is on its device.

    Raises ValueError for a decay outside 0..1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema: expected a decay between 0 and 1, got {decay}. Usual: 0.999; to go without, build no average.")
        self.decay, self.updates = decay, 0
        statistics = {name: buffer for name, buffer in model.named_buffers() if name.rpartition(".")[2] in STATISTICS}
        self._live: dict[str, Tensor] = {**dict(model.named_parameters()), **statistics}
        self._average = {name: w.detach().to(_precision(w), copy=True) for name, w in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now: once after each step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        average = self._averages()
        live = [own(w.detach()).to(a.dtype) for w, a in zip(self._live.values(), average, strict=True)]
        torch._foreach_lerp_(average, live, 1 - decay)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model has the averaged weights; after it, whatever happens there, its own again, bit for bit."""
        live = [own(w.detach()) for w in self._live.values()]
        before = [w.clone() for w in live]
        try:
            torch._foreach_copy_(live, self._averages())
            yield
        finally:
            torch._foreach_copy_(live, before)

    def state_dict(self) -> dict[str, Any]:
        """The number of updates, and the averages by the names of the weights."""
        return {"updates": self.updates, "average": dict(self._average)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave. Raises ValueError, and changes nothing, where it is of another model."""
        given = state["average"]
        wrong = sorted(self._average.keys() ^ given.keys())
        wrong += [name for name, a in self._average.items() if name in given and given[name].shape != a.shape]
        if wrong:
            raise ValueError(
                f"ema: expected averages of this model's {len(self._average)} tensors, got {len(given)}: {', '.join(wrong[:3])} differ. "
                "Do they belong to another model?"
            )
        with torch.no_grad():
            for name, a in self._average.items():
                own(a).copy_(rows_of(given[name], a))
        self.updates = state["updates"]

    def _averages(self) -> list[Tensor]:
        """What this process has of them."""
        return [own(a) for a in self._average.values()]


def _precision(w: Tensor) -> torch.dtype:
    return torch.float32 if w.dtype in (torch.float16, torch.bfloat16) else w.dtype
