"""Drawn sequences: configurations of recurrent layers for hypothesis, their numbers, and how near two answers must be.

Every number is one that float32 has, so that all routes and the loops (recurrent_loops.py) are asked the same.
"""

from dataclasses import dataclass
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import strategies as st

loops = SimpleNamespace(**run_path(str(Path(__file__).parent / "recurrent_loops.py")))
Kind = loops.Kind
KINDS = [Kind("tanh"), Kind("relu"), Kind("gru", "after"), Kind("gru", "before"), Kind("lstm"), Kind("lstm", coupled=True)]


@dataclass(frozen=True)
class Drawn:
    """A configuration. state: none, given or learned; behind: what stands behind the rows' ends; options: of the cell's weights."""

    kind: Kind
    T: int
    B: int
    D: int
    U: int
    projection: int
    options: frozenset
    lengths: tuple | None
    layout: str
    behind: float
    seed: int
    layers: int = 1
    directions: int = 1
    state: str = "given"
    batch_first: bool = False
    packed: bool = False
    row: bool = False
    frozen: str = "nothing"
    used: str = "everything"
    zoneout: tuple = (0.0, 0.0)
    reverse: bool = False
    masked: bool = False
    zones: tuple = ("none", "none")

    @property
    def R(self):
        return self.projection or self.U

    @property
    def own(self):
        """The number of steps of every row."""
        return self.lengths if self.lengths is not None else (self.T,) * self.B

    @property
    def widths(self):
        """The units of each tensor of the state."""
        return (self.R, self.U)[: self.kind.tensors]


LAYOUTS = ["contiguous", "transposed", "sliced", "rows expanded", "steps expanded"]


@st.composite
def cells(draw):
    """What a layer and a cell have in common."""
    kind = draw(st.sampled_from(KINDS))
    T, B = draw(st.sampled_from([5, 3, 2, 4, 6, 7, 3, 5, 1, 0])), draw(st.sampled_from([3, 2, 4, 3, 2, 4, 1, 1, 0]))  # integers() loves 0
    D, U = draw(st.sampled_from([3, 2, 4, 5, 1])), draw(st.sampled_from([3, 2, 4, 5, 6, 1]))
    lstm = kind.name == "lstm"
    offered = ["bias", *["layer_norm"] * (U > 1), *["peephole"] * lstm]  # one number has no variance
    return {
        "kind": kind,
        "T": T,
        "B": B,
        "D": D,
        "U": U,
        "projection": draw(st.sampled_from([0, 0, 0, *range(1, U)])) if lstm else 0,
        "options": frozenset(name for name in offered if draw(st.booleans())),
        "lengths": draw(st.none() | st.tuples(*[st.sampled_from([*range(T, -1, -1)])] * B)),
        "layout": draw(st.sampled_from(LAYOUTS)),
        "behind": draw(st.sampled_from([0.0, 3.0, float("nan"), float("inf")])),
        "seed": draw(st.integers(0, 10**6)),
    }


@st.composite
def sequences(draw):
    """For `unroll`."""
    zone = st.sampled_from(["none", "number", "shares", "mask"])
    return Drawn(**draw(cells()), reverse=draw(st.booleans()), masked=draw(st.booleans()), zones=(draw(zone), draw(zone)))


@st.composite
def stacks(draw):
    """For the layers."""
    common = draw(cells())
    lengths, row = common["lengths"], common["B"] == 1 and common["lengths"] is None and draw(st.booleans())
    packed = bool(lengths) and min(lengths) > 0 and draw(st.booleans())
    if packed:
        common["T"] = max(lengths)
    share = st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0])
    return Drawn(
        **common,
        layers=draw(st.integers(1, 3)),
        directions=draw(st.integers(1, 2)),
        state=draw(st.sampled_from(["none", "given", "given", "learned"])),
        batch_first=draw(st.booleans()),
        packed=packed,
        row=row,
        frozen=draw(st.sampled_from(["nothing", "nothing", "input", "weights"])),
        used=draw(st.sampled_from(["everything", "everything", "output", "state"])),
        zoneout=draw(st.just((0.0, 0.0)) | st.tuples(share, share)),
    )


@st.composite
def noisy(draw):
    """A layer in one or two directions, with masks and zones."""
    zone = st.sampled_from(["none", "number", "shares", "mask"])
    return Drawn(**draw(cells()), directions=draw(st.integers(1, 2)), masked=draw(st.booleans()), zones=(draw(zone), draw(zone)))


def numbers(generator, *shape):
    """Normally distributed, and such as float32 has them."""
    return generator.standard_normal(shape).astype(np.float32).astype(np.float64)


def draw_weights(drawn, features, generator):
    """The weights of one layer in one direction, by name."""
    G, R, U = drawn.kind.gates * drawn.U, drawn.R, drawn.U
    shapes = {"weight_ih": (G, features), "weight_hh": (G, R)}
    if "bias" in drawn.options:
        shapes |= {"bias_ih": (G,), "bias_hh": (G,)}
    if drawn.projection:
        shapes["weight_hr"] = (R, U)
    if "peephole" in drawn.options:
        shapes["peephole"] = ((2 if drawn.kind.coupled else 3) * U,)
    if "layer_norm" in drawn.options:
        shapes |= {"norm_ih": (G,), "norm_hh": (G,)}
        if drawn.kind.name == "lstm":
            shapes |= {"norm_c": (U,), "norm_c_bias": (U,)}
    return {name: numbers(generator, *shape) * 2.0 ** -(shape[-1] > 2) for name, shape in shapes.items()}


def draw_input(drawn, generator):
    """x_TBD with the garbage behind the ends, and such as the layout can hold it."""
    x = numbers(generator, drawn.T, drawn.B, drawn.D)
    if drawn.layout == "rows expanded":
        x[:] = x[:, :1]
    elif drawn.layout == "steps expanded":
        x[:] = x[:1]
    elif drawn.lengths is not None:
        for b, n in enumerate(drawn.lengths):
            x[n:, b] = drawn.behind
    return x


def laid(x, layout):
    """The tensor with the same numbers, lying in memory as the layout says."""
    if layout == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "sliced":
        return torch.stack((x, torch.full_like(x, 7)), -1)[..., 0]
    if layout == "rows expanded" and x.shape[1]:
        return x[:, :1].expand(x.shape)
    if layout == "steps expanded" and x.shape[0]:
        return x[:1].expand(x.shape)
    return x


def near(what, got, truth, relative):
    """Relative to the largest number of the array, and no finer than the precision of numbers around 1 (in float64: 1/10)."""
    got = got.detach().double().numpy()
    assert got.shape == truth.shape, f"{what}: shape {got.shape}, not {truth.shape}"
    assert np.isfinite(got).all(), f"{what}: {got} is not finite"
    if truth.size:
        bound = relative * max(0.1 if relative < 1e-9 else 1, np.abs(truth).max())
        worst = np.abs(got - truth).max()
        assert worst <= bound, f"{what}: differs by {worst:.3g}, more than {bound:.3g}\ngot   {got.tolist()}\ntruth {truth.tolist()}"


def zone_of(name, generator, shape):
    """(what unroll takes, what the loops take)"""
    if name == "none":
        return None, None
    if name == "number":
        return 0.3, np.full(shape, 0.3)
    shares = generator.random(shape)
    shares = shares.round() if name == "mask" else shares
    return torch.tensor(shares), shares


def named_places(drawn):
    """(layer, suffix of its parameters' names) for every layer and direction, in the order of states."""
    return [(number, f"_l{number}{'_reverse' * s}") for number in range(drawn.layers) for s in range(drawn.directions)]
