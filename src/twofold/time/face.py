"""What nn.RNN, nn.GRU and nn.LSTM have in common: layers on top of each other, states in and out, lengths, options and routes.

    y^0 = x        y^l, s_T^l = layer l over dropout(y^{l-1}), from s_0^l        y = y^L        l = 1 .. L
    the state of layer l in direction s has the place l S + s

A layer is one operation (layer). torch's own takes whole stacks where it has all that is asked for.

Dropout between the layers: Zaremba, Sutskever and Vinyals, "Recurrent neural network regularization", 2014, section 3
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from twofold.kernels import recurrence as kernel
from twofold.layers.differentiable import Operation
from twofold.layers.expect import expect_floating, expect_positive, expect_shape
from twofold.layers.routes import Routed, traced, wanted_route
from twofold.time.bidirectional import Shape
from twofold.time.layer import Call
from twofold.time.lengths import expect_lengths, from_packed, to_packed
from twofold.time.options import Options, draw_mask, draw_zone, expect_probability, start_hidden, zone_shares
from twofold.time.product import start_norms
from twofold.time.recurrent import Cell, over_time
from twofold.time.sequence import StateForm, expect_sequence, expect_state, expect_switches
from twofold.time.step import LIMIT, alone, expect_weights
from twofold.time.stream import Streaming
from twofold.time.walk import Walk


class Sizes(NamedTuple):
    """torch's arguments, in the order of torch.nn.RNNBase."""

    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int = 0


