"""Weights from and to Keras and ONNX: the same numbers in another order.     D input features, U units, G = gates U, S directions

            weights of a direction                                       gates                GRU's reset gate
    ours    W_ih (G, D), W_hh (G, U), b_ih (G), b_hh (G), p (3U)         r z n    i f g o     reset="after" or "before"
    Keras   kernel = W_ih', recurrent = W_hh', bias                      z r h    i f c o     reset_after=True or False
    ONNX    W = W_ih, R = W_hh, B = [b_ih b_hh], P = p                   z r h    i o f c     linear_before_reset=1 or 0

Keras has one bias b_ih + b_hh (G), but two (2, G) in a GRU with reset_after, where b_hn stands inside of r (...). Its peepholes are none;
ONNX's stand in the order i o f, ours in the order i f o. Both call n and g h or c. In all three z = 1 keeps the old state.
Keras' rows come first (batch_first=True), ONNX' steps (layout=0). There a layer is one layer of ours: deeper stacks are several.

Keras 3: keras/src/layers/rnn/{simple_rnn,gru,lstm}.py, `build` and `call` of the cells; ONNX: the operators RNN, GRU and LSTM of
operator set 22 (docs/Operators.md)
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twofold.time.face import Face
from twofold.time.gru import GRU
from twofold.time.lstm import LSTM
from twofold.time.rnn import RNN


class Gates(NamedTuple):
    """The order of the gates, a letter each, and Keras' name of the layer."""

    ours: str
    keras: str
    onnx: str
    name: str


GATES: dict[type[Face], Gates] = {
    RNN: Gates("h", "h", "h", "SimpleRNN"),
    GRU: Gates("rzn", "zrn", "zrn", "GRU"),
    LSTM: Gates("ifgo", "ifgo", "iofg", "LSTM"),
}
PEEPHOLES = Gates("ifo", "", "iof", "")
LACKING = {"peephole": "peepholes", "coupled": "coupled gates", "proj_size": "a projection", "zoneout": "zoneout"}


class OnnxWeights(NamedTuple):
    """The inputs W (S, G, D), R (S, G, U), B (S, 2G), P (S, 3U) of an ONNX node as NumPy arrays, None where absent; its attributes."""

    W: Any
    R: Any
    B: Any
    P: Any
    attributes: dict[str, Any]


def from_keras(
    layer_type: type[Face],
    weights: Sequence[Any],
    *,
    reset_after: bool | None = None,
    activation: str = "tanh",
    batch_first: bool = True,
) -> Face:
    """The layer with the weights of a Keras layer.

    layer_type: nn.RNN for SimpleRNN, nn.GRU or nn.LSTM. weights: what get_weights() gives, [kernel (D, G), recurrent (U, G), bias], the
    bias being absent with use_bias=False; of Bidirectional both directions one after the other. reset_after: of a GRU without biases,
    True where nothing is said; a bias tells it by its shape. activation: of a SimpleRNN, "tanh" or "relu".
    Raises ValueError for another number of arrays, and for arrays that do not fit together.

    >>> layer = from_keras(LSTM, [torch.zeros(3, 16), torch.zeros(4, 16), torch.zeros(16)])
    >>> layer
    LSTM(3, 4, batch_first=True)
    """
    gates = gates_of("from_keras", layer_type)
    if not isinstance(weights, (list, tuple)) or len(weights) not in (2, 3, 4, 6):
        got = f"{len(weights)} arrays" if isinstance(weights, (list, tuple)) else type(weights).__name__
        raise ValueError(
            f"from_keras: expected [kernel, recurrent kernel] or [kernel, recurrent kernel, bias], twice for two directions, got {got}. "
            "One layer at a time: layer.get_weights()."
        )
    directions, has_bias = (2 if len(weights) > 3 else 1), len(weights) % 3 == 0
    each = len(weights) // directions
    places = []
    for s in range(directions):
        kernel, recurrent, *bias = (tensor("from_keras", array) for array in weights[s * each : (s + 1) * each])
        units = expect_matrices("from_keras", gates, kernel.t(), recurrent.t())
        found = _keras_after(gates, units, bias, reset_after)
        place = {"weight_ih": kernel.t(), "weight_hh": recurrent.t()}
        if bias:
            two = bias[0] if bias[0].dim() == 2 else torch.stack((bias[0], torch.zeros_like(bias[0])))
            place |= {"bias_ih": two[0], "bias_hh": two[1]}
        places.append({name: reorder(rows, gates.keras, gates.ours) for name, rows in place.items()})
    return _build(layer_type, places, has_bias, batch_first, activation, reset="after" if found else "before")


