"""Replicas: the same model in every process.

    copies    every process has all weights; gradients are averaged while the backward pass still runs       DistributedDataParallel
    shards    every process keeps 1/P of them, for what fits no device                                       sharded.py

All begin with the first process's weights and buffers. The buffers of a normalisation that is not synchronised go their own ways;
`align` gives all processes the first one's, which are those that are saved.

Li et al., "PyTorch distributed: experiences on accelerating data parallel training", VLDB 13(12), 2020, section 3
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, cast
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import nn
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
        if last and not replica.find_unused_parameters:
            _check(replica, replica.module)
    elif hasattr(replica, "set_requires_gradient_sync"):  # sharded
        cast("FSDPModule", replica).set_requires_gradient_sync(last)
        try:
            yield
        except RuntimeError as error:
            if "mixed torch.Tensor and DTensor" not in str(error):
                raise
            raise ValueError(
                "shard_weights: weights were used that had not been put together, for that is done when the layer that holds them, or the "
                "model, is called. Let the model call its layers, and the task call the model; or leave shard_weights out."
            ) from error
        if last:
            _check(replica, replica)
    else:
        yield


def align(model: nn.Module, world: World, weights: bool = False) -> None:
    """Give all processes the first one's buffers, and its weights."""
    if world.processes == 1:
        return
    with torch.no_grad():
        for value in (*model.buffers(), *(model.parameters() if weights else ())):
            dist.broadcast(value, 0)


_CHECKED: WeakSet[nn.Module] = WeakSet()  # replicas of which every weight is known to get a gradient


def _check(replica: nn.Module, model: nn.Module) -> None:
    """Once: raise ValueError where a weight got no gradient."""
    if replica in _CHECKED:
        return
    _CHECKED.add(replica)
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if idle:
        more = f" and {len(idle) - 3} more" if len(idle) > 3 else ""
        raise ValueError(
            f"processes: {', '.join(idle[:3])}{more} got no gradient, and the processes would wait for it in vain. Where that is meant, "
            "freeze them (requires_grad_(False)); where they are used in some steps only, copy the model with unused=True."
        )
