"""Look-ahead: two directions in real time.     L layers, T steps, B rows, k steps ahead

    forward    has read all of the past: x_1 .. x_t
    reverse    has read x_e .. x_t, begun anew at e = min(t + k, T); chunked: at the end of the k steps among which t is
    y_t        [forward ; reverse] of the last layer; every layer reads those of the layer below
    delay      sliding: y_t is determined when x_{t + L k} is known, for every layer waits for k steps of the layer below
               chunked: when t's chunk is known, at most k - 1 steps later, whatever L is
    laws       y does not depend on x behind the delay; k >= T - 1 (chunked: k >= T) is the bidirectional layer

A sliding step costs a walk of k + 1 steps, a chunked one a walk of one step; the walks of all steps are one batch. Every layer keeps
the steps for which it has no answer yet, k at most, and the state of its forward direction: no more, however long the sequence is.

Sources: in bidirectional
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from twofold.layers.expect import expect_floating, expect_shape
from twofold.time.bidirectional import chunked, read_ahead, sliding
from twofold.time.lengths import clear, expect_lengths, valid
from twofold.time.stream import Streaming


class Held(NamedTuple):
    """What a stream with look-ahead keeps: the state of nn.LookAhead."""

    given: Any  # the state to begin from, in the form of the layer's: its reverse directions begin from it again and again; or None
    forward: tuple[Tensor, ...]  # the state of the forward directions, each (L, B, U)
    waiting: tuple[Tensor, ...]  # for every layer the steps (up to k, B, features) for which it has no output yet


class LookAhead(Streaming):
    """y = layer(x): a bidirectional nn.RNN, nn.GRU or nn.LSTM whose reverse direction sees no more than the next `steps` steps.

    layer: the bidirectional layer; its weights are shared, so that it can be trained with or without look-ahead. steps: k, at least 0;
    with chunked=True the size of the chunks, at least 1. x (T, B, D), or (B, T, D) with the layer's batch_first, or one row (T, D);
    hx: the state from which the directions begin, as in the layer; lengths: the rows' own lengths, behind which y is 0.
    In training every window draws its own recurrent dropout and zoneout, for it is a sequence of its own.
    `stream(rows)` gives the same outputs while x is coming (stream.Stream); its state is a `Held`, or the layer's own to begin from.
    Raises ValueError for a layer that is not bidirectional, for steps out of range, and for what the layer does not take.

    >>> from twofold import nn
    >>> layer = nn.LookAhead(nn.LSTM(3, 4, bidirectional=True), steps=2)
    >>> x = torch.randn(6, 1, 3)
    >>> y = layer(x)
    >>> y.shape
    torch.Size([6, 1, 8])
    >>> feed = layer.stream()
    >>> [len(feed.push(step)) for step in x], len(feed.close())
    ([0, 0, 1, 1, 1, 1], 2)
    """

    def __init__(self, layer: nn.Module, steps: int, chunked: bool = False) -> None:
        super().__init__()
        expect_bidirectional(layer)
        least = 1 if chunked else 0
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < least:
            meant = "a chunk's number of steps" if chunked else "the number of steps ahead"
            raise ValueError(f"LookAhead: expected steps, {meant}, to be a whole number of at least {least}, got {steps!r}.")
        if not isinstance(chunked, bool):
            raise ValueError(f"LookAhead: expected chunked to be True or False, got {chunked!r}.")
        self.layer: Any = layer
        self.steps, self.chunked = steps, chunked

    @property
    def input_size(self) -> int:
        """D."""
        return int(self.layer.input_size)

    @property
    def batch_first(self) -> bool:
        """Whether x is (B, T, D)."""
        return bool(self.layer.batch_first)

    def extra_repr(self) -> str:
        return f"steps={self.steps}, chunked={self.chunked}"

    def forward(self, input: Any, hx: Any = None, lengths: Any = None) -> Tensor:
        if isinstance(input, PackedSequence):
            raise ValueError("LookAhead input: expected a tensor, got a PackedSequence. Pass the padded rows, and lengths=...")
        x_TBD, initial = self.layer._time_first(input, hx)
        T, B = x_TBD.shape[:2]
        inside_TB = None
        if lengths is not None:
            lengths = expect_lengths("LookAhead", lengths, B, T, x_TBD.device)
            inside_TB = valid(lengths, T)
            x_TBD = clear(x_TBD, inside_TB)
        y_TBR, _ = self._through(x_TBD, initial, self._begin(x_TBD, initial, hx), True, lengths)
        if inside_TB is not None:
            y_TBR = clear(y_TBR, inside_TB)
        if input.dim() == 2:
            return y_TBR[:, 0]
        return y_TBR.transpose(0, 1) if self.batch_first else y_TBR

    def advance(self, x: Tensor, state: Any, last: bool) -> tuple[Tensor, Held]:
        """One push of a stream."""
        x_TBD, initial = self.layer._time_first(x, state.given if isinstance(state, Held) else state)
        if isinstance(state, Held):
            self._expect_held(state, x_TBD, initial)
        else:
            state = self._begin(x_TBD, initial, state)
        y_TBR, held = self._through(x_TBD, initial, state, last, None)
        return y_TBR.transpose(0, 1) if self.batch_first else y_TBR, held

    def _through(self, y_TBR: Tensor, initial: Any, held: Held, last: bool, lengths_B: Tensor | None) -> tuple[Tensor, Held]:
        """(the outputs that are now determined, what is held then): layer after layer, each reading what the one below can tell."""
        forward, waiting = [], []
        for number, before in enumerate(held.waiting):
            x_TBD = torch.cat((before, self.layer._dropout(y_TBR) if number else y_TBR))
            T, B = x_TBD.shape[:2]
            ready = T if last else T // self.steps * self.steps if self.chunked else max(T - self.steps, 0)
            state = tuple(part[number] for part in held.forward)
            if ready or last:
                y_TBR, *state = self.layer._layer(2 * number, x_TBD[:ready], state)
                ahead_TBR = self._ahead(2 * number + 1, x_TBD, ready, initial, lengths_B) if ready else y_TBR
                y_TBR = torch.cat((y_TBR, ahead_TBR), dim=-1)
            else:
                y_TBR = x_TBD.new_zeros((0, B, 2 * initial[0].shape[-1]))
            forward.append(state)
            waiting.append(x_TBD[ready:].clone())  # not a view: that would keep alive all that was pushed with it
        return y_TBR, Held(held.given, tuple(torch.stack(part) for part in zip(*forward, strict=True)), tuple(waiting))

    def _ahead(self, place: int, x_TBD: Tensor, ready: int, initial: Any, lengths_B: Tensor | None) -> Tensor:
        """The reverse direction of the first `ready` steps."""
        x_TBD = x_TBD[:ready] if self.chunked else x_TBD
        T, B = x_TBD.shape[:2]

        def run(x_nBD: Tensor, copies: int) -> Tensor:
            y_nBR, *_ = self.layer._layer(place, x_nBD, tuple(part[place].repeat(copies, 1) for part in initial))
            return y_nBR

        seen = self.steps if self.chunked else self.steps + 1
        if lengths_B is None and seen >= T:  # one window, as in most pushes of one step: no places to count
            return run(x_TBD.flip(0), 1).flip(0)[:ready]
        lengths_B = torch.full((B,), T, device=x_TBD.device) if lengths_B is None else lengths_B
        windows = (chunked if self.chunked else sliding)(lengths_B, T, self.steps)
        return read_ahead(run, x_TBD, windows)[:ready]

    def _begin(self, x_TBD: Tensor, initial: Any, given: Any) -> Held:
        widths, B = self._widths(initial), x_TBD.shape[1]
        return Held(given, tuple(part[::2] for part in initial), tuple(x_TBD.new_empty((0, B, width)) for width in widths))

    def _widths(self, initial: Any) -> list[int]:
        """What the layers read: D, then both directions of the layer below."""
        return [self.input_size] + [2 * initial[0].shape[-1]] * (initial[0].shape[0] // 2 - 1)

    def _expect_held(self, held: Held, x_TBD: Tensor, initial: Any) -> None:
        L, B, widths = initial[0].shape[0] // 2, x_TBD.shape[1], self._widths(initial)
        forward = [("L B U", {"L": L, "B": B, "U": part.shape[-1]}) for part in initial]
        waiting = [("k B D", {"B": B, "D": width}) for width in widths]
        for name, got, wanted in (("forward", held.forward, forward), ("waiting", held.waiting, waiting)):
            if len(got) != len(wanted):
                raise ValueError(f"LookAhead state {name}: expected {len(wanted)} tensors, got {len(got)}. Is it of another layer?")
            for part, (axes, sizes) in zip(got, wanted, strict=True):
                expect_shape(f"LookAhead state {name}", part, axes, sizes, "Is it of another stream?")
                expect_floating(f"LookAhead state {name}", part, x_TBD)


def expect_bidirectional(layer: Any) -> None:
    """Raise ValueError unless the layer is one of ours with two directions."""
    kind = type(layer).__name__
    if not isinstance(layer, nn.RNNBase):
        raise ValueError(f"LookAhead: expected a bidirectional nn.RNN, nn.GRU or nn.LSTM, got {kind}.")
    if not isinstance(layer, Streaming):
        raise ValueError(f"LookAhead: expected a layer of twofold.nn, got torch's own {kind}. Build it there: the weights load both ways.")
    if not layer.bidirectional:
        raise ValueError(
            f"LookAhead: expected two directions, got {kind} with one. Build it with bidirectional=True; one alone can stream."
        )
