"""What a layer expects of its input, and the sentence that says so.

Conv2d input: expected (B, C=3, H, W), got (8, 1, 28, 28): C is 1, not 3. Grey images? Build the model with in_channels=1.
who           what was expected        what came            what differs  the likely cause
"""

from typing import Any

import torch
from torch import Tensor


def expect_shape(who: str, x: Any, axes: str, sizes: dict[str, int] | None = None, cause: str = "") -> None:
    """Raise ValueError unless x is a tensor with these axes ("B C H W") and these sizes ({"C": 3}).

    >>> expect_shape("Conv2d input", torch.zeros(8, 1, 28, 28), "B C H W", {"C": 3}, "Grey images?")
    Traceback (most recent call last):
    ValueError: Conv2d input: expected (B, C=3, H, W), got (8, 1, 28, 28): C is 1, not 3. Grey images?
    """
    names = axes.split()
    sizes = sizes or {}
    expect_tensor(who, x)
    wanted = f"({', '.join(f'{name}={sizes[name]}' if name in sizes else name for name in names)})"
    if x.dim() != len(names):
        differs = f"{x.dim()} axes, not {len(names)}"
    else:
        found = zip(names, x.shape, strict=True)
        differs = ", ".join(f"{n} is {size}, not {sizes[n]}" for n, size in found if sizes.get(n, size) != size)
    if differs:
        raise ValueError(sentence(who, wanted, str(tuple(x.shape)), differs, cause))


def expect_tensor(who: str, x: Any) -> None:
    """Raise ValueError unless x is a torch tensor; the message has one line whatever came."""
    if not isinstance(x, Tensor):
        kind = f"{type(x).__module__}.{type(x).__name__}".removeprefix("builtins.")
        raise ValueError(f"{who}: expected a torch tensor, got {kind}. Convert it with torch.as_tensor(...).")


def expect_floating(who: str, x: Tensor, like: Tensor | None = None) -> None:
    """Raise ValueError unless x is real floating point and, outside autocast, has the dtype and the device of `like`."""
    if not x.is_floating_point():
        cause = "Bytes? Convert and scale: x.float() / 255." if x.dtype == torch.uint8 else "Convert it with x.float()."
        if x.dtype in (torch.int32, torch.int64):
            cause = "Token numbers? Put an Embedding in front; else convert with x.float()."
        raise ValueError(sentence(who, "floating point", str(x.dtype).removeprefix("torch."), "", cause))
    if like is None:
        return
    if x.device != like.device:
        cause = "Move both to one device with .to(device)."
        raise ValueError(sentence(who, f"device {like.device}, where the weights are", str(x.device), "", cause))
    if x.dtype != like.dtype and not torch.is_autocast_enabled(x.device.type):
        wanted, got = (str(t.dtype).removeprefix("torch.") for t in (like, x))
        cause = f"Convert the input with x.to(torch.{wanted}) or the layer with layer.to(torch.{got})."
        raise ValueError(sentence(who, f"{wanted}, the dtype of the weights", got, "", cause))


def expect_positive(who: str, **values: int) -> None:
    """Raise ValueError unless every value is a whole number of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{who}: expected {name} to be a whole number of at least 1, got {value!r}.")


def first_outside(numbers: Tensor, size: int, ignored: int | None = None) -> tuple[int, str] | None:
    """The first of the whole numbers that is not in 0..size-1, and where it stands, in words; None where all are. `ignored` may stand.

    >>> first_outside(torch.tensor([[0, 1], [7, -1]]), 3)
    (7, ' at position (1, 0)')
    """
    if numbers.is_meta or not numbers.numel():
        return None
    smallest, largest = torch.aminmax(numbers)
    if smallest.item() >= 0 and largest.item() < size:
        return None
    wrong = (numbers < 0) | (numbers >= size)
    if ignored is not None:
        wrong &= numbers != ignored
    places = wrong.nonzero()
    if not len(places):
        return None
    place = tuple(places[0].tolist())
    return int(numbers[place].item()), f" at position {place}" if place else ""


def sentence(who: str, wanted: str, got: str, differs: str, cause: str) -> str:
    """The one form of a message about input."""
    text = f"{who}: expected {wanted}, got {got}"
    text += f": {differs}." if differs else "."
    return f"{text} {cause}".rstrip()
