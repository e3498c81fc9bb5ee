"""twofold train."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from twofold.cli.options import Flag, MaybeWhole
from twofold.cli.output import print_json, print_line
from twofold.train.augmenting import Augmentation
from twofold.train.balance import Balance
from twofold.train.bptt import Streams
from twofold.train.checkpoints import Keeping
from twofold.train.faults import Safety
from twofold.train.initialising import Initialisation
from twofold.train.machine import Machine
from twofold.train.optimizers import Optimisation
from twofold.train.part import Part
from twofold.train.penalties import Regularisation
from twofold.train.schedules import Scheduling
from twofold.train.settings import Learning
from twofold.train.trackers import Watching
from twofold.train.transfer import Transfer

Flat = Parameter(name="*")


def train(
    source: str = "",
    *,
    model: str = "",
    config: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    recipe: str = "",
    limit: MaybeWhole = None,
    image_size: MaybeWhole = None,
    unit: str | None = None,
    hold: str | None = None,
    normalise: str | None = None,
    learning: Annotated[Learning | None, Flat] = None,
    streams: Annotated[Streams | None, Flat] = None,
    optimisation: Annotated[Optimisation | None, Flat] = None,
    scheduling: Annotated[Scheduling | None, Flat] = None,
    regularisation: Annotated[Regularisation | None, Flat] = None,
    augmentation: Annotated[Augmentation | None, Flat] = None,
    balance: Annotated[Balance | None, Flat] = None,
    initialisation: Annotated[Initialisation | None, Flat] = None,
    transfer: Annotated[Transfer | None, Flat] = None,
    safety: Annotated[Safety | None, Flat] = None,
    keeping: Annotated[Keeping | None, Flat] = None,
    machine: Annotated[Machine | None, Flat] = None,
    watching: Annotated[Watching | None, Flat] = None,
    out: Path | None = None,
    overwrite: Flag = False,
    resume: Path | None = None,
    force: Flag = False,
    find_rate: Flag = False,
    sweep: str = "",
    trials: MaybeWhole = None,
    json: Flag = False,
) -> None:
    """Train a model. What you do not set follows the recipe of the source.

    Parameters
    ----------
    source
        A name (twofold data lists them), a folder of class folders with pictures, or a text file.
    model
        The name of an architecture (twofold models lists them), or a scheme such as "[conv32 relu pool]*2 fc" (docs/schemes.md).
    config
        Changes to the architecture: units=256 layers=2.
    recipe
        The name of a recipe (twofold recipes lists them). Default: by the source.
    limit
        Characters of training text to use.
    image_size
        Resize pictures to this side.
    unit
        What a text is made of: character or word.
    hold
        Where pictures are meanwhile: memory, files (read batch by batch), or auto: memory if a quarter of what is free will do.
    normalise
        Pictures by their own mean and deviation (own), by those of imagenet, cifar10, or "m m m / s s s". Default: own; with --weights of
        a file, imagenet for pictures in colour.
    out
        The run folder. Default: runs/NAME.
    overwrite
        Replace the run that the folder holds.
    resume
        Go on with the interrupted run in this folder.
    force
        With resume: go on even where the data or the model have changed.
    find_rate
        Do not train: find a learning rate, and draw how the loss depends on it.
    sweep
        Train many times in search of good settings: "lr=1e-4..1e-1:log,dropout=0..0.5,units=64|128".
    trials
        With sweep: how often. Default: 20.
    json
        Print the final scores as JSON.
    """
    from twofold import fitting
    from twofold.train.launching import launch, launched
    from twofold.train.settings import PARTS

    given = {"limit": limit, "image_size": image_size, "unit": unit, "hold": hold, "normalise": normalise}
    flat: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    parts: dict[str, Part | None] = {"learning": learning, "streams": streams, "optimisation": optimisation, "scheduling": scheduling}
    parts |= {"regularisation": regularisation, "augmentation": augmentation, "balance": balance, "initialisation": initialisation}
    parts |= {"transfer": transfer, "safety": safety, "keeping": keeping, "machine": machine, "watching": watching}
    assert parts.keys() == PARTS.keys()
    for part in parts.values():
        flat |= {name: getattr(part, name) for name in type(part).model_fields if name in part.model_fields_set} if part is not None else {}
    flat |= {"config": read_changes(config)} if config else {}
    flat |= {"recipe": recipe} if recipe else {}
    if resume is not None and (source or model or overwrite or out or flat or find_rate or sweep or trials is not None):
        raise ValueError("train --resume goes on with the settings of the run: give no source and no other settings.")
    if resume is None and force:
        raise ValueError("train: --force belongs to --resume. To replace a run, add --overwrite.")
    if resume is None and not source:
        raise ValueError("train: name a source, for example: twofold train digits (twofold data lists them).")
    if find_rate and sweep:
        raise ValueError("train: --find-rate and --sweep each do something else. Take one.")
    if trials is not None and not sweep:
        raise ValueError("train: --trials belongs to --sweep. For example: --sweep lr=1e-4..1e-1:log --trials 20")
    if overwrite and (find_rate or sweep):
        told = "--sweep goes on with the study that the folder holds" if sweep else "--find-rate keeps no run"
        raise ValueError(f"train: {told}: leave --overwrite out.")
    several = [
        flag for flag, asked in (("--processes", flat.get("processes", 1) != 1), ("--shard-weights", flat.get("shard_weights"))) if asked
    ]
    if (find_rate or sweep) and several:
        raise ValueError(f"train: {'--sweep' if sweep else '--find-rate'} works in one process. Leave {' and '.join(several)} out.")
    if find_rate:
        _find_rate(source, model, flat, out, json)
        return
    if sweep:
        _sweep(source, sweep, flat | ({"model": model} if model else {}), out, 20 if trials is None else trials, json)
        return
    processes = processes_of(resume, flat)
    if processes > 1 and not launched():
        code = launch([sys.executable, "-m", "twofold", *sys.argv[1:]], processes)
        if code:
            raise SystemExit(code)
        return
    run = (
        fitting.resume(resume, force=force)
        if resume is not None
        else fitting.fit(source, model=model, out=out, overwrite=overwrite, **flat)
    )
    if not first():
        return
    if json:
        print_json({"run": str(run.path), "report": str(run.report), **run.metrics})
        return
    majority = run.metrics.get("majority", {})
    for split in ("validation", "test"):
        if split in run.metrics:
            beside = [f"(majority class {100 * majority[split]:.2f} %)"] if split in majority else []
            print_line(" ".join([f"{split + ':':<12}", *run.task.explain(run.metrics[split]), *beside]))
    print_line(f"{'run:':<12} {run.path}")
    print_line(f"{'report:':<12} {run.report}")


def _find_rate(source: str, model: str, flat: dict[str, Any], out: Path | None, json: bool) -> None:
    """The range test of the learning rate, its suggestion and its picture."""
    from twofold import fitting
    from twofold.see.rates import rates
    from twofold.see.style import save_png

    target = out or Path(f"{Path(source).resolve().stem}-rates.png")
    if target.suffix.lower() != ".png":
        raise ValueError(f"train --find-rate: expected --out as the name of a PNG file, for example rates.png, got {target}.")
    curve = fitting.find_rate(source, model=model, **flat)
    save_png(rates(*curve[:3], curve.suggested, curve.steepest, curve.tenth), target)
    if json:
        print_json({**curve._asdict(), "plot": str(target)})
        return
    print_line(curve.told())
    print_line(f"{'plot:':<12} {target}")


def _sweep(source: str, text: str, flat: dict[str, Any], out: Path | None, trials: int, json: bool) -> None:
    """Many runs in search of good settings."""
    from twofold import fitting
    from twofold.cli.sweeping import sweep_and_print
    from twofold.preparing import lasting

    def one(settings: dict[str, Any], folder: Path, after_epoch: Any) -> None:
        fitting.fit(lasted, out=folder, quiet=True, after_epoch=after_epoch, **settings)

    lasted = lasting(source)
    sweep_and_print(lasted, text, flat, one, out or Path("runs") / f"{Path(source).resolve().stem}-sweep", trials, json)


def processes_of(resume: Path | None, flat: dict[str, Any]) -> int:
    """How many processes are asked for: by the command line, or by the run that goes on."""
    if resume is None:
        return int(flat.get("processes", 1))
    from twofold.train.folder import RunFolder

    return RunFolder(resume).read_settings().machine.processes


def first() -> bool:
    """Whether this is the process that talks to the user."""
    import os

    return os.environ.get("RANK", "0") == "0"


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
