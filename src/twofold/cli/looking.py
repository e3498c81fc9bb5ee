"""twofold models, data, summary, doctor: what there is, before anything is trained."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

from twofold.cli.options import Flag, MaybeWhole, Whole
from twofold.cli.output import print_json, print_line, print_table

LARGEST_INPUT = 1 << 26  # values: 3x4096x4096 fits
MOST_STEPS = 100_000
Changes = Annotated[list[str], Parameter(consume_multiple=True, negative=())]


def models(
    action: str = "",
    name: str = "",
    *,
    weights: Path | None = None,
    config: Changes | None = None,
    out: Path | None = None,
    origin: Annotated[Path | None, Parameter(name="--from")] = None,
    json: Flag = False,
) -> None:
    """List the architectures, download published weights, or write weights by torchvision's names.

    Parameters
    ----------
    action
        Nothing, or one of the words get and convert.
    name
        With get: an architecture. With convert: a run folder, or an architecture.
    weights
        With convert and an architecture: the file of its weights (.safetensors, .pth).
    config
        With convert and an architecture: changes to it, as shortcut=B.
    out
        With convert: the .safetensors file to write.
    origin
        With get: the published file, or the folder that it lies in, to be taken instead of a download.
    json
        Print JSON.
    """
    if action == "get" and name and weights is None and out is None and not config:
        from twofold.cli.weights import get

        get(name, origin, json)
        return
    if action == "convert" and name and origin is None:
        from twofold.cli.training import read_changes
        from twofold.cli.weights import convert

        convert(name, weights, read_changes(config or []), out, json)
        return
    if action or weights is not None or config or out is not None or origin is not None:
        wanted = "nothing, `get ARCHITECTURE [--from FILE]` or `convert RUN|ARCHITECTURE [--weights FILE] --out FILE`"
        raise ValueError(f"models: expected {wanted}, got {f'{action} {name}'.strip()!r}.")
    _list_models(json)


def _list_models(json: bool) -> None:
    import torch

    from twofold.models.catalogue import MODELS

    def weights(name: str) -> int:
        with torch.device("meta"):  # counted, not made
            return sum(p.numel() for p in MODELS[name].build(MODELS[name].preset).parameters())

    rows = [(name, entry.task, weights(name), entry.line) for name, entry in MODELS.items()]
    if json:
        print_json([dict(zip(("name", "task", "weights", "line"), row, strict=True)) for row in rows])
        return
    print_table(("name", "task", "weights", "what it is"), rows)
    print_line('Or write one: --model "[conv32 relu pool]*2 fc" (docs/schemes.md).')


def recipes(*, json: Flag = False) -> None:
    """List the recipes. A source that has a recipe of its name gets it by itself; any other is asked for with train --recipe NAME."""
    from twofold.train.recipes import RECIPES

    if json:
        print_json({name: {"task": each.task, "line": each.line, "needs": each.needs, **each.values} for name, each in RECIPES.items()})
        return
    rows = [
        (name, each.task, each.values.get("model", "-"), " ".join(f"--{need}" for need in each.needs) or "-", each.line)
        for name, each in RECIPES.items()
    ]
    print_table(("name", "task", "model", "needs", "what it is"), rows)


def data(
    action: str = "",
    path: str = "",
    *,
    image_size: MaybeWhole = None,
    limit: MaybeWhole = None,
    origin: Annotated[Path | None, Parameter(name="--from")] = None,
    augment: str = "standard",
    out: str = "",
    seed: Whole = 0,
    json: Flag = False,
) -> None:
    """List the sources that have a name, check what lies at a path, download a published set, or preview augmentation.

    Parameters
    ----------
    action
        Nothing, or one of the words check, get and preview.
    path
        With check: a name, a folder or a file. With get: the name of a published set.
    image_size
        With check: resize pictures to this side.
    limit
        With check: characters of text to use.
    origin
        With get: a folder with the published files, or the file, to be taken instead of a download.
    augment
        With preview: what may happen to pictures, "flip rotate=15 crop=4" or a preset: light, standard, digits, strong.
    out
        With preview: the PNG file.
    seed
        With preview: decides what is drawn.
    json
        Print JSON.
    """
    from twofold.cli.getting import get, list_sources
    from twofold.data.options import DataOptions
    from twofold.data.sources import check

    if action == "get" and path:
        if image_size is not None or limit is not None:
            raise ValueError("data get: --image-size and --limit belong to `check` and to training.")
        get(path, origin, json)
        return
    if action == "preview" and path:
        from twofold.cli.preview import preview

        preview(path, augment, out, seed, image_size, json)
        return
    if origin is not None:
        raise ValueError("data: --from belongs to `get NAME`. For example: twofold data get mnist --from Downloads/")
    if not action:
        list_sources(json)
        return
    if action != "check" or not path:
        wanted = "nothing, `check PATH`, `get NAME` or `preview PATH`"
        raise ValueError(f"data: expected {wanted}, got {f'{action} {path}'.strip()!r}. For example: twofold data check photos/")
    found = check(path, DataOptions(limit=limit, image_size=image_size))
    if json:
        print_json(found.as_dict())
        return
    for line in found.lines():
        print_line(line)


def summary(
    model: str, *, input: str = "", batch: Whole = 32, time: Flag = False, config: Changes | None = None, json: Flag = False
) -> None:
    """Show the layers of a model, shapes, weights, multiply-adds, bytes of the output, what one output sees of the input; then what a
    training step costs on this machine: memory, and milliseconds. Of a large input nothing is computed unless --time asks for it.

    Parameters
    ----------
    model
        The name of an architecture, a scheme such as "[conv32 relu pool]*2 fc", or a run folder.
    input
        The input: CxHxW for pictures (3x64x64), CxT for signals (1x1024), the number of steps for text. Default: what the model is
        made for.
    batch
        Pictures or texts in a batch of training.
    time
        Time a batch of that size, or as many of it as fit into a minute. Without it, as many as fit into two seconds, or 2.
    config
        Changes to the architecture: units=256 layers=2.
    json
        Print JSON.
    """
    from twofold.cli.layer_table import show_layers

    if batch < 1:
        raise ValueError(f"summary: expected --batch of at least 1, got {batch}.")
    opened = _opened("summary", model, input, config, bare=True)
    show_layers(model, *_bare(model, opened), opened.task, opened.values, opened.size, batch, time, json)


def doctor(
    *,
    routes: str = "",
    input: str = "",
    batch: Whole = 32,
    precision: Literal["full", "bf16"] = "full",
    config: Changes | None = None,
    json: Flag = False,
) -> None:
    """Say what this installation can do, and what it lacks; of a model, which routes its layers take, and how long each would take.

    Parameters
    ----------
    routes
        The name of an architecture, or a run folder: measure a training step, and remember the choices.
    input
        With --routes, the input: CxHxW for pictures (3x64x64), CxT for signals (1x1024), the number of steps for text. Default: what
        the model is made for.
    batch
        With --routes: pictures or texts in a batch.
    precision
        With --routes: bf16 permits to round.
    config
        With --routes, changes to the architecture: units=256 layers=2.
    json
        Print JSON.
    """
    if routes:
        from twofold.cli.routes import show_routes

        opened = _opened("doctor", routes, input, config)
        if batch < 1 or batch * math.prod(opened.size) > LARGEST_INPUT:
            raise ValueError(
                f"doctor: expected --batch of at least 1 and an input of at most {LARGEST_INPUT:,} values in all, "
                f"got --batch {batch} of {'x'.join(map(str, opened.size))}."
            )
        show_routes(routes, opened.built, opened.task, opened.values, (batch, *opened.size), precision, json)
        return
    if input or batch != 32 or precision != "full" or config:
        raise ValueError("doctor: --input, --batch, --precision and --config say how to run a model: name it, as in --routes lenet5.")
    from twofold.cli.doctor import examine

    found = examine()
    if json:
        print_json(found)
        return
    print_table(("what", "finding"), list(found.items()))


class _Shape(NamedTuple):
    """How the size of an input is written, an example, and what its numbers are called."""

    letters: str
    example: str
    names: tuple[str, ...]


SHAPES = {
    "classify": _Shape("CxHxW", "3x64x64", ("in_channels", "height", "width")),
    "signal": _Shape("CxT, channels and steps of a signal", "1x1024", ("in_channels", "steps")),
}


class _Opened(NamedTuple):
    """A model, and the size of its input: CxHxW of pictures, CxT of signals, the number of steps of text."""

    built: Any
    task: str
    values: dict[str, Any]
    size: tuple[int, ...]


def _bare(model: str, opened: _Opened) -> tuple[Any, Callable[[], Any]]:
    """The model without content, and what makes the model itself."""
    from twofold.models.catalogue import build
    from twofold.see.trial import on_meta

    built = opened.built
    if any(weight.is_meta for weight in built.parameters()):
        return built, lambda: build(model, **opened.values)
    return on_meta(built), lambda: built


def _opened(who: str, model: str, input: str, config: list[str] | None, bare: bool = False) -> _Opened:
    """What was named. bare: an architecture without content, on the meta device."""
    import torch

    from twofold.cli.training import read_changes
    from twofold.models.catalogue import MODELS, build, configure, find
    from twofold.run import load

    if model not in MODELS and _is_folder(model):
        if config:
            raise ValueError(f"{who}: {model} is a run and has its own configuration; --config changes an architecture.")
        run = load(model)
        task, built, values = run.task.name, run.model, run.reading.model_config()
    else:
        task = find(model).task
        shape = _shape(who, task, input) if task in SHAPES and input else {}
        settled = configure(model, **read_changes(config or []), **shape)
        values = settled.as_dict()
        with torch.device("meta" if bare else "cpu"):
            built = build(model, **values)
    if task not in SHAPES:
        return _Opened(built, task, values, (_steps(who, input),))
    shape = _shape(who, task, input) if input else {name: values[name] for name in SHAPES[task].names}
    return _Opened(built, task, values, tuple(shape.values()))


def _is_folder(name: str) -> bool:
    """Whether that is a folder; a long scheme is none, and no file system wants its name."""
    try:
        return Path(name).is_dir()
    except OSError:
        return False


def _shape(who: str, task: str, text: str) -> dict[str, int]:
    letters, example, names = SHAPES[task]
    sizes = text.strip().split("x")
    if len(sizes) != len(names) or not all(re.fullmatch(r"0*[1-9]\d*", size, re.ASCII) for size in sizes):
        raise ValueError(f"{who}: expected --input as {letters}, for example {example}, got {text!r}.")
    numbers = [int(size) for size in sizes]
    if math.prod(numbers) > LARGEST_INPUT:
        raise ValueError(f"{who}: expected --input of at most {LARGEST_INPUT:,} values, got {text}, which is {math.prod(numbers):,}.")
    return dict(zip(names, numbers, strict=True))


def _steps(who: str, text: str) -> int:
    if text and (not text.isdecimal() or not 1 <= int(text) <= MOST_STEPS):
        raise ValueError(
            f"{who}: expected --input as a number of steps for a language model, 1 to {MOST_STEPS:,}, for example 64, got {text!r}."
        )
    return int(text or 64)
