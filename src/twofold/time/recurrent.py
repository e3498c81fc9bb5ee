"""Time: one cell, applied step after step, and back-propagation through time.     T steps, B rows, D input features, U units

    forward    s_t, saved_t = step(drive(x_t), s_{t-1})          y_t = the first tensor of s_t          t = 1 .. T
    backward   ds_{t-1}, ddrive_t, dW_t = step_back(ds_t + dy_t, saved_t)    t = T .. 1        dW = sum_t dW_t

    ds_t is what the later steps ask of the state, dy_t what the loss asks of the output at t: they meet in the state's first tensor.
    What the input contributes (the drive) needs no state, so it is computed for all steps at once, and so is its backward pass.

    zoneout    s_t = m s_{t-1} + (1 - m) step(...)               ds = (1 - m) ds_t into the step, m ds_t past it
    lengths    s_t = s_{t-1} and y_t = 0 where t > n_b           there dx_t = 0, and ds_t passes unchanged: the row stands still
    reverse    t = T .. 1, back t = 1 .. T                       a row stands still until its own last step

This is the only loop over time: every cell (RNN, GRU, LSTM, ...) is unrolled by it.
Werbos, "Backpropagation through time: what it does and how to do it", Proceedings of the IEEE 78(10), 1990; zoneout: Krueger et al.,
"Zoneout: regularizing RNNs by randomly preserving hidden activations", ICLR 2017, section 3
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twofold.layers.expect import expect_shape
from twofold.time.lengths import expect_lengths, valid
from twofold.time.options import zone_shares

State = tuple[Tensor, ...]


class Cell(NamedTuple):
    """What the loop needs to know of a cell. `weights` is the cell's own named tuple, absent weights being None.

    drive       (x, weights) -> drive                                 x (..., D): one step or all of them
    drive_back  (ddrive, x, weights) -> dx, dweights
    step        (drive_BG, state, weights, mask_BR) -> state, saved   saved: a named tuple with the gates
    step_back   (dstate, saved, weights, mask_BR) -> ddrive_BG, dstate_before, dweights
    states      the names of the state's tensors, the output first
    weights     the class of the named tuple of weights
    gates       G / U

    mask_BR: the factor of recurrent dropout on h before the step, wherever it enters a product; None: no dropout.

    dweights has the form of weights; None stands for "no part in it".
    """

    drive: Callable[[Tensor, Any], Tensor]
    drive_back: Callable[[Tensor, Tensor, Any], tuple[Tensor, Any]]
    step: Callable[[Tensor, Any, Any, Any], tuple[Any, Any]]
    step_back: Callable[[Any, Any, Any, Any], tuple[Tensor, Any, Any]]
    states: tuple[str, ...]
    weights: Any
    gates: int


class Run(NamedTuple):
    """How the loop runs.

    lengths_B   the steps of each row, int64; None: every row has T
    reverse     reads x_T .. x_1, each row from its own last step
    mask_BR     recurrent dropout, the same at all steps
    zone        for each tensor of the state the share m of the old value that stays: (T, B, U), t being the time of the input in either
                direction, or a number, or None: nothing stays
    """

    lengths_B: Tensor | None = None
    reverse: bool = False
    mask_BR: Tensor | None = None
    zone: tuple[Tensor | float | None, ...] = ()

    def order(self, T: int) -> range:
        """The steps in the order of reading."""
        return range(T - 1, -1, -1) if self.reverse else range(T)

    def inside(self, T: int) -> Tensor | None:
        """(T, B, 1): whether the step belongs to the row; None where all do."""
        return None if self.lengths_B is None else valid(self.lengths_B, T)[..., None]

    def shares(self, t: int, state: State) -> list[Tensor | float | None]:
        """What stays of each of the state's tensors at step t."""
        return [share[t] if isinstance(share, Tensor) else share for share in self.zone] or [None] * len(state)


PLAIN = Run()


class Saved(NamedTuple):
    """What back-propagation through time needs; `steps[t]` holds the gates of step t. Behind the rows' ends x is 0."""

    x_TBD: Tensor
    weights: Any
    run: Run
    steps: tuple[Any, ...]


