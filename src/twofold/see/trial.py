"""A trial run of a layer: the shapes that come out, the multiplications that torch counts, and what backward keeps.

The run is on the meta device, where tensors have shapes and no numbers: it costs nothing, whatever the size, and the layer itself is
left alone. What backward keeps depends on the route, so it is asked of a run on zeros where that is small; otherwise it is what PyTorch's
own operators keep.
"""

import warnings
from copy import deepcopy
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

SMALL = 2**24  # numbers in and out, and the hundredth part of the products: a run on zeros takes a fraction of a second
LARGEST = 2**28  # numbers: where meta does not serve, more than that are not put into memory


class Kept(NamedTuple):
    """A tensor that backward keeps: "input", "output" or "" for others; its storage in bytes."""

    what: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


class Trial(NamedTuple):
    """What was seen. `products`: multiplications in matrix products and convolutions. `on`: "meta", or the device of the zeros."""

    output: Tensor
    products: int
    kept: tuple[Kept, ...]
    on: str


def attempt(layer: nn.Module, shape: tuple[int, ...]) -> Trial:
    """Run the layer on stand-ins of this shape. Raises ValueError with the layer's own words where it refuses them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the layer has to say only refusals matter here
        return _attempt(layer, shape)


def _attempt(layer: nn.Module, shape: tuple[int, ...]) -> Trial:
    try:
        ghost = on_meta(layer)
        output, products = _count(ghost, inputs_of(layer, shape, "meta"))
    except ValueError:
        raise
    except Exception:  # some modules ask tensors for their numbers, which meta does not have
        if prod(shape) > LARGEST:
            raise ValueError(
                f"{type(layer).__name__} input: {shape} is too large for a run on zeros, and no other tells its shape."
            ) from None
        return _on_zeros(layer, shape)
    device = next((p.device for p in layer.parameters()), torch.device("cpu"))
    if device.type != "meta" and output.numel() + prod(shape) <= SMALL and products <= 100 * SMALL:
        return _on_zeros(layer, shape)._replace(products=products)
    return Trial(output, products, _kept(ghost, inputs_of(layer, shape, "meta")), "meta")


def on_meta(layer: nn.Module) -> nn.Module:
    """A copy with the layer's shapes and settings and none of its numbers."""
    ghosts: dict[int, Any] = {}
    for tensor in (*layer.parameters(), *layer.buffers()):
        ghost = torch.empty_like(tensor, device="meta")
        ghosts[id(tensor)] = nn.Parameter(ghost, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else ghost
    return deepcopy(layer, ghosts)


def inputs_of(layer: nn.Module, shape: tuple[int, ...], device: Any) -> tuple[Tensor, ...]:
    """Zeros of this shape in the dtype that the layer takes; unpooling takes places beside values."""
    first = next((m for m in layer.modules() if not list(m.children())), layer)
    if isinstance(first, (nn.Embedding, nn.EmbeddingBag)):
        return (torch.zeros(shape, dtype=torch.int64, device=device),)
    dtype = next((p.dtype for p in layer.parameters() if p.is_floating_point()), torch.get_default_dtype())
    x = torch.zeros(shape, dtype=dtype, device=device, requires_grad=True)
    if isinstance(layer, (nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d)):
        return x, torch.zeros(shape, dtype=torch.int64, device=device)
    return (x,)


def first_tensor(output: Any) -> Tensor:
    """The output itself, or the first tensor of several."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output


def _count(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, int]:
    layer.eval()  # in training some layers refuse a batch of one
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = first_tensor(layer(*(tensor.detach() for tensor in inputs)))
    return output, counter.get_total_flops() // 2


def _on_zeros(layer: nn.Module, shape: tuple[int, ...]) -> Trial:
    device = next((p.device for p in layer.parameters()), torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        try:
            real = deepcopy(layer)
            output, products = _count(real, inputs_of(layer, shape, device))
            kept = _kept(real, inputs_of(layer, shape, device))
        except ValueError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(f"{type(layer).__name__} input: {shape} is refused: {reason}") from error
    return Trial(output, products, kept, device.type)


def _kept(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Kept, ...]:
    """What autograd keeps for backward beside the weights, in training if it can be; tensors that share their memory count once."""
    try:
        return _kept_as(layer.train(), inputs)
    except ValueError:
        return _kept_as(layer.eval(), inputs)


def _kept_as(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Kept, ...]:
    own = {t.untyped_storage()._cdata for t in (*layer.parameters(), *layer.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = first_tensor(layer(*inputs))
    names = {inputs[0].untyped_storage()._cdata: "input", output.untyped_storage()._cdata: "output"}
    return tuple(
        Kept(names.get(key, ""), tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.untyped_storage().nbytes())
        for key, tensor in kept.items()
        if key not in own and tensor.untyped_storage().nbytes()
    )
