"""A run that can be used: the trained model with what it needs to read new input. `twofold.load` opens its folder.

This page and fitting.py join the floors of the house; nothing below imports them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twofold.data.options import DataOptions
from twofold.data.pictures import read_image
from twofold.data.preparation import Preparation
from twofold.data.sources import ImageSource, Source, TextSource, open_source
from twofold.data.values import Images, Text
from twofold.data.vocabulary import Vocabulary
from twofold.models import catalogue
from twofold.tasks.classify import Classification, Pictures, predict
from twofold.tasks.language import Language
from twofold.tasks.sampling import Sampling, continue_text
from twofold.tasks.task import Evaluation
from twofold.train.batches import pictures_in_order, text_in_order
from twofold.train.folder import RunFolder
from twofold.train.settings import Settings

SPLITS = ("train", "validation", "test")


class Prediction(NamedTuple):
    """What the model says of one picture: the class, its probability, and all classes from the most probable down."""

    name: str
    label: str
    probability: float
    ranking: tuple[tuple[str, float], ...]


class Reading(NamedTuple):
    """What turns input into tensors and outputs into words: a part of model.json.

    `exact`: all pictures of the source had one size, so another size is likely a mistake.
    """

    classes: tuple[str, ...] = ()
    preparation: Preparation | None = None
    exact: bool = False
    vocabulary: Vocabulary | None = None
    tokens_per_character: float = 1.0

    @classmethod
    def of(cls, source: Source) -> "Reading":
        if isinstance(source, TextSource):
            return cls(vocabulary=source.vocabulary, tokens_per_character=len(source.train.codes_T) / source.train.characters)
        size = (source.preparation.height, source.preparation.width)
        return cls(source.classes, source.preparation, set(source.sizes) <= {size})

    def as_dict(self) -> dict[str, Any]:
        if self.vocabulary is not None:
            return {"vocabulary": self.vocabulary.as_dict(), "tokens_per_character": self.tokens_per_character}
        assert self.preparation is not None
        return {"classes": list(self.classes), "preparation": self.preparation.as_dict(), "exact_size": self.exact}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Reading":
        """Raises ValueError for anything that no reading can be."""
        if "vocabulary" in values:
            rate = values.get("tokens_per_character")
            if not isinstance(rate, float) or not 0 < rate < 100:
                raise ValueError(f"model.json: expected tokens_per_character to be a number above 0, got {rate!r}.")
            return cls(vocabulary=Vocabulary.from_dict(values["vocabulary"]), tokens_per_character=rate)
        classes = values.get("classes")
        if not isinstance(classes, list) or len(classes) < 2 or not all(isinstance(name, str) for name in classes):
            raise ValueError(f"model.json: expected classes to be a list of at least two names, got {classes!r}.")
        return cls(tuple(classes), Preparation.from_dict(values.get("preparation")), values.get("exact_size") is True)

    @property
    def task(self) -> Classification | Language:
        return Classification(self.classes) if self.vocabulary is None else Language(self.tokens_per_character)

    def model_config(self) -> dict[str, int]:
        """The part of a model's configuration that follows from the data."""
        if self.vocabulary is not None:
            return {"vocabulary": len(self.vocabulary)}
        assert self.preparation is not None
        kind = self.preparation
        return {
            "in_channels": 1 if kind.mode == "L" else 3,
            "height": kind.height,
            "width": kind.width,
            "classes": len(self.classes),
        }


