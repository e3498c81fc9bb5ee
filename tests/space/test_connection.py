"""Connection tables: the four witnesses, LeNet-5's table, masked torch, what learns and what does not exist, saved weights, messages."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import twofold
from twofold.layers.check import Case, check, check_expression, check_message, noise
from twofold.layers.differentiable import differentiable
from twofold.space.connection import LENET5_C3, ConnectedConv2d, backward, connect, forward, full, one_to_one, random, table_of
from twofold.space.convolution import Conv2d

TABLE = ((0, 2), (1,), (2, 1, 0), (0, 3))  # the order within a row does not matter


def places(table):
    return table.flatten().nonzero().flatten()


def by_loops(weight, places, filters, channels):
    """One kernel after the other goes to its place."""
    zero = weight.new_zeros(weight.shape[2:])
    at = {int(place): n for n, place in enumerate(places)}
    rows = [[weight[at[f * channels + c], 0] if f * channels + c in at else zero for c in range(channels)] for f in range(filters)]
    return torch.stack([torch.stack(row) for row in rows])


CASES = {
    "some": (noise(8, 1, 2, 3), places(table_of("", TABLE, 4, 4)), 4, 4),
    "full": (noise(6, 1, 1, 2), places(full(3, 2)), 2, 3),
    "one to one": (noise(3, 1, 2, 1), places(one_to_one(3)), 3, 3),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    check(Case(connect, CASES[name], by_loops, linear=True, rows=False))


def test_lenet5s_third_layer_is_table_i():
    """Columns: the 16 maps of C3; rows: the 6 maps of S2."""
    rows = ["X...XXX..XXXX.XX", "XX...XXX..XXXX.X", "XXX...XXX..X.XXX", ".XXX..XXXX..X.XX", "..XXX..XXXX.XX.X", "...XXX..XXXX.XXX"]
    printed = torch.tensor([[letter == "X" for letter in row] for row in rows])
    layer = ConnectedConv2d(6, 16, 5, table=LENET5_C3)
    assert torch.equal(layer.table, printed.T)
    assert int(layer.table.sum()) == 60 and sum(p.numel() for p in layer.parameters()) == 1516
    assert sum(p.numel() for p in Conv2d(6, 16, 5).parameters()) == 2416
    assert repr(layer) == "ConnectedConv2d(6, 16, kernel_size=(5, 5), stride=(1, 1), connections=60 of 96)"
    assert [line.split()[1:] for line in layer.drawing().splitlines()[1:]] == [list(row) for row in rows]
    assert layer(torch.zeros(2, 6, 14, 14)).shape == (2, 16, 10, 10)


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_it_is_torch_with_a_masked_weight(data):
    channels, filters, seed = (data.draw(st.integers(1, most)) for most in (5, 5, 999))
    table = random(channels, filters, data.draw(st.integers(1, channels)), seed)
    options = {
        "stride": data.draw(st.integers(1, 2)),
        "padding": data.draw(st.integers(0, 2)),
        "dilation": data.draw(st.integers(1, 2)),
        "bias": data.draw(st.booleans()),
    }
    layer = ConnectedConv2d(channels, filters, (2, 3), **options, table=table).double()
    x = noise(data.draw(st.integers(0, 2)), channels, 5, 6, seed=seed)
    dense = layer.dense().detach().requires_grad_()
    assert torch.equal(dense != 0, table[:, :, None, None].expand_as(dense))
    expected = F.conv2d(x, dense, layer.bias, options["stride"], options["padding"], options["dilation"])
    dy = noise(*expected.shape, seed=1, grad=False)
    dx, ddense = torch.autograd.grad(expected, (x, dense), dy)
    for route in ("plain", "vendor", "auto"):
        with twofold.route(route):
            y = layer(x)
        got = torch.autograd.grad(y, (x, layer.weight), dy)
        for ours, truth in zip((y, *got), (expected, dx, ddense[table].unsqueeze(1)), strict=True):
            assert torch.allclose(ours, truth, rtol=1e-11, atol=1e-11)


def test_what_is_not_connected_neither_counts_nor_learns():
    layer = ConnectedConv2d(4, 4, 3, padding="same", table=TABLE)
    assert layer.weight.shape == (8, 1, 3, 3) and set(layer.state_dict()) == {"weight", "bias", "table"}
    x = noise(1, 4, 6, 6, dtype=torch.float32)
    alone = torch.autograd.grad(layer(x)[:, 1].sum(), x, retain_graph=True)[0]
    assert alone[:, 1].any() and not alone[:, [0, 2, 3]].any()
    optimiser = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        layer(x.detach()).square().sum().backward()
        optimiser.step()
    assert torch.equal(layer.dense() != 0, layer.table[:, :, None, None].expand(4, 4, 3, 3))


def test_connected_fully_it_is_conv2d_and_one_to_one_it_is_depthwise():
    x = noise(2, 3, 5, 6)
    for table, other in ((full(3, 3), Conv2d(3, 3, 3)), (one_to_one(3), Conv2d(3, 3, 3, groups=3))):
        layer, other = ConnectedConv2d(3, 3, 3, table=table).double(), other.double()
        other.load_state_dict({"weight": layer.weight.reshape(other.weight.shape), "bias": layer.bias})
        assert torch.allclose(layer(x), other(x), rtol=1e-12, atol=1e-12)


def test_first_weights_are_as_large_as_the_number_of_connections_says():
    torch.manual_seed(0)
    layer = ConnectedConv2d(40, 3, 5, table=[range(40), range(10), (7,)])
    for f, rows in enumerate(layer.weight.flatten(1).split([40, 10, 1])):
        bound = (rows.shape[0] * 25) ** -0.5
        assert 0.85 * bound < rows.abs().max() <= bound and layer.bias[f].abs() <= bound
    torch.manual_seed(1)
    layer.reset_parameters()
    first = copy.deepcopy(layer)
    torch.manual_seed(1)
    layer.reset_parameters()
    assert torch.equal(first.weight, layer.weight) and torch.equal(first(torch.ones(1, 40, 5, 5)), layer(torch.ones(1, 40, 5, 5)))


def test_random_tables_have_so_many_connections_and_repeat():
    table = random(7, 9, 3, seed=4)
    assert table.sum(1).tolist() == [3] * 9 and torch.equal(table, random(7, 9, 3, seed=4)) and not torch.equal(table, random(7, 9, 3))


def test_saved_weights_carry_their_table():
    layer, other = (ConnectedConv2d(4, 4, 3, table=table) for table in (TABLE, random(4, 4, 2)))
    again = ConnectedConv2d(4, 4, 3, table=layer.state_dict()["table"])
    again.load_state_dict(layer.state_dict())
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(again(x), layer(x)) and int(other.table.sum()) == 8
    with pytest.raises(RuntimeError, match=r"connects other maps \(8 connections\) than this layer \(8\). Build the layer with table="):
        other.load_state_dict(layer.state_dict())
    nested = torch.nn.Sequential(other)
    with pytest.raises(RuntimeError, match=r"0\.table of the file"):
        nested.load_state_dict(torch.nn.Sequential(layer).state_dict())


def test_the_exporter_and_the_compilers_tracer_see_through():
    layer = ConnectedConv2d(4, 4, 3, table=TABLE)
    x = torch.randn(2, 4, 6, 7)
    assert torch.allclose(torch.export.export(layer, (x,)).module()(x), layer(x), atol=1e-6)


BAD = {
    "channel": (
        lambda: ConnectedConv2d(3, 1, 3, table=[(0, 3)]),
        "ConnectedConv2d: expected channel numbers 0..2 in table, got 3 in row 0.",
    ),
    "twice": (lambda: ConnectedConv2d(3, 2, 3, table=[(0,), (1, 1)]), "ConnectedConv2d: row 1 of table names channel 1 twice."),
    "empty row": (
        lambda: ConnectedConv2d(3, 2, 3, table=[(0,), ()]),
        "row 1 of table is empty: that output map would see nothing. Connect it or leave it out.",
    ),
    "rows": (
        lambda: ConnectedConv2d(6, 15, 5, table=LENET5_C3),
        "ConnectedConv2d: expected table to be a bool tensor (F=15, C=6) or 15 rows of channel numbers, got tuple of 16.",
    ),
    "flat": (lambda: ConnectedConv2d(3, 2, 3, table=[0, 1]), "or 2 rows of channel numbers, got list of 2."),
    "name": (lambda: ConnectedConv2d(3, 2, 3, table="full"), "or 2 rows of channel numbers, got str."),
    "truth values": (
        lambda: ConnectedConv2d(2, 1, 3, table=[[True, False]]),
        "expected channel numbers 0..1 in table, got True in row 0. Truth values? Give torch.tensor(table).",
    ),
    "turned": (lambda: ConnectedConv2d(3, 2, 3, table=full(2, 3)), "got bool (3, 2). Turned around? Give table.T."),
    "whole numbers": (lambda: ConnectedConv2d(3, 2, 3, table=full(3, 2).long()), "expected table to be a bool tensor (F=2, C=3) or 2 rows"),
    "groups": (lambda: ConnectedConv2d(2, 2, 3, table=full(2, 2), groups=2), "ConnectedConv2d: groups are a table, too."),
    "groups by place": (lambda: ConnectedConv2d(2, 2, 3, 1, 0, 1, 2, table=full(2, 2)), "ConnectedConv2d: groups are a table, too."),
    "too many drawn": (lambda: random(3, 2, 4), "random: expected each to be at most in_channels=3, got 4."),
    "input": (
        lambda: ConnectedConv2d(6, 16, 5, table=LENET5_C3)(torch.zeros(1, 3, 9, 9)),
        "ConnectedConv2d input: expected (B, C=6, H, W), got (1, 3, 9, 9): C is 3, not 6.",
    ),
    "too small": (lambda: ConnectedConv2d(1, 1, 5, table=full(1, 1))(torch.zeros(1, 1, 4, 4)), "the kernel 5x5 does not fit"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    check_message(*BAD[name])


MUTANTS = {
    "rows and columns exchanged": differentiable(lambda w, p, f, c: forward(w, p % c * c + p // c, f, c), backward),
    "connections in another order": differentiable(lambda w, p, f, c: forward(w.flip(0), p, f, c), backward),
    "all connected": differentiable(lambda w, p, f, c: (forward(w, p, f, c)[0] + w.mean(), forward(w, p, f, c)[1]), backward),
    "dweight of its neighbour": differentiable(forward, lambda d, saved: backward(d, saved._replace(places_N=saved.places_N.roll(1)))),
    "dweight of all maps": differentiable(forward, lambda d, saved: backward(d.sum(1, keepdim=True).expand_as(d), saved)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_variant_is_caught(name):
    check_expression(Case(connect, CASES["some"], by_loops))
    with pytest.raises(AssertionError):
        check_expression(Case(MUTANTS[name], CASES["some"], by_loops))
