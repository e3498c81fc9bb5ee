"""Weights that another training left: taken into a run that begins, or judged as they are, without training.

    to begin with    read -> taken into the model, the head new where classes differ, or on request -> their checksum into model.json
    to be judged     architecture + weights + source -> a run, as if it had been trained here

Published weights expect pictures that are normalised as theirs were: where nobody says how, by imagenet's mean and deviation, and those of
a run of ours by that run's.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from twofold import __version__
from twofold.data.amount import amount
from twofold.data.normalising import IMAGENET, normalised
from twofold.data.options import DataOptions
from twofold.data.preparation import CHANNELS
from twofold.data.published import sha256_of
from twofold.data.sources import ImageSource, Source, open_source
from twofold.models import catalogue
from twofold.models.adopt import Heads, load_weights
from twofold.models.scheme import looks_like
from twofold.models.weights import read_weights, weights_file
from twofold.run import Reading, Run
from twofold.train.folder import RunFolder
from twofold.train.settings import Settings


class Taken(NamedTuple):
    """What was taken, for people, and for model.json."""

    said: str
    described: dict[str, Any]


def take_weights(model: nn.Module, path: str, architecture: str, heads: Heads = "fitting") -> Taken:
    """Fill the model from a file; heads: see models/adopt.py.

    Raises ValueError, and changes nothing, where the weights are not of that architecture.
    """
    file = weights_file(path)
    loaded = load_weights(model, read_weights(file), architecture, heads)
    new = [name for name in loaded.new if not name.endswith("num_batches_tracked")]
    left = f" Left out: {amount(len(loaded.unused), 'tensor', 'tensors')} of auxiliary heads." if loaded.unused else ""
    fresh = f"new: {', '.join(new)}" if new else "the head too"
    said = f"{amount(loaded.taken, 'tensor', 'tensors')} of {file.name}, in {loaded.dialect} names; {fresh}.{left}"
    described = {"file": file.name, "sha256": sha256_of(file), "names": loaded.dialect, "new": new}
    return Taken(f"{architecture} begins with {said}", described)


def expected_by(path: str, source: ImageSource) -> str | None:
    """How the weights of a file want pictures of that source normalised; None: by their own mean and deviation."""
    file = weights_file(path)
    if file.name == "model.safetensors" and (file.parent / "model.json").is_file():
        kind = Reading.from_dict(RunFolder(file.parent).read_description()).preparation
        if kind is None or kind.mode != source.preparation.mode:
            return None
        return " / ".join(" ".join(map(repr, values)) for values in (kind.mean, kind.std))
    return IMAGENET if CHANNELS[source.preparation.mode] == 3 else None


def as_weights_expect(settings: Settings, source: Source) -> tuple[Settings, Source]:
    """The settings and the source, normalised for the weights to begin with, where there are any and nobody said how."""
    if not settings.transfer.weights or settings.data.normalise is not None or not isinstance(source, ImageSource):
        return settings, source
    text = expected_by(settings.transfer.weights, source)
    if text is None:
        return settings, source
    return settings.model_copy(update={"data": replace(settings.data, normalise=text)}), normalised(source, text)


def of_weights(
    architecture: str, source: str | Path, weights: str | Path, *, normalise: str | None = None, config: dict[str, Any] | None = None,
    out: str | Path | None = None, options: DataOptions | None = None,
) -> tuple[Run, str]:  # fmt: skip
    """A run of an architecture with weights as they are, and a sentence on what was done; `out`: keep its folder.

    Raises ValueError: another task, weights of another architecture or for other classes, an `out` that holds anything.
    """
    if not looks_like(architecture) and (Path(architecture) / "model.json").is_file():
        own = RunFolder(architecture).read_description()["architecture"]
        raise ValueError(
            f"evaluate: {architecture} is a run folder, which has weights of its own. Leave --weights out, or name its architecture: {own}."
        )
    folder = RunFolder(out if out is not None else Path("runs") / architecture)
    if out is not None:
        folder.check_free(overwrite=False)
    options = replace(options or DataOptions(), normalise=normalise)
    opened = open_source(source, options)
    found = catalogue.find(architecture)
    if not isinstance(opened, ImageSource) or found.task != "classify":
        raise ValueError(f"evaluate: {architecture} is for {found.task}, and {source} for {opened.task}: --weights is for pictures.")
    if normalise is None and (normalise := expected_by(str(weights), opened)) is not None:
        opened = normalised(opened, normalise)
    reading = Reading.of(opened)
    _refuse_other_classes(str(weights), reading, source)
    settled = catalogue.configure(architecture, **{**(config or {}), **reading.model_config()})
    with torch.random.fork_rng():
        model = found.build(settled)
    taken = take_weights(model, str(weights), architecture, heads="kept")
    lasting = str(Path(source).expanduser().absolute()) if Path(source).expanduser().exists() else str(source)
    given = {"model": architecture, "weights": str(Path(weights).expanduser().absolute()), "config": config or {}}
    settings = Settings.of(lasting, **given)
    settings = settings.model_copy(update={"data": replace(options, normalise=normalise)})
    if out is not None:
        described = {"architecture": architecture, "config": settled.as_dict(), "twofold": __version__, "task": opened.task}
        folder.clear()
        folder.write_settings(settings)
        folder.write_model(model.state_dict(), {**described, **reading.as_dict(), "weights": taken.described})
    how = "their own mean and deviation" if normalise in (None, "own") else f"{normalise} (--normalise says otherwise)"
    named = f"Its outputs are taken for the classes of {source}, in this order: {_some(reading.classes)}."
    return Run(folder, settings, model, reading), f"{taken.said} {named} Pictures are normalised by {how}."


def _refuse_other_classes(path: str, reading: Reading, source: str | Path) -> None:
    """Raise ValueError where the weights are a run's, whose classes are known, and the source has others."""
    file = weights_file(path)
    if file.name != "model.safetensors" or not (file.parent / "model.json").is_file():
        return
    known = Reading.from_dict(RunFolder(file.parent).read_description()).classes
    if known != reading.classes:
        raise ValueError(
            f"evaluate: the weights tell {_some(known)} apart, and the classes of {source} are {_some(reading.classes)}. "
            "Name the folders alike."
        )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + (f", ... ({len(names)})" if len(names) > 10 else "")
