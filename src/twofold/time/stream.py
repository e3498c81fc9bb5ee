"""Streams: a sequence that arrives piece by piece, and outputs as soon as they are determined.     k steps a push, B rows

    push(x_k)    (y, s) = advance(x_k, s)                      s: what the steps to come need of those that were; nothing else is kept
    close()      (y, s) = advance(no steps, s, the last)       what had waited for steps that will not come
    law          the outputs of all pushes and of close, one after the other, are the layer's output for the whole sequence

However the sequence is cut, the same steps are computed from the same state: only the sizes of the products differ.
"""

from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from twofold.layers.expect import expect_positive, expect_shape, expect_tensor
from twofold.time.walk import Walk


class Advance(Protocol):
    """(outputs that are now determined, state) from the next steps and the state; `last`: the sequence ends with them."""

    def __call__(self, x: Tensor, state: Any, last: bool) -> tuple[Tensor, Any]: ...


class Streaming(nn.Module):
    """A recurrent layer that can be fed piece by piece; mixed in before the torch module that it stands in for."""

    def stream(self, rows: int = 1) -> "Stream":
        """A stream of B = `rows` sequences through this layer: see Stream."""
        return stream(self, rows)

    def advance(self, x: Tensor, state: Any, last: bool) -> tuple[Tensor, Any]:
        """The layer itself: one direction owes nothing when the sequence ends."""
        y, state = self(x, state)
        return y, state

    def walk(self, x: Tensor, state: Any) -> Walk | None:
        """The compiled steps from `state` on, with steps like x; None where there are none."""
        return None


class Stream:
    """y = stream.push(x) as soon as y is determined; rest = stream.close() at the sequence's end; stream.reset() for the next one.

    x: steps (k, B, D), or (B, k, D) with batch_first, k = 0 too, or one step (B, D). y: n steps (n, B, ...), or (B, n, ...): n = k
    in one direction, more or fewer with look-ahead. `state`, which can be read, kept and set at any time, is what the layer returns
    as its state (with look-ahead, see there); None before the first step: the layer's own start. To begin elsewhere, set it.
    No gradients are kept; the weights are those of the moment of the push.
    Raises ValueError for other rows or features, for a push after close(), for a state of another form, and for a layer that drops at
    random because it is in training.

    >>> from twofold import nn
    >>> layer = nn.LSTM(3, 4)
    >>> x = torch.randn(5, 1, 3)
    >>> feed = stream(layer)
    >>> y = torch.cat([feed.push(x[:2]), feed.push(x[2]), feed.push(x[3:]), feed.close()])
    >>> torch.allclose(y, layer(x)[0], atol=1e-6)
    True
    """

    def __init__(self, layer: nn.Module, rows: int, advance: Advance) -> None:
        self.rows, self.closed = rows, False
        self._layer, self._advance, self._state = layer, advance, None
        self._walk: Walk | None = None  # while it lasts, it has the state
        self._who, self._features = f"{type(layer).__name__} stream", int(getattr(layer, "input_size"))  # noqa: B009 (any module)
        self._time = 1 if getattr(layer, "batch_first", False) else 0

    @property
    def state(self) -> Any:
        """What the steps to come need of those that were."""
        if self._walk is not None:
            held = self._walk.state
            return held if len(held) > 1 else held[0]
        return self._state

    @state.setter
    def state(self, state: Any) -> None:
        if state is not None:
            with torch.no_grad():  # no steps: the layer asks its questions, and returns the state as it is
                _, state = self._advance(self._nothing(), state, False)
        self._state, self._walk = state, None

    def push(self, x: Tensor) -> Tensor:
        """The outputs that are determined now, in order."""
        if self.closed:
            raise ValueError(f"{self._who}: expected no push after close(). The sequence has ended; reset() begins a new one.")
        x = self._steps(x)
        walk = self._walk
        if walk is not None and walk.serves(x) and (y := walk.push(x)) is not None:
            return y
        return self._next(x, False)

    def close(self) -> Tensor:
        """The outputs that were waiting: the sequence ends here. A second close() returns none."""
        y = self._next(self._nothing(), not self.closed)
        self.closed = True
        return y

    def reset(self) -> None:
        """Begin a new sequence, from the layer's own start."""
        self._state, self._walk, self.closed = None, None, False

    def _next(self, x: Tensor, last: bool) -> Tensor:
        expect_repeatable(self._who, self._layer)
        state, self._walk = self.state, None
        with torch.no_grad():
            y, self._state = self._advance(x, state, last)
            if isinstance(self._layer, Streaming):
                self._walk = self._layer.walk(x, self._state)
        return y

    def _steps(self, x: Any) -> Tensor:
        """x with an axis of time."""
        expect_tensor(self._who, x)
        if x.shape == (self.rows, self._features):
            return x.unsqueeze(self._time)
        if x.dim() != 3 or x.shape[1 - self._time] != self.rows or x.shape[2] != self._features:
            sizes = {"B": self.rows, "D": self._features}
            axes = "B D" if x.dim() == 2 else "B k D" if self._time else "k B D"
            cause = "One step of one row? Give it an axis of rows: x[None]." if x.dim() == 1 else ""
            if x.shape[-1:] == (self._features,) and x.dim() > 1:
                cause = f"A stream keeps its {self.rows} rows to the end: open one with stream(rows=...) for as many as there are."
            expect_shape(self._who, x, axes, sizes, cause)
        return x

    def _nothing(self) -> Tensor:
        """x of no steps."""
        like = next(self._layer.parameters())
        return like.new_empty((self.rows, 0, self._features) if self._time else (0, self.rows, self._features))


def stream(layer: nn.Module, rows: int = 1) -> Stream:
    """A stream of B = `rows` sequences through a recurrent layer of one direction, or through nn.LookAhead.

    Raises ValueError for rows below 1, and for a layer that has to see the sequence's end first.
    """
    who = f"{type(layer).__name__} stream"
    expect_positive(who, rows=rows)
    if not isinstance(layer, (Streaming, nn.RNNBase)):
        raise ValueError(f"{who}: expected a recurrent layer (nn.RNN, nn.GRU, nn.LSTM, nn.LookAhead), got {type(layer).__name__}.")
    if getattr(layer, "bidirectional", False) or getattr(layer, "reverse", False):
        cause = "See a few steps ahead instead: nn.LookAhead(layer, steps=5).stream()."
        raise ValueError(f"{who}: expected one direction, got a layer that begins at the sequence's end. {cause}")
    advance = layer.advance if isinstance(layer, Streaming) else partial(Streaming.advance, layer)  # type: ignore[arg-type]
    return Stream(layer, rows, advance)


RANDOM = ("dropout", "zoneout", "recurrent_dropout", "weight_dropout")


def expect_repeatable(who: str, layer: nn.Module) -> None:
    """Raise ValueError where the layer drops at random: a stream could not repeat what the layer does to the whole sequence."""
    for module in layer.modules():
        for name in RANDOM if module.training else ():
            value = getattr(module, name, None)
            if any(value) if isinstance(value, tuple) else value:
                cause = "Streams are for use after training: call layer.eval()."
                raise ValueError(f"{who}: expected a layer that repeats itself, got one in training with {name}={value}. {cause}")