def to_keras(layer: Face, number: int = 0) -> list[Any]:
    """What set_weights() of the Keras layer takes, NumPy arrays, for layer `number` of the stack: `from_keras` says in which form.

    A GRU with reset="before" belongs to Keras' GRU(reset_after=False). Raises ValueError for what Keras lacks: peepholes, coupled gates,
    a projection, layer norm, zoneout, a learnt initial state.
    """
    gates = gates_of("to_keras", type(layer))
    expect_convertible("to_keras", "Keras", layer, number)
    arrays: list[Any] = []
    for weights in _of_layer(layer, number):
        ordered = {name: reorder(rows, gates.ours, gates.keras) for name, rows in weights.items()}
        arrays += [ordered["weight_ih"].t(), ordered["weight_hh"].t()]
        if layer.bias:
            two = torch.stack((ordered["bias_ih"], ordered["bias_hh"]))
            arrays.append(two if getattr(layer, "reset", "") == "after" else two.sum(0))
    return [numbers(array) for array in arrays]


def from_onnx(
    layer_type: type[Face],
    W: Any,
    R: Any,
    B: Any = None,
    P: Any = None,
    *,
    linear_before_reset: int = 0,
    activation: str = "Tanh",
    layout: int = 0,
) -> Face:
    """The layer with the weights of an ONNX node RNN, GRU or LSTM.

    W (S, G, D), R (S, G, U), B (S, 2G) or None, P (S, 3U) or None: its inputs. linear_before_reset: of a GRU; 0, ONNX' default, is
    reset="before". activation: of an RNN, "Tanh" or "Relu". layout: 1 where the rows come before the steps.
    Not converted: direction="reverse", other activations, clip and input_forget.
    Raises ValueError for arrays that do not fit together.

    >>> from_onnx(GRU, torch.zeros(1, 12, 3), torch.zeros(1, 12, 4))
    GRU(3, 4, bias=False, reset='before')
    """
    gates = gates_of("from_onnx", layer_type)
    for name, value in (("linear_before_reset", linear_before_reset), ("layout", layout)):
        if not isinstance(value, int) or value not in (0, 1):
            raise ValueError(f"from_onnx: expected {name} to be 0 or 1, as in the node, got {value!r}.")
    W, R = tensor("from_onnx", W), tensor("from_onnx", R)
    B, P = (None if array is None else tensor("from_onnx", array) for array in (B, P))
    if W.dim() != 3 or R.dim() != 3 or len(W) != len(R) or len(W) not in (1, 2):
        raise ValueError(
            f"from_onnx: expected W (S, G, D) and R (S, G, U) for S=1 or 2 directions, got {tuple(W.shape)} and {tuple(R.shape)}."
        )
    units = expect_matrices("from_onnx", gates, W[0], R[0])
    G, S = len(gates.ours) * units, len(W)
    for name, array, rows in (("B", B, 2 * G), ("P", P, 3 * units)):
        if array is not None and array.shape != (S, rows):
            raise ValueError(f"from_onnx: expected {name} (S={S}, {rows}), got {tuple(array.shape)}.")
    if P is not None and layer_type is not LSTM:
        raise ValueError(f"from_onnx: expected no P for {layer_type.__name__}, got {tuple(P.shape)}: only the LSTM has peepholes.")
    places = []
    for s in range(S):
        place = {"weight_ih": W[s], "weight_hh": R[s]}
        if B is not None:
            place |= dict(zip(("bias_ih", "bias_hh"), B[s].chunk(2), strict=True))
        place = {name: reorder(rows, gates.onnx, gates.ours) for name, rows in place.items()}
        if P is not None:
            place["peephole"] = reorder(P[s], PEEPHOLES.onnx, PEEPHOLES.ours)
        places.append(place)
    reset = "after" if linear_before_reset else "before"
    return _build(layer_type, places, B is not None, bool(layout), activation.lower(), reset=reset)


def to_onnx(layer: Face, number: int = 0) -> OnnxWeights:
    """The inputs and attributes of the ONNX node that computes layer `number` of the stack.

    Raises ValueError for what ONNX lacks: coupled gates (its input_forget does not say which of both is 1 minus the other), a projection,
    layer norm, zoneout, a learnt initial state.
    """
    gates = gates_of("to_onnx", type(layer))
    expect_convertible("to_onnx", "ONNX", layer, number)
    W: Any = []
    R: Any = []
    B: Any = []
    P: Any = []
    for weights in _of_layer(layer, number):
        peephole = weights.pop("peephole", None)
        ordered = {name: reorder(rows, gates.ours, gates.onnx) for name, rows in weights.items()}
        W.append(ordered["weight_ih"])
        R.append(ordered["weight_hh"])
        B += [torch.cat((ordered["bias_ih"], ordered["bias_hh"]))] if layer.bias else []
        P += [] if peephole is None else [reorder(peephole, PEEPHOLES.ours, PEEPHOLES.onnx)]
    attributes: dict[str, Any] = {
        "hidden_size": layer.hidden_size,
        "direction": "bidirectional" if layer.bidirectional else "forward",
        "layout": int(layer.batch_first),
    }
    if isinstance(layer, GRU):
        attributes["linear_before_reset"] = int(layer.reset == "after")
    if isinstance(layer, RNN):
        attributes["activations"] = [layer.nonlinearity.title()] * len(W)
    W, R, B, P = (numbers(torch.stack(part)) if part else None for part in (W, R, B, P))
    return OnnxWeights(W, R, B, P, attributes)


