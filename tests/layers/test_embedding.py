"""Embedding: the witnesses, the padding row, options that only torch has, and numbers that are no token."""

import numpy as np
import pytest
import torch
from torch import nn as torch_nn
from torch.nn import functional as F

import twofold
from twofold.layers import embedding as page
from twofold.layers.check import Case, check, check_adjoint, check_differences, check_drop_in, check_expression, check_routes, noise
from twofold.layers.differentiable import differentiable
from twofold.layers.embedding import Embedding, embedding
from twofold.layers.expect import first_outside

TABLE = noise(5, 3, seed=1)


def by_one_hot(weight, x, padding=None):
    """The linear map of one-hot rows; the padding row is a constant."""
    if padding is not None:
        weight = torch.where((torch.arange(len(weight)) == padding)[:, None], weight.detach(), weight)
    return F.one_hot(x.long(), len(weight)).to(weight.dtype) @ weight


INPUTS = {
    "distinct": torch.tensor([3, 0, 4]),
    "repeated": torch.tensor([2, 2, 0, 2]),
    "two axes": torch.tensor([[1, 4, 1], [0, 1, 3]]),
    "three axes": torch.tensor([[[1], [4]], [[0], [3]], [[2], [2]]]),
    "one number": torch.tensor(3),
    "int32": torch.tensor([[1, 4, 1]], dtype=torch.int32),
    "transposed": torch.tensor([[1, 4, 1], [0, 1, 3]]).t(),
    "expanded": torch.tensor([[2], [3]]).expand(2, 4),
}


@pytest.mark.parametrize("name", INPUTS)
def test_witnesses(name):
    check(Case(embedding, (TABLE, INPUTS[name]), by_one_hot, linear=True, rows=False))


@pytest.mark.parametrize("name", INPUTS)
def test_the_padding_row_is_read_but_learns_nothing(name):
    for padding in range(5):
        case = Case(embedding, (TABLE, INPUTS[name], padding), by_one_hot)
        check_expression(case)
        check_routes(case)


