"""Long short-term memory over a sequence.     T steps, B rows, D input features, U units, R outputs (R = U without a projection)

    forward    y, h_T, c_T = the LSTM step (cells), unrolled from h_0, c_0 over x_1 .. x_T
    backward   back-propagation through time (recurrent), from dy, dh_T, dc_T

One operation is one layer in one direction, so that its saved values are the gates of every step; the module stacks them
(direction). Sources: in cells, recurrent and direction; dropout between the layers: Zaremba, Sutskever and Vinyals, "Recurrent
neural network regularization", 2014, section 3
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating, expect_positive, expect_shape
from twofold.layers.routes import Routed
from twofold.time import cells
from twofold.time.cells import Weights
from twofold.time.direction import Shape, stacked
from twofold.time.forget import Forgetting, expect_forget_bias
from twofold.time.recurrent import Saved, over_time, unroll, unroll_back
from twofold.time.sequence import StateForm, expect_sequence, expect_state, expect_switches

State = tuple[Tensor, Tensor]


def forward(
    x_TBD: Tensor,
    h_BR: Tensor,
    c_BU: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
) -> tuple[tuple[Tensor, ...], Saved]:
    """((y_TBR, h_BR, c_BU), saved): the outputs and the state after the last step."""
    weights = Weights(weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)
    y_TBR, state, saved = unroll(cells.LSTM, x_TBD, (h_BR, c_BU), weights)
    return (y_TBR, *state), saved


def backward(dy: tuple[Tensor, Tensor, Tensor], saved: Saved) -> tuple[Tensor | None, ...]:
    """(dx_TBD, dh_BR, dc_BU, and the gradients of the five weights)"""
    dy_TBR, *dstate = dy
    dx_TBD, dstate_before, dweights = unroll_back(cells.LSTM, dy_TBR, tuple(dstate), saved)
    return dx_TBD, *dstate_before, *dweights


def vendor(x_TBD: Tensor, h_BR: Tensor, c_BU: Tensor, *weights: Any) -> tuple[Tensor, ...]:
    """torch's own LSTM, one layer in one direction; it refuses an empty sequence, which the definition takes."""
    if x_TBD.shape[0] == 0:
        return forward(x_TBD, h_BR, c_BU, *weights)[0]
    present = [weight for weight in weights if weight is not None]
    has_bias, train = weights[2] is not None, torch.is_grad_enabled()
    y_TBR, h_1BR, c_1BU = torch._VF.lstm(x_TBD, (h_BR[None], c_BU[None]), present, has_bias, 1, 0.0, train, False, False)
    return y_TBR, h_1BR[0], c_1BU[0]


lstm = differentiable(forward, backward, vendor=vendor)


