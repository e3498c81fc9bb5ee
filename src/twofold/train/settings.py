"""Settings of a run: what to learn from, with which model, for how long and how. Frozen, checked, written to settings.yaml.

A default is written once, here. `with_recipe` lays the recipe of the source under what the user set: whatever the user set stays.
"""

from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError

from twofold.data.options import DataOptions
from twofold.train.part import Part


class Learning(Part):
    """For how long, and in which portions."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    """How many epochs at most."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Pictures in a batch; for text, parallel streams."""
    window: Annotated[int, Field(ge=1)] = 64
    """Text only: steps of truncated back-propagation through time."""
    items_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """Text only: tokens in an epoch; a pass over the text then takes several. Default: the whole text."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after this many epochs without a better validation score; 0: never."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Decides the initial weights, the order of the data and every dropout mask."""


class Optimisation(Part):
    """How each step is made."""

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """AdamW, Adam, or SGD with Nesterov momentum."""
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 3e-3
    """The highest rate of the schedule."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD's momentum; Adam's beta1."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decay of the weights; biases and normalisation are left alone."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """Cosine to 1 %, a tenth at 1/2 and at 3/4 of the steps, or constant."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """The part of all steps in which the rate rises from zero."""
    clip: Annotated[float, Field(ge=0)] = 1.0
    """The largest norm of the gradient; 0: no clipping."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Pictures only: the part of the target that is spread over all classes."""


class Settings(Part):
    """Everything that is needed to repeat a run."""

    source: str
    """A name (see `twofold data`), a folder of pictures, or a text."""
    model: str = ""
    """The name of an architecture (see `twofold models`). Default: by the source."""
    config: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Changes to the model's configuration: units=256 layers=2."""
    data: DataOptions = Field(default_factory=DataOptions)
    learning: Learning = Field(default_factory=Learning)
    optimisation: Optimisation = Field(default_factory=Optimisation)

    @classmethod
    def of(cls, source: str, **flat: Any) -> Self:
        """Settings from flat names: epochs=5, learning_rate=1e-3, image_size=32. Raises ValueError naming what is wrong."""
        parts: dict[str, Any] = {"source": source, "data": {}, "learning": {}, "optimisation": {}}
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
        """The same settings, with the recipe's values where the user set none. It has none for the data: they are read before."""
        parts = self.model_dump()
        for name, value in recipe.items():
            home = _home(name)
            assert home != "data"
            part: BaseModel = self if home is None else getattr(self, home)
            if name not in part.model_fields_set:
                (parts if home is None else parts[home])[name] = value
        return self.checked(parts)

    def refuse_foreign(self, usual: Self, task: str) -> None:
        """Raise ValueError for a setting that the task has no use for, and that is not what it usually is."""
        for name in FOREIGN.get(task, ()):
            home = _home(name)
            assert home is not None
            value = getattr(getattr(self, home), name)
            if value != getattr(getattr(usual, home), name):
                kind = "text" if task == "classify" else "pictures"
                raise ValueError(f"settings: {name}={value!r} is for {kind} only, but {self.source} is for {task}. Leave {name} out.")


FOREIGN = {"classify": ("window", "items_per_epoch"), "language": ("label_smoothing",)}
_HOMES: dict[str, list[str]] = {
    "data": list(DataOptions.__dataclass_fields__),
    "learning": list(Learning.model_fields),
    "optimisation": list(Optimisation.model_fields),
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
    known = [name for names in _HOMES.values() for name in names] + ["model", "config"]
    near = get_close_matches(name, known, 1)
    hint = f' Did you mean "{near[0]}"?' if near else f" There are {', '.join(known)}."
    raise ValueError(f"settings: no setting {name!r}.{hint}")


def spoken(error: ValidationError) -> str:
    """All mistakes of a validation in one sentence each."""
    return " ".join(_sentence(mistake) for mistake in error.errors())


def _sentence(mistake: Any) -> str:
    where = ".".join(str(step) for step in mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        return f"settings: no setting {where!r}."
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