class Face(Routed, Streaming):
    """Mixed in before torch's layers. They add `cell`, `operations` and `GATES`, and what only they take."""

    GATES: ClassVar[dict[str, str]] = {}  # what `gates` returns, by the fields of what the step saves

    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    mode: str
    weight_ih_l0: Tensor

    def __init__(self, mode: str, sizes: Sizes, options: Options, device: Any, dtype: Any, extra: dict[str, int | None]) -> None:
        """mode: torch's word for the cell, which tells it the number of gates. extra: rows of further weights in every place, by name."""
        who, cell = type(self).__name__, self.cell
        expect_sizes(who, sizes)
        if not torch.empty(0, device=device).is_meta:  # where weights are only counted they may be as many as you like
            expect_weights(who, cell.gates, sizes.input_size, sizes.hidden_size)
        options.expect(who, cell.states, sizes.hidden_size, sizes.proj_size)
        self.options = options
        nn.RNNBase.__init__(self, mode, *sizes, device=device, dtype=dtype)  # type: ignore[arg-type]  # Face stands before a torch layer
        widths = (sizes.proj_size or sizes.hidden_size, sizes.hidden_size)[: len(cell.states)]
        self._form = StateForm(cell.states, widths, *self.stack_shape, sizes.batch_first)
        self._add_weights(extra)
        self._names = [
            tuple(name if hasattr(self, name) else "" for name in (f"{field}_{suffix}" for field in cell.weights._fields))
            for suffix in self._suffixes()
        ]
        self._start_options()

    @property
    def cell(self) -> Cell:
        """The step that is repeated."""
        raise NotImplementedError

    @property
    def operations(self) -> tuple[Operation, Operation]:
        """The operation where nothing is asked that torch lacks, and the one for all else."""
        raise NotImplementedError

    @property
    def compiled(self) -> str:
        """The name of the cell's compiled form (kernels.recurrence.KINDS), of use where the operations have the route native."""
        raise NotImplementedError

    @property
    def zoneout(self) -> float | tuple[float, ...]:
        """The probability that a unit keeps its old value, or one for each tensor of the state."""
        return self.options.zoneout

    @property
    def recurrent_dropout(self) -> float:
        """The probability that a unit of the state is dropped, for all steps, wherever it enters a product."""
        return self.options.recurrent_dropout

    @property
    def weight_dropout(self) -> float:
        """The probability that a recurrent weight is dropped, for a call."""
        return self.options.weight_dropout

    @property
    def stack_shape(self) -> Shape:
        """L layers and S directions."""
        return Shape(self.num_layers, 2 if self.bidirectional else 1)

    def weights(self, place: int) -> Any:
        """The weights of the layer and direction at that place: layer * directions + direction."""
        known = self._parameters  # Module.__getattr__ costs a microsecond a name; it finds what parametrizations put in their place
        return self.cell.weights(*[known[name] if name in known else getattr(self, name) if name else None for name in self._names[place]])

    def forward(self, input: Any, hx: Any = None, lengths: Any = None) -> Any:
        if isinstance(input, PackedSequence):
            return self._packed(input, hx, lengths)
        x_TBD, initial = self._time_first(input, hx)
        T, B = x_TBD.shape[:2]
        lengths_B = None if lengths is None else expect_lengths(type(self).__name__, lengths, B, T, x_TBD.device)
        y_TBR, state = self._stack(x_TBD, initial, lengths_B)
        if input.dim() == 2:
            return y_TBR[:, 0], self._given_back(tuple(part[:, 0] for part in state))
        return self._in_order(y_TBR), self._given_back(state)

    def walk(self, x: Tensor, state: Any) -> Walk | None:
        """The compiled steps of a stream that goes on from `state` with steps like x; None where another route is the layer's."""
        operation = self.operations[1]
        names = {*chain(*self._names)} - {""}
        if self.training or operation.native is None or not names <= self._parameters.keys():  # parametrizations compute a weight anew
            return None
        parts = state if isinstance(state, tuple) else (state,)
        shares = zone_shares("", self.zoneout, self.cell.states) if self.zoneout else ()
        call = Call(1, None, (), (tuple(shares),) if shares else ())
        weights = [self.weights(layer) for layer in range(self.num_layers)]
        if not all(weight.is_contiguous() for given in weights for weight in given if weight is not None):
            return None
        y_TBR = x.transpose(0, 1) if self.batch_first else x
        for layer, given in enumerate(weights):
            arguments = (y_TBR, *(part[layer : layer + 1] for part in parts), *given, call)
            if operation.decide(*arguments)[0] != "native":
                return None
            y_TBR = y_TBR.new_empty((*y_TBR.shape[:2], self.hidden_size))
        return Walk(self, names, kernel.stream(self.compiled, parts, weights, shares))

    def gates(self, input: Tensor, hx: Any = None) -> dict[str, Tensor]:
        """What the forward direction of every layer does at every step in use: without dropout and gradients, zoneout as its mean.

        The gates by name, each (L, T, B, U), those of the new state; then the state itself, which the outputs show: "cell" (L, T, B, U)
        where there is one and "hidden" (L, T, B, R). For an input as in `layer(input, hx)`; one row (T, D) counts as B = 1.
        """
        with torch.no_grad():
            x_TBD, initial = self._time_first(input, hx)
            layers: list[dict[str, Tensor]] = []
            for layer in range(self.num_layers):
                operation, arguments = self._layer_call(layer, x_TBD, initial, None, training=False)
                (y_TBR, *final), saved = operation.explain(*arguments)
                layers.append(self._read(y_TBR, tuple(part[0] for part in final), saved[0].steps))
                x_TBD = y_TBR
            return {name: torch.stack([layer[name] for layer in layers]) for name in layers[0]}

    def reset_parameters(self) -> None:
        """torch's uniform start in +-1/sqrt(U), and that of the options: norms 1, their shifts and learnt states 0, hidden_init."""
        super().reset_parameters()  # type: ignore[misc]  # the torch module behind this one has it
        self._start_options()

    def extra_repr(self) -> str:
        return super().extra_repr() + self.options.told()

    def _stack(self, x_TBD: Tensor, initial: tuple[Tensor, ...], lengths_B: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(y_TB(SR), final state), layer after layer."""
        finals: list[Any] = []
        y_TBR = x_TBD
        for layer in range(self.num_layers):
            x_TBD = self._dropout(y_TBR) if layer else x_TBD
            operation, arguments = self._layer_call(layer, x_TBD, initial, lengths_B, self.training)
            chosen, why = operation.decide(*arguments)
            self.took(chosen, why)
            if chosen == "vendor" and self.num_layers > 1 and not layer and not self.weight_dropout:
                return self._vendor(x_TBD, initial)
            y_TBR, *final = operation.by(chosen, *arguments)
            finals.append(final)
        return y_TBR, one_state(finals)

    def _vendor(self, x_TBD: Tensor, initial: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """torch's own layers, the whole stack at once."""
        compute = getattr(torch._VF, self.mode.lower())
        weights = [weight for place in range(self.stack_shape.places) for weight in self.weights(place) if weight is not None]
        state = initial if len(initial) > 1 else initial[0]
        settings = (self.bias, self.num_layers, self.dropout, self.training, self.bidirectional, False)
        y_TBR, *last = compute(x_TBD, state, weights, *settings)
        return y_TBR, tuple(last)

    def _layer_call(
        self, layer: int, x_TBD: Tensor, initial: tuple[Tensor, ...], lengths_B: Tensor | None, training: bool
    ) -> tuple[Operation, tuple[Any, ...]]:
        """The operation and its arguments for one layer, with masks drawn anew."""
        S = 2 if self.bidirectional else 1
        state = initial if self.num_layers == 1 else tuple(part[layer * S : (layer + 1) * S] for part in initial)
        return self._operation(x_TBD, state, range(layer * S, (layer + 1) * S), lengths_B, training)

    def _operation(
        self, x_TBD: Tensor, state: tuple[Tensor, ...], places: range, lengths_B: Tensor | None, training: bool
    ) -> tuple[Operation, tuple[Any, ...]]:
        options, (T, B), S = self.options, x_TBD.shape[:2], len(places)
        like, widths = self.weight_ih_l0, [part.shape[-1] for part in state]
        masks: tuple[Tensor, ...] = ()
        if training and options.recurrent_dropout:
            masks = tuple(draw_mask(options.recurrent_dropout, (B, widths[0]), like) for _ in places)
        zones: Any = ()
        if options.zoneout:
            shares = zone_shares("", options.zoneout, self.cell.states)
            draws = (tuple(draw_zone(p, (T, B, U), like, training) for p, U in zip(shares, widths, strict=True)) for _ in places)
            zones = tuple(draws) if shares else ()
        call = Call(S, lengths_B, masks, zones)
        weights = [self.weights(place) for place in places]
        if training and options.weight_dropout:
            weights = [each._replace(weight_hh=F.dropout(each.weight_hh, options.weight_dropout, True)) for each in weights]
        operation = self.operations[0 if T and call.bare else 1]  # torch refuses an empty sequence
        return operation, (x_TBD, *state, *chain.from_iterable(weights), call)

    def _layer(self, place: int, x_TBD: Tensor, state: tuple[Tensor, ...]) -> Any:
        """(y_TBR, *final state) of one layer in one direction, from a state (B, U) each, reading x from its first step on."""
        operation, arguments = self._operation(x_TBD, tuple(part[None] for part in state), range(place, place + 1), None, self.training)
        y_TBR, *final = self.run(operation, *arguments)
        return y_TBR, *(part[0] for part in final)

    def _dropout(self, y_TBU: Tensor) -> Tensor:
        return F.dropout(y_TBU, self.dropout, self.training)

    def _packed(self, packed: PackedSequence, hx: Any, lengths: Any) -> Any:
        """As torch: rows of the state in the order in which they were packed."""
        who = type(self).__name__
        if lengths is not None:
            raise ValueError(f"{who} lengths: expected None with a PackedSequence, which has its own, got {type(lengths).__name__}.")
        expect_floating(f"{who} input (packed)", packed.data, self.weight_ih_l0)
        expect_shape(f"{who} input (packed)", packed.data, "steps D", {"D": self.input_size})
        initial = self._initial(packed.data, hx, int(packed.batch_sizes[0]))
        if self._torch_has_it() and (wanted_route() == "vendor" or (packed.data.is_cuda and wanted_route() == "auto")):
            self.took("vendor", "asked for" if wanted_route() == "vendor" else "rule")
            return super().forward(packed, self._given_back(initial))
        x_TBD, lengths_B = from_packed(packed)
        y_TBR, state = self._stack(x_TBD, initial, lengths_B)
        return to_packed(y_TBR, packed), self._given_back(state)

    def _torch_has_it(self) -> bool:
        """Whether torch's own layer computes what this one does, for a PackedSequence too."""
        return (
            self.operations[0].vendor is not None
            and not (self.training and (self.weight_dropout or self.recurrent_dropout))
            and not self.zoneout
        )

    def _time_first(self, input: Any, hx: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (T, B, D) and the initial state (S*L, B, ...), after the questions to both."""
        expect_sequence(type(self).__name__, input, self.input_size, self.batch_first, self.weight_ih_l0)
        single = input.dim() == 2
        x_TBD = input.unsqueeze(1) if single else input.transpose(0, 1) if self.batch_first else input
        T, B = x_TBD.shape[:2]
        outputs = T * B * (2 if self.bidirectional else 1) * (self.proj_size or self.hidden_size)
        if outputs > LIMIT and not traced():
            raise ValueError(
                f"{type(self).__name__} input: expected at most {LIMIT} outputs, got {T} steps of {B} rows, which make {outputs}. "
                "Cut the sequence, and carry the state from piece to piece."
            )
        return x_TBD, self._initial(input, hx, None if single else B)

    def _initial(self, x: Tensor, hx: Any, rows: int | None) -> tuple[Tensor, ...]:
        """The state (S*L, B, ...) to begin from: the one given, the one learnt, or zeros. rows: None for a single one."""
        B = 1 if rows is None else rows
        if hx is not None:
            who, form = type(self).__name__, self._form
            state = expect_state(who, hx if len(form.names) > 1 else alone(who, hx), form, rows, x)
            return tuple(part.unsqueeze(1) for part in state) if rows is None else state
        if self.options.learn_state:
            return tuple(getattr(self, f"{name}_0").expand(-1, B, -1) for name in self.cell.states)
        return tuple(x.new_zeros((self.stack_shape.places, B, width)) for width in self._form.widths)

    def _in_order(self, y_TBR: Tensor) -> Tensor:
        """The outputs with their axes in the order of the input's."""
        return y_TBR.transpose(0, 1) if self.batch_first else y_TBR

    def _given_back(self, state: tuple[Tensor, ...]) -> Any:
        """The state in torch's form: a pair, or h alone."""
        return state if len(state) > 1 else state[0]

    def _read(self, y_TBR: Tensor, final: tuple[Tensor, ...], steps: Any) -> dict[str, Tensor]:
        """The gates of one layer, and its state."""
        c_BU = final[-1].new_empty((final[-1].shape[0], self.hidden_size))
        found = {name: over_time([getattr(step, field) for step in steps], c_BU) for name, field in self.GATES.items()}
        if len(final) > 1:
            found["cell"] = over_time([*(step.c_before_BU for step in steps[1:]), final[1]][: len(steps)], c_BU)
        return {**found, "hidden": y_TBR[..., : final[0].shape[-1]]}

    def _suffixes(self) -> list[str]:
        shape = self.stack_shape
        return [f"l{layer}{'_reverse' * direction}" for layer in range(shape.layers) for direction in range(shape.directions)]

    def _add_weights(self, extra: dict[str, int | None]) -> None:
        """Register the parameters that torch's layer lacks, on the device and in the dtype of the others."""
        like, most = self.weight_ih_l0.detach(), self.hidden_size**-0.5
        for suffix in self._suffixes():
            for name, size in extra.items():
                if size is not None:
                    self.register_parameter(f"{name}_{suffix}", nn.Parameter(like.new_empty(size).uniform_(-most, most)))
        if self.options.learn_state:
            for name, width in zip(self._form.names, self._form.widths, strict=True):
                self.register_parameter(f"{name}_0", nn.Parameter(like.new_zeros((self.stack_shape.places, 1, width))))

    def _start_options(self) -> None:
        start_norms(self)
        start_hidden(self, self.options.hidden_init, self.hidden_size)
        for name in ("h_0", "c_0"):
            if name in self._parameters:
                nn.init.zeros_(getattr(self, name))


def one_state(finals: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """The state (S*L, B, ...) of the stack, from those of its layers."""
    return tuple(finals[0]) if len(finals) == 1 else tuple(torch.cat(part) for part in zip(*finals, strict=True))


def norm_sizes(gates: int, hidden_size: int, layer_norm: bool) -> dict[str, int | None]:
    """The rows of layer norm's gains for input and state."""
    return dict.fromkeys(("norm_ih", "norm_hh"), gates * hidden_size if layer_norm else None)


def expect_sizes(who: str, sizes: Sizes) -> None:
    """Raise ValueError for torch's arguments out of range."""
    expect_positive(who, input_size=sizes.input_size, hidden_size=sizes.hidden_size, num_layers=sizes.num_layers)
    expect_switches(who, bias=sizes.bias, batch_first=sizes.batch_first, bidirectional=sizes.bidirectional)
    expect_probability(who, "dropout", sizes.dropout)
    proj_size, most = sizes.proj_size, sizes.hidden_size - 1
    if isinstance(proj_size, bool) or not isinstance(proj_size, int) or not 0 <= proj_size <= most:
        raise ValueError(f"{who}: expected proj_size to be a whole number from 0 (none) to hidden_size - 1 = {most}, got {proj_size!r}.")
    if sizes.num_layers > LIMIT:
        raise ValueError(f"{who}: expected at most {LIMIT} arrays of weights, got num_layers={sizes.num_layers}. Too many for any memory.")
