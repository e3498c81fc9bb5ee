"""Symmetry: units that are alike and stay alike.     W_u: the weights of unit u of a layer, dW_u their gradient

    W_u = W_v for all u, v, and the units act alike on what follows    =>    dW_u = dW_v at every step: they count as one, for ever

All weights zero is the plainest case: nothing comes out of the hidden layers and no gradient comes back. A constant is another.
Alike weights are no mistake by themselves: an output layer of zeros, or a branch that ends in one, gets a gradient for every unit of its
own, and what lies before it follows a step later. So the layers whose units are alike are tried: a few steps of gradient descent on one
batch, taken back afterwards. Refused is a layer whose units got one and the same gradient, or none, at every step. A hidden layer and
all others zero is refused whatever the biases are, for nothing of the input reaches the output.

A unit is a row of the map (U, inputs...), in each gate and group by itself; in an embedding, a column. Weights from state to state are
not asked: units with the same input weights that these tell apart get different gradients there. A gradient below ROUNDING of the
largest in the model counts as none, and those of two units as the same where they differ by less than that part of the layer's largest.

Rumelhart, Hinton and Williams, "Learning internal representations by error propagation", 1986, "Symmetry breaking"
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from twofold.layers.initialize import blocks, weights_of
from twofold.layers.rehearsal import rehearsing

ROUNDING = 1e-5
STRIDE = 0.1  # the largest change of a number in a trial step
MOST = 10  # trial steps; each lets one more layer of a chain of zeros begin


class Map(NamedTuple):
    """One weight and where it stands."""

    layer: str
    part: nn.Module
    name: str
    weight: nn.Parameter

    def units(self, numbers: Tensor) -> Iterator[Tensor]:
        """The weight's numbers, or its gradient's, as (U, inputs), for each map that it stacks."""
        table = isinstance(self.part, nn.Embedding | nn.EmbeddingBag)
        for block in blocks(self.part, self.name, numbers):
            yield block.t() if table else block.flatten(1)

    def alike(self, numbers: Tensor, most: float = 0.0) -> bool:
        """Whether all units have the same numbers, up to `most`; those of a single unit must be 0."""
        return all((rows - (rows[:1] if len(rows) > 1 else 0)).abs().max() <= most for rows in self.units(numbers))

    def __str__(self) -> str:
        return f"{self.layer} ({type(self.part).__name__})" if self.layer else type(self.part).__name__


def refuse_symmetric(model: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Raise ValueError where the units of a layer are all alike and would stay so. loss: computes a loss of the model on a batch.

    The model is as it was afterwards. A model without alike units costs no more than a look at its weights.
    """
    maps = list(_maps(model))
    if len(maps) > 1 and not any(bool(found.weight.any()) for found in maps):
        raise ValueError(
            f"first weights: all weights of {type(model).__name__} are 0: every unit would compute the same, nothing of the input reaches "
            f"the output, and no gradient comes back (symmetry). {ADVICE}"
        )
    suspects = [found for found in maps if found.alike(found.weight)]
    stuck = _tried(model, suspects, loss) if suspects else []
    if stuck:
        zero = not stuck[0].weight.any()
        raise ValueError(
            f"first weights: the units of {', '.join(map(str, stuck))} are all alike{', their weights 0,' if zero else ''} and stay alike "
            f"on the first batch: every unit would compute the same and get the same gradient (symmetry). {ADVICE}"
        )


ADVICE = 'Start from random weights, such as init="he".'


def _maps(model: nn.Module) -> Iterator[Map]:
    seen: set[int] = set()
    for layer, part in model.named_modules():
        for name, weight in weights_of(part).items():
            fit = not isinstance(weight, UninitializedParameter) and weight.requires_grad and weight.numel() > 0
            if fit and id(weight) not in seen and not name.startswith("weight_hh"):
                seen.add(id(weight))
                yield Map(layer, part, name, weight)


def _tried(model: nn.Module, suspects: list[Map], loss: Callable[[], Tensor]) -> list[Map]:
    """Those of the suspects that no trial step tells apart."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    before = [weight.detach().clone() for weight in trained]
    try:
        for _ in range(min(len(suspects) + 2, MOST)):
            # Dropout would hide that units are the same. cuDNN's recurrent layers have no backward pass without it, torch's own have.
            with rehearsing(model), torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
                found = torch.autograd.grad(loss(), trained, allow_unused=True)
            gradients = {id(weight): _dense(gradient) for weight, gradient in zip(trained, found, strict=True) if gradient is not None}
            largest = max((gradient.abs().max().item() for gradient in gradients.values()), default=0.0)
            if not 0 < largest < float("inf"):
                return [suspect for suspect in suspects if id(suspect.weight) in gradients] if largest == 0 else []
            used = [(suspect, gradients[id(suspect.weight)]) for suspect in suspects if id(suspect.weight) in gradients]
            suspects = [suspect for suspect, gradient in used if _same(suspect, gradient, largest)]
            if not suspects:
                return []
            with torch.no_grad():
                for weight in trained:
                    if id(weight) in gradients:
                        weight.sub_(gradients[id(weight)], alpha=STRIDE / largest)
        return suspects
    finally:
        with torch.no_grad():
            for weight, old in zip(trained, before, strict=True):
                weight.copy_(old)


def _dense(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


def _same(found: Map, gradient: Tensor, largest: float) -> bool:
    """Whether all units get the same gradient, or none."""
    own = gradient.abs().max().item()
    return own <= ROUNDING * largest or found.alike(gradient, ROUNDING * own)
