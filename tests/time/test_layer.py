"""One layer as an operation: the witnesses for every cell, in one direction and in both, bare and with all that can be asked of a call."""

import pytest
import torch

from twofold.layers.check import Case, check, check_differences, check_expression, check_unused, noise
from twofold.time import cells, gru, gru_cell, layer, lstm, lstm_cell, rnn, rnn_cell
from twofold.time.layer import Call, recurrence
from twofold.time.recurrent import unroll

T, B, D, U = 4, 3, 3, 2
STATES = {"gru": 1, "tanh": 1, "relu": 1, "lstm": 2, "coupled": 2}


def weights(cell, seed):
    """One direction's, all that the cell knows: (G, D), (G, U) and vectors."""
    G = cell.gates * U
    sizes = {"weight_ih": (G, D), "weight_hh": (G, U), "peephole": ((cell.gates - 1) * U,), "norm_c": (U,), "norm_c_bias": (U,)}
    fields = enumerate(cell.weights._fields)
    return [None if name == "weight_hr" else noise(*sizes.get(name, (G,)), seed=seed + k) for k, name in fields]


def arguments(cell, call, bare):
    """x, states and weights of all directions, and the call; bare: what torch has, too."""
    S = call.directions
    states = [noise(S, B, U, seed=2 + k) for k in range(len(cell.states))]
    flat = [w if k < 4 or not bare else None for s in range(S) for k, w in enumerate(weights(cell, 10 + 20 * s))]
    return noise(T, B, D, seed=1), *states, *flat, call


def expression(cell):
    """The cell's own step, row by row, each direction alone, differentiated by autograd; the step is judged by test_cells."""
    count, fields = len(cell.states), len(cell.weights._fields)

    def compute(x_TBD, *rest):
        *given, call = rest
        sides, finals = [], []
        for s in range(call.directions):
            named = cell.weights(*given[count + s * fields : count + (s + 1) * fields])
            rows = []
            for b in range(B):
                n = T if call.lengths_B is None else int(call.lengths_B[b])
                state, y = tuple(part[s, b : b + 1] for part in given[:count]), [torch.zeros(U, dtype=x_TBD.dtype)] * T
                for t in reversed(range(n)) if s else range(n):
                    mask = call.masks[s][b : b + 1] if call.masks else None
                    new, _ = cell.step(cell.drive(x_TBD[t, b : b + 1], named), state, named, mask)
                    zones = call.zones[s] if call.zones else (None,) * count
                    shares = [m[t, b] if isinstance(m, torch.Tensor) else m or 0.0 for m in zones]
                    state = tuple(m * old + (1 - m) * fresh for m, old, fresh in zip(shares, state, new, strict=True))
                    y[t] = state[0][0]
                rows.append((torch.stack(y), *(part[0] for part in state)))
            sides.append(torch.stack([row[0] for row in rows], 1))
            finals.append([torch.stack(part) for part in list(zip(*rows, strict=True))[1:]])
        return torch.cat(sides, -1), *map(torch.stack, zip(*finals, strict=True))

    return compute


def asked(cell):
    """A call with everything: lengths, masks, and zones of every form."""
    masks = tuple(2 * (noise(B, U, seed=5 + s, grad=False) > 0).double() for s in (0, 1))
    drawn = [[noise(T, B, U, seed=8 + 2 * s + k, grad=False).sigmoid() for k in (0, 1)] for s in (0, 1)]
    zones = ((drawn[0][0], 0.25), (None, drawn[1][1])) if len(cell.states) > 1 else ((drawn[0][0],), (0.25,))
    return Call(2, torch.tensor([2, 4, 0]), masks, zones)


OPERATIONS = {
    "rnn, tanh": (rnn.rnn_tanh, rnn_cell.TANH),
    "rnn, relu": (rnn.rnn_relu, rnn_cell.RELU),
    "gru": (gru.gru, gru_cell.AFTER),
    "gru, reset before": (gru.gru_reset_before, gru_cell.BEFORE),
    "lstm": (lstm.lstm, lstm_cell.LSTM),
    "lstm, coupled": (lstm.lstm_coupled, lstm_cell.COUPLED),
}
OPTIONS = {
    "rnn, tanh": rnn.rnn_tanh_with_options,
    "rnn, relu": rnn.rnn_relu_with_options,
    "gru": gru.gru_with_options,
    "lstm": lstm.lstm_with_options,
}


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_witnesses(name, directions):
    operation, cell = OPERATIONS[name]
    check(Case(operation, arguments(cell, Call(directions), bare=True), expression(cell), rows=False, second_order=directions == 1))


