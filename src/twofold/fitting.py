"""Fitting: from a source to a trained model in a run folder. `twofold.fit` is `twofold train`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twofold.data.sources import Source
from twofold.data.values import ImageSource, TextSource
from twofold.layers.routes import routes_taken
from twofold.preparing import OWN, Job, lasting, prepare, prepare_own
from twofold.run import Reading, Run
from twofold.see.story import tell
from twofold.see.watched import first_filters, samples
from twofold.tasks.task import Task
from twofold.train.faults import NotFiniteError
from twofold.train.folder import RunFolder, told
from twofold.train.initialising import initialise
from twofold.train.joining import join
from twofold.train.keeper import Keeper
from twofold.train.learner import Learner
from twofold.train.lock import locked
from twofold.train.loop import learn
from twofold.train.machine import device_of, moved, numbers
from twofold.train.processes import World
from twofold.train.rate_finder import RateCurve, put_back
from twofold.train.rate_finder import find_rate as range_test
from twofold.train.settings import Settings
from twofold.train.signals import StoppedError, Wish, listening
from twofold.train.trackers import Trackers
from twofold.train.watch import AfterEpoch, Lines, Watch

Loss = Callable[[Any, Any], Tensor]


def fit(
    source: Any, *, model: str | nn.Module = "", task: Task | Loss | None = None, out: str | Path | None = None, overwrite: bool = False,
    quiet: bool = False, after_epoch: AfterEpoch | None = None, **settings: Any,
) -> Run:  # fmt: skip
    """Train a model and return the run.

    source: a name or a path; an opened source (twofold.data.sources.open_source); or data of your own, (training, validation) or
    (training, validation, test), each an iterable of batches or a data set of PyTorch's form.
    model: the name of an architecture (default: by the source), or any module; it is trained in place.
    task: for data of your own, a loss(output, target) or a Task (tasks/task.py).
    Any setting may be given by its flat name: epochs=10, learning_rate=1e-3, seed=1, config={"units": 256}. What is not given follows the
    recipe of the source. `out` is the run folder (default: runs/NAME); one that holds a run is refused unless `overwrite` is true.
    after_epoch(epoch, score, scores) is called after every epoch, and ends the run where it raises.
    Raises ValueError for sources and settings that cannot be, before anything is written.
    """
    wanted, prepared = _read(source, model, task, settings)
    folder = RunFolder(out if out is not None else Path("runs") / (Path(wanted.source).resolve().stem or "run"))
    with torch.random.fork_rng(), join(device_of(wanted.machine).type) as world:
        if world.first:
            folder.check_free(overwrite)
        torch.manual_seed(wanted.learning.seed)
        return _train(prepared(world), folder, world, quiet, overwrite=overwrite, after_epoch=after_epoch)


def resume(path: str | Path, *, model: nn.Module | None = None, force: bool = False, quiet: bool = False) -> Run:
    """Go on with an interrupted run. model: that of a run whose model was a module of one's own.

    Raises ValueError where there is nothing to go on with, and, unless `force` is true, where its data or its model have changed.
    """
    folder = RunFolder(path)
    settings = folder.read_settings()
    if settings.source == OWN:
        raise ValueError(f"resume: {path} was trained on data of one's own, which it does not hold. Begin anew with fit(...).")
    if settings.model == OWN and model is None:
        raise ValueError(f"resume: {path} has a model of one's own: give it, as it was built, resume(path, model=...).")
    with torch.random.fork_rng(), join(device_of(settings.machine).type) as world:
        torch.manual_seed(settings.learning.seed)
        job = prepare(settings, True, model, None, world.shard)
        return _train(job, folder, world, quiet, again=True, force=force)


def find_rate(source: Any, *, model: str | nn.Module = "", task: Task | Loss | None = None, steps: int = 100, **settings: Any) -> RateCurve:
    """The learning rate range test of a training that `fit` with the same arguments would begin: its curve, and a suggestion.

    A model that is given is as before afterwards, bit for bit.
    """
    wanted, prepared = _read(source, model, task, settings)
    with torch.random.fork_rng():
        torch.manual_seed(wanted.learning.seed)
        world = World(device=device_of(wanted.machine))
        job = prepared(world)
        job.model.to(world.device)
        if not isinstance(model, nn.Module):
            _begin_weights(job, world)
        learner = Learner(job.model, job.task, job.settings, job.data.training.steps(), world)
        batches = (batch for epoch in count() for batch in job.data.training.epoch(epoch))
        with put_back(job.model, learner.optimizer):
            learner.begin()
            return range_test(lambda rate: learner.step(next(batches), rate=rate).loss, steps=steps)


def _read(source: Any, model: str | nn.Module, task: Task | Loss | None, given: dict[str, Any]) -> tuple[Settings, Callable[[World], Job]]:
    """The settings, and what makes the job of them, once the world is known. Raises ValueError for what does not go together."""
    module = model if isinstance(model, nn.Module) else None
    named = {"model": model} if isinstance(model, str) and model else {"model": OWN} if module is not None else {}
    if not isinstance(source, str | Path | ImageSource | TextSource):
        if module is None or task is None:
            example = "fit(data, model=..., task=torch.nn.functional.cross_entropy)"
            raise ValueError(f"fit: data of your own need a model (a module) and a task (a loss, or a Task): {example}.")
        wanted = Settings.of(OWN, **named, **given)
        return wanted, lambda world: prepare_own(wanted, source, module, task, world.shard)
    if task is not None:
        raise ValueError("fit: a task is for data of your own; what is learnt from a source follows from the source. Leave task out.")
    opened: Source | None = None if isinstance(source, str | Path) else source
    wanted = Settings.of(lasting(source) if isinstance(source, str | Path) else source.name, **named, **given)
    return wanted, lambda world: prepare(wanted, False, module, opened, world.shard)


def _train(
    job: Job, folder: RunFolder, world: World, quiet: bool, again: bool = False, overwrite: bool = False, force: bool = False,
    after_epoch: AfterEpoch | None = None,
) -> Run:  # fmt: skip
    settings, lines = job.settings, Lines(quiet or not world.first)
    world.expect_same("processes: the settings", settings.model_dump(mode="json"))
    job.model.to(world.device)
    if not again:
        _begin_weights(job, world)
    if world.processes > 1:
        world.reseed(settings.learning.seed)
    trackers = Trackers(settings.watching, lines.say, _drawn(job)) if world.first else None
    learner = Learner(job.model, job.task, settings, job.data.training.steps(), world, folder.path / "faults", lines.say)
    keeper = Keeper(folder, settings.keeping, job.description, lines.say, {} if trackers is None else {"trackers": trackers})
    with locked(folder.path) if world.first else nullcontext(), listening() as wish:
        if again:
            _take_up(learner, keeper, job, folder, force)
        else:
            if world.first:
                folder.check_free(overwrite)  # once more: another run may have been made meanwhile
                folder.clear()
                folder.write_settings(settings)
            keeper.begin(learner)
        with _tracked(trackers, job, folder, learner.number) as scores:
            _learn(learner, keeper, job, Watch(learner, keeper, trackers, wish, lines, after_epoch))
            if learner.unfinished():
                _leave_valid(folder, keeper, learner, wish)
            if world.first:
                scores.append(_finish(learner, keeper, job, folder))
    return Run(folder, settings, job.model, job.reading or Reading(), job.task)


@contextmanager
def _tracked(trackers: Trackers | None, job: Job, folder: RunFolder, number: int) -> Iterator[list[dict[str, Any]]]:
    """A block in which the trackers are told; it leaves the final scores, where it comes so far, in the list."""
    scores: list[dict[str, Any]] = []
    if trackers is None:
        yield scores
        return
    example = job.task.example(next(iter(job.data.training.epoch(0)))) if job.settings.watching.graph else ()
    with torch.random.fork_rng():
        trackers.begin(folder.path, job.settings.model_dump(mode="json"), job.model, example, number)
    try:
        yield scores
        for picture in sorted((folder.path / "pictures").glob("*.png")):
            trackers.picture(scores[0]["step"], f"report/{picture.stem}", picture)
    finally:
        trackers.end(scores[0] if scores else None)


def _drawn(job: Job) -> Callable[[nn.Module], Any] | None:
    """What draws the pictures of a model in training: filters, and samples with what they are taken for."""
    source = job.source
    if not isinstance(source, ImageSource):
        return first_filters
    held = source.validation
    return lambda model: first_filters(model) | samples(model, held.x_BCHW, held.y_B, source.preparation, source.classes)


def _begin_weights(job: Job, world: World) -> None:
    """The initial weights of the settings, and a look at them."""
    machine = job.settings.machine

    def loss(model: nn.Module, batch: Any) -> Tensor:
        with numbers(machine, world.device):
            return job.task.loss(model, moved(batch, world.device), None).loss

    initialise(job.model, job.settings.initialisation, job.data.training.epoch(0), loss)


def _learn(learner: Learner, keeper: Keeper, job: Job, watch: Watch) -> None:
    """Train, and, where patience ends, go back to the best."""
    try:
        with watch.watching():
            learn(learner, job.data, watch)
    except NotFiniteError as error:
        best = learner.progress.best_epoch
        kept = f"The weights of epoch {best} are kept in {keeper.folder.path}." if best else "No epoch was complete."
        raise ValueError(f"{error} {kept}") from None
    progress, learning = learner.progress, learner.settings.learning
    if progress.epoch < learning.epochs and progress.tired(learning.patience) and not progress.stopped_epoch:
        keeper.end_early(learner)


def _finish(learner: Learner, keeper: Keeper, job: Job, folder: RunFolder) -> dict[str, Any]:
    """The final scores, of the best weights, and the report."""
    keeper.finish()
    folder.read_weights(job.model)
    run, progress, clock = Run(folder, job.settings, job.model, job.reading or Reading(), job.task), learner.progress, learner.clock
    final: dict[str, Any] = {"final": True, "best_epoch": progress.best_epoch, "step": learner.number}
    final |= {"seconds": round(sum(clock.seconds.values()), 3)}
    if job.source is not None:
        validation = run.judge(job.source.validation)
        test = run.judge(job.source.test) if job.source.test is not None else None
    else:
        validation = job.task.evaluate(job.model, job.data.validation())
        test = job.task.evaluate(job.model, job.test()) if job.test is not None else None
    final |= {"validation": validation.scores, **({"test": test.scores} if test else {})}
    final |= {"routes": routes_taken(job.model), "time": {phase: round(share, 4) for phase, share in clock.shares().items()}}
    final |= {"stopped_epoch": progress.stopped_epoch} if progress.stopped_epoch else {}
    with told(folder.path):
        tell(folder.path, job.model, job.task, job.source, test or validation, progress.history, final, job.settings.model_dump())
    folder.write_rows([*progress.history, final])  # last: a run with final scores has everything
    return final


def _take_up(learner: Learner, keeper: Keeper, job: Job, folder: RunFolder, force: bool) -> None:
    """The learner where the last session left it. Raises ValueError where that was with other data or another model, or is complete."""
    keeper.take_up(learner, check=lambda described: None if force else _refuse_changed(folder, described, job))
    rows = folder.read_rows() if learner.world.first and (folder.path / "metrics.jsonl").exists() else []
    if learner.world.agree(bool(rows) and "final" in rows[-1]) and not learner.unfinished():
        raise ValueError(f"resume: {folder.path} is complete: {learner.progress.epoch} epochs are done. Train anew for more.")


def _refuse_changed(folder: RunFolder, before: dict[str, Any], job: Job) -> None:
    changed = [name for name, value in job.description.items() if name != "twofold" and before.get(name) != value]
    if changed == ["fingerprint"]:
        raise ValueError(
            f"resume: the data of {job.settings.source} are not those that {folder.path} was begun with: other content, though of the same "
            "kind. Restore them, train anew, or go on all the same with --force."
        )
    if changed:
        differences = "; ".join(f"{name} was {_short(before.get(name))}, now {_short(job.description[name])}" for name in changed)
        raise ValueError(
            f"resume: the source or the model changed since {folder.path} was begun ({', '.join(changed)} differ): {differences}. "
            "Train anew, or go on all the same with --force."
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _leave_valid(folder: RunFolder, keeper: Keeper, learner: Learner, wish: Wish) -> None:
    """After a signal: keep the state of this step and, before the first epoch's end, the weights as they are; then say how to go on."""
    keeper.stopped(learner)
    keeper.finish()
    progress = learner.progress
    kept = f"the weights of epoch {progress.best_epoch}" if progress.best_epoch else "the weights of the last step"
    raise StoppedError(
        f"Stopped in epoch {progress.epoch + 1} after {progress.step} of {learner.steps} steps; {folder.path} holds {kept}. "
        f"Go on with: twofold train --resume {folder.path}",
        *([wish.number] if wish.number is not None else []),
    )
