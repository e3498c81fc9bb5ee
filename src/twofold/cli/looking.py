"""twofold models, data, summary, doctor: what there is, before anything is trained."""

import math
import re
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from twofold.cli.options import Flag, MaybeWhole
from twofold.cli.output import print_json, print_line, print_table

LARGEST_INPUT = 1 << 26  # values: 3x4096x4096 fits
MOST_STEPS = 100_000
Changes = Annotated[list[str], Parameter(consume_multiple=True, negative=())]


def models(*, json: Flag = False) -> None:
    """List the architectures."""
    from twofold.models.catalogue import MODELS, build

    rows = [(name, entry.task, sum(p.numel() for p in build(name).parameters()), entry.line) for name, entry in MODELS.items()]
    if json:
        print_json([dict(zip(("name", "task", "weights", "line"), row, strict=True)) for row in rows])
        return
    print_table(("name", "task", "weights", "what it is"), rows)


def data(action: str = "", path: str = "", *, image_size: MaybeWhole = None, limit: MaybeWhole = None, json: Flag = False) -> None:
    """List the sources that come with Twofold, or check what lies at a path.

    Parameters
    ----------
    action
        Nothing, or the word check.
    path
        With check: a name, a folder or a file.
    image_size
        With check: resize pictures to this side.
    limit
        With check: characters of text to use.
    json
        Print JSON.
    """
    from twofold.data.options import DataOptions
    from twofold.data.sources import check, source_lines

    if not action:
        if json:
            print_json([line._asdict() for line in source_lines()])
            return
        print_table(("source", "task", "what it is", "licence"), source_lines())
        print("\nYour own: a folder of class folders with pictures, or a text file. twofold data check PATH says what lies there.")
        return
    if action != "check" or not path:
        raise ValueError(f"data: expected nothing or `check PATH`, got {action!r}. For example: twofold data check photos/")
    found = check(path, DataOptions(limit=limit, image_size=image_size))
    if json:
        print_json(found.as_dict())
        return
    for line in found.lines():
        print_line(line)


def summary(model: str, *, input: str = "", config: Changes | None = None, json: Flag = False) -> None:
    """Show the layers of a model: shapes, weights, multiply-adds, bytes of the output, and what one output sees of the input.

    Parameters
    ----------
    model
        The name of an architecture, or a run folder.
    input
        The input: CxHxW for pictures (3x64x64), the number of steps for text. Default: what the model is made for.
    config
        Changes to the architecture: units=256 layers=2.
    json
        Print JSON.
    """
    import torch

    from twofold.cli.training import read_changes
    from twofold.models.catalogue import MODELS, build, configure, find
    from twofold.run import load
    from twofold.see.summary import summarise

    if model not in MODELS and Path(model).is_dir():
        if config:
            raise ValueError(f"summary: {model} is a run and has its own configuration; --config changes an architecture.")
        run = load(model)
        task, built, values = run.task.name, run.model, run.reading.model_config()
    else:
        task = find(model).task
        shape = _shape(input) if task == "classify" and input else {}
        settled = configure(model, **read_changes(config or []), **shape)
        values = settled.as_dict()
        built = build(model, **values)
    if task == "classify":
        shape = _shape(input) if input else {name: values[name] for name in ("in_channels", "height", "width")}
        zeros = torch.zeros(1, shape["in_channels"], shape["height"], shape["width"])
    else:
        zeros = torch.zeros(_steps(input), 1, dtype=torch.long)
    lines = summarise(built, zeros)
    totals = {
        "weights": sum(line.weights for line in lines),
        "multiply_adds": sum(line.multiply_adds or 0 for line in lines),
        "bytes": sum(line.bytes for line in lines),
    }
    unknown = sum(line.multiply_adds is None and not line.apart for line in lines)
    if json:
        print_json({"model": model, "input": list(zeros.shape), "layers": [line._asdict() for line in lines], **totals})
        return
    rows = [
        (
            *(line.name, line.kind, line.output, line.weights),
            "-" if line.multiply_adds is None else line.multiply_adds,
            *(line.bytes, line.sees, line.steps, line.route),
        )
        for line in lines
    ]
    header = ("layer", "kind", "output", "weights", "multiply-adds", "bytes", "sees", "stride", "route")
    print_table(header, rows, f"{model}, input {'x'.join(map(str, zeros.shape))}")
    print(f"weights: {totals['weights']:,}")
    print(f"multiply-adds: {totals['multiply_adds']:,}{f' and those of {unknown} layers without a law' if unknown else ''}")
    print(f"bytes of all outputs: {totals['bytes']:,}")


def doctor(*, json: Flag = False) -> None:
    """Say what this installation can do, and what it lacks."""
    from twofold.cli.doctor import examine

    found = examine()
    if json:
        print_json(found)
        return
    print_table(("what", "finding"), list(found.items()))


def _shape(text: str) -> dict[str, int]:
    sizes = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text.strip())
    if sizes is None or "0" in sizes.groups():
        raise ValueError(f"summary: expected --input as CxHxW, for example 3x64x64, got {text!r}.")
    numbers = [int(size) for size in sizes.groups()]
    if math.prod(numbers) > LARGEST_INPUT:
        raise ValueError(f"summary: expected --input of at most {LARGEST_INPUT:,} values, got {text}, which is {math.prod(numbers):,}.")
    return dict(zip(("in_channels", "height", "width"), numbers, strict=True))


def _steps(text: str) -> int:
    if text and (not text.isdecimal() or not 1 <= int(text) <= MOST_STEPS):
        raise ValueError(
            f"summary: expected --input as a number of steps for a language model, 1 to {MOST_STEPS:,}, for example 64, got {text!r}."
        )
    return int(text or 64)