class Run:
    """A trained model in its run folder. `settings`, `metrics`, `model` and `reading` are there to be read."""

    def __init__(self, folder: RunFolder, settings: Settings, model: nn.Module, reading: Reading) -> None:
        self.folder, self.settings, self.model, self.reading = folder, settings, model.eval(), reading
        self.task = reading.task

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def report(self) -> Path:
        """The page with the pictures."""
        return self.path / "report.html"

    @property
    def metrics(self) -> dict[str, Any]:
        """The final scores: {"best_epoch": ..., "validation": {...}, "test": {...}}. Raises ValueError for a run that has not ended."""
        rows = self.folder.read_rows()
        if not rows or "final" not in rows[-1]:
            raise ValueError(f"{self.path} has no final scores: its training did not end. Go on with: twofold train --resume {self.path}")
        return rows[-1]

    def evaluate(self, source: str | Path | None = None, split: str = "test") -> Evaluation:
        """Scores on a split of the run's own source, or on all of another source. Raises ValueError where it does not fit the model."""
        if split not in SPLITS:
            raise ValueError(f"evaluate: expected a split of {', '.join(SPLITS)}, got {split!r}.")
        opened = self.open(source)
        part = getattr(opened, split) if source is None else _everything(opened)
        return self.judge(opened, part, split)

    def judge(self, source: Source, part: Images | Text | None, split: str = "test") -> Evaluation:
        """Scores on a part of an opened source."""
        if part is None:
            raise ValueError(f"evaluate: {source.name} has no {split} split. Take another: --split validation")
        if isinstance(source, TextSource):
            assert isinstance(part, Text)
            text = self._recode(source, part)
            return Language(len(text.codes_T) / text.characters).evaluate(self.model, text_in_order(text))
        assert isinstance(part, Images)
        images, kind = self._relabel(source, part), self._for_pictures("evaluate")
        return Classification(self.reading.classes).evaluate(self.model, pictures_in_order(images, kind))

    def open(self, source: str | Path | None = None) -> Source:
        """The run's own source, or another, read in the way of this run."""
        if source is None:
            return open_source(self.settings.source, self.settings.data)
        data = DataOptions(unit=self.reading.vocabulary.unit) if self.reading.vocabulary else DataOptions()
        opened = open_source(source, data)
        if opened.task != self.task.name:
            raise ValueError(f"evaluate: the model of {self.path} is made to {self.task.name}, but {source} is for {opened.task}.")
        if isinstance(opened, ImageSource):
            kind = self._for_pictures("evaluate")
            if (opened.preparation.height, opened.preparation.width) != (kind.height, kind.width):
                opened = open_source(source, DataOptions(image_size=_square(kind)))
        return opened

    def predict(self, pictures: str | Path | Tensor | Sequence[str | Path | Tensor], *, resize: bool = False) -> list[Prediction]:
        """The class of each picture: files, or uint8 tensors (C, H, W).

        A model whose training pictures all had one size refuses another unless `resize` is true. Raises ValueError for files that are
        missing or broken, naming the file, and for language models.
        """
        kind = self._for_pictures("predict")
        wanted = [pictures] if isinstance(pictures, str | Path | Tensor) else pictures
        if not isinstance(wanted, list | tuple) or not all(isinstance(picture, str | Path | Tensor) for picture in wanted):
            raise ValueError(
                f"predict: expected paths or uint8 tensors (C, H, W), got {type(pictures).__name__}. An array? torch.as_tensor(...)."
            )
        if not wanted:
            return []
        read = [self._read(picture, kind, resize) for picture in wanted]
        names = [str(p) if not isinstance(p, Tensor) else f"picture {i}" for i, p in enumerate(wanted)]
        x_BCHW = kind.normalise(torch.stack(read))
        probabilities, _ = predict(self.model, [Pictures(x, torch.zeros(len(x))) for x in x_BCHW.split(256)])
        return [self._said(name, row) for name, row in zip(names, probabilities, strict=True)]

    def sample(self, prompt: str = "", length: int = 200, how: Sampling | None = None) -> str:
        """`length` tokens that the language model writes after the prompt. Raises ValueError for a classifier or an unknown character."""
        if self.reading.vocabulary is None:
            raise ValueError(
                f"sample: the model of {self.path} names the class of pictures; only language models write. Try: twofold predict"
            )
        return continue_text(self.model, self.reading.vocabulary, prompt, length, how or Sampling())

    def _for_pictures(self, who: str) -> Preparation:
        if self.reading.preparation is None:
            raise ValueError(f"{who}: the model of {self.path} continues text; it does not look at pictures. Try: twofold sample")
        return self.reading.preparation

    def _read(self, picture: str | Path | Tensor, kind: Preparation, resize: bool) -> Tensor:
        channels = 1 if kind.mode == "L" else 3
        if isinstance(picture, Tensor):
            if picture.dtype != torch.uint8 or tuple(picture.shape) != (channels, kind.height, kind.width):
                raise ValueError(
                    f"predict: expected a uint8 tensor ({channels}, {kind.height}, {kind.width}), "
                    f"got {str(picture.dtype).removeprefix('torch.')} {tuple(picture.shape)}."
                )
            return picture
        if self.reading.exact and not resize:
            width, height = read_image(picture).size
            if (height, width) != (kind.height, kind.width):
                raise ValueError(
                    f"predict: {picture} is {height}x{width} (height x width), and every picture that the model has seen was "
                    f"{kind.height}x{kind.width}. To scale it to that size, add --resize (in Python: resize=True)."
                )
        return kind.picture(picture)

    def _said(self, name: str, probabilities_N: Tensor) -> Prediction:
        values, order = probabilities_N.sort(descending=True)
        ranking = tuple((self.reading.classes[i], p) for i, p in zip(order.tolist(), values.tolist(), strict=True))
        return Prediction(name, *ranking[0], ranking)

    def _relabel(self, source: ImageSource, images: Images) -> Images:
        """The same pictures with the class numbers of this model, in its mode."""
        strangers = [name for name in source.classes if name not in self.reading.classes]
        if strangers:
            known = ", ".join(self.reading.classes[:10])
            raise ValueError(
                f"evaluate: {source.name} has classes that the model does not know: {', '.join(strangers[:10])}. It knows {known}."
            )
        numbers = torch.tensor([self.reading.classes.index(name) for name in source.classes])
        kind = self._for_pictures("evaluate")
        x_BCHW = images.x_BCHW
        if x_BCHW.shape[1:] != (1 if kind.mode == "L" else 3, kind.height, kind.width):
            if x_BCHW.shape[1] == 1 and kind.mode == "RGB" and x_BCHW.shape[2:] == (kind.height, kind.width):
                x_BCHW = x_BCHW.expand(-1, 3, -1, -1)
            else:
                raise ValueError(
                    f"evaluate: {source.name} has pictures of shape {tuple(x_BCHW.shape[1:])}, the model reads {kind.mode} "
                    f"{kind.height}x{kind.width}."
                )
        return Images(x_BCHW, numbers[images.y_B], images.names)

    def _recode(self, source: TextSource, text: Text) -> Text:
        """The same text in the codes of this model's vocabulary."""
        own = self.reading.vocabulary
        if own is None:
            raise ValueError(f"evaluate: the model of {self.path} looks at pictures, but {source.name} is text.")
        return text if own == source.vocabulary else text._replace(codes_T=own.encode(source.vocabulary.decode(text.codes_T)))

    def __repr__(self) -> str:
        return f"<run {self.path}: {self.settings.model}, {self.task.name}>"


