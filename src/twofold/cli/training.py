"""twofold train."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from twofold.cli.options import Flag, MaybeWhole
from twofold.cli.output import print_json, print_line
from twofold.train.settings import Learning, Optimisation


def train(
    source: str = "",
    *,
    model: str = "",
    config: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    limit: MaybeWhole = None,
    image_size: MaybeWhole = None,
    unit: str | None = None,
    learning: Annotated[Learning | None, Parameter(name="*")] = None,
    optimisation: Annotated[Optimisation | None, Parameter(name="*")] = None,
    out: Path | None = None,
    overwrite: Flag = False,
    resume: Path | None = None,
    json: Flag = False,
) -> None:
    """Train a model. What you do not set follows the recipe of the source.

    Parameters
    ----------
    source
        A name (twofold data lists them), a folder of class folders with pictures, or a text file.
    model
        The name of an architecture (twofold models lists them).
    config
        Changes to the architecture: units=256 layers=2.
    limit
        Characters of training text to use.
    image_size
        Resize pictures to this side.
    unit
        What a text is made of: character or word.
    out
        The run folder. Default: runs/NAME.
    overwrite
        Replace the run that the folder holds.
    resume
        Go on with the interrupted run in this folder.
    json
        Print the final scores as JSON.
    """
    from twofold import fitting

    if resume is not None:
        others = (config, limit, image_size, unit, learning, optimisation, out)
        if source or model or overwrite or any(value is not None for value in others):
            raise ValueError("train --resume goes on with the settings of the run: give no source and no other settings.")
        run = fitting.resume(resume)
    else:
        if not source:
            raise ValueError("train: name a source, for example: twofold train digits (twofold data lists them).")
        given = {"limit": limit, "image_size": image_size, "unit": unit}
        flat: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        for part in (learning, optimisation):
            flat |= {name: getattr(part, name) for name in part.model_fields_set} if part is not None else {}
        flat |= ({"model": model} if model else {}) | ({"config": read_changes(config)} if config else {})
        run = fitting.fit(source, out=out, overwrite=overwrite, **flat)
    if json:
        print_json({"run": str(run.path), "report": str(run.report), **run.metrics})
        return
    for split in ("validation", "test"):
        if split in run.metrics:
            print_line(" ".join([f"{split + ':':<12}", *run.task.explain(run.metrics[split])]))
    print_line(f"{'run:':<12} {run.path}")
    print_line(f"{'report:':<12} {run.report}")


def read_changes(changes: list[str]) -> dict[str, bool | int | float | str]:
    """name=value words as values: true and false, whole numbers, numbers, else text."""
    values: dict[str, bool | int | float | str] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not name:
            raise ValueError(f"config: expected name=value, got {change!r}. For example: --config units=256 layers=2")
        values[name] = _value(text)
    return values


def _value(text: str) -> bool | int | float | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
