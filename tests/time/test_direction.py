"""Direction and depth: the stack against torch's, and mutants of it."""

import pytest
import torch
from torch import nn as torch_nn

from twofold.layers.check import noise
from twofold.time import direction
from twofold.time.direction import Shape, stacked
from twofold.time.lstm import lstm

D, U, L = 4, 2, 2  # D = 2U and L = S: a wrong place or input has the right shape
THEIRS = torch_nn.LSTM(D, U, L, bidirectional=True).double()
X, INITIAL = noise(5, 4, D, grad=False), (noise(2 * L, 4, U, seed=2, grad=False), noise(2 * L, 4, U, seed=3, grad=False))


def same(y):
    return y


def run(place, x, state):
    return lstm(x, *state, *THEIRS.all_weights[place], None)


def difference(ours):
    """The largest difference from torch's stack, over the outputs and the final state."""
    with torch.no_grad():
        y, final = ours(run, X, INITIAL, Shape(L, 2), same)
        truth, last = THEIRS(X, INITIAL)
        return max((a - b).abs().max().item() for a, b in zip((y, *final), (truth, *last), strict=True))


def test_the_stack_is_that_of_torch():
    assert difference(stacked) < 1e-12


MUTANTS = {
    "reverse reads forwards": ("run(place, x_TBD.flip(0), state) if", "run(place, x_TBD, state) if"),
    "outputs left in reverse": ("sides.append(y.flip(0) if direction else y)", "sides.append(y)"),
    "rows reversed in place of time": ("x_TBD.flip(0), state)", "x_TBD.flip(1), state)"),
    "sides exchanged": ("torch.cat(sides, dim=-1)", "torch.cat(sides[::-1], dim=-1)"),
    "sides added": ("torch.cat(sides, dim=-1)", "torch.cat([sides[0] + sides[1]] * 2, dim=-1)"),
    "direction before layer": ("place = layer * shape.directions + direction", "place = direction * shape.layers + layer"),
    "every layer reads the input": ("x_TBD = between(y_TBU) if layer else x_TBD", "x_TBD = between(x_TBD)"),
    "forward first of both layers": ("for part in zip(*final, strict=True)", "for part in zip(*final[::2], *final[1::2], strict=True)"),
    "one state for all": ("part[place] for part in initial", "part[0] for part in initial"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    assert difference(mutated(direction, *MUTANTS[name]).stacked) > 1e-3


def test_what_lies_between_the_layers_is_applied_between_them_only():
    seen = []

    def between(y):
        seen.append(y)
        return 0 * y

    y, _ = stacked(run, X, INITIAL, Shape(L, 2), between)
    assert len(seen) == L - 1
    assert seen[0].shape == (5, 4, 2 * U)
    silent, _ = stacked(lambda place, x, state: run(place, 0 * x if place >= 2 else x, state), X, INITIAL, Shape(L, 2), same)
    assert torch.equal(y, silent)


def test_the_two_directions_are_the_two_alone():
    y, _ = stacked(run, X, INITIAL, Shape(1, 2), same)
    forward, _ = stacked(run, X, tuple(s[:1] for s in INITIAL), Shape(1, 1), same)
    backward, _ = stacked(lambda _, x, state: run(1, x, state), X.flip(0), tuple(s[1:2] for s in INITIAL), Shape(1, 1), same)
    assert torch.equal(y, torch.cat((forward, backward.flip(0)), -1))