def unroll(cell: Cell, x_TBD: Tensor, state: State, weights: Any, run: Run = PLAIN) -> tuple[Tensor, State, Saved]:
    """(y_TBR, final state, saved). Without a step (T = 0, or a row of length 0) the final state is the initial one."""
    T = x_TBD.shape[0]
    assert len(state) == len(cell.states)
    assert not run.zone or len(run.zone) == len(state)
    inside = run.inside(T)
    x_TBD = x_TBD if inside is None else torch.where(inside, x_TBD, 0)
    drive = cell.drive(x_TBD, weights).unbind()  # at once: to take them out one by one would cost a T times larger gradient each
    y: list[Any] = [None] * T
    steps: list[Any] = [None] * T
    for t in run.order(T):
        before = state if inside is None else _where(inside[t], state)  # a row that stands still must not overflow unseen
        after, steps[t] = cell.step(drive[t], before, weights, run.mask_BR)
        after = tuple(
            new if m is None else m * old + (1 - m) * new for m, old, new in zip(run.shares(t, state), before, after, strict=True)
        )
        y[t] = after[0] if inside is None else torch.where(inside[t], after[0], 0)
        state = after if inside is None else _where(inside[t], after, state)
    return over_time(y, state[0]), state, Saved(x_TBD, weights, run, tuple(steps))


def unroll_back(
    cell: Cell, dy_TBR: Tensor, dstate: State, saved: Saved, watch: Callable[[State], None] | None = None
) -> tuple[Tensor, State, Any]:
    """(dx_TBD, gradient of the initial state, dweights), from the gradients of the outputs and of the final state.

    `watch` is shown the whole gradient of the state after each step, the last step first.
    """
    x_TBD, weights, run, steps = saved
    dweights = type(weights)(*(None if w is None else torch.zeros_like(w) for w in weights))
    if not steps:
        return torch.zeros_like(x_TBD), dstate, dweights
    inside = run.inside(len(steps))
    dy = (dy_TBR if inside is None else torch.where(inside, dy_TBR, 0)).unbind()
    ddrive: list[Any] = [None] * len(steps)
    for t in reversed(run.order(len(steps))):
        dstate = (dstate[0] + dy[t], *dstate[1:])
        if watch is not None:
            watch(dstate)
        shares = run.shares(t, dstate)
        dafter = tuple(ds if m is None else (1 - m) * ds for m, ds in zip(shares, dstate, strict=True))
        dafter = dafter if inside is None else _where(inside[t], dafter)
        ddrive[t], dbefore, dweights_t = cell.step_back(dafter, steps[t], weights, run.mask_BR)
        dbefore = tuple(db if m is None else db + m * ds for m, ds, db in zip(shares, dstate, dbefore, strict=True))
        dstate = dbefore if inside is None else _where(inside[t], dbefore, dstate)
        dweights = add(dweights, dweights_t)
    dx_TBD, dweights_drive = cell.drive_back(torch.stack(ddrive), x_TBD, weights)
    return dx_TBD if inside is None else torch.where(inside, dx_TBD, 0), dstate, add(dweights, dweights_drive)


def state_gradients(cell: Cell, dy_TBR: Tensor, dstate: State, saved: Saved) -> State:
    """dL/ds_t for t = 0 .. T, one (T + 1, B, U) for each tensor of the state: s_0 the initial state, s_t that after t steps of the loop.

    In reverse the loop begins at x_T. A row's gradient stands still where its state does.
    """
    return _trail(cell, dy_TBR, dstate, saved)[1]