def reorder(rows: Tensor, given: str, wanted: str) -> Tensor:
    """The blocks of the gates, a letter each, in the wanted order."""
    blocks = dict(zip(given, rows.chunk(len(given)), strict=True))
    return torch.cat([blocks[gate] for gate in wanted])


def gates_of(who: str, layer_type: Any) -> Gates:
    """The orders of that kind of layer. Raises ValueError for another kind."""
    for kind, gates in GATES.items():
        if isinstance(layer_type, type) and issubclass(layer_type, kind):
            return gates
    got = layer_type.__name__ if isinstance(layer_type, type) else repr(layer_type)
    raise ValueError(f"{who}: expected a layer of twofold.nn: RNN, GRU or LSTM, got {got}.")


def tensor(who: str, array: Any) -> Tensor:
    """A copy as a tensor. Raises ValueError unless it holds floating-point numbers."""
    if array is None:
        raise ValueError(f"{who}: expected an array, got None.")
    copy = array.detach().clone() if isinstance(array, Tensor) else torch.tensor(array)
    if not copy.is_floating_point():
        raise ValueError(f"{who}: expected arrays of floating point, got {str(copy.dtype).removeprefix('torch.')}.")
    return copy


def numbers(values: Tensor) -> Any:
    """A NumPy array, which knows no bfloat16."""
    values = values.detach().cpu().contiguous()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def expect_matrices(who: str, gates: Gates, weight_ih: Tensor, weight_hh: Tensor) -> int:
    """U. Raises ValueError unless the matrices, (G, D) and (G, U), are of one layer with these gates."""
    units = weight_hh.shape[-1]
    if weight_ih.dim() != 2 or weight_hh.shape != (len(gates.ours) * units, units) or len(weight_ih) != len(weight_hh):
        raise ValueError(
            f"{who}: expected matrices of {len(gates.ours)} gates for U units, with D and U inputs, got {tuple(weight_ih.shape)} and "
            f"{tuple(weight_hh.shape)} (gates first). Are they those of another layer than {gates.name}?"
        )
    return units


def expect_convertible(who: str, house: str, layer: Face, number: int) -> None:
    """Raise ValueError where the layer has what the other house lacks, or has no such number."""
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < layer.num_layers:
        raise ValueError(f"{who}: expected number, that of a layer, from 0 to {layer.num_layers - 1}, got {number!r}.")
    lacking = [words for name, words in LACKING.items() if getattr(layer, name, None) and (name, house) != ("peephole", "ONNX")]
    lacking += ["layer norm"] * layer.options.layer_norm + ["a learnt initial state"] * layer.options.learn_state
    if lacking:
        raise ValueError(f"{who}: expected a layer that {house} has, too, got one with {' and '.join(lacking)}.")


def _keras_after(gates: Gates, units: int, bias: list[Tensor], reset_after: bool | None) -> bool:
    """Whether the reset gate stands after the product. Raises ValueError for a bias of another shape."""
    G, got = len(gates.ours) * units, tuple(bias[0].shape) if bias else None
    shapes: dict[bool, tuple[int, ...]] = {True: (2, G), False: (G,)} if gates.name == "GRU" else {True: (G,), False: (G,)}
    fits = [after for after, shape in shapes.items() if got in (None, shape) and reset_after in (None, after)]
    if not fits:
        wanted = " or ".join(dict.fromkeys(str(shape) for after, shape in shapes.items() if reset_after in (None, after)))
        cause = " A GRU has two biases where reset_after=True." * (gates.name == "GRU")
        raise ValueError(f"from_keras: expected a bias {wanted} for U={units}, got {got}.{cause}")
    return fits[0]


def _build(layer_type: Any, places: list[dict[str, Tensor]], bias: bool, batch_first: bool, activation: str, reset: str) -> Face:
    options: dict[str, Any] = {}
    if issubclass(layer_type, GRU):
        options["reset"] = reset
    if issubclass(layer_type, RNN):
        options["nonlinearity"] = activation
    if "peephole" in places[0]:
        options["peephole"] = True
    first = places[0]["weight_ih"]
    units = places[0]["weight_hh"].shape[1]
    settings = {"bias": bias, "batch_first": batch_first, "bidirectional": len(places) == 2, "dtype": first.dtype}
    layer: Face = layer_type(first.shape[1], units, **settings, **options)
    suffixes = ("_l0", "_l0_reverse")
    layer.load_state_dict({name + end: rows for end, place in zip(suffixes, places, strict=False) for name, rows in place.items()})
    return layer


def _of_layer(layer: Face, number: int) -> list[dict[str, Tensor]]:
    """The weights by name, for every direction of that layer."""
    S = layer.stack_shape.directions
    every = [layer.weights(number * S + s)._asdict() for s in range(S)]
    return [{name: rows for name, rows in weights.items() if rows is not None} for weights in every]
