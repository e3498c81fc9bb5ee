"""Replicas: the same model in every process.

    copies    every process has all weights; gradients are averaged while the backward pass still runs       DistributedDataParallel
    shards    every process keeps 1/P of the weights, their gradients and the optimiser's state; a part of the model is put together
              when it is needed                                                                     FSDP2, for what fits no machine

All begin with the first process's weights and buffers. The buffers of a normalisation that is not synchronised go their own ways;
`align` gives all processes the first one's, which are those that are saved.

Li et al., "PyTorch distributed: experiences on accelerating data parallel training", VLDB 13(12), 2020, section 3;
Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter models", SC 2020, section 5
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from twofold.train.processes import World

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


def copy_to_all(model: nn.Module, world: World, unused: bool = False) -> nn.Module:
    """The model to call in training: itself in a process that is alone, else a copy whose gradients are averaged over all.

    Weights are the model's own: save, judge and describe `model`, call the copy. `unused`: some weights get no gradient in some steps;
    costs a walk over the graph in each.
    """
    if world.processes == 1:
        return model
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("processes: the model has no weight to train, so there is nothing to share the work on.")
    align(model, world, weights=True)
    places = [world.device] if world.device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`?broadcast_buffers", FutureWarning)  # its new name is not in the oldest torch supported
        return DistributedDataParallel(
            model, places, broadcast_buffers=False, find_unused_parameters=unused, gradient_as_bucket_view=True, init_sync=False
        )


@contextmanager
def averaging(replica: nn.Module, last: bool = True) -> Iterator[None]:
    """Around forward and backward of one part of a batch: gradients are added up here, and averaged over processes with the last part.

    Raises ValueError after the first average for weights without a gradient: the others would wait for them in vain.
    """
    if isinstance(replica, DistributedDataParallel):
        with nullcontext() if last else replica.no_sync():
            yield
        if last and not replica.find_unused_parameters and replica not in _CHECKED:
            _refuse_idle(replica.module)
            _CHECKED.add(replica)
    else:
        if hasattr(replica, "set_requires_gradient_sync"):  # sharded
            cast("FSDPModule", replica).set_requires_gradient_sync(last)
        yield


def align(model: nn.Module, world: World, weights: bool = False) -> None:
    """Give all processes the first one's buffers, and its weights."""
    if world.processes == 1:
        return
    with torch.no_grad():
        for value in (*model.buffers(), *(model.parameters() if weights else ())):
            dist.broadcast(value, 0)


def shard_over_all(model: nn.Module, world: World, least: int = 1 << 20) -> nn.Module:
    """The model with its weights cut over all processes (FSDP2), in place: make the optimiser after this.

    Each child with at least so many weights is put together and taken apart by itself; the rest of the model at once.
    """
    if world.processes == 1:
        return model
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    align(model, world, weights=True)
    mesh = init_device_mesh(world.device.type, (world.processes,))
    for child in model.children():
        if sum(p.numel() for p in child.parameters()) >= least:
            fully_shard(child, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's state_dict, put together where it is sharded. All processes call it."""
    state: dict[str, Any] = model.state_dict()
    return {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in state.items()}


_CHECKED: WeakSet[nn.Module] = WeakSet()  # replicas of which every weight is known to get a gradient


def _refuse_idle(model: nn.Module) -> None:
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if idle:
        more = f" and {len(idle) - 3} more" if len(idle) > 3 else ""
        raise ValueError(
            f"processes: {', '.join(idle[:3])}{more} got no gradient, and the processes would wait for it in vain. Where that is meant, "
            "freeze them (requires_grad_(False)); where they are used in some steps only, copy the model with unused=True."
        )
