"""Settings of a run: what to learn from, with which model, for how long and how. Frozen, checked, written to settings.yaml.

Each part stands beside what it sets (optimizers.py, schedules.py, ...), and a default is written once, there. `with_recipe` lays the recipe
of the source under what the user set: whatever the user set stays.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from twofold.data.options import DataOptions
from twofold.train.augmenting import Augmentation
from twofold.train.balance import Balance
from twofold.train.bptt import Streams
from twofold.train.checkpoints import Keeping
from twofold.train.faults import Safety
from twofold.train.initialising import Initialisation
from twofold.train.machine import Machine
from twofold.train.optimizers import MEMORYLESS, Optimisation
from twofold.train.part import Part
from twofold.train.penalties import Regularisation
from twofold.train.schedules import Scheduling
from twofold.train.trackers import Watching
from twofold.train.transfer import Transfer

OWN = "own"  # the source of data that a user brought, and the architecture of a model that a user brought


class Learning(Part):
    """For how long, and in which portions."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    """How many epochs at most."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Pictures in a batch; for text, parallel streams."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Take each batch in so many parts, whose gradients are added up: for batches that do not fit into memory."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after this many epochs without a better validation score, and go back to the best; 0: never."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Decides the initial weights, the order of the data and every dropout mask."""


class Settings(Part):
    """Everything that is needed to repeat a run."""

    source: str
    """A name (see `twofold data`), a folder of pictures, or a text."""
    model: str = ""
    """The name of an architecture (see `twofold models`). Default: by the source."""
    config: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Changes to the model's configuration: units=256 layers=2."""
    recipe: str = ""
    """The name of a recipe (see `twofold recipes`). Default: by the source."""
    data: DataOptions = Field(default_factory=DataOptions)
    learning: Learning = Field(default_factory=Learning)
    streams: Streams = Field(default_factory=Streams)
    optimisation: Optimisation = Field(default_factory=Optimisation)
    scheduling: Scheduling = Field(default_factory=Scheduling)
    regularisation: Regularisation = Field(default_factory=Regularisation)
    augmentation: Augmentation = Field(default_factory=Augmentation)
    balance: Balance = Field(default_factory=Balance)
    initialisation: Initialisation = Field(default_factory=Initialisation)
    transfer: Transfer = Field(default_factory=Transfer)
    safety: Safety = Field(default_factory=Safety)
    keeping: Keeping = Field(default_factory=Keeping)
    machine: Machine = Field(default_factory=Machine)
    watching: Watching = Field(default_factory=Watching)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        """What each part allows, and all of them together do not."""
        learning, how = self.learning, self.scheduling
        if self.source != OWN and learning.batch_size % learning.accumulate:
            raise ValueError(
                f"batch_size={learning.batch_size} cannot be taken in accumulate={learning.accumulate} equal parts. Take a multiple of "
                f"{learning.accumulate}."
            )
        if how.schedule == "plateau" and 0 < learning.patience <= how.rate_patience:
            raise ValueError(
                f"rate_patience={how.rate_patience} never comes to an end, for patience={learning.patience} ends the run first. Take a "
                "smaller rate_patience, or a larger patience (0: none)."
            )
        if how.low_momentum is not None and self.optimisation.optimizer in MEMORYLESS:
            raise ValueError(
                f"low_momentum={how.low_momentum:g} is read by nothing: {self.optimisation.optimizer} has no momentum. Leave it out."
            )
        return self

    @classmethod
    def of(cls, source: str, **flat: Any) -> Self:
        """Settings from flat names: epochs=5, learning_rate=1e-3, image_size=32. Raises ValueError naming what is wrong."""
        parts: dict[str, Any] = {"source": source, **{home: {} for home in _HOMES}}
        for name, value in flat.items():
            home = _home(name)
            (parts if home is None else parts[home])[name] = value
        return cls.checked(parts)

    @classmethod
    def checked(cls, values: Any) -> Self:
        """Settings from nested values, as settings.yaml has them. Raises ValueError in one sentence for each mistake."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ValueError(spoken(error)) from None

    def with_recipe(self, recipe: dict[str, Any]) -> Self:
        """The same settings, with the recipe's values where the user set none; its config only for its own model."""
        parts = self.model_dump()
        usual = DataOptions()
        other = "model" in self.model_fields_set and self.model != recipe.get("model", self.model)
        for name, value in recipe.items():
            if name == "config" and other:
                continue
            home = _home(name)
            if home == "data":  # a plain dataclass, which does not remember what was set
                untouched = getattr(self.data, name) == getattr(usual, name)
            else:
                part: BaseModel = self if home is None else getattr(self, home)
                untouched = name not in part.model_fields_set
            if untouched:
                (parts if home is None else parts[home])[name] = value
        return self.checked(parts)

    def require(self, who: str, names: Iterable[str]) -> None:
        """Raise ValueError for the first of these settings that nobody has set."""
        for name in names:
            home = _home(name)
            if not getattr(self if home is None else getattr(self, home), name):
                raise ValueError(f"{who} needs {name}: give --{name.replace('_', '-')} (from Python: {name}=...).")

    def refuse_foreign(self, usual: Self, task: str) -> None:
        """Raise ValueError for a setting that the task has no use for, and that is not what it usually is."""
        for name in FOREIGN.get(task, ()):
            home = _home(name)
            assert home is not None
            value = getattr(getattr(self, home), name)
            if value == getattr(getattr(usual, home), name):
                continue
            if self.source == OWN:
                raise ValueError(f"settings: {name}={value!r} is for sources with a name or a path: your own data are taken as they are.")
            kind = "text" if task == "classify" else "pictures"
            raise ValueError(f"settings: {name}={value!r} is for {kind} only, but {self.source} is for {task}. Leave {name} out.")


