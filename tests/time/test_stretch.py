"""A stretch with documents that begin anew is each document by itself; with a state to carry, it is cut there. Mutants."""

import pytest
import torch

from twofold import nn
from twofold.layers.check import check_message, noise
from twofold.time import stretch as module
from twofold.time.stretch import read_stretch

T, B, D, U = 7, 3, 3, 2
X = noise(T, B, D, seed=1, grad=False)
STARTS = torch.tensor([[0, 1, 0], [0, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 0], [0, 0, 0], [1, 1, 0]]).bool()
LAYERS = {
    "LSTM": lambda: nn.LSTM(D, U, 2, dtype=torch.float64),
    "GRU": lambda: nn.GRU(D, U, learn_state=True, dtype=torch.float64),
    "cell": lambda: nn.Recurrent(nn.GRUCell(D, U, dtype=torch.float64)),
}


def build(kind="LSTM"):
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    with torch.no_grad():
        for weight in layer.parameters():
            weight += 0.1 * torch.randn_like(weight)  # a learnt state that is not zero
    return layer


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def rows_of(state, b):
    return tuple(rows_of(part, b) for part in state) if isinstance(state, tuple) else state[..., b : b + 1, :]


def alone(layer, state, starts=STARTS):
    """Every document of every row as a sequence of its own: outputs (T, B, U) and final states."""
    columns, finals = [], []
    for b in range(B):
        edges = sorted({0, *starts[:, b].nonzero().flatten().tolist()})
        pieces = []
        for start, stop in zip(edges, [*edges[1:], T], strict=True):
            own = state is None or starts[start, b]
            y, after = layer(X[start:stop, b : b + 1], None if own else rows_of(state, b))
            pieces.append(y)
        columns.append(torch.cat(pieces))
        finals.append(after)
    return torch.cat(columns, 1), finals


def gradients(y, layer):
    return torch.autograd.grad((y * noise(*y.shape, seed=9, grad=False)).sum(), list(layer.parameters()), allow_unused=True)


def agree(ours, kind="LSTM", given=True):
    layer = build(kind)
    state = module.detached(layer(noise(4, B, D, seed=5, grad=False))[1]) if given else None
    wanted, finals = alone(layer, state)
    y, after, carried = ours.read_stretch(layer, X, state, STARTS)
    assert torch.allclose(y, wanted, rtol=1e-12)
    for b in range(B):
        assert all(torch.allclose(*pair, rtol=1e-12) for pair in zip(parts(rows_of(after, b)), parts(finals[b]), strict=True))
    assert all(torch.equal(*pair) and not pair[0].requires_grad for pair in zip(parts(carried), parts(after), strict=True))
    for mine, theirs in zip(gradients(y, layer), gradients(wanted, layer), strict=True):
        assert (mine is None and theirs is None) or torch.allclose(mine, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("given", [True, False])
def test_each_document_is_as_if_it_were_alone(kind, given):
    agree(module, kind, given)


MUTANTS = {
    "restarts after the step": ("sorted({0, carry, *places} - {T})", "sorted({0, carry, *(place + 1 for place in places)} - {T})"),
    "all rows restart": ("state is None or bool(starts_B.all())", "True"),
    "no row restarts": ("_where(starts_B, own_start(model, x_TB), state)", "state"),
    "the others restart": ("_where(starts_B, own_start", "_where(~starts_B, own_start"),
    "not at the first step": ("and start in places", "and start in places[1:]"),
    "zeros for the learnt start": ("own_start(model, x_TB), state)", "_zeros(state), state)"),
    "the gradient goes back": ("torch.where(starts_B if", "state - state.detach() + torch.where(starts_B if"),
    "the first state is carried": ("detached(state) if carry == T else carried)", "carried)"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    wrong = mutated(module, *MUTANTS[name])
    wrong._zeros = lambda state: torch.zeros_like(state)
    with pytest.raises((AssertionError, TypeError)):
        agree(wrong, "GRU")


@pytest.mark.parametrize("starts", [None, torch.zeros(T, B, dtype=torch.bool)])
def test_without_a_start_it_is_one_call(starts):
    layer = build()
    state = module.detached(layer(X[:2])[1])
    calls = []
    layer.register_forward_hook(lambda *_: calls.append(1))
    y, after, carried = read_stretch(layer, X, state, starts)
    assert calls == [1] and torch.equal(y, layer(X, state)[0])
    assert not any(part.requires_grad for part in carried) and all(part.requires_grad for part in after)


@pytest.mark.parametrize("carry", [0, 2, T])
@pytest.mark.parametrize("starts", [None, STARTS])
def test_the_state_to_carry_is_that_after_so_many_steps(carry, starts):
    layer = build()
    state = module.detached(layer(X[:2])[1])
    y, _, carried = read_stretch(layer, X, state, starts, carry)
    wanted = read_stretch(layer, X[:carry], state, None if starts is None else starts[:carry])
    assert all(torch.allclose(*pair, rtol=1e-12) and not pair[0].requires_grad for pair in zip(carried, wanted.state, strict=True))
    assert torch.allclose(y, read_stretch(layer, X, state, starts).y_TB, rtol=1e-12)
    assert read_stretch(layer, X[:0], state).y_TB.shape == (0, B, U)


def test_a_broken_state_ends_where_a_document_begins():
    layer, starts = build("GRU"), torch.zeros(T, B, dtype=torch.bool)
    starts[0, 1] = True
    broken = torch.full((1, B, U), torch.nan, dtype=torch.float64)
    y, *_ = read_stretch(layer, X, broken, starts)
    assert y[:, 1].isfinite().all() and y[:, [0, 2]].isnan().all()


def test_bad_input():
    layer = build()
    check_message(lambda: read_stretch(layer, X, None, STARTS[1:]), "read_stretch starts", "(T=7, B=3)", "T is 6, not 7")
    check_message(lambda: read_stretch(layer, X, carry=8), "read_stretch: expected carry from 0 to T=7, got 8.")
    theirs = torch.nn.LSTM(D, U, dtype=torch.float64)
    check_message(lambda: read_stretch(theirs, X, theirs(X)[1], STARTS), "expected LSTM to answer no steps (T = 0)", "larger than 0")
