"""Recurrence in NumPy loops, written from the equations alone: the judge of every layer of time. It imports nothing of the package.

One row at a time, and of that row only its own steps, so that lengths need no masks here: what lies behind a row's end is never read.

    RNN          h = f(W x + b + U h' + d)                                               f = tanh or relu; ' is the step before
    GRU          r = s(W_r x + b_r + U_r h' + d_r)    z = s(W_z x + b_z + U_z h' + d_z)    h = (1 - z) n + z h'
      after      n = tanh(W_n x + b_n + r (U_n h' + d_n))
      before     n = tanh(W_n x + b_n + U_n (r h') + d_n)
    LSTM         i, f = s(W x + b + U h' + d + p c')  g = tanh(W x + b + U h' + d)         c = f c' + i g
                 o = s(W x + b + U h' + d + p_o c)    h = V (o tanh(c))                    coupled: f = 1 - i; p: peephole; V: projection
    layer norm   of W x and of U h' with gains (GRU: [r z] together, n alone), and of c under the last tanh with gain and bias
    mask         on h' where it meets U (dropout); zoneout: s = m s' + (1 - m) s(new), for every tensor of the state

Every forward function returns what it computed and `back`, a function of the gradients of that; gradients of weights add up in `grads`.
All of it works in complex numbers too: a step of 1e-30 along the imaginary axis gives the derivative to the last digit (differentiate).
"""

from typing import NamedTuple

import numpy as np

EPS = 1e-5
CORNER, SPREAD = 1e-5, 0.25  # nearer to ReLU's corner, or with less deviation under a norm, rounding alone decides too much


class Kind(NamedTuple):
    """Which recurrence. name: tanh, relu, gru or lstm; what else it has follows from its weights."""

    name: str
    reset: str = "after"
    coupled: bool = False

    @property
    def gates(self):
        return {"gru": 3, "lstm": 3 if self.coupled else 4}.get(self.name, 1)

    @property
    def tensors(self):
        """The number of tensors of its state."""
        return 2 if self.name == "lstm" else 1


def sigmoid(a):
    return (1 + np.tanh(a / 2)) / 2


def normalise(v, parts, margins):
    """Each part with mean 0 and variance 1."""
    n, spreads = np.zeros_like(v), []
    for part in parts:
        away = v[part] - v[part].mean()
        spreads.append(np.sqrt((away * away).mean() + EPS))
        margins += [abs(spreads[-1]) / SPREAD] if away.any() else []
        n[part] = away / spreads[-1]

    def back(dn):
        dv = np.zeros_like(dn)
        for part, spread in zip(parts, spreads, strict=True):
            dv[part] = (dn[part] - dn[part].mean() - n[part] * (dn[part] * n[part]).mean()) / spread
        return dv

    return n, back


def product(weights, grads, margins, side, v, rows, parts):
    """The rows of W v, normalised where there are gains. side: ih or hh."""
    matrix, gain = weights[f"weight_{side}"][rows], weights.get(f"norm_{side}")
    n, normalise_back = (matrix @ v, lambda d: d) if gain is None else normalise(matrix @ v, parts, margins)

    def back(d):
        if gain is not None:
            grads[f"norm_{side}"][rows] += d * n
            d = d * gain[rows]
        d = normalise_back(d)
        grads[f"weight_{side}"][rows] += np.outer(d, v)
        return matrix.T @ d

    return n if gain is None else n * gain[rows], back


ALL = slice(None)


def bias(weights, side, rows=ALL):
    return weights[f"bias_{side}"][rows] if f"bias_{side}" in weights else 0.0


def bias_back(grads, side, d, rows=ALL):
    if f"bias_{side}" in grads:
        grads[f"bias_{side}"][rows] += d


def rnn_step(kind, weights, grads, margins, x, state, mask):
    p, p_back = product(weights, grads, margins, "ih", x, ALL, [ALL])
    q, q_back = product(weights, grads, margins, "hh", mask * state[0], ALL, [ALL])
    a = p + q + bias(weights, "ih") + bias(weights, "hh")
    margins += [] if kind.name == "tanh" else [abs(a).min() / CORNER]
    h = np.tanh(a) if kind.name == "tanh" else np.where(a.real > 0, a, 0)

    def back(dstate):
        da = dstate[0] * (1 - h * h if kind.name == "tanh" else (a.real > 0))
        bias_back(grads, "ih", da)
        bias_back(grads, "hh", da)
        return p_back(da), [mask * q_back(da)]

    return [h], back