def gradient_norms(
    layer: Any, x: Tensor, dy: Tensor | None = None, *, state: Any = None, lengths: Any = None, place: int | None = 0
) -> Tensor:
    """|dL/ds_t| for t = 0 .. T, (T + 1,): how much of what the loss asks at the end arrives at step t; s_t as in state_gradients.

    layer: a Recurrent, nn.RNN, nn.GRU or nn.LSTM; x, state and lengths as it takes them. dy: dL/dy in the form of its output; without it L
    is the sum of the last output, in each direction the one that was read last: the sum of the top layer's final h. The norm is taken over
    all rows, units and tensors of the state, h and c. place: the layer and direction, l S + s; None: all of them, (L*S, T + 1).
    Nothing is drawn at random: dropouts are off, zoneout is its mean.
    Raises ValueError for a layer of another kind, for a place that it has not, and for what the layer does not take.
    """
    who = f"gradient_norms of {type(layer).__name__}"
    if not all(hasattr(layer, name) for name in ("cell", "weights", "stack_shape")):
        raise ValueError(
            f"{who}: expected Recurrent, or nn.RNN, nn.GRU or nn.LSTM of twofold.nn. The weights of torch's own load into ours."
        )
    L, S = layer.stack_shape
    if place is not None and not 0 <= place < L * S:
        raise ValueError(f"{who}: expected place from 0 to {L * S - 1} (L={L} layers times S={S} directions), or None, got {place}.")
    cell = layer.cell
    zone = zone_shares(who, layer.zoneout, cell.states)
    with torch.no_grad():
        y_TBR, initial = layer._time_first(x, state)
        T, B = y_TBR.shape[:2]
        lengths_B = None if lengths is None else expect_lengths(type(layer).__name__, lengths, B, T, y_TBR.device)
        runs: list[Saved] = []
        for number in range(L):
            sides = []
            for k in range(number * S, number * S + S):
                run = Run(lengths_B, k % S == 1 or getattr(layer, "reverse", False), None, zone)
                y, _, saved = unroll(cell, y_TBR, tuple(part[k] for part in initial), layer.weights(k), run)
                sides.append(y)
                runs.append(saved)
            y_TBR = torch.cat(sides, -1)
        down = torch.zeros_like(y_TBR) if dy is None else _as_output(who, dy, layer, x, y_TBR)
        norms: list[Any] = [None] * (L * S)
        for number in reversed(range(L)):
            below = []
            for k, dy_TBR in enumerate(down.chunk(S, -1), number * S):
                dh, *others = (torch.zeros_like(part[k]) for part in initial)
                dh = dh + 1 if dy is None and number == L - 1 else dh
                dx_TBD, trail = _trail(cell, dy_TBR, (dh, *others), runs[k])
                norms[k] = torch.linalg.vector_norm(torch.cat([part.flatten(1) for part in trail], 1), dim=1)
                below.append(dx_TBD)
            down = torch.stack(below).sum(0)
        return torch.stack(norms) if place is None else norms[place]


def over_time(steps: Sequence[Tensor], like: Tensor) -> Tensor:
    """The tensors of T steps as one, time first; of no steps: (0, *the shape of `like`)."""
    return torch.stack(tuple(steps)) if steps else like.new_empty((0, *like.shape))


def add(left: Any, right: Any) -> Any:
    """The sum of two named tuples of gradients, None counting as nothing."""
    return type(left)(*(b if a is None else a if b is None else a + b for a, b in zip(left, right, strict=True)))


def _trail(cell: Cell, dy_TBR: Tensor, dstate: State, saved: Saved) -> tuple[Tensor, State]:
    """(dx_TBD, dL/ds_t for t = 0 .. T)"""
    seen: list[State] = [] if saved.steps else [dstate]
    dx_TBD, dinitial, _ = unroll_back(cell, dy_TBR, dstate, saved, seen.append)
    seen += [dinitial] if saved.steps else []
    return dx_TBD, tuple(torch.stack(part[::-1]) for part in zip(*seen, strict=True))


def _where(inside_B1: Tensor, state: State, otherwise: State | None = None) -> State:
    """The state of the rows that are inside, for the others something else, or 0."""
    if otherwise is None:
        return tuple(torch.where(inside_B1, part, 0) for part in state)
    return tuple(torch.where(inside_B1, part, other) for part, other in zip(state, otherwise, strict=True))


def _as_output(who: str, dy: Tensor, layer: Any, x: Tensor, y_TBR: Tensor) -> Tensor:
    """dy time first, as y_TBR is."""
    alike = y_TBR[:, 0] if x.dim() == 2 else y_TBR.transpose(0, 1) if layer.batch_first else y_TBR
    axes = "T R" if x.dim() == 2 else "B T R" if layer.batch_first else "T B R"
    expect_shape(f"{who} dy", dy, axes, dict(zip(axes.split(), alike.shape, strict=True)), "It is the gradient of the layer's output.")
    return dy.unsqueeze(1) if x.dim() == 2 else dy.transpose(0, 1) if layer.batch_first else dy
