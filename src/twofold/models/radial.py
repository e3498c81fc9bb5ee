"""Radial basis outputs: every class has a code, and the class wins whose code is nearest.     B examples, U units, N classes, t: the class

    distances   y[b,n] = sum_u (x[b,u] - w[n,u])^2                dx[b,u] = 2 sum_n dy[b,n] (x[b,u] - w[n,u])
                                                                  dw[n,u] = 2 sum_b dy[b,n] (w[n,u] - x[b,u])

    competition E = 1/B sum_b ( y[b,t] + log( e^-j + sum_n e^-y[b,n] ) )
                p[b,n] = e^-y[b,n] / ( e^-j + sum_m e^-y[b,m] )   dy[b,n] = dE/B ( [n = t] - p[b,n] )

A distance is the penalty of a class: the unlikelihood of x under a Gaussian around the code. The first term of E draws the penalty of the
right class down; the second pushes the others up, those the most that are nearest. j > 0 is the penalty of a class for rubbish that no
picture has: a class with a penalty far above j is pushed no further. E is positive.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", Proceedings of the IEEE 86(11), 1998,
section II.B, eq. 7 (distances), section II.C, eq. 9 (competition), fig. 3 (codes)
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from twofold import nn
from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating, expect_shape, expect_tensor, first_outside, sentence
from twofold.layers.numbers import expect_number
from twofold.layers.routes import Routed, traced

ROWS, COLUMNS = 12, 7  # of a bitmap
UNITS = ROWS * COLUMNS

# The ten digits as pictures of 7x12, side by side; drawn for this file.
DIGITS = """
..###.. ...##.. .#####. .#####. ....##. ####### ..####. ####### .#####. ..###..
.##.##. ..###.. ##...## ##...## ...###. ##..... .##..## ####### ##...## .##.##.
##...## .####.. ##...## .....## ..####. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## ..#.##. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## .##.##. ######. ##..... ....##. .##.##. ##...##
##...## ...##.. ....##. ..####. .#..##. ##...## ######. ....##. ..###.. ##...##
##...## ...##.. ...##.. ..####. ##..##. .....## ##...## ...##.. .##.##. .######
##...## ...##.. ..##... .....## ##..##. .....## ##...## ...##.. ##...## .....##
##...## ...##.. .##.... .....## ####### .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... .....## ####### .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ....##. ##...## .##.##. .##.... ##...## ##..##.
..###.. .###### ####### .#####. ....##. .#####. ..###.. .##.... .#####. .####..
"""


class Distances(NamedTuple):
    """What backward needs."""

    x_BU: Tensor
    code_NU: Tensor


def distances_forward(x_BU: Tensor, code_NU: Tensor) -> tuple[Tensor, Distances]:
    """y_BN; the differences are squared one by one: |x|^2 - 2 x w + |w|^2 would lose the digits of small distances."""
    return (x_BU[:, None] - code_NU).square().sum(2), Distances(x_BU, code_NU)


def distances_backward(dy_BN: Tensor, saved: Distances) -> tuple[Tensor, Tensor]:
    """(dx_BU, dw_NU)"""
    x_BU, code_NU = saved
    dx_BU = 2 * (dy_BN.sum(1, keepdim=True) * x_BU - dy_BN @ code_NU)
    dcode_NU = 2 * (dy_BN.sum(0)[:, None] * code_NU - dy_BN.t() @ x_BU)
    return dx_BU, dcode_NU


class Competition(NamedTuple):
    """What backward needs."""

    p_BN: Tensor
    target_B: Tensor


def competition_forward(y_BN: Tensor, target_B: Tensor, rubbish: float) -> tuple[Tensor, Competition]:
    """E, with j = rubbish. y[t] goes into the powers, of which that of the right class is then 1: no digit is lost, no power vanishes."""
    right_B1 = y_BN.gather(1, target_B[:, None])
    behind_BN = right_B1 - y_BN
    loss_B = torch.cat([behind_BN, right_B1 - rubbish], 1).logsumexp(1)
    return loss_B.mean(), Competition(torch.exp(behind_BN - loss_B[:, None]), target_B)


def competition_backward(dloss: Tensor, saved: Competition) -> Tensor:
    """dy_BN"""
    p_BN, target_B = saved
    right_BN = torch.zeros_like(p_BN).scatter(1, target_B[:, None], 1.0)
    return dloss / max(len(p_BN), 1) * (right_BN - p_BN)


distances = differentiable(distances_forward, distances_backward)
competition = differentiable(competition_forward, competition_backward)


class RadialBasis(Routed):
    """Squared distances (B, N) of states (B, U) to the codes of N classes.

    State: `codes` (N, U), fixed unless trainable. Raises ValueError for input of another shape, or not floating point.

    >>> layer = RadialBasis(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
    >>> layer(torch.tensor([[1.0, 0.0]])).tolist()
    [[1.0, 1.0]]
    """

    codes: Tensor

    def __init__(self, codes_NU: Tensor, trainable: bool = False) -> None:
        super().__init__()
        if trainable:
            self.codes = nn.Parameter(codes_NU)
        else:
            self.register_buffer("codes", codes_NU)

    def forward(self, x_BU: Tensor) -> Tensor:
        expect_shape("RadialBasis input", x_BU, "B U", {"U": self.codes.shape[1]})
        expect_floating("RadialBasis input", x_BU, self.codes)
        y_BN: Tensor = self.run(distances, x_BU, self.codes)
        return y_BN

    def extra_repr(self) -> str:
        return f"classes={self.codes.shape[0]}, units={self.codes.shape[1]}, trainable={isinstance(self.codes, nn.Parameter)}"


def competitive_loss(distances_BN: Tensor, target_B: Tensor, rubbish: float = UNITS) -> Tensor:
    """E of the distances (B, N) and the class numbers (B,); rubbish is the paper's j, for which it gives no number.

    The default is the distance of a state of zeros from every code of +-1: F6 that says nothing is rubbish.
    Raises ValueError for other shapes, for class numbers outside 0..N-1, and for j that is not above 0.

    >>> competitive_loss(torch.tensor([[0.0, 4.0]]), torch.tensor([0]), rubbish=4.0).item()  # log(1 + 2 e^-4)
    0.0359...
    """
    who = "competitive_loss"
    expect_shape(f"{who} distances", distances_BN, "B N")
    expect_floating(f"{who} distances", distances_BN)
    expect_tensor(f"{who} target", target_B)
    expect_number(who, "rubbish", rubbish, above=0)
    B, N = distances_BN.shape
    if target_B.shape != (B,) or target_B.is_floating_point() or target_B.dtype == torch.bool:
        got = f"{tuple(target_B.shape)} of {str(target_B.dtype).removeprefix('torch.')}"
        raise ValueError(sentence(f"{who} target", f"({B},), a class number for each row", got, "", "One-hot rows? target.argmax(1)."))
    outside = None if traced() else first_outside(target_B, N)
    if outside is not None:
        raise ValueError(sentence(f"{who} target", f"class numbers 0..{N - 1}", f"{outside[0]}{outside[1]}", "", ""))
    loss: Tensor = competition(distances_BN, target_B.long(), float(rubbish))
    return loss


def codes(classes: int, seed: int = 0) -> Tensor:
    """codes_NU of +-1, no two the same: the bitmaps of the digits for ten classes, else drawn at random, the same for the same seed.

    >>> codes(10).shape, codes(3).unique().tolist()
    (torch.Size([10, 84]), [-1.0, 1.0])
    """
    if classes == 10:
        lines = DIGITS.split()
        return torch.tensor([[1.0 if mark == "#" else -1.0 for mark in "".join(lines[digit::10])] for digit in range(10)], device="cpu")
    generator = Generator("cpu").manual_seed(seed)
    while True:
        bits_NU = torch.randint(2, (classes, UNITS), generator=generator, device="cpu")
        if len(bits_NU.unique(dim=0)) == classes:  # of 2^84 codes two are hardly ever the same
            return 2.0 * bits_NU - 1.0


def drawing(code_U: Tensor) -> str:
    """A code as the picture of 7x12 that it is.

    >>> drawing(codes(10)[7]).splitlines()[2:4]
    ['.....##', '.....##']
    """
    marks = "".join("#" if value > 0 else "." for value in code_U.tolist())
    return "\n".join(marks[row * COLUMNS : (row + 1) * COLUMNS] for row in range(ROWS))
