"""Truncated back-propagation: windows, (k1, k2), their laws, and the gradient of every pass by hand; mutants."""

import pytest
import torch

from twofold import nn
from twofold.layers.check import check_message, noise
from twofold.time import truncated as module
from twofold.time.truncated import TBPTT, detached, windows

T, B, D, U = 7, 2, 3, 2
X, TARGETS = noise(T, B, D, seed=1, grad=False), noise(T, B, U, seed=2, grad=False)


def build(kind="LSTM", **options):
    torch.manual_seed(0)
    return getattr(nn, kind)(D, U, dtype=torch.float64, **options)


def loss_of(y, steps):
    return (y - TARGETS[steps]).square().sum()


def gradients(loss, layer):
    return [gradient.clone() for gradient in torch.autograd.grad(loss, list(layer.parameters()))]


def by_passes(layer, k1, k2, ours=module, update=False):
    """The outputs, and the gradient of every pass; with `update` each is followed by a step along it."""
    outputs, found = [], []
    for y, steps, state in ours.TBPTT(k1, k2)(layer, X):
        outputs.append(y.detach())
        found.append(gradients(loss_of(y, steps), layer))
        assert all(not part.requires_grad for part in state)
        if update:
            descend(layer, found[-1])
    return torch.cat(outputs), found


def descend(layer, found):
    with torch.no_grad():
        for parameter, gradient in zip(layer.parameters(), found, strict=True):
            parameter -= 0.1 * gradient


def step_by_step(layer, k1, k2):
    """The same by hand: all states by single steps; each pass anew from the state k2 steps before its end, one step at a time."""
    with torch.no_grad():
        states = [None]
        for x_t in X.split(1):
            states.append(layer(x_t, states[-1])[1])
    found = []
    for end in [*range(k1, T, k1), T]:
        begin = (end - 1) // k1 * k1
        first = max(0, begin + k1 - k2 if k2 >= k1 else max(begin, end - k2))
        state, loss = states[first], 0
        for t in range(first, end):
            y, state = layer(X[t : t + 1], state)
            loss = loss + (loss_of(y, slice(t, t + 1)) if t >= begin else 0)
        found.append(gradients(loss, layer))
    return found


def same(ours, theirs):
    return len(ours) == len(theirs) and all(torch.allclose(*pair, rtol=1e-11) for pair in zip(ours, theirs, strict=True))


PAIRS = [(1, 1), (1, 3), (2, 2), (2, 3), (2, 5), (3, 1), (3, 2), (3, 7), (4, 2), (5, 9), (7, 7), (9, 3), (9, 20)]


def agree(ours):
    """Whether TBPTT of a module (or of a copy with a mistake in it) is what is done by hand."""
    layer = build()
    whole, _ = layer(X)
    for k1, k2 in PAIRS:
        outputs, found = by_passes(layer, k1, k2, ours)
        wanted = step_by_step(layer, k1, k2)
        assert torch.allclose(outputs, whole, rtol=1e-12) and len(found) == len(wanted)
        assert all(same(*pair) for pair in zip(found, wanted, strict=True)), (k1, k2)


def test_each_pass_has_the_gradient_of_its_own_steps_from_a_given_state():
    agree(module)