def test_the_gradient_is_summed_over_the_places_of_a_token():
    x, dy = INPUTS["two axes"], noise(2, 3, 3, seed=2, grad=False)
    expected = np.zeros((5, 3))
    for place in np.ndindex(2, 3):
        expected[x[place]] += dy[place].numpy()
    _, saved = page.forward(TABLE.detach(), x)
    assert np.allclose(page.backward(dy, saved).numpy(), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_an_empty_input_has_zero_weight_gradient(route):
    layer = Embedding(4, 3)
    with twofold.route(route):
        y = layer(torch.zeros(2, 0, dtype=torch.int64))
    y.sum().backward()
    assert y.shape == (2, 0, 3)
    assert layer.weight.grad is not None and layer.weight.grad.count_nonzero() == 0


OPTIONS = {
    "plain": {},
    "padding": {"padding_idx": 1},
    "padding from the end": {"padding_idx": -1},
    "max_norm": {"max_norm": 0.5, "norm_type": 1.0},
    "by frequency": {"scale_grad_by_freq": True},
}


@pytest.mark.parametrize("route", ["plain", "vendor", "auto"])
@pytest.mark.parametrize("name", OPTIONS)
def test_stands_in_for_torch(name, route):
    ours, theirs = (make(5, 3, **OPTIONS[name]).double() for make in (Embedding, torch_nn.Embedding))
    with twofold.route(route):
        check_drop_in(ours, theirs, INPUTS["two axes"])
    assert torch.equal(ours.weight, theirs.weight)
    torch_alone = name in ("max_norm", "by frequency")
    assert ours.last_route == ("plain" if route == "plain" and not torch_alone else "vendor")


def test_sparse_gradients_are_torchs_own():
    layer = Embedding(5, 3, sparse=True)
    with twofold.route("plain"):
        layer(torch.tensor([1, 1])).sum().backward()
    assert layer.last_route == "vendor"
    assert layer.weight.grad is not None and layer.weight.grad.is_sparse


def test_pretrained_rows_are_frozen_unless_said():
    assert not Embedding.from_pretrained(torch.ones(2, 3)).weight.requires_grad
    layer = Embedding.from_pretrained(torch.ones(2, 3), freeze=False, padding_idx=0)
    assert isinstance(layer, Embedding) and layer.weight.requires_grad and layer.padding_idx == 0


def test_an_exporter_sees_torchs_operator_and_no_look_at_the_numbers():
    graph = torch.export.export(Embedding(5, 3), (INPUTS["two axes"],)).graph_module
    called = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert called == ["aten.embedding.default"]


def test_the_first_number_outside_is_found():
    numbers = torch.tensor([[0, -100, 2], [5, 9, 1]])
    assert first_outside(numbers, 10) == (-100, " at position (0, 1)")
    assert first_outside(numbers, 5, ignored=-100) == (5, " at position (1, 0)")
    assert first_outside(numbers, 10, ignored=-100) is None
    assert first_outside(torch.tensor(7), 7) == (7, "")


def overwriting(dy, saved):
    dy_RD = dy.reshape(-1, dy.shape[-1])
    return dy.new_zeros(saved.tokens, dy.shape[-1]).index_copy(0, saved.x.flatten(), dy_RD)


def averaging(dy, saved):
    return page.backward(dy, saved) / saved.x.flatten().bincount(minlength=saved.tokens).clamp(min=1)[:, None]


MUTANTS = {
    "a repeated token keeps its last gradient only": (page.forward, overwriting),
    "a repeated token averages its gradients": (page.forward, averaging),
    "the rows of the gradient reversed": (page.forward, lambda dy, saved: page.backward(dy, saved).flip(0)),
    "the places mixed up": (page.forward, lambda dy, saved: page.backward(dy.transpose(0, 1), saved)),
    "counted from one": (lambda w, x: page.forward(w, (x + 1) % 5), page.backward),
    "the features reversed": (lambda w, x: (w[x].flip(-1), page.forward(w, x)[1]), page.backward),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_variants_are_caught(name):
    case = Case(differentiable(*MUTANTS[name]), (TABLE, INPUTS["two axes"]), by_one_hot, linear=True)
    with pytest.raises(AssertionError):
        check_expression(case)
    if MUTANTS[name][0] is page.forward:
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(case)
        with pytest.raises(AssertionError):
            check_adjoint(case)


def test_a_padding_row_that_learns_is_caught():
    careless = differentiable(page.forward, lambda dy, saved: page.backward(dy, saved._replace(padding=None)))
    with pytest.raises(AssertionError):
        check_expression(Case(careless, (TABLE, INPUTS["two axes"], 1), by_one_hot))


BAD = {
    "too large": (
        lambda: Embedding(100, 4)(torch.full((4, 8), 99).index_put((torch.tensor(3), torch.tensor(7)), torch.tensor(100))),
        "Embedding input: expected token numbers 0..99, got 100 at position (3, 7). Build the layer with num_embeddings of at least 101",
    ),
    "negative": (lambda: Embedding(9, 4)(torch.tensor([0, -1])), "got -1 at position (1,). A mark for padding?"),
    "one number": (lambda: Embedding(9, 4)(torch.tensor(9)), "expected token numbers 0..8, got 9. Build"),
    "floats": (lambda: Embedding(9, 4)(torch.zeros(2)), "expected token numbers of type int64 or int32, got float32. Measurements?"),
    "bytes": (lambda: Embedding(9, 4)(torch.zeros(2, dtype=torch.uint8)), "got uint8. Convert it with x.long()."),
    "list": (lambda: Embedding(9, 4)([1, 2]), "Embedding input: expected a torch tensor, got list."),
    "array": (lambda: Embedding(9, 4)(np.zeros(2)), "Embedding input: expected a torch tensor, got numpy.ndarray."),
    "no tokens": (lambda: Embedding(0, 4), "Embedding: expected num_embeddings to be a whole number of at least 1, got 0."),
    "half a feature": (lambda: Embedding(9, 2.5), "Embedding: expected embedding_dim to be a whole number of at least 1, got 2.5."),
    "padding": (lambda: Embedding(9, 4, padding_idx=9), "expected padding_idx to be one of the 9 rows, -9..8, got 9."),
    "weight": (lambda: Embedding(9, 4, _weight=torch.zeros(4, 9)), "Embedding weight: expected (V=9, D=4), got (4, 9)."),
    "pretrained": (lambda: Embedding.from_pretrained(torch.zeros(4)), "Embedding weight: expected (V, D), got (4,): 1 axes, not 2."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
