"""What a run is computed on, and in which numbers.

    fp32    everything in float32
    bf16    on a processor: layers may round to bfloat16 where that is the faster way (`twofold.precision`); on CUDA, and on a processor
            with AVX512_BF16 (and no AMX) where maps lie channels last: autocast, so that maps stay in bfloat16 from layer to layer
    fp16    on CUDA alone: autocast, and the loss times a scale so that small gradients do not vanish in 5 bits of exponent

Weights, optimiser and averages are float32 in all of them.

Micikevicius et al., "Mixed precision training", ICLR 2018, section 3
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from twofold.layers.forms import bf16_faster, bf16_ours
from twofold.layers.forms import precision as permission
from twofold.train.part import Part


class Machine(Part):
    """On what, and in which numbers."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where: CUDA where there is one, or as you say."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """The numbers of products: float32, bfloat16 where that is faster, or, on CUDA alone, float16 with a scaled loss."""
    compile: bool = False
    """Hand the model to torch.compile: the first steps take long. Layers then take PyTorch's operators, which it can fuse."""
    channels_last: bool = False
    """Keep maps with their channels last: the fastest with bf16. Without it each layer takes the layout that is the faster for it."""
    processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Train with as many processes, each on its share of every batch."""
    sync_batchnorm: bool = False
    """Batch norm over the batch of all processes rather than over each one's share."""
    shard_weights: bool = False
    """Cut weights, gradients, optimiser and averages over all processes: for models that are too large for one device."""
    workers: Annotated[int, Field(ge=0, le=256)] = 2
    """Threads that read pictures ahead where they do not fit into memory. The order of the data does not depend on it."""


def device_of(machine: Machine, local: int = 0) -> torch.device:
    """The device of the process that is the local-th on its host. Raises ValueError for a CUDA that is not there."""
    there = torch.cuda.is_available()
    if machine.device == "cuda" and not there:
        raise ValueError("settings: device=cuda, but this PyTorch sees no CUDA device. Leave --device out, or install a build with CUDA.")
    device = torch.device("cuda", local) if there and machine.device != "cpu" else torch.device("cpu")
    if machine.precision == "fp16" and device.type == "cpu":
        raise ValueError("settings: precision=fp16 is for CUDA: a processor computes in it slowly and overflows early. Take bf16 or fp32.")
    return device


def numbers(machine: Machine, device: torch.device) -> AbstractContextManager[Any]:
    """The block in which forward, loss and backward are computed."""
    if machine.precision == "fp32":
        return nullcontext()
    if device.type == "cpu" and not (machine.channels_last and bf16_ours() and bf16_faster()):
        return permission("bf16")
    return torch.autocast(device.type, torch.bfloat16 if machine.precision == "bf16" else torch.float16)


def scaler_of(machine: Machine, device: torch.device) -> torch.amp.GradScaler | None:
    """The loss's scale, where the numbers need one."""
    return torch.amp.GradScaler(device.type) if machine.precision == "fp16" else None


def moved(values: Any, device: torch.device) -> Any:
    """The tensors of a batch, whatever tuples, lists and dictionaries hold them, on the device."""
    if isinstance(values, Tensor):
        return values.to(device, non_blocking=True)
    if isinstance(values, dict):
        return {name: moved(value, device) for name, value in values.items()}
    if not isinstance(values, tuple | list):
        return values
    parts = [moved(value, device) for value in values]
    return type(values)(*parts) if hasattr(values, "_fields") else type(values)(parts)


def placed(batches: Iterable[Any], model: nn.Module) -> Iterator[Any]:
    """Batches where the model is."""
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    return (moved(batch, device) for batch in batches)


def network_of(model: nn.Module, machine: Machine) -> nn.Module:
    """What is called in training: the model, or its compiled form, which shares all weights with it."""
    if machine.channels_last:
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.dim() == 4:  # group convolutions have weights of five axes, which are no maps of volumes
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return torch.compile(model) if machine.compile else model  # type: ignore[return-value]
