"""Routes: which code computes an operation.

plain    the definition, in torch operations, its backward pass written out beneath it
vendor   PyTorch's own operator (oneDNN, cuDNN)
native   our compiled kernels
auto     the fastest that is right for this operation, shape, dtype and device; the default: a rule where one is known, else a
         measurement that is remembered (measured.py). It knows the vendor in other forms, too (forms.py)

>>> import torch, twofold
>>> from twofold import nn
>>> layer = nn.Linear(3, 2)
>>> with twofold.route("plain"):
...     y = layer(torch.ones(1, 3))
>>> layer.last_route
'plain'
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from twofold.layers.forms import FORMS

ROUTES = ("plain", "vendor", "native", "auto")
FURTHER = list(FORMS)  # the forms of the vendor, and what operations offer beside them (differentiable.py)

_wanted: ContextVar[str] = ContextVar("route", default="auto")


@contextmanager
def route(name: str) -> Iterator[None]:
    """Within the block every operation of this thread takes the route `name`.

    `name` may also be a further one: "vendor channels last", "vendor bf16" (which is a permission to round, too).
    An operation that has no such route at all keeps the choice of `auto`; one that has it but cannot serve the input
    (a native kernel that was not built, a dtype it lacks) raises ValueError with the reason. Nothing is swapped in silence:
    `layer.last_route` says what ran. The backward pass follows the route of its forward pass.
    """
    if name not in ROUTES and name not in FURTHER:
        near = get_close_matches(str(name), [*ROUTES, *FURTHER], 1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise ValueError(f"route: expected one of {', '.join(ROUTES)}, got {name!r}.{hint}")
    token = _wanted.set(name)
    try:
        yield
    finally:
        _wanted.reset(token)


def wanted_route() -> str:
    """The route that the innermost `with route(...)` asks for."""
    return _wanted.get()


def traced() -> bool:
    """Whether a compiler, an exporter or a function transform is watching: it should see torch's own operators."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


class Routed(nn.Module):
    """A layer that says which route it took, and why: mixed in before the torch module that it stands in for."""

    last_route: str | None = None
    last_reason: str = ""

    def took(self, route_name: str, why: str = "") -> None:
        """Remember the route of the call in progress."""
        if not torch.compiler.is_compiling():
            known = self.__dict__  # not Module.__setattr__: that costs microseconds per call
            known["last_route"], known["last_reason"] = route_name, why

    def run(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        """Apply a `differentiable` operation by the route that suits, and remember which."""
        chosen, why = operation.decide(*arguments)  # type: ignore[attr-defined]
        self.took(chosen, why)
        return operation.by(chosen, *arguments)  # type: ignore[attr-defined]


def routes_taken(model: nn.Module) -> dict[str, int]:
    """How many layers of the model took each route in their last call, for the run's report."""
    counts: dict[str, int] = {}
    for module in model.modules():
        taken = getattr(module, "last_route", None)
        if taken is not None:
            counts[taken] = counts.get(taken, 0) + 1
    return counts
