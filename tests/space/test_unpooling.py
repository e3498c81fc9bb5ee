"""Max unpooling: the four witnesses, loops, torch, values that meet in one place, and the messages."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn as torch_nn

from twofold.layers.check import Case, check, check_drop_in, check_expression, check_message, noise
from twofold.layers.differentiable import differentiable
from twofold.space import unpooling
from twofold.space.max_pooling import MaxPool1d, MaxPool2d, MaxPool3d
from twofold.space.unpooling import MaxUnpool1d, MaxUnpool2d, MaxUnpool3d, backward, forward, max_unpool

POOLS = {1: MaxPool1d, 2: MaxPool2d, 3: MaxPool3d}
UNPOOLS = {1: MaxUnpool1d, 2: MaxUnpool2d, 3: MaxUnpool3d}
SIZE = {1: (9,), 2: (6, 7), 3: (4, 5, 6)}


def places(*shape, most, seed=0):
    return torch.randint(0, most, shape, generator=torch.Generator().manual_seed(seed))


def by_matrix(x, place, size):
    """Every value goes to its place, unless a later one goes there too."""
    x, place = x.flatten(2), place.flatten(2)
    later = torch.triu(place[..., :, None] == place[..., None, :], 1).any(-1)
    onehot = torch.nn.functional.one_hot(place, int(np.prod(size))).to(x.dtype)
    return torch.einsum("bcp,bcph->bch", torch.where(later, 0, x), onehot).unflatten(2, size)


CASES = {
    "signal": (noise(2, 3, 4), places(2, 3, 4, most=7), (7,)),
    "map": (noise(2, 2, 3, 2), places(2, 2, 3, 2, most=20), (4, 5)),
    "all to few places": (noise(2, 1, 3, 4), places(2, 1, 3, 4, most=3), (2, 3)),
    "volume": (noise(1, 2, 2, 1, 3), places(1, 2, 2, 1, 3, most=24), (2, 3, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    check(Case(max_unpool, CASES[name], by_matrix, linear=True, row_arguments=(0, 1)))


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_it_is_the_loop(data):
    axes = data.draw(st.integers(1, 3))
    counts, size = (tuple(data.draw(st.integers(1, 4)) for _ in range(axes)) for _ in range(2))
    batch, seed = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 1000))
    x, place = noise(batch, 2, *counts, seed=seed), places(batch, 2, *counts, most=int(np.prod(size)), seed=seed)
    y, owner = np.zeros((batch, 2, *size)), np.full((batch, 2, *size), -1)
    for b, c, *p in np.ndindex(*x.shape):
        there = (b, c, *np.unravel_index(int(place[b, c, *p]), size))
        y[there], owner[there] = x[b, c, *p].item(), np.ravel_multi_index(p, counts)
    dy = noise(batch, 2, *size, seed=1, grad=False)
    dx = np.zeros(x.shape)
    for b, c, *h in np.ndindex(*y.shape):
        if owner[b, c, *h] >= 0:
            dx[b, c, *np.unravel_index(owner[b, c, *h], counts)] = dy[b, c, *h]
    ours = max_unpool(x, place, size)
    assert np.array_equal(ours.detach().numpy(), y) and np.array_equal(torch.autograd.grad(ours, x, dy)[0].numpy(), dx)


OPTIONS = [
    (1, {"kernel_size": 2}),
    (1, {"kernel_size": 3, "padding": 1}),
    (2, {"kernel_size": (2, 3), "padding": (1, 0)}),
    (2, {"kernel_size": 2, "stride": (3, 2)}),
    (3, {"kernel_size": (1, 2, 2)}),
]


@pytest.mark.parametrize(("axes", "options"), OPTIONS)
def test_it_stands_in_for_torch_and_puts_every_winner_back(axes, options):
    ours, theirs = (getattr(module, f"MaxUnpool{axes}d")(**options) for module in (unpooling, torch_nn))
    for x in (noise(2, 3, *SIZE[axes], grad=False), noise(3, *SIZE[axes], grad=False)):
        y, indices = POOLS[axes](**options, return_indices=True)(x)
        check_drop_in(ours, theirs, y, indices, SIZE[axes])
        back = ours(y, indices, SIZE[axes])
        assert torch.equal(back, torch.where(back != 0, x, 0)) and (back != 0).sum() == y.numel()
        if x.dim() == axes + 2:
            check_drop_in(ours, theirs, y, indices, x.shape)
        usual = ours.map_size(y.shape[-axes:], None)
        if indices.max() < np.prod(usual):
            check_drop_in(ours, theirs, y, indices)
            assert ours(y, indices).shape[-axes:] == usual


def test_of_overlapping_windows_the_last_value_stays_and_alone_learns():
    x = torch.tensor([[[1.0, 2.0, 3.0]]], requires_grad=True)
    y = MaxUnpool1d(2, 1)(x, torch.tensor([[[1, 1, 2]]]))
    assert y.tolist() == [[[0.0, 2.0, 3.0, 0.0]]]
    assert torch.autograd.grad((y * torch.tensor([1.0, 10.0, 100.0, 1000.0])).sum(), x)[0].tolist() == [[[0.0, 10.0, 100.0]]]


def test_a_dilated_pooling_and_four_sides_are_undone():
    x = noise(2, 3, 9, 8)
    options = {"stride": 2, "padding": (1, 0, 1, 1), "dilation": (2, 1)}
    y, indices = MaxPool2d(3, **options, return_indices=True)(x)
    unpool = MaxUnpool2d(3, **options)
    assert unpool(y, indices, x.shape).shape == x.shape and repr(unpool).endswith("padding=(1, 0, 1, 1), dilation=(2, 1))")
    assert unpool.map_size(y.shape[2:], None) == (8, 7) and torch.equal(POOLS[2](3, **options)(x), y)


def test_an_empty_batch_and_special_values():
    assert MaxUnpool2d(2)(torch.zeros(0, 3, 2, 2), torch.zeros(0, 3, 2, 2, dtype=torch.int64)).shape == (0, 3, 4, 4)
    special = torch.tensor([[[float("nan"), -float("inf"), 5.0]]])
    y = MaxUnpool1d(2)(special, torch.tensor([[[0, 3, 5]]]))
    assert str(y.tolist()) == "[[[nan, 0.0, 0.0, -inf, 0.0, 5.0]]]"


X, I = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.int64)  # noqa: E741
BAD = {
    "place": (
        lambda: MaxUnpool2d(2)(X, I.index_put((torch.tensor(0), torch.tensor(1), torch.tensor(0), torch.tensor(1)), torch.tensor(16))),
        "MaxUnpool2d indices: expected places 0..15, got 16 at position (0, 1, 0, 1). Places count the pixels of the map 4x4. "
        "Was a larger map pooled? Give its size as output_size.",
    ),
    "negative place": (lambda: MaxUnpool2d(2)(X, I - 1), "got -1 at position (0, 0, 0, 0)"),
    "dtype": (lambda: MaxUnpool2d(2)(X, I.int()), "MaxUnpool2d indices: expected places of type int64, got int32."),
    "shapes": (lambda: MaxUnpool2d(2)(X, I[..., :1]), "expected (1, 2, 2, 2), one place for every value, got (1, 2, 2, 1)."),
    "device": (lambda: MaxUnpool2d(2)(X, I.to("meta")), "MaxUnpool2d indices: expected device cpu, where the values are, got meta."),
    "size": (
        lambda: MaxUnpool2d(2)(X, I, (4, 6)),
        "MaxUnpool2d: expected output_size within 3..5 x 3..5, got 4x6: maps of another size give another number of windows than 2x2.",
    ),
    "length of size": (lambda: MaxUnpool2d(2)(X, I, (4, 4, 4)), "expected output_size to be one whole number or two"),
    "nothing left": (lambda: MaxUnpool1d(2, padding=1)(X[0, :, :, :1].mT[..., :1], I[0, :, :1, :1]), "1 values come from no map"),
    "whole numbers": (lambda: MaxUnpool2d(2)(X.long(), I), "MaxUnpool2d input: expected floating point, got int64."),
    "rank": (lambda: MaxUnpool3d(2)(X[0, 0], I), "MaxUnpool3d input: expected (B, C, D, H, W), got (2, 2): 2 axes, not 5."),
    "list": (lambda: MaxUnpool2d(2)(X, [0]), "MaxUnpool2d indices: expected a torch tensor, got list."),
    "words": (lambda: MaxUnpool2d(2, padding="same"), "MaxUnpool2d: expected padding to be whole numbers, got 'same'."),
    "kernel": (lambda: MaxUnpool2d(0), "MaxUnpool2d: expected kernel_size to be one whole number or two"),
    "overflow": (
        lambda: MaxUnpool1d(2**30, 2**30)(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3, dtype=torch.int64)),
        "MaxUnpool1d output: expected maps of at most 2147483647 numbers, got 1x1x3221225472",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    check_message(*BAD[name])


def first_stays(x, place, size):
    y, saved = forward(x.flatten(2).flip(2), place.flatten(2).flip(2), size)
    return y, saved._replace(place_BCP=place, stays_BCP=saved.stays_BCP.flip(2).reshape(place.shape))


def all_added_up(x, place, size):
    y = x.new_zeros(*x.shape[:2], 6).scatter_add(2, place.flatten(2), x.flatten(2)).unflatten(2, size)
    return y, forward(x, place, size)[1]


MUTANTS = {
    "the first stays": differentiable(first_stays, backward),
    "all learn": differentiable(forward, lambda dy, saved: backward(dy, saved._replace(stays_BCP=torch.ones_like(saved.stays_BCP)))),
    "rows and columns": differentiable(lambda x, i, size: (forward(x, i, size[::-1])[0].mT, forward(x, i, size)[1]), backward),
    "another channel's places": differentiable(lambda x, i, size: forward(x, i.roll(1, 1), size), backward),
    "values added up": differentiable(all_added_up, backward),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_unpooling_is_caught(name):
    arguments = (noise(2, 2, 2, 3), places(2, 2, 2, 3, most=6), (2, 3))
    check_expression(Case(max_unpool, arguments, by_matrix))
    with pytest.raises(AssertionError):
        check_expression(Case(MUTANTS[name], arguments, by_matrix))
