"""The layers of a model as a table: name, kind, the shape of what comes out, the number of weights, the work, the memory, the reach.

Shapes are found by running the model once, in evaluation mode, on zeros. A weight that two layers share is counted once, where it
comes first. Behind the layers stand the weights that no call has shown: those of layers that were not called, and those that a module
with layers inside holds itself. So the weights of all lines add up to those of the model.

Multiply-adds and receptive fields follow from the laws of the layers (arithmetic.py, receptive.py). A field is known as long as each layer
takes what another gave, as it is or flattened; where paths meet in an operation that is no layer, such as a sum, it is not known.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from twofold.see.arithmetic import law_of
from twofold.see.law import ALL, ALONE, Law
from twofold.see.receptive import Path, field
from twofold.see.trial import first_tensor

NOT_CALLED: Final = "not called"  # a layer that forward went past; the module around it may still use its weights
OWN: Final = "own weights"  # of a module with layers inside, or of one that only holds weights


class Line(NamedTuple):
    """One layer, in the order of its first call; multiply-adds, field (pixels) and effective stride are None where no law tells them.

    bytes: of the output. An output that sees all of the input has no stride. apart: NOT_CALLED or OWN for weights that no call of a layer
    has shown, which have no output; else "".
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    weights: int
    route: str
    multiply_adds: int | None
    bytes: int
    field: tuple[int, ...] | None
    stride: tuple[float, ...] | None
    apart: str = ""

    @property
    def output(self) -> str:
        """The shape in words, or why there is none."""
        return self.apart or "x".join(map(str, self.shape))

    @property
    def sees(self) -> str:
        """The field in words: its size, "all", or "-" where it is not known."""
        if self.field is None:
            return "-"
        return "all" if self.stride is None else "x".join(map(str, self.field))

    @property
    def steps(self) -> str:
        """The effective stride in words."""
        return "-" if self.stride is None else "x".join(f"{step:g}" for step in self.stride)


class Trace(NamedTuple):
    """A tensor on its way through the model: what its numbers see of the input, along each axis of the map, or ALL."""

    tensor: Tensor
    version: int
    counts: tuple[int, ...]
    paths: tuple[Path, ...] | str


def summarise(model: nn.Module, *inputs: Any) -> list[Line]:
    """A line for each layer without layers inside, then one for all weights that are left of a module. `inputs`: those of forward."""
    lines: list[Line] = []
    counted: set[int] = set()
    names = {module: name for name, module in model.named_modules() if not list(module.children())}
    maps = inputs[0].shape[2:] if inputs and isinstance(inputs[0], Tensor) and inputs[0].is_floating_point() else ()
    traces: dict[int, Trace] = {}  # by the memory of the tensors, which the traces keep from being used again
    if maps:
        _leave(traces, inputs[0], tuple(maps), ((),) * len(maps))

    came: dict[nn.Module, tuple[tuple[int, ...], Trace | None]] = {}

    def look(module: nn.Module, given: Any) -> None:
        first = next((x for x in given if isinstance(x, Tensor)), None)  # now: a layer may change it in place
        if first is not None:
            came[module] = (tuple(first.shape), _known(traces, first))

    def note(module: nn.Module, _: Any, output: Any) -> None:
        fresh = [p for p in module.parameters() if id(p) not in counted]
        counted.update(id(p) for p in fresh)
        first = first_tensor(output)
        shape, before = came.pop(module, ((), None))
        law = law_of(module, shape) if shape else None
        if law is not None and law.output != tuple(first.shape):
            law = None
        trace = None if before is None or law is None else _leave(traces, first, *_reach(before, law, first))
        route = getattr(module, "last_route", None) or ""
        weights, size = sum(p.numel() for p in fresh), first.numel() * first.element_size()
        work = None if law is None else law.multiply_adds.number
        lines.append(Line(names[module], type(module).__name__, tuple(first.shape), weights, route, work, size, *_field(trace, maps)))

    hooks = [hook for module in names for hook in (module.register_forward_pre_hook(look), module.register_forward_hook(note))]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return lines + list(_left(model, counted))


def _left(model: nn.Module, counted: set[int]) -> Iterator[Line]:
    """A line for each module with weights of its own that are not counted yet."""
    for name, module in model.named_modules():
        fresh = {id(p): p for p in module.parameters(recurse=False) if id(p) not in counted and not isinstance(p, UninitializedParameter)}
        if fresh:
            counted.update(fresh)
            holds = bool(list(module.children())) or type(module).forward is nn.Module.forward
            weights, work = sum(p.numel() for p in fresh.values()), None if holds else 0
            yield Line(name, type(module).__name__, (), weights, "", work, 0, None, None, OWN if holds else NOT_CALLED)


def _known(traces: dict[int, Trace], x: Tensor) -> Trace | None:
    """The trace that led to x, if x is that tensor, unchanged, as it was or flattened."""
    trace = traces.get(x.untyped_storage()._cdata)
    if trace is None or trace.version != x._version:
        return None
    came = trace.tensor
    same = x.shape == came.shape and x.stride() == came.stride() and x.storage_offset() == came.storage_offset()
    flattened = x.dim() == 2 and came.is_contiguous() and x.is_contiguous() and x.shape == came.flatten(1).shape
    return trace if same or flattened else None


def _leave(traces: dict[int, Trace], tensor: Tensor, counts: tuple[int, ...], paths: tuple[Path, ...] | str) -> Trace | None:
    """The tensor's new trace; a tensor with paths of which nothing is known loses the one it had."""
    key = tensor.untyped_storage()._cdata
    if paths == "":
        traces.pop(key, None)
        return None
    traces[key] = Trace(tensor, tensor._version, counts, paths)
    return traces[key]


def _reach(before: Trace, law: Law, output: Tensor) -> tuple[tuple[int, ...], tuple[Path, ...] | str]:
    """(the size of the map, what the output sees of the model's input; "" where that is not known)"""
    if before.paths == ALL or law.sees == ALL:
        return before.counts, ALL
    if law.sees == ALONE:
        return before.counts, before.paths
    if not law.sees or len(law.sees) != len(before.paths):
        return before.counts, ""
    return tuple(output.shape[-len(law.sees) :]), tuple((*path, sight) for path, sight in zip(before.paths, law.sees, strict=True))  # type: ignore[arg-type]


def _field(trace: Trace | None, maps: Sequence[int]) -> tuple[tuple[int, ...] | None, tuple[float, ...] | None]:
    if trace is None:
        return None, None
    if isinstance(trace.paths, str):
        return tuple(maps), None
    found = field(trace.paths, trace.counts)
    return found.extent, tuple(map(float, found.stride))
