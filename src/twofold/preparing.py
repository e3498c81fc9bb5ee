"""From what the user gave to what the loop needs: source, model, task, batches, and what model.json will say of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from twofold import __version__
from twofold.adopting import as_weights_expect, take_weights
from twofold.data.amount import amount
from twofold.data.augment import Augmenter, Recipe
from twofold.data.findings import leaks
from twofold.data.fingerprint import fingerprint
from twofold.data.mixing import Mixing
from twofold.data.sources import ImageSource, Source, TextSource, open_source, require
from twofold.models import catalogue
from twofold.models.memory import TRAINING, refuse_beyond_memory
from twofold.models.weights import weights_file
from twofold.run import Reading
from twofold.tasks.classify import Classification
from twofold.tasks.language import Language
from twofold.tasks.task import Task
from twofold.train.batches import Fairness, TextBatches, text_in_order
from twofold.train.initialising import initialise
from twofold.train.loop import Data
from twofold.train.machine import moved, numbers
from twofold.train.own import OwnBatches, OwnTask
from twofold.train.penalties import set_dropout
from twofold.train.processes import World
from twofold.train.recipes import named, recipe
from twofold.train.settings import OWN, Learning, Settings
from twofold.train.shards import WHOLE, Shard
from twofold.train.streaming import batches_of, in_order
from twofold.train.transfer import frozen_of, refuse_frozen_chance

Loss = Callable[[Any, Any], Tensor]
METHODS = ("loss", "evaluate", "rank", "example", "explain")  # of a task


@dataclass(frozen=True)
class Job:
    """All that a run is made of. source and reading: None for data of one's own, which are `test` then, if there are any.

    said: sentences on the data that are told before training begins.
    """

    settings: Settings
    model: nn.Module
    task: Task
    data: Data
    description: dict[str, Any]
    source: Source | None = None
    reading: Reading | None = None
    test: Callable[[], Iterable[Any]] | None = None
    said: tuple[str, ...] = ()


def understand(
    source: Any, model: str | nn.Module, task: Task | Loss | None, given: dict[str, Any]
) -> tuple[Settings, Callable[[World], Job]]:
    """The settings, and what makes the job of them, once the world is known. Raises ValueError for what does not go together."""
    module = model if isinstance(model, nn.Module) else None
    if given.get("weights"):
        given = {**given, "weights": str(weights_file(given["weights"]).absolute())}  # which holds from every folder
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


def lasting(source: str | Path) -> str:
    """The source as settings.yaml keeps it: a name, or a path that holds from every folder. Raises ValueError where nothing lies there."""
    path = require(source)
    return str(source) if path is None else str(path.absolute())


def settle(wanted: Settings, source: Source) -> Settings:
    """What the user wants upon the recipe of the source. Raises ValueError for a setting that this task has no use for."""
    chosen = recipe(source, wanted.recipe)
    settings = wanted.with_recipe(chosen)
    if wanted.recipe:
        settings.require(f"recipe {wanted.recipe!r}", named(wanted.recipe).needs)
    settings.refuse_foreign(Settings.of(wanted.source).with_recipe(chosen), source.task)
    return settings


def prepare(wanted: Settings, settled: bool, model: nn.Module | None = None, source: Source | None = None, shard: Shard = WHOLE) -> Job:
    """The job of a source. settled: the settings are those of a run already. Torch's generator, seeded, decides the initial weights.

    Raises ValueError for sources, models and settings that do not go together.
    """
    how = wanted.data if settled or not wanted.recipe else wanted.with_recipe(named(wanted.recipe).values).data
    folder = source is None and require(wanted.source) is not None
    source = source or open_source(wanted.source, how)
    said: tuple[str, ...] = ()
    if folder and not settled and isinstance(source, ImageSource):
        source = source._replace(notes=(*source.notes, *leaks(source)))
        left_out = f"{amount(len(source.skipped), 'file is', 'files are')} left out; twofold data check {wanted.source} names them"
        said = (*source.notes, left_out) if source.skipped else source.notes
    settings = wanted if settled else settle(wanted, source)
    if not settled:
        settings, source = as_weights_expect(settings, source)
    reading = Reading.of(source)
    if model is None:
        if not settled:
            refuse_frozen_chance(settings.transfer, settings.model)
        model, described = _built(settings, source, reading)
    else:
        described = describe_own(model, settings)
    described |= {"twofold": __version__, "task": source.task, **reading.as_dict(), "fingerprint": fingerprint(source)}
    drop(model, settings)
    task, data = _of_source(settings, source, reading, shard)
    return Job(settings, model, task, data, described, source, reading, said=said)


def prepare_own(settings: Settings, data: Any, model: nn.Module, task: Task | Loss, shard: Shard = WHOLE) -> Job:
    """The job of a model, a loss (or a task) and data of one's own: (training, validation) or (training, validation, test).

    Raises ValueError for data of another form.
    """
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        got = f"{len(data)} values" if isinstance(data, tuple | list) else type(data).__name__
        raise ValueError(f"fit: expected data of one's own as (training, validation) or (training, validation, test), got {got}.")
    usual = {"label_smoothing": 0.0}  # the loss is the user's own
    settings = settings.with_recipe(usual)
    settings.refuse_foreign(Settings.of(OWN).with_recipe(usual), OWN)
    learning = settings.learning
    with torch.random.fork_rng():  # to look into the data draws nothing of what training draws
        training = OwnBatches(data[0], learning.batch_size, learning.seed, shard)
        others = [OwnBatches(part, learning.batch_size, learning.seed) for part in data[1:]]
        training.steps()
    if not any(part.is_set for part in (training, *others)) and learning.batch_size != Learning().batch_size:
        raise ValueError(f"fit: batch_size={learning.batch_size} is for data sets: your data are batches already. Leave batch_size out.")
    if training.is_set and learning.batch_size % learning.accumulate:
        raise ValueError(f"fit: batch_size={learning.batch_size} cannot be taken in accumulate={learning.accumulate} equal parts.")
    drop(model, settings)
    described = {**describe_own(model, settings), "twofold": __version__, "task": OWN}
    test = others[1].in_order if len(others) == 2 else None
    return Job(settings, model, _own_task(task), Data(training, others[0].in_order), described, test=test)


def _own_task(given: Task | Loss) -> Task:
    """A task as it is, a loss as a task. Raises ValueError for half a task, and for what is neither."""
    if not hasattr(given, "evaluate"):
        if not callable(given):
            raise ValueError(f"fit: expected task to be a loss(output, target) or a Task, got {type(given).__name__}.")
        return OwnTask(given)
    missing = [name for name in METHODS if not callable(getattr(given, name, None))]
    if missing:
        raise ValueError(f"fit: {type(given).__name__} is no whole Task: it has no {' and no '.join(missing)}. See tasks/task.py.")
    return given  # type: ignore[return-value]  # it has all that a Task has


def begin_weights(job: Job, world: World) -> tuple[str, ...]:
    """The initial weights of the settings, and a look at them; those of a file over them. Sentences on what was taken, and what is frozen.

    Raises ValueError for weights of another architecture, and for what cannot be frozen.
    """
    settings = job.settings

    def loss(model: nn.Module, batch: Any) -> Tensor:
        with numbers(settings.machine, world.device):
            return job.task.loss(model, moved(batch, world.device), None).loss

    initialise(job.model, settings.initialisation, job.data.training.epoch(0), loss)
    frozen = frozen_of(job.model, settings.transfer)
    said = (frozen,) if frozen else ()
    if not settings.transfer.weights:
        return said
    taken = take_weights(job.model, settings.transfer.weights, settings.model, "new" if settings.transfer.new_head else "fitting")
    job.description["weights"] = taken.described
    how = settings.data.normalise
    pictures = () if how is None else (f"Pictures are normalised by {how} (--normalise says otherwise).",)
    return (taken.said, *pictures, *said)


def describe_own(model: nn.Module, settings: Settings) -> dict[str, Any]:
    """What model.json says of a model that a user brought: its name, and that it must be given again to be loaded.

    Raises ValueError for a configuration, for weights that are not built yet, and for a state that is no tensor.
    """
    if settings.config:
        raise ValueError(f"config: {', '.join(settings.config)} cannot be set: the model is given as it is.")
    lazy = [name for name, weight in model.named_parameters() if isinstance(weight, UninitializedParameter)]
    if lazy:
        raise ValueError(f"fit: {lazy[0]} of the model is not built yet (a lazy layer). Call the model with a batch first.")
    strange = [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]
    if strange:
        raise ValueError(
            f"fit: {strange[0]} in the state of the model is no tensor (get_extra_state), and model.safetensors holds nothing else. Make "
            "it a buffer."
        )
    return {"architecture": OWN, "config": {}, "class": f"{type(model).__module__}.{type(model).__qualname__}"}


def drop(model: nn.Module, settings: Settings) -> None:
    """The dropout of the settings, where there is any. Raises ValueError for a model that drops nothing."""
    if settings.regularisation.dropout is not None:
        set_dropout(model, settings.regularisation.dropout)


def _built(settings: Settings, source: Source, reading: Reading) -> tuple[nn.Module, dict[str, Any]]:
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
    refuse_beyond_memory(settings.model, lambda: found.build(config), TRAINING)
    return found.build(config), {"architecture": catalogue.canonical(settings.model), "config": config.as_dict()}


def _of_source(settings: Settings, source: Source, reading: Reading, shard: Shard) -> tuple[Task, Data]:
    learning, how, against = settings.learning, settings.streams, settings.regularisation
    if isinstance(source, TextSource):
        text, validation_text = source.train, source.validation
        for held in (validation_text, source.test):
            if held is not None:
                text_in_order(held)  # one that is too short is told before anything is written
        if how.documents and (text.starts_D is None or len(text.starts_D) < 2):
            raise ValueError(f"settings: documents=true, but of {source.name} it is not known where a file begins. Leave documents out.")
        streams = TextBatches(text, learning.batch_size, how.window, how.items_per_epoch, shard, how.bptt, how.documents)
        return Language.of(validation_text), Data(streams, lambda: text_in_order(validation_text))
    assert isinstance(source, ImageSource)
    images, kind = source.validation, source.preparation
    recipe_of = settings.augmentation.recipe
    augmenter = None if recipe_of == Recipe() else Augmenter(recipe_of, learning.seed)
    mixes = against.mixup or against.cutmix
    mixing = Mixing(len(reading.classes), against.mixup, against.cutmix, against.label_smoothing, learning.seed) if mixes else None
    workers = settings.machine.workers
    balance = settings.balance
    weights = balance.weights(source.train.y_B, len(reading.classes))
    fairness = Fairness(weights, against.label_smoothing, balance.sampler == "balanced")
    pictures = batches_of(source.train, kind, learning.batch_size, learning.seed, shard, workers, augmenter, mixing, fairness)
    task = Classification(reading.classes, against.label_smoothing, balance.choose_by)
    return task, Data(pictures, lambda: in_order(images, kind, workers=workers))
