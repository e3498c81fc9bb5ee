"""The layers of a model as a table: name, kind, the shape of what comes out, and the number of weights.

Shapes are found by running the model once, in evaluation mode, on zeros. A weight that two layers share is counted once, where it
comes first.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Line(NamedTuple):
    """One layer, in the order of its first call."""

    name: str
    kind: str
    shape: tuple[int, ...]
    weights: int
    route: str


def summarise(model: nn.Module, *inputs: Any) -> list[Line]:
    """One line for each layer without layers inside. `inputs` are those of the model's forward."""
    lines: list[Line] = []
    counted: set[int] = set()
    names = {module: name for name, module in model.named_modules() if not list(module.children())}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        fresh = [p for p in module.parameters() if id(p) not in counted]
        counted.update(id(p) for p in fresh)
        first = output if isinstance(output, Tensor) else output[0]
        route = getattr(module, "last_route", None) or ""
        lines.append(Line(names[module], type(module).__name__, tuple(first.shape), sum(p.numel() for p in fresh), route))

    hooks = [module.register_forward_hook(note) for module in names]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return lines
