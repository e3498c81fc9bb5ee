"""What is said of a layer or a model: a value, a page for people, plain numbers for JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twofold.see.law import Counted
from twofold.see.receptive import Field
from twofold.see.summary import Line

MARGIN: Final = 20  # characters: the names on the left
HEADER: Final = ("layer", "kind", "output", "parameters", "multiply-adds", "bytes", "sees", "stride")


@dataclass(frozen=True)
class Description:
    """The arithmetic of a layer: `str` is a page, `to_dict` plain numbers.

    shapes have a batch in front; `batch` says how the shape that was given was read. sizes: (axis, derivation). field: what one output
    sees, None where that is not known; `sees` says it in words. layers: of a model, one line each (summary.py).
    """

    layer: str
    batch: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    sizes: tuple[tuple[str, str], ...]
    parameters: Counted
    multiply_adds: Counted
    output_bytes: Counted
    kept_bytes: Counted
    field: Field | None = None
    sees: str = ""
    layers: tuple[Line, ...] = ()

    def __str__(self) -> str:
        return "\n".join(_page(self))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, texts, lists and dictionaries."""
        counts = ("parameters", "multiply_adds", "output_bytes", "kept_bytes")
        return {
            "layer": self.layer,
            "batch": self.batch,
            "input": list(self.input),
            "output": list(self.output),
            "sizes": dict(self.sizes),
            **{name: getattr(self, name).number for name in counts},
            "derivations": {name: getattr(self, name).derivation for name in counts} | {"field": self.sees},
            "field": None if self.field is None else self.field.to_dict(),
            "layers": [line._asdict() for line in self.layers],
        }


def _page(said: Description) -> list[str]:
    lines = [said.layer, "", _entry("input", f"{said.input}   {said.batch}"), _entry("output", str(said.output))]
    lines += [_entry(f"  {axis}", derivation) for axis, derivation in said.sizes]
    if said.layers:
        lines += ["", *columns(HEADER, [_row(line) for line in said.layers]), ""]
    lines += [_entry("parameters", str(said.parameters)), _entry("multiply-adds", str(said.multiply_adds))]
    lines += [_entry("memory", f"output: {_bytes(said.output_bytes)}"), _entry("", f"kept for backward: {_bytes(said.kept_bytes)}")]
    if said.field is not None:
        begin, centre = (_place(numbers) for numbers in (said.field.first, said.field.centre))
        lines.append(_entry("receptive field", f"{_by(said.field.extent, ' x ')}{said.sees and ': '}{said.sees}"))
        lines.append(_entry("effective stride", f"{_by(said.field.stride, ' x ')} from one output's field to the next"))
        lines.append(
            _entry("first output", f"its field begins at {begin} and has its centre at {centre}, counted from the input's first pixel, 0")
        )
    elif said.sees:
        lines.append(_entry("receptive field", said.sees))
    return [line.rstrip() for line in lines]


def columns(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A table in characters; whole numbers to the right.

    >>> columns(("name", "size"), [("a", 5), ("long", 1000)])
    ['name   size', 'a         5', 'long  1,000']
    """
    cells = [tuple(header), *(tuple(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
    right = [all(isinstance(row[place], int) for row in rows) for place in range(len(header))]
    return ["  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip() for row in cells]


def size_in_words(count: int) -> str:
    """A number of bytes as people say it, or '' where the number says it as well.

    >>> size_in_words(3_211_264), size_in_words(900)
    ('3.1 MiB', '')
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return ""


def _row(line: Line) -> tuple[Any, ...]:
    work = "-" if line.multiply_adds is None else line.multiply_adds
    return line.name, line.kind, line.output, line.weights, work, line.bytes, line.sees, line.steps


def _entry(name: str, text: str) -> str:
    return f"{name:<{MARGIN}} {text}"


def _bytes(counted: Counted) -> str:
    words = size_in_words(counted.number)
    words = f" ({words})" if words else ""
    if counted.is_expression:
        return f"{counted} bytes{words}"
    return f"{counted.number:,} bytes{words}{counted.derivation and ': '}{counted.derivation}"


def _by(numbers: Iterable[Any], between: str = "x") -> str:
    return between.join(map(str, numbers))


def _place(numbers: Sequence[float]) -> str:
    return "(" + ", ".join(f"{number:g}" for number in numbers) + ")"
