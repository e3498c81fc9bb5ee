"""First weights.     W: (U, D) or (F, C, kernel...); fan_in: the inputs of one unit, fan_out: the units that one input reaches

A sum of n products of independent numbers with mean 0 has variance n Var[W] Var[x]. For signals to keep their size on the way
forward, fan_in Var[W] = 1; for gradients on the way back, fan_out Var[W] = 1:

    lecun        Var[W] = 1 / fan_in                    LeCun et al., "Efficient BackProp", 1998, section 4.6
    glorot       Var[W] = 2 / (fan_in + fan_out)        Glorot and Bengio, AISTATS 2010, eq. 12; uniform: eq. 16
    he           Var[W] = 2 / fan_in                    He et al., ICCV 2015, eq. 10: relu lets half of the square pass
    orthogonal   W W' = gain^2 I, or W' W               Saxe, McClelland and Ganguli, ICLR 2014: all lengths are kept
    identity     y = x                                  Le, Jaitly and Hinton, 2015, section 3, for recurrent weights
    uniform(low, high), normal(mean, std), constant(value)
    an embedding is a table, not a sum: where the scheme looks at sizes its numbers have variance 1 / D, so every row has length about 1,
                 and an output layer that shares it starts as by lecun
    where output map f sees n_f of C maps, and map c is seen by n_c of F (a connection table):
                 fan_in = n_f taps, fan_out = n_c taps, each connection by its own; orthogonal: every map's kernel has length gain

A uniform distribution on -a..a has variance a^2 / 3. Every function fills the weight in place, without a graph, from the generator
or from torch's own, and returns it. Numbers are drawn on the generator's device, so that a seed means the same on every device.
All-zero weights are refused: every unit would compute the same and pass back no gradient, so none could learn.
"""