@pytest.mark.parametrize("name", OPERATIONS)
def test_witnesses_of_a_call_with_everything(name):
    operation, cell = OPTIONS.get(name, OPERATIONS[name][0]), OPERATIONS[name][1]
    case = Case(operation, arguments(cell, asked(cell), bare=False), expression(cell), rows=False, second_order=False)
    check_differences(case)
    check_expression(case)
    check_unused(case)


def test_second_derivatives_of_a_call_with_everything():
    for name in ("gru, reset before", "lstm, coupled"):
        operation, cell = OPERATIONS[name]
        given = arguments(cell, asked(cell), bare=False)
        found = []
        for compute in (lambda *a, operation=operation: operation.by("plain", *a), expression(cell)):
            y, *_ = compute(*given)
            (dx,) = torch.autograd.grad(y.pow(3).sum(), given[0], create_graph=True)
            found.append(torch.autograd.grad(dx.pow(2).sum(), [a for a in given if isinstance(a, torch.Tensor)]))
        assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-11) for a, b in zip(*found, strict=True))


def test_a_call_is_bare_where_torch_has_it():
    assert Call().bare and Call(2).bare
    assert not any(call.bare for call in (Call(lengths_B=torch.ones(1)), Call(masks=(None,)), Call(zones=((0.1,),))))


@pytest.mark.parametrize("name", cells.CELLS)
def test_every_cell_makes_a_layer(name):
    cell = cells.CELLS[name]
    made, count, fields = recurrence(cell, name=f"{__name__}.made"), len(cell.states), len(cell.weights._fields)
    given = arguments(cell, Call(2), bare=False)
    y, *final = made.by("plain", *given)
    named = [cell.weights(*given[1 + count + s * fields :][:fields]) for s in (0, 1)]
    forth, last, _ = unroll(cell, given[0], tuple(part[0] for part in given[1 : 1 + count]), named[0])
    back, end, _ = unroll(cell, given[0].flip(0), tuple(part[1] for part in given[1 : 1 + count]), named[1])
    assert torch.allclose(y, torch.cat((forth, back.flip(0)), -1), rtol=1e-12) and repr(made) == f"<operation {__name__}.made>"
    assert all(torch.allclose(part, torch.stack(ends)) for part, ends in zip(final, zip(last, end, strict=True), strict=True))


MUTANTS = {
    "reads forwards in both directions": ("direction > 0, mask_BR", "False, mask_BR"),
    "lengths forgotten": ("return Run(self.lengths_B,", "return Run(None,"),
    "mask of the other direction": ("self.masks[direction] if", "self.masks[-1 - direction] if"),
    "zones of the other direction": ("self.zones[direction] if", "self.zones[-1 - direction] if"),
    "weights of the first direction for both": ("cell.weights(*flat[s * fields : (s + 1) * fields])", "cell.weights(*flat[:fields])"),
    "state of the other direction": ("tuple(part[s] for part in state)", "tuple(part[-1 - s] for part in state)"),
    "directions exchanged": ("(torch.cat(sides, -1), *map", "(torch.cat(sides[::-1], -1), *map"),
    "final states of the directions exchanged": ("zip(*finals, strict=True))), tuple", "zip(*finals[::-1], strict=True))), tuple"),
    "h and c exchanged": ("finals.append(final)", "finals.append(final[::-1])"),
    "dx of one direction": ("return sum(dxs[1:], dxs[0]),", "return dxs[0],"),
    "dh and dc exchanged": ("dstates.append(dstate)", "dstates.append(dstate[::-1])"),
    "gradients of the states of the directions exchanged": ("zip(*dstates, strict=True)", "zip(*dstates[::-1], strict=True)"),
    "final gradients of one direction": ("tuple(part[s] for part in dfinal)", "tuple(part[0] for part in dfinal)"),
    "final gradients dropped": ("tuple(part[s] for part in dfinal)", "tuple(0 * part[s] for part in dfinal)"),
    "gradients of the outputs exchanged": ("enumerate(dy_TBR.chunk(len(saved), -1))", "enumerate(dy_TBR.chunk(len(saved), -1)[::-1])"),
    "gradients of the weights exchanged": ("dweights += dweight", "dweights = [*dweight, *dweights]"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    cell = lstm_cell.LSTM
    wrong = mutated(layer, *MUTANTS[name])
    operation, call = wrong.recurrence(cell, name=f"{__name__}.wrong"), wrong.Call(*asked(cell))
    case = Case(operation, arguments(cell, call, bare=False), expression(cell), rows=False)
    with pytest.raises(AssertionError):
        for question in (check_expression, check_unused):
            question(case)
