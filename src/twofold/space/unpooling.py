"""Max unpooling: every value goes back to the place where it was the largest.

B images, C channels, P all axes of the values, H all axes of the map, place[b,c,p] a place in the flattened map (from max pooling)

    last[b,c,h] = the last p in order with place[b,c,p] = h
    forward    y[b,c,h] = x[b,c,last[b,c,h]], 0 where no p goes
    backward   dx[b,c,p] = dy[b,c,place[b,c,p]] if p is the last one there, else 0
    size       H = (P - 1) s - before - after + k along each axis, unless the user says another

Windows that overlap may send several values to one place: the last one in order stays and alone receives the gradient. torch
leaves open which one stays, and gives all of them its gradient; otherwise both are the same. Hence there is no vendor route.

Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 2.1 (switches)
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating, expect_tensor, first_outside, sentence
from twofold.layers.routes import Routed, traced
from twofold.space.pooling import expect_countable, expect_images, window_of
from twofold.space.windows import Window, by, remember, whole_numbers


class Saved(NamedTuple):
    """What backward needs."""

    place_BCP: Tensor
    stays_BCP: Tensor


def forward(x_BCP: Tensor, place_BCP: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Saved]:
    """y_BCH of the given size."""
    x, place = x_BCP.flatten(2), place_BCP.flatten(2)
    order = torch.arange(x.shape[2], device=x.device, dtype=torch.int32).expand_as(place)
    last = order.new_zeros((*x.shape[:2], prod(size))).scatter_reduce(2, place, order, "amax")
    stays = last.gather(2, place) == order
    y = x.new_zeros(last.shape).scatter_add(2, place, torch.where(stays, x, 0))  # at most one of those that meet is not zero
    return y.unflatten(2, size), Saved(place_BCP, stays.reshape(place_BCP.shape))


def backward(dy_BCH: Tensor, saved: Saved) -> Tensor:
    """dx_BCP; a place has no gradient."""
    there = dy_BCH.flatten(2).gather(2, saved.place_BCP.flatten(2)).reshape(saved.place_BCP.shape)
    return torch.where(saved.stays_BCP, there, 0)


max_unpool = differentiable(forward, backward)


class Unpooling(Routed):
    """The way back from max pooling: zeros, and every value at its place; torch's layer with clear errors.

    forward(input, indices, output_size): values and places as MaxPool with return_indices=True gives them. Several sizes of the map
    lead to the same number of windows: output_size names the right one, as the sizes of the map or the whole shape of the input that
    was pooled. It may differ from the size above by less than a stride.
    padding: a number, one per axis or one per side. dilation: of the pooling, which torch's layer lacks.
    Raises ValueError for settings that cannot be, values and places of different shapes, and places that the map does not have
    (which are not looked at while a compiler or an exporter watches).
    """

    axes: int
    kernel_size: Any
    stride: Any
    padding: Any

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, *, dilation: Any = 1) -> None:
        if isinstance(padding, str):
            raise ValueError(f"{type(self).__name__}: expected padding to be whole numbers, got {padding!r}. Give what the pooling added.")
        window_of(type(self).__name__, self.axes, kernel_size, stride, padding, dilation, False)
        super().__init__(kernel_size, stride, padding)
        self.dilation = dilation

    def window(self) -> Window:
        """The geometry of the pooling."""
        settings = (type(self).__name__, self.axes, self.kernel_size, self.stride, self.padding, self.dilation, False)
        return remember(self, settings, window_of)

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        who = type(self).__name__
        expect_images(f"{who} input", input, self.axes)
        expect_floating(f"{who} input", input)
        size = self.map_size(input.shape[-self.axes :], output_size)
        expect_countable(f"{who} output", "maps", (*input.shape[: -self.axes], *size), "")
        expect_places(f"{who} indices", indices, input, size)
        if input.dim() == self.axes + 2:
            y: Tensor = self.run(max_unpool, input, indices, size)
        else:
            y = self.run(max_unpool, input.unsqueeze(0), indices.unsqueeze(0), size).squeeze(0)
        return y

    def map_size(self, counts: Sequence[int], wanted: Sequence[int] | None) -> tuple[int, ...]:
        """The size of the map: the user's, if it can be, or the smallest that has that many windows."""
        window, who = self.window(), type(self).__name__
        usual = tuple(
            (n - 1) * s - before - after + spread
            for n, s, (before, after), spread in zip(counts, window.stride, window.sides(), window.spread, strict=True)
        )
        if wanted is None:
            if min(usual) < 1:
                raise ValueError(f"{who} input: {by(counts)} values come from no map (it would be {by(usual)}). Is the padding right?")
            return usual
        given = tuple(wanted)[2:] if len(wanted) == self.axes + 2 else tuple(wanted)
        size = whole_numbers(who, "output_size", given, self.axes, 1)
        limits = [(max(u - s + 1, 1), u + s - 1) for u, s in zip(usual, window.stride, strict=True)]
        if any(not low <= n <= high for n, (low, high) in zip(size, limits, strict=True)):
            between = " x ".join(f"{low}..{high}" for low, high in limits)
            raise ValueError(
                f"{who}: expected output_size within {between}, got {by(size)}: maps of another size give another number of windows than "
                f"{by(counts)}. Is it the size of the map that was pooled?"
            )
        return size

    def extra_repr(self) -> str:
        dilated = "" if self.dilation in (1, (1,) * self.axes, [1] * self.axes) else f", dilation={self.dilation}"
        return super().extra_repr() + dilated