class LSTM(Routed, Forgetting, nn.LSTM):
    """y, (h, c) = layer(x, (h, c)): L layers of LSTM over x (T, B, D), or (B, T, D) with batch_first, or one row (T, D).

    torch.nn.LSTM with routes and clear errors: y (T, B, S*R) holds the last layer's outputs, S directions side by side; h (S*L, B, R)
    and c (S*L, B, U) the state after the last step, zeros where none is given; R is U, or proj_size. An empty sequence (T = 0) returns
    the initial state. Dropout, between the layers, draws from torch's generator, in training only. `forget_bias`: what the two biases
    of every forget gate add up to at the start. A PackedSequence always takes the vendor's route, whatever route was asked for.
    Raises ValueError for constructor arguments out of range, and for input or state of another shape, dtype or device.

    >>> import torch
    >>> layer = LSTM(2, 3, num_layers=2, bidirectional=True)
    >>> y, (h, c) = layer(torch.zeros(5, 4, 2))
    >>> y.shape, h.shape, c.shape
    (torch.Size([5, 4, 6]), torch.Size([4, 4, 3]), torch.Size([4, 4, 3]))
    """

    weight_ih_l0: Tensor

    def __init__(  # type: ignore[no-untyped-def]
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device=None,
        dtype=None,
        *,
        forget_bias: float | None = None,
    ) -> None:
        expect_positive("LSTM", input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        expect_switches("LSTM", bias=bias, batch_first=batch_first, bidirectional=bidirectional)
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ValueError(f"LSTM: expected dropout to be a probability from 0 to 1, got {dropout!r}.")
        if isinstance(proj_size, bool) or not isinstance(proj_size, int) or not 0 <= proj_size < hidden_size:
            raise ValueError(
                f"LSTM: expected proj_size to be a whole number from 0 (none) to hidden_size - 1 = {hidden_size - 1}, got {proj_size!r}."
            )
        self.forget_bias = expect_forget_bias("LSTM", forget_bias, bias)
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype)

    @property
    def stack_shape(self) -> Shape:
        """L layers and S directions."""
        return Shape(self.num_layers, 2 if self.bidirectional else 1)

    def weights(self, place: int) -> Weights:
        """The weights of the layer and direction at that place: layer * directions + direction."""
        weight_ih, weight_hh, *others = (getattr(self, name) for name in self._all_weights[place])
        weight_hr = others.pop() if self.proj_size else None
        bias_ih, bias_hh = others or (None, None)
        return Weights(weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence):
            self._expect_packed(input, hx)
            self.took("vendor")
            return super().forward(input, hx)
        x_TBD, initial = self._time_first(input, hx)
        chosen = lstm.choose(x_TBD, initial[0][0], initial[1][0], *self.weights(0))
        if chosen == "vendor" and x_TBD.shape[0]:
            self.took("vendor")
            y_TBR, h, c = self._vendor(x_TBD, initial)
        else:
            y_TBR, (h, c) = stacked(self._layer, x_TBD, initial, self.stack_shape, self._dropout)
        if input.dim() == 2:
            return y_TBR[:, 0], (h[:, 0], c[:, 0])
        return y_TBR.transpose(0, 1) if self.batch_first else y_TBR, (h, c)

    def gates(self, input: Tensor, hx: State | None = None) -> dict[str, Tensor]:
        """What the forward direction of every layer does at every step, without dropout and gradients.

        "input", "forget", "candidate", "output" (the gates i, f, g, o) and "cell" are (L, T, B, U), "hidden" is (L, T, B, R), for an
        input as in `layer(input, hx)`; one row (T, D) counts as B = 1.
        """
        with torch.no_grad():
            x_TBD, initial = self._time_first(input, hx)
            layers: list[dict[str, Tensor]] = []

            def explain(place: int, x_TBD: Tensor, state: State) -> tuple[Tensor, ...]:
                outputs, saved = lstm.explain(x_TBD, *state, *self.weights(place))
                if place % self.stack_shape.directions == 0:
                    columns = {"input": "i_BU", "forget": "f_BU", "candidate": "g_BU", "output": "o_BU", "cell": "c_BU"}
                    read = {name: over_time([getattr(step, gate) for step in saved.steps], state[1]) for name, gate in columns.items()}
                    layers.append({**read, "hidden": outputs[0]})
                return tuple(outputs)

            stacked(explain, x_TBD, initial, self.stack_shape, lambda y_TBU: y_TBU)
            return {name: torch.stack([layer[name] for layer in layers]) for name in layers[0]}

    def _vendor(self, x_TBD: Tensor, initial: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """torch's own LSTM for the whole stack at once: (y, h, c)."""
        weights: list[Tensor] = [weight for place in self.all_weights for weight in place]
        return torch._VF.lstm(x_TBD, initial, weights, self.bias, self.num_layers, self.dropout, self.training, self.bidirectional, False)

    def _layer(self, place: int, x_TBD: Tensor, state: State) -> Any:
        arguments = (x_TBD, *state, *self.weights(place))
        if x_TBD.shape[0]:
            return self.run(lstm, *arguments)
        self.took("plain")  # torch refuses an empty sequence
        return lstm.by("plain", *arguments)

    def _dropout(self, y_TBU: Tensor) -> Tensor:
        return F.dropout(y_TBU, self.dropout, self.training)

    def _time_first(self, input: Any, hx: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (T, B, D) and the initial state (S*L, B, ...), after the questions to both."""
        expect_sequence("LSTM", input, self.input_size, self.batch_first, self.weight_ih_l0)
        single = input.dim() == 2
        x_TBD = input.unsqueeze(1) if single else input.transpose(0, 1) if self.batch_first else input
        B = x_TBD.shape[1]
        if hx is None:
            places, U = self.stack_shape.places, self.hidden_size
            c_0 = x_TBD.new_zeros((places, B, U))
            return x_TBD, (c_0[..., : self.proj_size] if self.proj_size else c_0, c_0)
        state = expect_state("LSTM", hx, self._state_form(), None if single else B, input)
        return x_TBD, tuple(part.unsqueeze(1) for part in state) if single else state

    def _expect_packed(self, packed: PackedSequence, hx: Any) -> None:
        expect_floating("LSTM input (packed)", packed.data, self.weight_ih_l0)
        expect_shape("LSTM input (packed)", packed.data, "steps D", {"D": self.input_size})
        if hx is not None:
            expect_state("LSTM", hx, self._state_form(), int(packed.batch_sizes[0]), packed.data)

    def _state_form(self) -> StateForm:
        layers, directions = self.stack_shape
        return StateForm(cells.LSTM.states, (self.proj_size or self.hidden_size, self.hidden_size), layers, directions, self.batch_first)
