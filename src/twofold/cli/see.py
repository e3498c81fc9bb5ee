"""twofold see ...: pictures of what layers do."""

import math
import re
from pathlib import Path
from textwrap import shorten
from typing import Literal

from cyclopts import App

from twofold.cli.looking import Changes
from twofold.cli.options import Flag, Whole
from twofold.cli.output import print_json, print_line, print_table
from twofold.data.amount import amount

BATCH = 32
VALUES = 1 << 22  # of the input: larger pictures come in smaller batches
_SCHEME = re.compile(r"[^,(]+(?:\([^()]*\))?[^,]*")  # a comma within brackets parts no names
see = App(name="see", help="Draw what layers do, as PNG pictures.", help_format="plaintext")


@see.command
def kernels(image: Path, *, out: Path | None = None, only: str = "", json: Flag = False) -> None:
    """Draw fixed kernels, such as Sobel and Gaussian, and what each of them answers to a picture.

    Parameters
    ----------
    image
        A picture file.
    out
        The PNG file to write. Default: the picture's name with -kernels.png, in the current folder.
    only
        Names with commas between: sobel,gaussian. Default: all.
    json
        Print JSON.
    """
    import numpy as np

    from twofold.data.pictures import read_image
    from twofold.see.kernels import entries
    from twofold.see.kernels import kernels as draw
    from twofold.see.style import save_png

    names = [name.strip() for name in only.split(",") if name.strip()]
    shown = entries(names)
    picture = np.asarray(read_image(image))
    target = _target(image, out, "kernels")
    save_png(draw(picture, f"Fixed kernels on {image.name}", names), target)
    if json:
        print_json({"picture": str(image), "kernels": [entry.name for entry in shown], "out": str(target)})
        return
    print_line(f"{amount(len(shown), 'kernel', 'kernels')} on {image.name}: {target}")


@see.command
def init(
    model: str,
    *,
    scheme: str = "",
    input: str = "",
    config: Changes | None = None,
    seed: Whole = 0,
    out: Path | None = None,
    json: Flag = False,
) -> None:
    """Draw how large signals and gradients are at every layer of an untrained model, for each scheme of first weights.

    Parameters
    ----------
    model
        The name of an architecture, or a run folder, whose weights are then those that "built" shows.
    scheme
        Names with commas between: built,he,uniform(-0.2,0.2). Default: those that fit the model; "built" are the weights it comes with.
    input
        The input: CxHxW for pictures (3x64x64), the number of steps for text. Default: what the model is made for.
    config
        Changes to the architecture: units=256 layers=2.
    seed
        Decides the weights and the input.
    out
        The PNG file to write. Default: the model's name, or scheme, with -init.png, in the current folder.
    json
        Print JSON.
    """
    import torch

    from twofold.cli.looking import _is_folder, _opened
    from twofold.models.scheme import looks_like
    from twofold.see.initial import initial, schemes_of, sizes
    from twofold.see.style import save_png

    named = "scheme" if looks_like(model) and not _is_folder(model) else Path(model).name  # a scheme may be too long for a file's name
    target = _png(out or Path(f"{named}-init.png"), "init")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        opened = _opened("see init", model, input, config)
        if opened.task != "language":
            batch = max(2, min(BATCH, VALUES // math.prod(opened.size)))
            x = torch.randn(batch, *opened.size)
        else:
            x = torch.randint(0, opened.values["vocabulary"], (*opened.size, BATCH))
    names = _SCHEME.findall(scheme) if scheme else schemes_of(opened.built)
    found = {name: sizes(opened.built, x, name, seed) for name in dict.fromkeys(name.strip() for name in names)}
    save_png(initial(found, f"First weights of {named if named != 'scheme' else shorten(model, 80)}"), target)
    if json:
        layers = {name: [size._asdict() for size in rows] for name, rows in found.items()}
        print_json({"model": model, "input": list(x.shape), "seed": seed, "schemes": layers, "out": str(target)})
        return
    for field in ("signal", "gradient"):
        rows = [(first.layer, first.kind, *(f"{getattr(rows[place], field):.3g}" for rows in found.values()))
                for place, first in enumerate(next(iter(found.values())))]  # fmt: skip
        print_table(("layer", "kind", *found), rows, f"{field}, input {'x'.join(map(str, x.shape))}")
    print_line(f"{amount(len(found), 'scheme', 'schemes')} on {model}: {target}")


@see.command
def mistakes(
    run: Path,
    source: str | None = None,
    *,
    split: Literal["train", "validation", "test"] | None = None,
    count: Whole = 24,
    columns: Whole = 6,
    tta: str = "",
    out: Path | None = None,
    json: Flag = False,
) -> None:
    """Draw the worst mistakes of a classifier: the highest loss first, with what was said, the truth and the name of the file.

    Parameters
    ----------
    run
        A run folder.
    source
        Another source; all of it is used. Default: the run's own source.
    split
        Which part of the run's own source. Default: test.
    count
        How many, 64 at most.
    columns
        How many in a row.
    tta
        Views of each picture whose probabilities are averaged: flip, "flip shift=1", "flip crops=0.875".
    out
        The PNG file to write. Default: the run's name with -mistakes.png, in the current folder.
    json
        Print JSON.
    """
    import torch

    from twofold.data.values import Text
    from twofold.run import load
    from twofold.see.predictions import mistakes as draw
    from twofold.see.style import save_png
    from twofold.tasks.worst import worst

    target = _png(out or Path(f"{run.resolve().name}-mistakes.png"), "mistakes")
    opened = load(run)
    if opened.reading.preparation is None:
        raise ValueError(f"see mistakes: expected a run that names the class of pictures, but {run} is one to {opened.task.name}.")
    if source is not None and split is not None:
        raise ValueError(f"see mistakes: {source} is used whole, so the {split} split does not apply. Leave --split out.")
    part = opened.open_whole(source).part if source is not None else opened.part(split or "test")
    assert not isinstance(part, Text)
    judged = opened.judge(part, tta)
    found, classes = worst(judged, opened.reading.classes, count), opened.reading.classes
    wrong = int((judged.details["truth"] != judged.details["predicted"]).sum())
    places = torch.tensor([mistake.place for mistake in found], dtype=torch.int64)
    figure = draw(
        part.pictures(places),
        [classes.index(mistake.truth) for mistake in found],
        [classes.index(mistake.said) for mistake in found],
        [mistake.probability for mistake in found],
        [mistake.true_probability for mistake in found],
        classes,
        columns,
        count,
        (wrong, len(judged.details["truth"])),
        [mistake.name for mistake in found],
        "loss",
    )
    save_png(figure, target)
    if json:
        print_json({"run": str(run), "mistakes": [mistake._asdict() for mistake in found], "wrong": wrong, "out": str(target)})
        return
    print_line(f"{amount(len(found), 'mistake', 'mistakes')} of {wrong:,}: {target}")


def _png(target: Path, what: str) -> Path:
    """The file to write. Raises ValueError for a name that is no PNG file's."""
    if target.suffix.lower() != ".png":
        raise ValueError(f"see {what}: expected --out as the name of a PNG file, for example {target.stem or what}.png, got {target}.")
    return target


def _target(image: Path, out: Path | None, what: str) -> Path:
    """Where to write. Raises ValueError for a name that is no PNG file's, and for the picture itself."""
    target = _png(out or Path(f"{image.stem}-{what}.png"), what)
    if target.exists() and target.samefile(image):
        raise ValueError(f"see {what}: --out {target} is the picture itself. Choose another name.")
    return target
