"""Sharded weights: of a model that is too large for one device, every process keeps 1/P.     P processes, r = 0 .. P-1

    cut        rows [r k, (r + 1) k) of every tensor, k = ceil(n / P) of its n rows: process r has these, the last ones fewer or none
    forward    the weights of a unit are put together when it is called, and taken apart when it has answered       all_gather
    backward   put together once more; the gradients are averaged, and every process gets its rows of them           reduce_scatter
    step       every process moves its own rows: optimiser, penalties and averages go number by number              |g|^2 = sum_r |g_r|^2

A unit is a layer, with all that is in it, of `least` weights or more, and what is left is the outermost one: at any time a device holds its
part of everything and the whole of the units that are at work. So all processes call the model equally often, in evaluation too.

`cut` makes a sharded copy of a model, which has no weights meanwhile; `put_together` gives them back. What is written is whole: it can be
read by any number of processes.

Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter models", SC 2020, section 5; Zhao et al., "PyTorch FSDP:
experiences on scaling fully sharded data parallel", VLDB 16(12), 2023, section 3
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from twofold.train.processes import World
from twofold.train.replicas import align

if TYPE_CHECKING:
    from twofold.train.settings import Settings  # which holds what is set beside the penalties, and these are sharded

LEAST = 1 << 20  # weights of a unit: fewer are not worth a meeting of their own


def cut(model: nn.Module, world: World, least: int = LEAST) -> nn.Module:
    """A copy of the model on the world's device, its weights cut over all processes; the model's own are given up, unit by unit.

    Raises ValueError for a model that cannot be cut, or not be copied. All processes call it; all get the first one's weights.
    """
    from torch.distributed.device_mesh import DeviceMesh  # heavy, like all of FSDP
    from torch.distributed.fsdp import fully_shard

    _refuse_uncuttable(model)
    align(model, world, weights=True)
    try:
        copy = deepcopy(model, {id(weight): weight for weight in model.parameters()})
    except Exception as error:  # a model of one's own may hold anything
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"shard_weights: the model cannot be copied: {first}") from error
    # A group of its own: the mesh outlives it, and one that is not really gone at the end of a process may end that by SIGABRT.
    mesh = DeviceMesh.from_group(dist.new_group(), world.device.type)
    for unit in [*_units(copy, least), copy]:
        given_up = [weight for weight in unit.parameters() if not is_cut(weight)]
        for weight in given_up:
            weight.data = weight.data.contiguous()
        unit.register_forward_hook(_without_views)  # FSDP's own hook comes after it
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
        for weight in given_up:
            weight.data = torch.empty(0, dtype=weight.dtype)
    return copy


def refuse_unshardable(settings: "Settings", world: World) -> None:
    """Raise ValueError for a process that is alone, and for settings that sharded weights cannot have."""
    if not settings.machine.shard_weights:
        return
    if world.processes == 1:
        raise ValueError(
            "shard_weights cuts the weights over several processes, and this one is alone: it would hold all of them. Take --processes 2 "
            "or torchrun, or leave it out."
        )
    machine, watching = settings.machine, settings.watching
    wanted = {
        "compile": (machine.compile, "its graphs hold the weights that are put together"),
        "precision=fp16": (machine.precision == "fp16", "its scale is that of one process. Take bf16"),
        "channels_last": (machine.channels_last, "weights are cut by rows that lie one after the other"),
        "histograms": (watching.histograms > 0, "no process has all weights"),
        "pictures": (watching.pictures > 0, "no process has all weights"),
        "documents": (
            settings.streams.documents,
            "processes would call the model at the beginnings of their own files, and not equally often",
        ),
    }
    for name, (asked, reason) in wanted.items():
        if asked:
            raise ValueError(f"settings: {name} does not go with shard_weights: {reason}. Leave one of them out.")


def put_together(model: nn.Module, copy: nn.Module) -> None:
    """Give the model, on the processor, the weights and buffers of its sharded copy. All processes call it."""
    with torch.no_grad():
        for weight, part in zip(model.parameters(), copy.parameters(), strict=True):
            weight.data = whole(part.detach()).cpu()
        for buffer, other in zip(model.buffers(), copy.buffers(), strict=True):
            buffer.data = other.detach().cpu()


def is_cut(x: Any) -> bool:
    """Whether a tensor is one of which every process has its rows."""
    return hasattr(x, "to_local")


def own(x: Tensor) -> Tensor:
    """The rows of a tensor that this process has, to read and to write; of one that is not cut, itself."""
    return x.to_local() if is_cut(x) else x  # type: ignore[attr-defined]


def whole(values: Any, keep: bool = True) -> Any:
    """Values with their tensors put together, whatever lists, tuples and dictionaries hold them. All processes call it.

    One tensor under two names stays one. keep: whether this process wants them: else there is None for each that was cut.
    """
    known: dict[int, Tensor | None] = {}

    def of(value: Any) -> Any:
        if isinstance(value, Tensor):
            if not is_cut(value):
                return value
            if id(value) not in known:
                together = value.full_tensor()  # type: ignore[attr-defined]
                known[id(value)] = together.cpu() if keep else None
            return known[id(value)]
        if isinstance(value, Mapping):
            return {name: of(inner) for name, inner in value.items()}
        return type(value)(map(of, value)) if type(value) in (list, tuple) else value

    with torch.no_grad():
        return of(values)


def rows_of(x: Tensor, like: Tensor) -> Tensor:
    """This process's rows of a whole tensor, cut as `like` is; all of it where that is not cut."""
    if not is_cut(like):
        return x
    mesh = like.device_mesh  # type: ignore[attr-defined]
    rows, length = -(-len(x) // mesh.size()), len(x)
    first = min(mesh.get_local_rank() * rows, length)
    return x[first : min(first + rows, length)]


def joined(rows: Tensor, like: Tensor) -> Tensor:
    """The whole tensor of which this process has the rows, cut as `like` is; where that is not cut, the rows themselves."""
    if not is_cut(like):
        return rows
    return _cut_from(rows, like).full_tensor()  # type: ignore[attr-defined]


def cut_alike(x: Any, like: Any) -> Any:
    """A whole tensor as one that is cut as `like` is. Anything else, and what has another shape, stays as it is."""
    if not isinstance(x, Tensor) or not is_cut(like) or x.shape != like.shape:
        return x
    return _cut_from(rows_of(x, like).to(like.device, copy=True), like)


def cut_weights(state: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """A whole state_dict of a model as one that its sharded copy takes."""
    wanted = model.state_dict(keep_vars=True)
    return {name: cut_alike(value, wanted.get(name)) for name, value in state.items()}


def cut_moments(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A whole state_dict of an optimiser as one that this optimiser takes: cut as its weights are, and computed in its way."""
    weights = dict(enumerate(weight for group in optimizer.param_groups for weight in group["params"]))
    moments = {
        number: {name: cut_alike(value, weights.get(number)) for name, value in inner.items()} for number, inner in state["state"].items()
    }
    ways = [{way: group[way] for way in ("fused", "foreach") if way in group} for group in optimizer.param_groups]
    groups = [{**group, **way} for group, way in zip(state["param_groups"], ways, strict=False)]
    return {**state, "state": moments, "param_groups": groups if len(groups) == len(ways) else state["param_groups"]}


def kind_of(module: nn.Module) -> str:
    """The name of a layer's class, that of a unit without FSDP's prefix."""
    kind = type(module)
    return (kind.__mro__[2] if hasattr(module, "set_requires_gradient_sync") else kind).__name__


def _without_views(module: nn.Module, given: Any, y: Any) -> Any:
    """What a unit answers, copied where it is a view: there an operation in place would lose FSDP's hook, and give wrong gradients."""
    if isinstance(y, Tensor):
        return y.clone() if y._is_view() else y
    if isinstance(y, dict):
        return {name: _without_views(module, given, part) for name, part in y.items()}
    if not isinstance(y, tuple | list):
        return y
    parts = [_without_views(module, given, part) for part in y]
    return type(y)(*parts) if hasattr(y, "_fields") else type(y)(parts)


def _cut_from(rows: Tensor, like: Any) -> Tensor:
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(rows, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride())


def _units(model: nn.Module, least: int) -> Iterator[nn.Module]:
    """The layers that are put together by themselves, inner ones first. A weight that is used outside of a layer belongs to no unit."""
    places: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(weight), []).append(name)

    def inside(path: str, layer: nn.Module) -> Iterator[nn.Module]:
        for name, child in layer.named_children():
            full = f"{path}{name}."
            weights = list(child.parameters())
            if sum(weight.numel() for weight in weights) < least:
                continue
            yield from inside(full, child)
            alone = all(place.startswith(full) for weight in weights for place in places[id(weight)])
            if alone and type(child).forward is not nn.Module.forward:  # a list of layers is never called
                yield child

    yield from inside("", model)


def _refuse_uncuttable(model: nn.Module) -> None:
    """Raise ValueError for weights without rows, and for those of several types, which are not put together at once."""
    single = [name for name, weight in model.named_parameters() if not weight.dim()]
    if single:
        raise ValueError(
            f"shard_weights: weight {single[0]} is a single number without an axis, which cannot be cut. Give it the shape (1,)."
        )
    kinds = sorted({str(weight.dtype).removeprefix("torch.") for weight in model.parameters() if weight.requires_grad})
    if len(kinds) > 1:
        raise ValueError(f"shard_weights: expected weights of one type, got {' and '.join(kinds)}. Give the model one, by model.float().")