FIRST = "max(0, begin - max(self.k2 - self.k1, 0), min(begin + self.k1, T) - self.k2)"
MUTANTS = {
    "back one step too many": (FIRST, FIRST.replace("self.k1, 0)", "self.k1 + 1, 0)").replace("T) - self.k2", "T) - self.k2 - 1")),
    "back one step too few": (FIRST, FIRST.replace("T) - self.k2", "T) - self.k2 + 1")),
    "back to the first new step": (FIRST, "begin"),
    "the last pass k2 steps back": (FIRST, "max(0, min(begin + self.k1, T) - self.k2)"),
    "the last pass as if it were whole": (FIRST, "max(0, begin + self.k1 - self.k2)"),
    "the next begins one step late": ("min(self._first(end, T), end)", "min(self._first(end, T) + 1, end)"),
    "the next begins at the end": ("min(self._first(end, T), end)", "end"),
    "the state of the end is carried": ("if start == later > 0:", "if start == later > 0 and start == end:"),
    "the state's gradient is carried": ("held = detached(state)", "held = state"),
    "passes of k2 steps": ("range(0, T, self.k1)", "range(0, T, self.k2)"),
    "the last steps forgotten": ("range(0, T, self.k1)", "range(0, T - T % self.k1, self.k1)"),
    "outputs of the whole pass": ("outputs.narrow(axis, begin - origin, end - begin)", "outputs"),
    "outputs one pass early": ("begin - origin, end - begin)", "0, end - begin)"),
    "no gradient before the new steps": ("start >= first)", "start >= begin)"),
    "gradient of all steps": (" and start >= first)", ")"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    wrong = mutated(module, *MUTANTS[name])
    with pytest.raises((AssertionError, RuntimeError)):
        agree(wrong)


@pytest.mark.parametrize("k", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("update", [False, True])
def test_k1_and_k2_alike_are_windows(k, update):
    layer, other = build(), build()
    outputs, found = by_passes(layer, k, k, update=update)
    state, wanted, ys = None, [], []
    for x, targets in zip(windows(X, k), windows(TARGETS, k), strict=True):
        y, state = other(x, detached(state))
        ys.append(y.detach())
        wanted.append(gradients((y - targets).square().sum(), other))
        if update:
            descend(other, wanted[-1])
    assert torch.allclose(outputs, torch.cat(ys), rtol=1e-12)
    assert all(same(*pair) for pair in zip(found, wanted, strict=True))


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_at_least_t_steps_at_once_are_all_of_back_propagation(kind):
    layer = build(kind, learn_state=True)
    wanted = gradients(loss_of(layer(X)[0], slice(None)), layer)
    _, (found,) = by_passes(layer, T, T + 3)
    assert same(found, wanted)
    assert any(gradient.shape == (1, 1, U) and gradient.count_nonzero() for gradient in found)  # of the state to begin from


def test_a_given_state_counts_where_a_pass_reaches_it():
    layer, h = build("GRU"), noise(1, B, U, seed=3)
    reached = [torch.autograd.grad(y.sum(), h, allow_unused=True)[0] for y, _, _ in TBPTT(2, 4)(layer, X, h)]
    assert [gradient is not None for gradient in reached] == [True, True, False, False]
    assert torch.allclose(reached[1], torch.autograd.grad(layer(X[:4], h)[0][2:].sum(), h)[0])
    assert h.is_leaf and h.grad is None


def test_batch_first_and_any_module_with_a_state():
    class Sum(torch.nn.Module):
        """y_t = w (x_1 + .. + x_t): its gradient after k2 steps is known."""

        batch_first = True

        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, state):
            sums = self.w * x.cumsum(1) + (0 if state is None else state[0][:, None])
            return sums, (sums[:, -1],)

    layer, x = Sum(), torch.arange(1.0, 6.0)[None]
    parts = [(y.tolist(), steps, torch.autograd.grad(y[:, -1].sum(), layer.w)[0].item()) for y, steps, _ in TBPTT(2, 3)(layer, x)]
    assert parts == [([[1, 3]], slice(0, 2), 3), ([[6, 10]], slice(2, 4), 9), ([[15]], slice(4, 5), 9)]
    assert [part.tolist() for part in windows(x, 2, batch_first=True)] == [[[1, 2]], [[3, 4]], [[5]]]


def test_no_steps():
    assert list(windows(X[:0], 2)) == [] and list(TBPTT(2, 2)(build(), X[:0])) == []


def test_without_gradients_no_graph_is_kept():
    with torch.no_grad():
        assert not any(y.requires_grad for y, _, _ in TBPTT(2, 3)(build(), X))


def test_a_state_of_any_form_is_cut_from_the_graph():
    leaf = torch.ones(2, requires_grad=True)
    state = module.Pass(2 * leaf, slice(0, 1), [(3 * leaf, None)])
    cut = detached(state)
    assert isinstance(cut, module.Pass) and cut.steps == slice(0, 1) and isinstance(cut.state, list) and cut.state[0][1] is None
    assert not cut.y.requires_grad and not cut.state[0][0].requires_grad and cut.state[0][0].tolist() == [3, 3]


def test_bad_input():
    check_message(lambda: TBPTT(0, 2), "TBPTT: expected k1 to be a whole number of at least 1, got 0.")
    check_message(lambda: TBPTT(2, 2.5), "TBPTT: expected k2 to be a whole number of at least 1, got 2.5.")
    check_message(lambda: TBPTT(2, 2)(build(), [1.0]), "TBPTT input: expected a torch tensor, got list.")
    check_message(lambda: windows(X, -1), "windows: expected steps to be a whole number of at least 1, got -1.")
    check_message(lambda: windows(torch.ones(3), 2, batch_first=True), "windows input: expected an axis of time, axis 1, got (3,).")
