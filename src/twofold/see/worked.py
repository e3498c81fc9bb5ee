"""A convolution with every number of forward and backward, small enough for paper: one channel, one filter, whole numbers.

P x P windows of k x k taps over an n x n input, with stride s and padding p:

    forward    y[p,q] = sum over i,j of x[s p - padding + i, s q - padding + j] W[i,j] + b
    backward   dW[i,j] = sum over p,q of x[s p - padding + i, s q - padding + j] dy[p,q]        the correlation of x with dy
               dx[h,w] = sum over i,j of D[h + i, w + j] V[i,j]                                 a full correlation
               db = sum over p,q of dy[p,q]

    D is dy with s - 1 zeros between its rows and columns and k - 1 - padding around them (behind them as many more as the input has rows
    that no window begins on); V is W turned by 180 degrees.

The numbers are those of the house's plain forward and backward; the sums are written out beside them from these laws.

Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, relationships 13 and 14
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.see.arrays import whole_numbers
from twofold.space.correlation import backward, correlate
from twofold.space.windows import Window

Numbers = NDArray[np.int64]
SIGNED: Final = (-2, -1, 1, 2, 3)
LARGEST: Final = {"size": 6, "kernel": 4, "stride": 3}


@dataclass(frozen=True)
class Example:
    """The side of the input (up to 6), of the kernel (up to 4), the stride (up to 3), the padding (up to 2, below the kernel), the seed.

    Raises ValueError for others, and where the kernel does not fit.
    """

    size: int = 5
    kernel: int = 3
    stride: int = 2
    padding: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, most in {**LARGEST, "padding": min(2, self.kernel - 1)}.items():
            value, least = getattr(self, name), int(name != "padding")
            if not least <= value <= most:
                raise ValueError(f"worked example: expected {name} from {least} to {most}, got {value}. It has to fit on a page.")
        if self.seed < 0:
            raise ValueError(f"worked example: expected seed of at least 0, got {self.seed}.")
        self.window.output_size((self.size, self.size), "worked example")

    @property
    def window(self) -> Window:
        """The geometry."""
        return Window((self.kernel,) * 2, (self.stride,) * 2, (self.padding,) * 4)


class Sum(NamedTuple):
    """One number and the products that it is the sum of; `more`: what is added to them."""

    name: str
    products: tuple[tuple[int, ...], ...]
    more: int | None
    value: int

    def __str__(self) -> str:
        terms = ["*".join(map(signed, factors)) for factors in self.products]
        return f"{self.name} = {' + '.join(terms + [signed(n) for n in [self.more] if n is not None])} = {self.value}"


class Worked(NamedTuple):
    """Matrices of whole numbers. padded: x with its padding; stuffed: D; turned: V; the last three: the sums behind y, dW and dx."""

    example: Example
    x: Numbers
    weight: Numbers
    bias: int
    y: Numbers
    dy: Numbers
    dweight: Numbers
    dbias: Sum
    dx: Numbers
    padded: Numbers
    stuffed: Numbers
    turned: Numbers
    forward_sums: tuple[Sum, ...]
    weight_sums: tuple[Sum, ...]
    input_sums: tuple[Sum, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and texts."""
        matrices = ("x", "weight", "bias", "y", "dy", "dweight", "dx", "padded", "stuffed", "turned")
        plain = {name: value.tolist() if isinstance(value := getattr(self, name), np.ndarray) else value for name in matrices}
        sums = [*self.forward_sums, *self.weight_sums, *self.input_sums, self.dbias]
        return {**asdict(self.example), **plain, "dbias": self.dbias.value, "sums": [str(line) for line in sums]}

    def __str__(self) -> str:
        return "\n".join(_page(self))


def work(example: Example | None = None) -> Worked:
    """Draw the numbers from the seed and work everything out.

    >>> print(work(Example(size=2, kernel=1, stride=1, padding=0)).forward_sums[0])
    y[0,0] = 5*2 + 1 = 11
    """
    example = example or Example()
    random, window = torch.Generator().manual_seed(example.seed), example.window
    counts = window.output_size((example.size, example.size))
    x_11HW = _draw((1, 1, example.size, example.size), range(1, 6), random)
    weight_11ij = _draw((1, 1, example.kernel, example.kernel), SIGNED, random)
    bias_1 = torch.ones(1, dtype=torch.float64)
    y_11PQ, saved = correlate.explain(x_11HW, weight_11ij, bias_1, window)
    dy_11PQ = _draw((1, 1, *counts), SIGNED, random)
    dx_11HW, dweight_11ij, dbias_1 = backward(dy_11PQ, saved)
    x, weight, y, dy, dweight, dx = (_matrix(t) for t in (x_11HW, weight_11ij, y_11PQ, dy_11PQ, dweight_11ij, dx_11HW))
    assert dbias_1 is not None
    padded, stuffed, turned = np.pad(x, example.padding), stuff(dy, example), weight[::-1, ::-1].copy()
    s, k = example.stride, example.kernel
    return Worked(
        example,
        *(x, weight, 1, y, dy, dweight),
        Sum("db", tuple((int(n),) for n in dy.flat), None, int(dbias_1.item())),
        *(dx, padded, stuffed, turned),
        _sums("y", y, lambda p, q: (padded[s * p : s * p + k, s * q : s * q + k], weight), 1),
        _sums("dW", dweight, lambda i, j: (padded[i::s, j::s][: counts[0], : counts[1]], dy)),
        _sums("dx", dx, lambda h, w: (stuffed[h : h + k, w : w + k], turned)),
    )


