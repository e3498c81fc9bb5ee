"""Fitting: from a source to a trained model in a run folder. `twofold.fit` is `twofold train`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from twofold.data.values import ImageSource
from twofold.layers.routes import routes_taken
from twofold.preparing import Job, Loss, begin_weights, prepare, prepare_own, understand
from twofold.range_test import find_rate
from twofold.run import Reading, Run
from twofold.see.story import tell
from twofold.see.watched import first_filters, samples
from twofold.tasks.baselines import majority_in
from twofold.tasks.task import Task
from twofold.train.faults import NotFiniteError
from twofold.train.flat import flat
from twofold.train.folder import RunFolder, told
from twofold.train.joining import join
from twofold.train.keeper import Keeper
from twofold.train.learner import Learner
from twofold.train.lock import locked
from twofold.train.loop import learn
from twofold.train.machine import Machine, device_of, placed
from twofold.train.processes import CPU, World
from twofold.train.settings import OWN, Settings
from twofold.train.sharded import refuse_unshardable
from twofold.train.signals import StoppedError, Wish, listening
from twofold.train.synchronised import synchronise
from twofold.train.trackers import Trackers
from twofold.train.watch import AfterEpoch, Lines, Watch

__all__ = ["find_rate", "fit", "resume"]


def fit(
    source: Any, *, model: str | nn.Module = "", task: Task | Loss | None = None, out: str | Path | None = None, overwrite: bool = False,
    quiet: bool = False, after_epoch: AfterEpoch | None = None, **settings: Any,
) -> Run:  # fmt: skip
    """Train a model and return the run.

    source: a name or a path; an opened source (twofold.data.sources.open_source); or data of your own, (training, validation) or
    (training, validation, test), each an iterable of batches or a data set of PyTorch's form.
    model: the name of an architecture (default: by the source), or any module; it is trained in place, and is on the processor afterwards.
    task: for data of your own, a loss(output, target) or a Task (tasks/task.py).
    Any setting may be given by its flat name: epochs=10, learning_rate=1e-3, seed=1, config={"units": 256}. What is not given follows the
    recipe of the source. `out` is the run folder (default: runs/NAME); one that holds a run is refused unless `overwrite` is true.
    after_epoch(epoch, score, scores) is called after every epoch, and ends the run where it raises.
    Raises ValueError for sources and settings that cannot be, before anything is written.
    """
    wanted, prepared = understand(source, model, task, settings)
    folder = RunFolder(out if out is not None else Path("runs") / (Path(wanted.source).resolve().stem or "run"))
    with torch.random.fork_rng(), join(device_of(wanted.machine).type) as world:
        again = world.agree(world.restarts > 0 and any((folder.path / "state").glob("*.safetensors")))  # torchrun started it anew
        if world.first and not again:
            folder.check_free(overwrite)
        torch.manual_seed(wanted.learning.seed)
        return _train(prepared(world), folder, world, quiet, again=again, overwrite=overwrite, after_epoch=after_epoch)


def resume(
    path: str | Path, *, source: Any = None, model: nn.Module | None = None, task: Task | Loss | None = None, force: bool = False,
    quiet: bool = False,
) -> Run:  # fmt: skip
    """Go on with an interrupted run. model: that of a run whose model was a module of one's own, as it was built; source and task: those
    of a run on data of one's own, whose order goes on where it was, that of a DataLoader that shuffles, too.

    Raises ValueError where there is nothing to go on with, and, unless `force` is true, where its data or its model have changed.
    """
    folder = RunFolder(path)
    settings = folder.read_settings()
    own = settings.source == OWN
    if own and (source is None or model is None or task is None):
        raise ValueError(f"resume: {path} was trained on data of one's own: give all as before, {_call(settings, path)}.")
    if not own and (source is not None or task is not None):
        raise ValueError(f"resume: {path} knows its source, {settings.source}, and what is learnt from it. Give no source and no task.")
    if settings.model == OWN and model is None:
        raise ValueError(f"resume: {path} has a model of one's own: give it, as it was built, {_call(settings, path)}.")
    if settings.model != OWN and model is not None:
        raise ValueError(f"resume: {path} knows its model, {settings.model}, and builds it anew. Give none.")
    with torch.random.fork_rng(), join(device_of(settings.machine).type) as world:
        torch.manual_seed(settings.learning.seed)
        if own and model is not None and task is not None:
            job = prepare_own(settings, source, model, task, world.shard)
        else:
            job = prepare(settings, True, model, None, world.shard)
        return _train(job, folder, world, quiet, again=True, force=force)


def _train(
    job: Job, folder: RunFolder, world: World, quiet: bool, again: bool = False, overwrite: bool = False, force: bool = False,
    after_epoch: AfterEpoch | None = None,
) -> Run:  # fmt: skip
    settings, lines = job.settings, Lines(quiet or not world.first)
    _refuse_other_world(settings.machine, world)
    refuse_unshardable(settings, world)
    world.expect_same("processes: the settings", settings.model_dump(mode="json"))
    home = replace(world, device=CPU) if settings.machine.shard_weights else world  # the device shall never hold all of it
    job.model.to(home.device)
    if not again:
        for sentence in (*job.said, *begin_weights(job, home)):
            lines.say(sentence)
    if world.processes > 1:
        if settings.machine.sync_batchnorm:
            synchronise(job.model)
        world.reseed(settings.learning.seed)
    trackers = Trackers(settings.watching, lines.say, _drawn(job)) if world.first else None
    learner = Learner(job.model, job.task, settings, job.data.training.steps(), world, folder.path / "faults", lines.say)
    keeper = Keeper(folder, settings.keeping, job.description, lines.say, {} if trackers is None else {"trackers": trackers})
    with _held(folder, world), listening() as wish:
        if again:
            _take_up(learner, keeper, job, folder, force)
        else:
            if world.first:
                folder.check_free(overwrite)  # once more: another run may have been made meanwhile
                folder.clear()
                folder.write_settings(settings)
            try:
                keeper.begin(learner)
            except ValueError:
                folder.clear()  # nothing was trained: the same command may come again
                raise
        try:
            with _tracked(trackers, job, folder, learner.number) as scores:
                _learn(learner, keeper, job, Watch(learner, keeper, trackers, wish, lines, after_epoch))
                learner.put_together()
                if learner.unfinished():
                    _leave_valid(folder, keeper, learner, wish)
                if world.first:
                    scores.append(_finish(learner, keeper, job, folder))
        except Exception:
            keeper.wait()  # whoever comes next shall find no write going on
            if world.first and not (again or learner.number or (folder.path / "faults").exists()):
                folder.clear()  # nothing was trained: the same call, mended, may come again
            raise
    job.model.cpu()
    return Run(folder, settings, job.model, job.reading or Reading(), job.task, scores[0] if scores else None)


def _refuse_other_world(machine: Machine, world: World) -> None:
    """Raise ValueError where the settings ask for other processes than there are."""
    if machine.processes not in (1, world.processes):
        there = "this process is alone" if world.processes == 1 else f"there are {world.processes}"
        raise ValueError(
            f"processes={machine.processes}, but {there}. From Python, start as many with torchrun --nproc-per-node {machine.processes}; "
            "twofold train --processes starts them by itself."
        )
    if machine.sync_batchnorm and world.processes == 1:
        raise ValueError("sync_batchnorm is for several processes, and this one is alone. Leave it out, or take --processes 2.")


@contextmanager
def _held(folder: RunFolder, world: World) -> Iterator[None]:
    """A block in which no other process writes the folder. Raises ValueError where one does, and where nobody can."""
    with ExitStack() as held:
        if world.first:
            with told(folder.path):
                held.enter_context(locked(folder.path))
        yield


@contextmanager
def _tracked(trackers: Trackers | None, job: Job, folder: RunFolder, number: int) -> Iterator[list[dict[str, Any]]]:
    """A block in which the trackers are told; it leaves the final scores, where it comes so far, in the list."""
    scores: list[dict[str, Any]] = []
    if trackers is None:
        yield scores
        return
    with torch.random.fork_rng():
        watching, machine = job.settings.watching, job.settings.machine
        drawn = watching.graph and not number and not machine.shard_weights  # a cut model's first process has no weights to trace
        example = job.task.example(next(placed(job.data.training.epoch(0), job.model))) if drawn else ()
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
    return lambda model: first_filters(model) | samples(model, held, source.preparation, source.classes)


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
    keeper.finish(learner)
    folder.read_weights(job.model)
    run, progress, clock = Run(folder, job.settings, job.model, job.reading or Reading(), job.task), learner.progress, learner.clock
    final: dict[str, Any] = {"final": True, "best_epoch": progress.best_epoch, "step": learner.number}
    final |= {"seconds": round(sum(clock.seconds.values()), 3)}
    if job.source is not None:
        validation = run.judge(job.source.validation)
        test = run.judge(job.source.test) if job.source.test is not None else None
    else:
        validation = job.task.evaluate(job.model, placed(job.data.validation(), job.model))
        test = job.task.evaluate(job.model, placed(job.test(), job.model)) if job.test is not None else None
    job.model.cpu()
    final |= {"validation": validation.scores, **({"test": test.scores} if test else {})}
    final |= {"routes": routes_taken(job.model), "time": {phase: round(share, 4) for phase, share in clock.shares().items()}}
    final |= {"stopped_epoch": progress.stopped_epoch} if progress.stopped_epoch else {}
    final |= {"majority": majority_in(job.source)} if isinstance(job.source, ImageSource) else {}
    try:
        with told(folder.path):
            tell(folder.path, job.model, job.task, job.source, test or validation, progress.history, final, job.settings.model_dump())
        folder.write_rows([*progress.history, final])  # last: a run with final scores has everything
    except ValueError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        keeper.tell(f"{error} The weights are kept; the report and the final scores are not: twofold train --resume {folder.path}")
    return final


def _take_up(learner: Learner, keeper: Keeper, job: Job, folder: RunFolder, force: bool) -> None:
    """The learner where the last session left it. Raises ValueError where that was with other data or another model, or is complete."""

    def check(described: dict[str, Any], settings: dict[str, Any]) -> None:
        job.description.update({name: described[name] for name in ("weights",) if name in described})  # the file itself is not needed
        if not force:
            _refuse_changed(folder, described, settings, job)

    keeper.take_up(learner, check)
    rows = folder.read_rows() if learner.world.first and (folder.path / "metrics.jsonl").exists() else []
    if learner.world.agree(bool(rows) and "final" in rows[-1]) and not learner.unfinished():
        raise ValueError(f"resume: {folder.path} is complete: {learner.progress.epoch} epochs are done. Train anew for more.")


def _refuse_changed(folder: RunFolder, before: dict[str, Any], settings: dict[str, Any], job: Job) -> None:
    """Raise ValueError where the data, the model or settings that decide the weights are not those of the checkpoint."""
    then, now = (_deciding(each) for each in (settings, job.settings.model_dump(mode="json")))
    edited = [f"{name} was {then[name]}, now {now[name]}" for name in then.keys() & now.keys() if then[name] != now[name]]
    if edited:
        raise ValueError(
            f"resume: settings.yaml of {folder.path} was changed since it was begun: {'; '.join(sorted(edited))}. "
            "Change it back, train anew, or go on all the same with --force."
        )
    changed = [name for name, value in job.description.items() if name != "twofold" and before.get(name) != value]
    if changed == ["fingerprint"]:
        raise ValueError(
            f"resume: the data of {job.settings.source} are not those that {folder.path} was begun with: other content, though of the same "
            "kind. Restore them, train anew, or go on all the same with --force."
        )
    if changed:
        differences = "; ".join(line for name in changed for line in _differences(name, before.get(name), job.description[name]))
        raise ValueError(
            f"resume: the source or the model changed since {folder.path} was begun ({', '.join(changed)} differ): {differences}. "
            "Train anew, or go on all the same with --force."
        )


def _deciding(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, by flat names, that the weights depend on and that nothing else watches over."""
    parts = ("learning", "streams", "optimisation", "scheduling", "regularisation", "augmentation", "balance", "transfer", "machine")
    freely = ("device", "processes", "shard_weights", "workers", "weights")
    return {name: value for name, value in flat({part: settings.get(part, {}) for part in parts}).items() if name not in freely}