def load(folder: str | Path) -> Run:
    """Open a run folder. Raises ValueError, naming the file, for one that is missing, cut off, or of an unknown architecture."""
    place = RunFolder(folder)
    description = place.read_description()
    path = place.path / "model.json"
    name, config = description.get("architecture"), description.get("config")
    if not isinstance(name, str) or not isinstance(config, dict):
        raise ValueError(f"{path}: expected an architecture's name and its config, got {name!r} and {config!r}.")
    try:
        reading = Reading.from_dict(description)
        with torch.random.fork_rng():
            model = catalogue.build(name, **config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    place.read_weights(model)
    return Run(place, place.read_settings(), model, reading)


def _everything(source: Source) -> Images | Text:
    """All splits of a source together."""
    if isinstance(source, TextSource):
        texts = [part for part in (source.train, source.validation, source.test) if part is not None]
        codes = torch.cat([part.codes_T for part in texts])
        return Text(codes, sum(part.characters for part in texts), sum((part.names for part in texts), ()))
    images = [part for part in (source.train, source.validation, source.test) if part is not None]
    x_BCHW, y_B = torch.cat([part.x_BCHW for part in images]), torch.cat([part.y_B for part in images])
    return Images(x_BCHW, y_B, sum((part.names for part in images), ()))


def _square(kind: Preparation) -> int:
    if kind.height != kind.width:
        raise ValueError(f"evaluate: the model reads {kind.height}x{kind.width} pictures; other sources can only be resized to squares.")
    return kind.height