def expect_places(who: str, indices: Any, input: Tensor, size: tuple[int, ...]) -> None:
    """Raise ValueError unless there is one place of the map for every value."""
    expect_tensor(who, indices)
    if indices.dtype != torch.int64:
        cause = "Take what MaxPool gives with return_indices=True."
        raise ValueError(sentence(who, "places of type int64", str(indices.dtype).removeprefix("torch."), "", cause))
    if indices.shape != input.shape:
        shapes = str(tuple(input.shape)), str(tuple(indices.shape))
        raise ValueError(sentence(who, f"{shapes[0]}, one place for every value", shapes[1], "", ""))
    if indices.device != input.device:
        cause = "Move both to one device with .to(device)."
        raise ValueError(sentence(who, f"device {input.device}, where the values are", str(indices.device), "", cause))
    outside = None if traced() else first_outside(indices, prod(size))
    if outside is not None:
        number, where = outside
        cause = f"Places count the pixels of the map {by(size)}. Was a larger map pooled? Give its size as output_size."
        raise ValueError(sentence(who, f"places 0..{prod(size) - 1}", f"{number}{where}", "", cause))


class MaxUnpool1d(Unpooling, nn.MaxUnpool1d):
    """The way back from MaxPool1d: values (B, C, P) become signals (B, C, T); torch.nn.MaxUnpool1d with clear errors.

    >>> MaxUnpool1d(2)(torch.tensor([[[5.0, 3.0]]]), torch.tensor([[[1, 2]]])).tolist()
    [[[0.0, 5.0, 3.0, 0.0]]]
    """

    axes = 1


class MaxUnpool2d(Unpooling, nn.MaxUnpool2d):
    """The way back from MaxPool2d: values (B, C, P, Q) become maps (B, C, H, W); torch.nn.MaxUnpool2d with clear errors.

    >>> MaxUnpool2d(2)(torch.tensor([[[[5.0]]]]), torch.tensor([[[[1]]]])).tolist()
    [[[[0.0, 5.0], [0.0, 0.0]]]]
    """

    axes = 2


class MaxUnpool3d(Unpooling, nn.MaxUnpool3d):
    """The way back from MaxPool3d: values become volumes (B, C, D, H, W); torch.nn.MaxUnpool3d with clear errors.

    >>> MaxUnpool3d(2)(torch.full((1, 1, 1, 1, 1), 7.0), torch.full((1, 1, 1, 1, 1), 6)).flatten().tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 7.0, 0.0]
    """

    axes = 3