PARTS: dict[str, type[Part]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Part)
}
OF_PICTURES = ("label_smoothing", "mixup", "cutmix", "augment", "class_weights", "sampler", "choose_by")
FOREIGN = {
    "classify": tuple(Streams.model_fields),
    "language": OF_PICTURES,
    OWN: (*DataOptions.__dataclass_fields__, *Streams.model_fields, *OF_PICTURES),
}
_HOMES: dict[str, list[str]] = {
    "data": list(DataOptions.__dataclass_fields__),
    **{home: list(part.model_fields) for home, part in PARTS.items()},
}

# What pydantic calls a mistake, and what we say was expected.
BOUNDS = {
    "greater_than": ("gt", "more than {}"),
    "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "less than {}"),
    "less_than_equal": ("le", "{} or less"),
}
KINDS = {
    "bool": "true or false",
    "dataclass": "names and values",
    "dict": "names and values",
    "float": "a number",
    "int": "a whole number",
    "model": "names and values",
    "string": "text",
}


def _home(name: str) -> str | None:
    """The part that holds the setting, or None for the top. Raises ValueError with the nearest name for one that nobody has."""
    if name in Settings.model_fields and name not in _HOMES:
        return None
    for home, names in _HOMES.items():
        if name in names:
            return home
    raise ValueError(f"settings: no setting {name!r}.{_hint(name)}")


def _hint(name: str) -> str:
    """The nearest name that there is, with its part where the word itself stands in another one."""
    known = {name: home for home, names in _HOMES.items() for name in names} | dict.fromkeys(("model", "config", "recipe", "source"), "")
    if name in known:
        return f" It belongs to {known[name] or 'the top'}."
    near = get_close_matches(name, [*known, *_HOMES], 1)
    return f' Did you mean "{near[0]}"?' if near else f" There are {', '.join(known)}."


def spoken(error: ValidationError) -> str:
    """All mistakes of a validation in one sentence each."""
    return " ".join(_sentence(mistake) for mistake in error.errors())


def _sentence(mistake: Any) -> str:
    where = ".".join(str(step) for step in mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        return f"settings: no setting {where!r}.{_hint(str(mistake['loc'][-1]))}"
    if mistake["type"] == "missing":
        return f"settings: {where} is missing."
    if mistake["type"] == "value_error":  # our own sentence, which says what it got
        return f"settings: {mistake['msg'].removeprefix('Value error, ').rstrip('.')}."
    return f"settings: {where}: expected {_expected(mistake)}, got {mistake['input']!r}."


def _expected(mistake: Any) -> str:
    """What the value should have been."""
    kind, facts = mistake["type"], mistake.get("ctx", {})
    if kind in BOUNDS:
        name, words = BOUNDS[kind]
        return words.format(facts[name])
    return KINDS.get(kind.split("_")[0]) or str(facts.get("expected") or mistake["msg"].removeprefix("Input should be "))
