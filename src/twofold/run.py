"""A run that can be used: the trained model with what it needs to read new input. `twofold.load` opens its folder.

This page and fitting.py join the floors of the house; nothing below imports them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twofold.data.pictures import read_image
from twofold.data.preparation import CHANNELS, Preparation
from twofold.data.sources import ImageSource, Source, TextSource, open_source, task_of
from twofold.data.values import Images, Labelled, Text, Whole
from twofold.data.vocabulary import Vocabulary
from twofold.data.whole import conform, read_pictures_whole, read_text_whole
from twofold.models import catalogue
from twofold.tasks.baselines import Baselines, linear, majority_class, share
from twofold.tasks.classify import Classification, Pictures, assess, predict, with_top
from twofold.tasks.language import Language
from twofold.tasks.sampling import Sampling, continue_text
from twofold.tasks.task import Evaluation, Task
from twofold.tasks.views import read_views
from twofold.train.batches import EVALUATION_BATCH, text_in_order
from twofold.train.folder import RunFolder
from twofold.train.machine import moved, placed
from twofold.train.own import OwnTask
from twofold.train.settings import Settings
from twofold.train.streaming import in_order, read_ahead

SPLITS = ("train", "validation", "test")


class Prediction(NamedTuple):
    """What the model says of one picture: the class, its probability, and all classes from the most probable down."""

    name: str
    label: str
    probability: float
    ranking: tuple[tuple[str, float], ...]


class Reading(NamedTuple):
    """What turns input into tensors and outputs into words: a part of model.json.

    `exact`: every file of the source had the prepared size, so another size is likely a mistake. temperature: what logits are divided by.
    """

    classes: tuple[str, ...] = ()
    preparation: Preparation | None = None
    exact: bool = False
    vocabulary: Vocabulary | None = None
    temperature: float = 1.0

    @classmethod
    def of(cls, source: Source) -> "Reading":
        """The reading of a model that learns from this source."""
        if isinstance(source, TextSource):
            return cls(vocabulary=source.vocabulary)
        kind = source.preparation
        return cls(source.classes, kind, set(source.sizes) == {(kind.height, kind.width)})

    def as_dict(self) -> dict[str, Any]:
        if self.vocabulary is not None:
            return {"vocabulary": self.vocabulary.as_dict()}
        assert self.preparation is not None
        warmth = {} if self.temperature == 1 else {"temperature": self.temperature}
        return {"classes": list(self.classes), "preparation": self.preparation.as_dict(), "exact_size": self.exact, **warmth}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Reading":
        """Raises ValueError for anything that no reading can be."""
        if "vocabulary" in values:
            return cls(vocabulary=Vocabulary.from_dict(values["vocabulary"]))
        classes = values.get("classes")
        if not isinstance(classes, list) or len(classes) < 2 or not all(isinstance(name, str) for name in classes):
            raise ValueError(f"model.json: expected classes to be a list of at least two names, got {classes!r}.")
        temperature = values.get("temperature", 1.0)
        if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
            raise ValueError(
                f"model.json: expected temperature to be a number above 0, got {temperature!r}. Take it out, or calibrate anew."
            )
        kind = Preparation.from_dict(values.get("preparation"))
        return cls(tuple(classes), kind, values.get("exact_size") is True, temperature=float(temperature))

    @property
    def known(self) -> bool:
        """Whether it is known how to read anything: not for a model that was trained on data of one's own."""
        return self.vocabulary is not None or self.preparation is not None

    @property
    def task(self) -> Classification | Language | OwnTask:
        if not self.known:
            return OwnTask(_no_loss)
        return Classification(self.classes) if self.vocabulary is None else Language()

    def model_config(self) -> dict[str, int]:
        """The part of a model's configuration that follows from the data."""
        if self.vocabulary is not None:
            return {"vocabulary": len(self.vocabulary)}
        assert self.preparation is not None
        kind = self.preparation
        return {
            "in_channels": CHANNELS[kind.mode],
            "height": kind.height,
            "width": kind.width,
            "classes": len(self.classes),
        }


def _no_loss(output: Any, target: Any) -> Tensor:
    raise ValueError("evaluate: a run folder holds no loss of one's own: build the task with it, OwnTask(loss).")


