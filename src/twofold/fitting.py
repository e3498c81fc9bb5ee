"""Fitting: from a source to a trained model in a run folder. `twofold.fit` is `twofold train`."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from twofold import __version__
from twofold.data.fingerprint import fingerprint
from twofold.data.sources import Source, TextSource, open_source, require
from twofold.layers.routes import routes_taken
from twofold.models import catalogue
from twofold.models.memory import TRAINING, refuse_beyond_memory
from twofold.run import Reading, Run
from twofold.see.story import tell
from twofold.tasks.classify import Classification
from twofold.tasks.language import Language
from twofold.tasks.task import Task
from twofold.train.batches import PictureBatches, TextBatches, pictures_in_order, text_in_order
from twofold.train.folder import RunFolder, told
from twofold.train.loop import Data, NotFiniteError, learn
from twofold.train.optimizers import build_optimizer
from twofold.train.progress import Progress, load_progress
from twofold.train.recipes import recipe
from twofold.train.settings import Settings
from twofold.train.watch import Watch


class InterruptedRun(KeyboardInterrupt):
    """Training was stopped by Ctrl-C; the run folder is valid, and the message says how to go on."""


def fit(source: str | Path, *, out: str | Path | None = None, overwrite: bool = False, quiet: bool = False, **settings: Any) -> Run:
    """Train a model on a source (a name or a path) and return the run.

    Any setting may be given by its flat name: model="lenet5", epochs=10, learning_rate=1e-3, seed=1, config={"units": 256}. What is not
    given follows the recipe of the source. `out` is the run folder (default: runs/NAME); one that holds a run is refused unless
    `overwrite` is true.
    Raises ValueError for sources and settings that cannot be, before anything is written.
    """
    wanted = Settings.of(_lasting(source), **settings)
    folder = RunFolder(out if out is not None else Path("runs") / (Path(wanted.source).resolve().stem or "run"))
    folder.check_free(overwrite)
    with torch.random.fork_rng():
        return _fit(wanted, folder, quiet, overwrite=overwrite)


def resume(path: str | Path, *, quiet: bool = False) -> Run:
    """Go on with an interrupted run. Raises ValueError where there is nothing to go on with, or where its data has changed."""
    folder = RunFolder(path)
    with torch.random.fork_rng():
        return _fit(folder.read_settings(), folder, quiet, again=True)


def _lasting(source: str | Path) -> str:
    """The source as settings.yaml keeps it: a name, or a path that holds from every folder. Raises ValueError where nothing lies there."""
    path = require(source)
    return str(source) if path is None else str(path.absolute())


def _fit(wanted: Settings, folder: RunFolder, quiet: bool, again: bool = False, overwrite: bool = False) -> Run:
    source = open_source(wanted.source, wanted.data)
    settings = wanted if again else _settle(wanted, source)
    torch.manual_seed(settings.learning.seed)
    reading = Reading.of(source)
    model, description = _build(settings, source, reading)
    task, data = _prepare(settings, source, reading)
    optimizer = build_optimizer(model, settings.optimisation)
    progress = Progress()
    if again:
        progress = _restore(folder, model, optimizer, description, settings)
    else:
        folder.check_free(overwrite)  # once more: another run may have been made meanwhile
        folder.clear()
        folder.write_settings(settings)
    watch = Watch(folder, task, settings, data.training.steps(), model, optimizer, description, quiet)
    try:
        with watch.watching():
            learn(model, task, data, settings, optimizer, progress, watch)
    except NotFiniteError as error:
        kept = f"The weights of epoch {progress.best_epoch} are kept in {folder.path}." if progress.best_epoch else "No epoch was complete."
        raise ValueError(f"{error} {kept}") from None
    if watch.stop and not _complete(progress, settings):
        _leave_valid(folder, watch, progress)
    folder.read_weights(model)
    run = Run(folder, settings, model, reading)
    validation = run.judge(source.validation)
    test = run.judge(source.test) if source.test is not None else None
    final = {"final": True, "best_epoch": progress.best_epoch, "seconds": round(progress.seconds, 3), "validation": validation.scores}
    final |= {"routes": routes_taken(model)} | ({"test": test.scores} if test else {})
    with told(folder.path):
        tell(folder.path, model, task, source, test or validation, progress.history, final, settings.model_dump())
    folder.write_rows([*progress.history, final])  # last: a run with final scores has everything
    return run


def _settle(wanted: Settings, source: Source) -> Settings:
    """What the user wants upon the recipe of the source. Raises ValueError for a setting that this task has no use for."""
    chosen = recipe(source)
    settings = wanted.with_recipe(chosen)
    settings.refuse_foreign(Settings.of(wanted.source).with_recipe(chosen), source.task)
    return settings


def _build(settings: Settings, source: Source, reading: Reading) -> tuple[nn.Module, dict[str, Any]]:
    """The untrained model, and what model.json says of it. Raises ValueError for a model of another task."""
    found = catalogue.find(settings.model)
    if found.task != source.task:
        fitting = ", ".join(name for name, entry in catalogue.MODELS.items() if entry.task == source.task)
        raise ValueError(f"model {settings.model!r} is for {found.task}, but {source.name} is for {source.task}. Take one of {fitting}.")
    derived = reading.model_config()
    clash = [name for name in settings.config if name in derived]
    if clash:
        raise ValueError(f"config: {', '.join(clash)} follows from the data ({derived[clash[0]]}) and cannot be set.")
    config = catalogue.configure(settings.model, **settings.config, **derived)
    described = {"twofold": __version__, "architecture": settings.model, "config": config.as_dict(), "task": source.task}
    refuse_beyond_memory(settings.model, lambda: found.build(config), TRAINING)
    return found.build(config), {**described, **reading.as_dict(), "fingerprint": fingerprint(source)}


def _prepare(settings: Settings, source: Source, reading: Reading) -> tuple[Task, Data]:
    learning = settings.learning
    if isinstance(source, TextSource):
        text, validation_text = source.train, source.validation
        for held in (validation_text, source.test):
            if held is not None:
                text_in_order(held)  # one that is too short is told before anything is written
        streams = TextBatches(text, learning.batch_size, learning.window, learning.items_per_epoch)
        return Language.of(validation_text), Data(streams, lambda: text_in_order(validation_text))
    images, kind = source.validation, source.preparation
    pictures = PictureBatches(source.train, kind, learning.batch_size, learning.seed)
    task = Classification(reading.classes, settings.optimisation.label_smoothing)
    return task, Data(pictures, lambda: pictures_in_order(images, kind))


def _restore(
    folder: RunFolder, model: nn.Module, optimizer: torch.optim.Optimizer, description: dict[str, Any], settings: Settings
) -> Progress:
    """The progress of an earlier session, with model and optimiser set to it."""
    before = folder.read_description()
    changed = [name for name, value in description.items() if name != "twofold" and before.get(name) != value]
    if changed == ["fingerprint"]:
        raise ValueError(
            f"resume: the data of {settings.source} are not those that {folder.path} was begun with: other content, though of the same "
            "kind. Restore them, or train anew."
        )
    if changed:
        raise ValueError(
            f"resume: the source or the model changed since {folder.path} was begun ({', '.join(changed)} differ). Train anew."
        )
    progress = load_progress(folder.state, model, optimizer)
    if _complete(progress, settings) and "final" in folder.read_rows()[-1]:
        raise ValueError(f"resume: {folder.path} is complete: {progress.epoch} epochs are done. Train anew for more.")
    return progress


def _complete(progress: Progress, settings: Settings) -> bool:
    """Whether no epoch is left; the report may be."""
    return progress.epoch >= settings.learning.epochs or progress.tired(settings.learning.patience)


def _leave_valid(folder: RunFolder, watch: Watch, progress: Progress) -> None:
    """After Ctrl-C: keep the state of this very step and, before the first epoch's end, the weights as they are; then say how to go on."""
    watch.keep(progress)
    if not progress.best_epoch:
        folder.write_model(watch.model, watch.description)
        folder.write_rows(progress.history)
    kept = f"the weights of epoch {progress.best_epoch}" if progress.best_epoch else "the weights of the last step"
    raise InterruptedRun(
        f"Stopped in epoch {progress.epoch + 1} after {progress.step} of {watch.steps} steps; {folder.path} holds {kept}. "
        f"Go on with: twofold train --resume {folder.path}"
    )