def gru_step(kind, weights, grads, margins, x, state, mask):
    units = len(state[0])
    R, Z, N, RZ = slice(units), slice(units, 2 * units), slice(2 * units, None), slice(2 * units)
    h, seen = state[0], mask * state[0]
    p, p_back = product(weights, grads, margins, "ih", x, ALL, [RZ, N])
    q, q_back = product(weights, grads, margins, "hh", seen, RZ, [ALL])
    gate = sigmoid(p[RZ] + q + bias(weights, "ih", RZ) + bias(weights, "hh", RZ))
    r, z = gate[R], gate[Z]
    u, u_back = product(weights, grads, margins, "hh", seen if kind.reset == "after" else r * seen, N, [ALL])
    inner = u + bias(weights, "hh", N)
    n = np.tanh(p[N] + bias(weights, "ih", N) + (r * inner if kind.reset == "after" else inner))

    def back(dstate):
        dh = dstate[0]
        da_n = dh * (1 - z) * (1 - n * n)
        if kind.reset == "after":
            bias_back(grads, "hh", da_n * r, N)
            dr, dseen = da_n * inner, u_back(da_n * r)
        else:
            bias_back(grads, "hh", da_n, N)
            through = u_back(da_n)
            dr, dseen = through * seen, through * r
        da_rz = np.concatenate((dr, dh * (h - n))) * gate * (1 - gate)
        bias_back(grads, "hh", da_rz, RZ)
        da = np.concatenate((da_rz, da_n))
        bias_back(grads, "ih", da)
        return p_back(da), [dh * z + mask * (dseen + q_back(da_rz))]

    return [(1 - z) * n + z * h], back


def lstm_step(kind, weights, grads, margins, x, state, mask):
    h, c_before = state
    units = len(c_before)
    I_gate, F_gate, G_gate, O_gate = (slice(k * units, (k + 1) * units) for k in ((0, 0, 1, 2) if kind.coupled else (0, 1, 2, 3)))
    looks = weights.get("peephole")
    I_look, F_look, O_look = (slice(k * units, (k + 1) * units) for k in ((0, 0, 1) if kind.coupled else (0, 1, 2)))
    p, p_back = product(weights, grads, margins, "ih", x, ALL, [ALL])
    q, q_back = product(weights, grads, margins, "hh", mask * h, ALL, [ALL])
    a = p + q + bias(weights, "ih") + bias(weights, "hh")
    i = sigmoid(a[I_gate] + (0 if looks is None else looks[I_look] * c_before))
    f = 1 - i if kind.coupled else sigmoid(a[F_gate] + (0 if looks is None else looks[F_look] * c_before))
    g = np.tanh(a[G_gate])
    c = f * c_before + i * g
    o = sigmoid(a[O_gate] + (0 if looks is None else looks[O_look] * c))
    gain = weights.get("norm_c")
    n, n_back = (c, lambda d: d) if gain is None else normalise(c, [ALL], margins)
    squashed = np.tanh(c if gain is None else n * gain + weights["norm_c_bias"])
    m = o * squashed
    V = weights.get("weight_hr")

    def back(dstate):
        dh, dc = dstate
        if V is not None:
            grads["weight_hr"] += np.outer(dh, m)
        dm = dh if V is None else V.T @ dh
        da_o, dn = dm * squashed * o * (1 - o), dm * o * (1 - squashed * squashed)
        if gain is not None:
            grads["norm_c"] += dn * n
            grads["norm_c_bias"] += dn
            dn = dn * gain
        dc = dc + n_back(dn)
        if looks is not None:
            grads["peephole"][O_look] += da_o * c
            dc = dc + da_o * looks[O_look]
        da = np.zeros(len(a), dc.dtype)
        da[O_gate], da[G_gate] = da_o, dc * i * (1 - g * g)
        dc_before = dc * f
        if kind.coupled:
            da[I_gate] = dc * (g - c_before) * i * (1 - i)
        else:
            da[I_gate], da[F_gate] = dc * g * i * (1 - i), dc * c_before * f * (1 - f)
        if looks is not None:
            for gate, look in ((I_gate, I_look),) if kind.coupled else ((I_gate, I_look), (F_gate, F_look)):
                grads["peephole"][look] += da[gate] * c_before
                dc_before = dc_before + da[gate] * looks[look]
        bias_back(grads, "ih", da)
        bias_back(grads, "hh", da)
        return p_back(da), [mask * q_back(da), dc_before]

    return [m if V is None else V @ m, c], back


STEPS = {"tanh": rnn_step, "relu": rnn_step, "gru": gru_step, "lstm": lstm_step}


def run_row(kind, weights, grads, x_TD, state, mask, zones, backwards, margins):
    """One row, all of its steps. zones: for each tensor of the state its share of old value, (T, units). -> y_TR, state, back"""
    order = range(len(x_TD))[::-1] if backwards else range(len(x_TD))
    backs, y = {}, [None] * len(x_TD)
    for t in order:
        new, backs[t] = STEPS[kind.name](kind, weights, grads, margins, x_TD[t], state, mask)
        state = [zone[t] * old + (1 - zone[t]) * fresh for zone, old, fresh in zip(zones, state, new, strict=True)]
        y[t] = state[0]

    def back(dy_TR, dstate):
        """-> dx_TD, dstate at the start, and the gradient of the state before the first step, after the first step read, ..."""
        dx, trail = np.zeros(x_TD.shape, np.result_type(dy_TR, *dstate, x_TD)), [list(dstate)]
        for t in reversed(order):
            whole = [trail[-1][0] + dy_TR[t], *trail[-1][1:]]
            trail[-1] = whole
            dx[t], before = backs[t]([(1 - zone[t]) * d for zone, d in zip(zones, whole, strict=True)])
            trail.append([d + zone[t] * w for d, zone, w in zip(before, zones, whole, strict=True)])
        return dx, trail[-1], trail[::-1]

    return y, state, back