import math
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from inspect import signature
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.parameter import UninitializedParameter


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (U, D) or (F, C, kernel...).

    >>> fans((4, 3)), fans((8, 3, 5, 5))
    ((3, 4), (75, 200))
    """
    if len(shape) < 2 or 0 in shape:
        raise ValueError(f"fans: expected the shape of a weight with 2 or more axes, none of them empty, got {tuple(shape)}.")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


# Var[W] by (fan_in, fan_out), or by one of each where connections differ.
LAWS: dict[str, Callable[[Any, Any], Any]] = {
    "lecun": lambda fan_in, fan_out: 1 / fan_in,
    "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he": lambda fan_in, fan_out: 2 / fan_in,
}


def uniform(weight: Tensor, generator: Generator | None = None, low: float = -0.2, high: float = 0.2) -> Tensor:
    """Each number from low..high with equal probability."""
    if not low < high:
        raise ValueError(f"uniform: expected low below high, got low={low}, high={high}.")
    return fill(weight, drawn(torch.rand, weight, generator) * (high - low) + low)


def normal(weight: Tensor, generator: Generator | None = None, mean: float = 0.0, std: float = 0.01) -> Tensor:
    """Each number from the normal distribution."""
    if not std > 0:
        raise ValueError(f"normal: expected a standard deviation std above 0, got {std}.")
    return fill(weight, drawn(torch.randn, weight, generator) * std + mean)


def lecun_uniform(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """Uniform with variance 1 / fan_in."""
    return uniform_of_variance(weight, generator, LAWS["lecun"](*fans(weight.shape)))


def lecun_normal(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """Normal with variance 1 / fan_in."""
    return normal(weight, generator, std=LAWS["lecun"](*fans(weight.shape)) ** 0.5)


def glorot_uniform(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """Uniform with variance 2 / (fan_in + fan_out)."""
    return uniform_of_variance(weight, generator, LAWS["glorot"](*fans(weight.shape)))


def glorot_normal(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """Normal with variance 2 / (fan_in + fan_out)."""
    return normal(weight, generator, std=LAWS["glorot"](*fans(weight.shape)) ** 0.5)


def he_uniform(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """Uniform with variance 2 / fan_in."""
    return uniform_of_variance(weight, generator, LAWS["he"](*fans(weight.shape)))


def he_normal(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """Normal with variance 2 / fan_in."""
    return normal(weight, generator, std=LAWS["he"](*fans(weight.shape)) ** 0.5)


def orthogonal(weight: Tensor, generator: Generator | None = None, gain: float = 1.0) -> Tensor:
    """The rows of the matrix (U, fan_in), or its columns where those are fewer, are orthogonal and of length `gain`."""
    rows, columns = weight.shape[0], fans(weight.shape)[0]
    if not gain > 0:
        raise ValueError(f"orthogonal: expected a gain above 0, got {gain}.")
    tall = drawn(torch.randn, weight, generator).reshape(rows, columns)
    q, r = torch.linalg.qr(tall if rows >= columns else tall.t())
    q = q * torch.where(r.diagonal() < 0, -1, 1)  # without this the signs that QR picks would favour some rotations
    return fill(weight, gain * (q if rows >= columns else q.t()).reshape(weight.shape))


def identity(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """Unit u passes input u on; in a convolution through the middle tap. Nothing is drawn."""
    fans(weight.shape)
    values = torch.zeros_like(weight)
    diagonal = torch.arange(min(weight.shape[:2]), device=weight.device)
    place: tuple[Any, ...] = (diagonal, diagonal, *(size // 2 for size in weight.shape[2:]))
    values[place] = 1
    return fill(weight, values)


def constant(weight: Tensor, generator: Generator | None = None, *, value: float) -> Tensor:
    """Every number the same; for biases. Nothing is drawn."""
    if value == 0 and weight.dim() > 1:
        raise ValueError(ALL_ZERO)
    return fill(weight, torch.full_like(weight, value))


ALL_ZERO = (
    "constant: expected a weight of 2 or more axes to have a value other than 0: all units would stay the same (symmetry) and no "
    'gradient would pass back. Use a random scheme, such as "glorot_uniform".'
)

INITIALIZERS: dict[str, Callable[..., Tensor]] = {
    function.__name__: function
    for function in (
        uniform,
        normal,
        lecun_uniform,
        lecun_normal,
        glorot_uniform,
        glorot_normal,
        he_uniform,
        he_normal,
        orthogonal,
        identity,
        constant,
    )
}


BY_SIZE = [function for name, function in INITIALIZERS.items() if name not in ("uniform", "normal", "constant")]


def initialize(
    module: nn.Module,
    scheme: str | None,
    bias: float | None = 0.0,
    seed: int | None = None,
    forget_bias: float | None = None,
    *,
    recurrent: str | None = None,
    **options: Any,
) -> None:
    """Fill every weight of 2 or more axes in the module, and in all that it holds, by the scheme, and the biases beside it with `bias`.

    scheme: a name of INITIALIZERS; options: that function's own (gain, std, low, high, value). recurrent: another name, for the weights
    from state to state. seed: None draws from torch's generator. None for scheme, or for bias, leaves the weights, or the biases.
    A weight that stacks several maps is filled map by map: the gates of a recurrent layer, the groups of a convolution. Where a layer has
    a connection table, the fans are those of each connection.
    Where two biases are added (bias_ih, bias_hh) the second is 0. forget_bias: that of every LSTM's forget gate, which at about 1
    remembers from the start (Jozefowicz et al., ICML 2015, section 2.2); None keeps the one that the layer was built with, if any.
    Left alone: frozen weights (requires_grad=False), weights of one axis, gains of normalisation, learnt initial states, and biases
    without a weight of 2 axes.
    A padding row stays 0. Shared weights are filled once.
    Raises ValueError for an unknown scheme or option, for all-zero weights, and for forget_bias where no LSTM has biases of a forget gate.

    >>> layer = nn.Linear(3, 2)
    >>> initialize(layer, "he_normal", bias=0.5, seed=0)
    >>> layer.bias.tolist()
    [0.5, 0.5]
    """
    function = None if scheme is None else find(scheme, options)
    again = function if recurrent is None else find(recurrent, {})
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)}
    generator = None if seed is None else Generator().manual_seed(seed)
    done: set[int] = set()
    lstms = 0
    for part in module.modules():
        own = dict(part.named_parameters(recurse=False))
        if any(isinstance(weight, UninitializedParameter) for weight in own.values()):
            raise ValueError(f"initialize: {type(part).__name__} does not know its sizes yet. Run the model on one batch first.")
        weights = weights_of(part)
        for name, weight in weights.items():
            if not weight.requires_grad or id(weight) in done:
                continue
            done.add(id(weight))
            chosen, given = (again, {} if recurrent else options) if name.startswith("weight_hh") else (function, options)
            if chosen in BY_SIZE and id(weight) in tables:
                chosen, given = lecun_normal, {}
            if chosen is not None:
                fill_maps(part, name, weight, chosen, generator, given)
        if function is not None and isinstance(part, nn.Embedding) and part.padding_idx is not None and part.weight.requires_grad:
            constant(part.weight.detach()[part.padding_idx], value=0.0)
        if weights:
            lstms += fill_biases(part, own, bias, forget_bias)
    if forget_bias is not None and not lstms:
        raise ValueError(f"initialize: got forget_bias={forget_bias}, but {type(module).__name__} has no LSTM with biases to set it in.")


def fill_maps(
    part: nn.Module, name: str, weight: Tensor, function: Callable[..., Tensor], generator: Generator | None, options: dict[str, Any]
) -> None:
    """Fill one weight, each of the maps that it stacks by itself."""
    table = connections(part, name, weight)
    if table is not None:
        fill_connections(weight.detach(), table, function, generator, options)
        return
    for block in blocks(part, name, weight):
        function(block, generator, **options)


def find(scheme: str, options: dict[str, Any]) -> Callable[..., Tensor]:
    """The function of that name. Raises ValueError where there is none or it lacks an option."""
    if scheme in ("zero", "zeros"):
        raise ValueError(ALL_ZERO.replace("constant", "initialize", 1))
    if scheme not in INITIALIZERS:
        near = get_close_matches(scheme, INITIALIZERS, 1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise ValueError(f"initialize: expected a scheme of {', '.join(INITIALIZERS)}, got {scheme!r}.{hint}")
    function = INITIALIZERS[scheme]
    known = list(signature(function).parameters)[2:]
    for name in options:
        if name not in known:
            raise ValueError(f"initialize: {scheme} has no option {name!r}; it has {', '.join(known) or 'none'}.")
    if scheme == "constant" and "value" not in options:
        raise ValueError("initialize: constant needs its value, as in value=0.1.")
    return function


def weights_of(part: nn.Module) -> dict[str, nn.Parameter]:
    """The part's own weights by name: those of 2 or more axes that map something, not gains and not the start of a state."""
    if isinstance(part, nn.LayerNorm | nn.RMSNorm):
        return {}
    return {name: weight for name, weight in part.named_parameters(recurse=False) if weight.dim() > 1 and not starts(part, name)}


