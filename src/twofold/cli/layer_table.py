"""What `twofold summary` prints: a line for each layer of a model, then what it costs to train it on this machine."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from twofold.cli.output import print_json, print_line, print_table
from twofold.see.ahead import look
from twofold.see.cost import of_pictures, of_text

HEADER = ("layer", "kind", "output", "weights", "multiply-adds", "bytes", "sees", "stride", "route")


def show_layers(
    name: str, bare: nn.Module, make: Callable[[], nn.Module], task: str, values: dict[str, Any], size: tuple[int, ...], batch: int,
    long: bool, json: bool,
) -> None:  # fmt: skip
    """Print the summary. bare: the model without content, and what makes the model itself; size: (C, H, W) of pictures, (C, T) of signals,
    (T,) of text; long: time a whole batch.
    """
    text = task == "language"
    zeros = torch.zeros(*size, 1, dtype=torch.long, device="meta") if text else torch.zeros(1, *size, device="meta")
    trial = of_text(size[0], values["vocabulary"]) if text else of_pictures(size, values["classes"])
    lines, spent, missing = look(None if text else bare, make, zeros, trial, batch, long)
    totals = {
        "weights": sum(line.weights for line in lines),
        "multiply_adds": sum(line.multiply_adds or 0 for line in lines),
        "bytes": sum(line.bytes for line in lines),
    }
    scheme = getattr(getattr(bare, "config", None), "scheme", None)
    if json:
        told = {} if scheme is None else {"scheme": scheme}
        layers = [line._asdict() for line in lines]
        seen = {"input": list(zeros.shape), "computed": not missing}
        print_json({"model": name, **told, **seen, "layers": layers, **totals, "training": spent.as_dict()})
        return
    rows = [
        (
            *(line.name, line.kind, line.output, line.weights),
            "-" if line.multiply_adds is None else line.multiply_adds,
            *(line.bytes, line.sees, line.steps, "-" if missing else line.route),
        )
        for line in lines
    ]
    print_table(HEADER, rows, f"{name}, input {'x'.join(map(str, zeros.shape))}")
    if scheme is not None:
        print_line(f"scheme: {scheme}")
    unknown = sum(line.multiply_adds is None and not line.apart for line in lines)
    print(f"weights: {totals['weights']:,}")
    print(f"multiply-adds: {totals['multiply_adds']:,}{f' and those of {unknown} layers without a law' if unknown else ''}")
    print(f"bytes of all outputs: {totals['bytes']:,}")
    for line in (*spent.lines(), *([missing] if missing else [])):
        print_line(line)