class Run:
    """A trained model in its run folder. `settings`, `metrics`, `model` and `reading` are there to be read."""

    def __init__(
        self, folder: RunFolder, settings: Settings, model: nn.Module, reading: Reading, task: Task | None = None,
        final: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.settings, self.model, self.reading = folder, settings, model.eval(), reading
        self.task, self._final = task or reading.task, final

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def report(self) -> Path:
        """The page with the pictures."""
        return self.path / "report.html"

    @property
    def metrics(self) -> dict[str, Any]:
        """The final scores: {"best_epoch": ..., "validation": {...}, "test": {...}}, and of a classifier the share of the majority class.

        Raises ValueError for a run that has not ended.
        """
        if self._final is not None:
            return self._final
        rows = self.folder.read_rows()
        if not rows or "final" not in rows[-1]:
            raise ValueError(f"{self.path} has no final scores: its training did not end. Go on with: twofold train --resume {self.path}")
        return rows[-1]

    def evaluate(
        self, source: str | Path | None = None, split: str | None = None, *, tta: str = "", top: Sequence[int] = (), baselines: bool = False
    ) -> Evaluation:  # fmt: skip
        """Scores on a split of the run's own source (default: test), or on all of another source, read in the way of this run.

        What had to be converted or left out for that is told in details["notes"]. tta: views of every picture, such as "flip shift=1",
        whose probabilities are averaged. top: further scores, top1 and top3 for (1, 3). details["baselines"] (Baselines) has the share of
        the class that was the most frequent in training; with `baselines` also a linear classifier on pixels, learnt from the run's own
        source: its training and validation pictures, without those of validation where these (or the training's) are judged.
        Raises ValueError for a source that does not fit the model, for a split of another source, and for views or baselines of a text.
        """
        if baselines:
            self.for_pictures("evaluate --baselines")
        judged = self._evaluate(source, split, tta, baselines)
        if not top:
            return judged
        self.for_pictures("evaluate --top")
        return with_top(judged, top, len(self.reading.classes))

    def _evaluate(self, source: str | Path | None, split: str | None, tta: str, baselines: bool) -> Evaluation:
        if split is not None and split not in SPLITS:
            raise ValueError(f"evaluate: expected a split of {', '.join(SPLITS)}, got {split!r}.")
        self._refuse_unknown("evaluate")
        if source is None:
            opened, split = self.open_own(), split or "test"
            part = self.part(split, opened)
            learnt = SPLITS[: 2 if split == "test" else 1] if baselines else ()
            return self._beside(self.judge(part, tta), part, opened, learnt)
        if split is not None:
            raise ValueError(f"evaluate: {source} is used whole, so the {split} split does not apply. Leave --split out.")
        whole = self.open_whole(source)
        own, learnt = (self._to_learn_from(), SPLITS[:2]) if baselines else (None, ())
        judged = self._beside(self.judge(whole.part, tta), whole.part, own, learnt)
        notes = (*whole.notes, *(f"skipped {path}: {reason}" for path, reason in whole.skipped))
        return judged._replace(details={**judged.details, "notes": notes})

    def _beside(self, judged: Evaluation, part: Labelled | Text, own: Source | None, learnt: Sequence[str] = ()) -> Evaluation:
        """The same with the baselines in its details. own: the run's source, else the majority class is what training noted of it.

        learnt: the splits of it from which the linear classifier learns; none: there is none.
        """
        if isinstance(part, Text) or isinstance(own, TextSource):
            return judged
        classes = self.reading.classes
        name = self._noted_majority() if own is None else majority_class(own.train.y_B, own.classes)
        if name not in classes:
            return judged
        found = Baselines(name, share(part.y_B, classes, name))
        if own is not None and learnt:
            kind = self.for_pictures("evaluate")
            parts = [conform(own, getattr(own, each), classes, kind) for each in learnt]
            found = replace(found, linear=linear(parts, part, kind, len(classes), self._read))
        return judged._replace(details={**judged.details, "baselines": found})

    def _to_learn_from(self) -> Source:
        try:
            return self.open_own()
        except ValueError as error:
            raise ValueError(f"evaluate: baselines learn from the run's own source, which cannot be opened: {error}") from None

    def _noted_majority(self) -> str:
        """The majority class as the end of the training noted it; "" where it did not."""
        try:
            return str(self.metrics["majority"]["class"])
        except (ValueError, LookupError, TypeError):
            return ""

    def _read(self, part: Labelled, rows_B: Tensor) -> Iterator[Tensor]:
        """Pictures as they are stored, read ahead where they lie in files."""
        return read_ahead(part, rows_B.split(EVALUATION_BATCH), 0 if isinstance(part, Images) else self.settings.machine.workers)

    def judge(self, part: Labelled | Text, tta: str = "") -> Evaluation:
        """Scores on texts in the codes of this model, or on pictures in its form and with its class numbers."""
        if isinstance(part, Text):
            if tta:
                raise ValueError(f"evaluate: the views {tta!r} (tta) are for pictures, and {self.path} continues text. Leave them out.")
            return Language.of(part).evaluate(self.model, placed(text_in_order(part), self.model))
        judged = assess(*self.outputs(part, tta), self.reading.classes, self.reading.temperature)
        return judged._replace(details={**moved(judged.details, torch.device("cpu")), "names": part.names})

    def outputs(self, part: Labelled, tta: str = "") -> tuple[Tensor, Tensor]:
        """Logits (B, N), without a temperature, and true classes (B) of pictures in the form of this model."""
        views = read_views(tta) if tta else None
        pictures = in_order(part, self.for_pictures("evaluate"), workers=self.settings.machine.workers)
        return predict(self.model, placed(pictures, self.model), views)

    def open(self) -> Source:
        """The run's own source."""
        self._refuse_unknown("open")
        return open_source(self.settings.source, self.settings.data, self.reading.vocabulary)

    def open_whole(self, source: str | Path) -> Whole:
        """All of a source, read in the way of this run. Raises ValueError where it does not fit the model."""
        self._refuse_other(source)
        if self.reading.vocabulary is not None:
            return read_text_whole(source, self.reading.vocabulary)
        return read_pictures_whole(source, self.reading.classes, self.for_pictures("evaluate"))

    def open_own(self) -> Source:
        """The run's own source, which may have changed since. Raises ValueError where it is for another task."""
        self._refuse_other(self.settings.source)
        return self.open()

    def part(self, split: str, opened: Source | None = None) -> Labelled | Text:
        """A split of the run's own source (opened: where it is already). Raises ValueError where that has none, or does not fit."""
        opened = opened or self.open_own()
        part: Labelled | Text | None = getattr(opened, split)
        if part is None:
            raise ValueError(f"evaluate: {opened.name} has no {split} split. Take another: --split validation")
        if isinstance(opened, ImageSource):
            assert not isinstance(part, Text)
            return conform(opened, part, self.reading.classes, self.for_pictures("evaluate"))
        return part

    def _refuse_other(self, source: str | Path) -> None:
        task = task_of(source)
        if task != self.task.name:
            raise ValueError(f"evaluate: the model of {self.path} is made to {self.task.name}, but {source} is for {task}.")

    def predict(
        self, pictures: str | Path | Tensor | Sequence[str | Path | Tensor], *, resize: bool = False, tta: str = ""
    ) -> list[Prediction]:
        """The class of each picture: files, or uint8 tensors (C, H, W). tta: views whose probabilities are averaged, "flip shift=1".

        A model whose training pictures all had one size refuses another unless `resize` is true. Raises ValueError for files that are
        missing or broken, naming the file, and for language models.
        """
        kind = self.for_pictures("predict")
        wanted = [pictures] if isinstance(pictures, str | Path | Tensor) else pictures
        if not isinstance(wanted, list | tuple) or not all(isinstance(picture, str | Path | Tensor) for picture in wanted):
            raise ValueError(
                f"predict: expected paths or uint8 tensors (C, H, W), got {type(pictures).__name__}. An array? torch.as_tensor(...)."
            )
        if not wanted:
            return []

        def batches() -> Iterator[Pictures]:
            for first in range(0, len(wanted), EVALUATION_BATCH):
                x_BCHW = torch.stack([self.read_picture(picture, resize) for picture in wanted[first : first + EVALUATION_BATCH]])
                yield Pictures(kind.normalise(x_BCHW), torch.zeros(len(x_BCHW)))

        names = [str(p) if not isinstance(p, Tensor) else f"picture {i}" for i, p in enumerate(wanted)]
        logits_BN, _ = predict(self.model, batches(), read_views(tta) if tta else None)
        return [self.named(name, row) for name, row in zip(names, logits_BN, strict=True)]

    def sample(self, prompt: str = "", length: int = 200, how: Sampling | None = None) -> str:
        """`length` tokens that the language model writes after the prompt. Raises ValueError for a classifier or an unknown character."""
        self._refuse_unknown("sample")
        if self.reading.vocabulary is None:
            raise ValueError(
                f"sample: the model of {self.path} names the class of pictures; only language models write. Try: twofold predict"
            )
        return continue_text(self.model, self.reading.vocabulary, prompt, length, how or Sampling())

    def _refuse_unknown(self, who: str) -> None:
        """Raise ValueError for a model of which it is not known what it reads."""
        if not self.reading.known:
            raise ValueError(
                f"{who}: the model of {self.path} was trained on data of your own, which it cannot read: call run.model, or "
                "run.task.evaluate(run.model, batches)."
            )

    def for_pictures(self, who: str) -> Preparation:
        """How pictures are prepared for this model. Raises ValueError for one that does not look at pictures."""
        self._refuse_unknown(who)
        if self.reading.preparation is None:
            raise ValueError(f"{who}: the model of {self.path} continues text; it does not look at pictures. Try: twofold sample")
        return self.reading.preparation

    def read_picture(self, picture: str | Path | Tensor, resize: bool = False) -> Tensor:
        """A picture as this model takes it, uint8 CHW. Raises ValueError for one that cannot be read, or has a size it has never seen."""
        kind = self.for_pictures("predict")
        if isinstance(picture, Tensor):
            channels = CHANNELS[kind.mode]
            if picture.dtype != torch.uint8 or tuple(picture.shape) != (channels, kind.height, kind.width):
                raise ValueError(
                    f"predict: expected a uint8 tensor ({channels}, {kind.height}, {kind.width}), "
                    f"got {str(picture.dtype).removeprefix('torch.')} {tuple(picture.shape)}."
                )
            return picture
        if not self.reading.exact or resize:
            return kind.picture(picture)
        image = read_image(picture)
        if image.size != (kind.width, kind.height):
            raise ValueError(
                f"predict: {picture} is {image.height}x{image.width} (height x width), and every picture that the model has seen was "
                f"{kind.height}x{kind.width}. To scale it to that size, add --resize (in Python: resize=True)."
            )
        return kind.fit(image)

    def named(self, name: str, logits_N: Tensor) -> Prediction:
        """What these logits say."""
        order = logits_N.argsort(descending=True, stable=True)  # the logits' own: a temperature never changes it
        values = (logits_N / self.reading.temperature).softmax(0)[order]
        ranking = tuple((self.reading.classes[i], p) for i, p in zip(order.tolist(), values.tolist(), strict=True))
        return Prediction(name, *ranking[0], ranking)

    def __repr__(self) -> str:
        return f"<run {self.path}: {self.settings.model}, {self.task.name}>"


def load(folder: str | Path, model: nn.Module | None = None) -> Run:
    """Open a run folder. model: a module of your own, built as it was for the training, where that is what was trained.

    Raises ValueError, naming the file, for a folder that is missing, cut off, or of an unknown architecture.
    """
    place = RunFolder(folder)
    description = place.read_description()
    path = place.path / "model.json"
    name, config = description.get("architecture"), description.get("config")
    if not isinstance(name, str) or not isinstance(config, dict):
        raise ValueError(f"{path}: expected an architecture's name and its config, got {name!r} and {config!r}.")
    own = name == "own"
    if own != (model is not None):
        given = f"its model is your own, {description.get('class')}: load(folder, model=...)" if own else f"its model is {name}: give none"
        raise ValueError(f"{path}: {given}.")
    try:
        reading = Reading() if description.get("task") == "own" else Reading.from_dict(description)
        if model is None:
            _refuse_misfit(name, catalogue.configure(name, **config).as_dict(), reading)
            with torch.random.fork_rng():
                model = catalogue.build(name, **config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    place.read_weights(model)
    return Run(place, place.read_settings(), model, reading)


def _refuse_misfit(name: str, config: dict[str, Any], reading: Reading) -> None:
    """Raise ValueError where the architecture is for another task, or of other sizes, than what the same file says of the data."""
    given = "a vocabulary" if reading.vocabulary is not None else "classes"
    if catalogue.find(name).task != reading.task.name:
        raise ValueError(f"the architecture {name!r} is for {catalogue.find(name).task}, but the file lists {given}.")
    wrong = [f"{what}={config.get(what)}, not {value}" for what, value in reading.model_config().items() if config.get(what) != value]
    if wrong:
        raise ValueError(f"the config does not fit the data that the file describes: {'; '.join(wrong)}. Was it edited by hand?")