class Layer(NamedTuple):
    """One layer in one direction. state: its tensors (B, units); mask_BR and zones (a (T, B, units) for each tensor) or None."""

    weights: dict
    state: tuple
    mask: np.ndarray | None = None
    zones: tuple = (None, None)
    backwards: bool = False


class Result(NamedTuple):
    """grads: of the weights by name; trail: for each tensor of the state (T + 1, B, units), in the order of reading."""

    dx: np.ndarray
    dstate: list
    grads: dict
    trail: list


def run(kind, layer, x_TBD, lengths, margins=None):
    """margins: a list to which every step adds how far it keeps from where rounding decides; above 1 is far enough.

    -> y_TBR, final state (each (B, units)), back(dy_TBR, dstate) -> Result
    """
    steps, rows = x_TBD.shape[:2]
    margins = [] if margins is None else margins
    numbers = np.result_type(x_TBD, *layer.state, *layer.weights.values())
    grads = {name: np.zeros(weight.shape, numbers) for name, weight in layer.weights.items()}
    y = np.zeros((steps, rows, layer.state[0].shape[1]), numbers)
    final = [tensor.astype(numbers) for tensor in layer.state]
    backs = []
    for b, n in enumerate(lengths):
        mask = 1.0 if layer.mask is None else layer.mask[b]
        state = [tensor[b] for tensor in layer.state]
        zones = [np.zeros(n) if zone is None else zone[:n, b] for zone, _ in zip(layer.zones, state, strict=False)]
        outputs, last, back = run_row(kind, layer.weights, grads, x_TBD[:n, b], state, mask, zones, layer.backwards, margins)
        for t in range(n):
            y[t, b] = outputs[t]
        for tensor, value in zip(final, last, strict=True):
            tensor[b] = value
        backs.append(back)

    def back(dy_TBR, dstate):
        for value in grads.values():
            value[...] = 0
        dx, dstart = np.zeros(x_TBD.shape, numbers), [np.zeros(d.shape, numbers) for d in dstate]
        trail = [np.zeros((steps + 1, *d.shape), numbers) for d in dstate]
        for b, n in enumerate(lengths):
            dx[:n, b], start, passed = backs[b](dy_TBR[:n, b], [d[b] for d in dstate])
            for place, value in enumerate(start):
                dstart[place][b] = value
                for t in range(steps + 1):
                    trail[place][t, b] = passed[t][place] if t <= n else dstate[place][b]
        return Result(dx, dstart, {name: value.copy() for name, value in grads.items()}, trail)

    return y, final, back


def run_stack(kind, layers, x_TBD, lengths, between=None, margins=None):
    """layers: for each layer its directions; between: a factor on the input of each layer but the first, (T, B, SR) or None.

    -> y_TBSR, final states in the order of `layers`, back(dy, dstates) -> dx, [Result of every layer and direction]
    """
    ran, finals, seen = [], [], x_TBD
    for number, directions in enumerate(layers):
        if number and between is not None and between[number - 1] is not None:
            seen = seen * between[number - 1]
        results = [run(kind, layer, seen, lengths, margins) for layer in directions]
        seen = np.concatenate([y for y, _, _ in results], axis=-1)
        finals += [final for _, final, _ in results]
        ran.append([back for _, _, back in results])

    def back(dy, dstates):
        results, dstates = [], list(dstates)
        for number in reversed(range(len(layers))):
            outputs = layers[number][0].state[0].shape[1]
            found = [
                each(dy[..., s * outputs : (s + 1) * outputs], dstates[number * len(layers[number]) + s])
                for s, each in enumerate(ran[number])
            ]
            dy = sum(result.dx for result in found)
            if number and between is not None and between[number - 1] is not None:
                dy = dy * between[number - 1]
            results = found + results
        return dy, results

    return seen, finals, back


def differentiate(function, values):
    """The derivative of a real function of arrays by each number of each array, by a step along the imaginary axis."""
    found = []
    for place, value in enumerate(values):
        slope = np.zeros(value.shape)
        for index in np.ndindex(value.shape):
            moved = value.astype(complex)
            moved[index] += 1e-30j
            slope[index] = function(*values[:place], moved, *values[place + 1 :]).imag / 1e-30
        found.append(slope)
    return found