def starts(part: nn.Module, name: str) -> bool:
    """Whether this is where a recurrent layer's state begins: no weight, though it has several axes."""
    return bool(getattr(part, "learn_state", False)) and name.endswith("_0")


def blocks(part: nn.Module, name: str, weight: Tensor) -> Iterator[Tensor]:
    """Views of the weight, one for each map (outputs, inputs, ...) that it stacks."""
    units = getattr(part, "hidden_size", None)
    if isinstance(units, int) and name.startswith(("weight_ih", "weight_hh")):
        yield from weight.detach().split(units)
        return
    if isinstance(part, nn.MultiheadAttention) and name == "in_proj_weight":
        yield from weight.detach().chunk(3)
        return
    transposed = isinstance(part, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    for block in weight.detach().chunk(getattr(part, "groups", 1) if name == "weight" else 1):
        yield block.transpose(0, 1) if transposed else block


def connections(part: nn.Module, name: str, weight: Tensor) -> Tensor | None:
    """table_FC of truth values where the weight has a kernel for each true place."""
    table = getattr(part, "table", None)
    if name != "weight" or not isinstance(table, Tensor) or table.dtype != torch.bool or table.dim() != 2:
        return None
    return table if int(table.sum()) == len(weight) else None


def fill_connections(
    weight_Nk: Tensor, table_FC: Tensor, function: Callable[..., Tensor], generator: Generator | None, options: dict[str, Any]
) -> None:
    """Fill the N kernels (N, 1, kernel...) of the true places of the table, row by row.

    The kernels of all F x C places are drawn with the fans of a full table; those that exist are brought to the fans that they have.
    """
    dense_FCk = function(weight_Nk.new_empty((*table_FC.shape, *weight_Nk.shape[2:])), generator, **options)
    law, (filters, channels) = LAWS.get(function.__name__.split("_")[0]), table_FC.shape
    scale_FC = torch.ones_like(table_FC, dtype=dense_FCk.dtype)
    if law is not None:
        scale_FC = scale_FC * (law(table_FC.sum(1, keepdim=True), table_FC.sum(0)) / law(channels, filters)).sqrt()
    elif function is orthogonal:
        squares_FC = dense_FCk.flatten(2).square().sum(2) * table_FC
        scale_FC = scale_FC * options.get("gain", 1.0) * squares_FC.sum(1, keepdim=True).rsqrt()
    fill(weight_Nk, (dense_FCk * scale_FC.reshape(*table_FC.shape, *[1] * (dense_FCk.dim() - 2)))[table_FC].unsqueeze(1))


def fill_biases(part: nn.Module, own: dict[str, nn.Parameter], bias: float | None, forget_bias: float | None) -> bool:
    """Fill the part's biases; True where it is an LSTM whose forget gate has some."""
    is_lstm = isinstance(part, nn.LSTM | nn.LSTMCell) and not getattr(part, "coupled", False)  # coupled gates: none of its own
    forget = getattr(part, "forget_bias", None) if forget_bias is None and bias is not None else forget_bias
    found = False
    for name, values in own.items():
        if not name.startswith("bias") or values.dim() != 1 or not values.requires_grad:
            continue
        found = True
        second = name.startswith("bias_hh")
        if bias is not None:
            constant(values, value=0.0 if second else bias)
        if is_lstm and forget is not None:
            constant(values.detach().chunk(4)[1], value=0.0 if second else forget)  # the gates: input, forget, candidate, output
    return is_lstm and found


def uniform_of_variance(weight: Tensor, generator: Generator | None, variance: float) -> Tensor:
    """Uniform on -a..a with a^2 / 3 = variance."""
    half = (3 * variance) ** 0.5
    return uniform(weight, generator, -half, half)


def drawn(draw: Callable[..., Tensor], like: Tensor, generator: Generator | None) -> Tensor:
    """Random numbers of the weight's shape, in at least float32."""
    device = like.device if generator is None else generator.device
    return draw(like.shape, generator=generator, device=device, dtype=torch.promote_types(like.dtype, torch.float32))


@torch.no_grad()
def fill(weight: Tensor, values: Tensor) -> Tensor:
    """Write the values over the weight."""
    return weight.copy_(values)
