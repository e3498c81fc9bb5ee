"""Weights from data: every layer's output has variance 1 on a batch.     W: weights of a layer, y = W x + b its output

    first        W W' = I (orthogonal)
    then, layer after layer in the order in which they are called:
                 while |Var[y] - 1| > tolerance, at most `most` times:    W <- W / sqrt(Var[y])

Var is taken over all numbers of the output, on one batch, without dropout. A layer that is linear in W needs one round. The layers
behind see what the scaled ones give, so one pass through the model serves all. A weight that is used twice is scaled where it comes first.
Scaled are layers with a `weight` of 2 or more axes, such as linear layers and convolutions. Left as they were drawn: recurrent layers,
whose weights act on their own output, embeddings, and whatever shares a weight with one.

Mishkin and Matas, "All you need is a good init", ICLR 2016, algorithm 1
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twofold.layers.initialize import weights_of
from twofold.layers.rehearsal import rehearsing

TOLERANCE, MOST = 0.01, 10  # the paper's: 0.1 and 10


class Scaled(NamedTuple):
    """One layer: the variance of its output before and after, and how often its weight was divided."""

    layer: str
    before: float
    after: float
    rounds: int


@torch.no_grad()
def scale_to_unit_variance(model: nn.Module, run: Callable[[], Any], tolerance: float = TOLERANCE, most: int = MOST) -> list[Scaled]:
    """Scale the weights of the model while `run` calls it once on a batch; what was done, layer by layer.

    A layer that does not come within the tolerance stays as the last round left it.
    Raises ValueError where no layer can be scaled, and where an output has no variance or is not finite.
    """
    scaled: list[Scaled] = []
    done: set[int] = set()

    def scale(part: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        if id(part.weight) in done or not isinstance(output, Tensor):
            return output
        done.add(id(part.weight))
        before = after = variance(names[part], output)
        rounds = 0
        while abs(after - 1) > tolerance and rounds < most:
            part.weight.div_(after**0.5)  # type: ignore[operator]  # a layer of `candidates` has it
            output = part.forward(*given, **named)
            after, rounds = variance(names[part], output), rounds + 1
        scaled.append(Scaled(names[part], before, after, rounds))
        return output

    names = candidates(model)
    hooks = [part.register_forward_hook(scale, with_kwargs=True) for part in names]
    try:
        with rehearsing(model):
            run()
    finally:
        for hook in hooks:
            hook.remove()
    if not scaled:
        raise ValueError(
            f"unit variance: {type(model).__name__} has no layer whose output a weight of its own scales, such as a linear layer or a "
            "convolution that shares its weight with no embedding. Take orthogonal."
        )
    return scaled


def candidates(model: nn.Module) -> dict[nn.Module, str]:
    """The layers that can be scaled, with their names."""
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)}
    found = {}
    for name, part in model.named_modules():
        weight = weights_of(part).get("weight")
        if weight is not None and weight.requires_grad and id(weight) not in tables:
            found[part] = name or type(part).__name__
    return found


def variance(layer: str, output: Tensor) -> float:
    """Var[y]. Raises ValueError where a weight cannot be divided by it."""
    found = output.float().var(correction=0).item()
    if not 0 < found < float("inf"):
        raise ValueError(
            f"unit variance: the output of {layer} has variance {found} on the first batch, so its weights cannot be scaled to give 1. "
            "Is the batch blank, or are its values not finite?"
        )
    return found