def stuff(dy: Numbers, example: Example) -> Numbers:
    """D: dy with zeros between and around."""
    s, (rows, columns) = example.stride, dy.shape
    spread = np.zeros(((rows - 1) * s + 1, (columns - 1) * s + 1), dtype=np.int64)
    spread[::s, ::s] = dy
    around = example.kernel - 1 - example.padding
    behind = (example.size + 2 * example.padding - example.kernel) % s
    return np.pad(spread, (around, around + behind))


def signed(number: int) -> str:
    """A number as it stands in a sum.

    >>> signed(3), signed(-2)
    ('3', '(-2)')
    """
    return str(number) if number >= 0 else f"({number})"


def _draw(shape: tuple[int, ...], numbers: Sequence[int], random: torch.Generator) -> Tensor:
    """Numbers out of these; none is 0, so that every 0 in a sum is a zero that was added."""
    return torch.tensor(numbers, dtype=torch.float64)[torch.randint(len(numbers), shape, generator=random)]


def _matrix(t: Tensor) -> Numbers:
    return whole_numbers(t[0, 0], "worked example")


def _sums(name: str, values: Numbers, factors: Any, more: int | None = None) -> tuple[Sum, ...]:
    lines = []
    for row, column in product(*map(range, values.shape)):
        left, right = factors(row, column)
        pairs = tuple((int(a), int(b)) for a, b in zip(left.flat, right.flat, strict=True))
        lines.append(Sum(f"{name}[{row},{column}]", pairs, more, int(values[row, column])))
    return tuple(lines)


def _page(worked: Worked) -> list[str]:
    e, s = worked.example, worked.example.stride
    at = "{}" if s == 1 else f"{s}{{}}"
    place = f"[{at.format('p')}+i, {at.format('q')}+j]"
    real = x_places(worked)
    return [
        f"A convolution with every number: input {e.size}x{e.size}, kernel {e.kernel}x{e.kernel}, stride {s}, padding {e.padding}, bias 1",
        "(a dot is a zero that was added)",
        "",
        f"FORWARD    y[p,q] = sum over i,j of X{place} * W[i,j] + b",
        "",
        *beside(
            ("X: x padded" if e.padding else "X: x", _texts(worked.padded, real)), ("W", _texts(worked.weight)), ("y", _texts(worked.y))
        ),
        "",
        *_told(worked.forward_sums),
        "",
        "BACKWARD   the layers behind give dy, the slope of the loss along every output",
        "",
        f"of the kernel: dW[i,j] = sum over p,q of X{place} * dy[p,q]    (the correlation of x with dy)",
        "",
        *beside(("X", _texts(worked.padded, real)), ("dy", _texts(worked.dy)), ("dW", _texts(worked.dweight))),
        "",
        *_told(worked.weight_sums),
        "",
        "of the input: dx[h,w] = sum over i,j of D[h+i, w+j] * V[i,j]    (a full correlation with the turned kernel)",
        stuffing(worked),
        "",
        *beside(("D", _texts(worked.stuffed, dy_places(worked))), ("V", _texts(worked.turned)), ("dx", _texts(worked.dx))),
        "",
        *_told(worked.input_sums),
        "",
        "of the bias: the sum of dy",
        "",
        *_told((worked.dbias,)),
    ]


def x_places(worked: Worked) -> NDArray[np.bool_]:
    """Where in the padded input the numbers of x stand."""
    return np.pad(np.ones_like(worked.x), worked.example.padding) == 1


def dy_places(worked: Worked) -> NDArray[np.bool_]:
    """Where in D the numbers of dy stand."""
    return stuff(np.ones_like(worked.dy), worked.example) == 1


def stuffing(worked: Worked) -> str:
    """How D and V are made."""
    e = worked.example
    between, around = e.stride - 1, e.kernel - 1 - e.padding
    behind = worked.stuffed.shape[0] - (worked.dy.shape[0] - 1) * e.stride - 1 - around
    parts = [f"{_amount(between)} between its rows and columns"] if between else []
    if around or behind:
        parts.append(f"{_amount(around)} around" if around == behind else f"{_amount(around)} before and {_amount(behind)} behind")
    return f"D is dy {'with ' + ' and '.join(parts) if parts else 'as it is'}; V is W turned by 180 degrees"


def _amount(zeros: int) -> str:
    return f"{zeros} zero" if zeros == 1 else f"{zeros or 'no'} zeros"


def beside(*matrices: tuple[str, list[list[str]]]) -> list[str]:
    """Matrices of texts side by side, each under its name.

    >>> beside(("a", [["1", "20"], ["3", "4"]]), ("b", [["5"]]))
    ['  a         b', '  1  20     5', '  3   4']
    """
    blocks = []
    for name, rows in matrices:
        width = max(len(text) for row in rows for text in row)
        lines = [name, *("  ".join(text.rjust(width) for text in row) for row in rows)]
        wide = max(map(len, lines))
        blocks.append([line.ljust(wide) for line in lines])
    height = max(map(len, blocks))
    full = [[*block, *[" " * len(block[0])] * (height - len(block))] for block in blocks]
    return [("  " + "     ".join(parts)).rstrip() for parts in zip(*full, strict=True)]


def _texts(numbers: Numbers, real: NDArray[np.bool_] | None = None) -> list[list[str]]:
    """The numbers as text; a dot where they are not real."""
    keep = np.ones(numbers.shape, dtype=bool) if real is None else real
    return [
        [str(n) if kept else "." for n, kept in zip(row, marks, strict=True)] for row, marks in zip(numbers.tolist(), keep, strict=True)
    ]


def _told(sums: Iterable[Sum]) -> Sequence[str]:
    return [f"  {line}" for line in sums]