def _differences(name: str, before: Any, now: Any) -> list[str]:
    """What has become another value, by its innermost name; of lists what is gone and what is new."""
    if isinstance(before, dict) and isinstance(now, dict):
        changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return [line for key in changed for line in _differences(f"{name}.{key}", before.get(key), now.get(key))]
    if isinstance(before, list) and isinstance(now, list):
        gone, new = (sorted(set(map(str, one)) - set(map(str, other))) for one, other in ((before, now), (now, before)))
        if gone or new:
            return [f"{name} lost {_short(gone)} and won {_short(new)}"]
    return [f"{name} was {_short(before)}, now {_short(now)}"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _leave_valid(folder: RunFolder, keeper: Keeper, learner: Learner, wish: Wish) -> None:
    """After a signal: keep the state of this step and, before the first epoch's end, the weights as they are; then say how to go on."""
    keeper.stopped(learner)
    keeper.wait()
    progress, epoch = learner.progress, keeper.written()
    kept = "no weights" if epoch is None else f"the weights of epoch {epoch}" if epoch else "the weights of the last step"
    raise StoppedError(
        f"Stopped in epoch {progress.epoch + 1} after {progress.step} of {learner.steps} steps; {folder.path} holds {kept}. "
        f"Go on with: {_call(learner.settings, folder.path)}",
        *([wish.number] if wish.number is not None else []),
    )


def _call(settings: Settings, path: str | Path) -> str:
    """How to go on with a run: the command, or, for parts of one's own, what Python needs."""
    if settings.source == OWN:
        return f'twofold.resume("{path}", source=..., model=..., task=...)'
    return f'twofold.resume("{path}", model=...)' if settings.model == OWN else f"twofold train --resume {path}"
