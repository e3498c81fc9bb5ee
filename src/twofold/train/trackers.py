"""Watching a run from outside: TensorBoard, and wandb, mlflow or trackio where installed, through one small interface (tracker.py).

    begin -> step, step, ... -> epoch (histograms and pictures now and then) -> ... -> end

A tracker is never a reason to stop: one that fails (the network, the disk, its own mistake) is told once and dropped. One that is wanted
but not installed is a mistake of the user, told before anything is written.
"""

import math
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn

from twofold.train.flat import flat
from twofold.train.part import Part
from twofold.train.services import Mlflow, Trackio, Wandb
from twofold.train.tensorboard import TensorBoard
from twofold.train.tracker import Start, Tracker, pixels

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

Name = Literal["tensorboard", "wandb", "mlflow", "trackio"]
SERVICES: dict[str, type[Wandb] | type[Mlflow]] = {"wandb": Wandb, "mlflow": Mlflow, "trackio": Trackio}
PART_NAMES = ("train", "validation", "test")
Draw = Callable[[nn.Module], "Mapping[str, Figure | NDArray[Any] | Path]"]


class Watching(Part):
    """Who keeps the numbers and pictures of the run, beside the run folder."""

    track: tuple[Name, ...] = ("tensorboard",)
    """Any of tensorboard, wandb, mlflow and trackio."""
    histograms: Annotated[int, Field(ge=0)] = 0
    """Every so many epochs, histograms of all weights and gradients; 0: never."""
    pictures: Annotated[int, Field(ge=0)] = 0
    """Every so many epochs, pictures of filters and samples; 0: only those of the report, at the end."""
    graph: bool = True
    """Whether TensorBoard draws the graph of the model."""

    @field_validator("track", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        """One name, or names with commas between, as a list."""
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


class Trackers:
    """All trackers of one run. Only the process that writes makes one.

    watching: the settings; say: who is told, in one line; draw: what makes the pictures of a model in training, by name.
    Raises ValueError for a tracker that is not installed.
    """

    def __init__(self, watching: Watching, say: Callable[[str], None], draw: Draw | None = None) -> None:
        self.watching, self.say, self.draw = watching, say, draw
        self.active: list[Tracker] = [self._made(name) for name in dict.fromkeys(watching.track)]
        self.known: dict[str, str] = {}

    def begin(self, folder: Path, settings: Mapping[str, Any], model: nn.Module, example: tuple[Any, ...] = (), number: int = 0) -> None:
        """The run begins, or goes on after `number` steps. settings: nested or flat; example: what the model is called with."""
        start = Start(folder, flat(settings), model, example, number)
        self._each(lambda tracker: tracker.begin(start._replace(known_as=self.known.get(tracker.name, "") if number else "")))
        self.known |= {tracker.name: tracker.known_as for tracker in self.active if tracker.known_as}

    def step(self, number: int, scalars: Mapping[str, float]) -> None:
        """Numbers of one step: loss, rate, ... Call it some times a second, not each step."""
        named = {f"step/{name}": value for name, value in scalars.items()}
        self._each(lambda tracker: tracker.step(number, named))

    def epoch(self, number: int, epoch: int, row: Mapping[str, Any], model: nn.Module) -> None:
        """An epoch is done: its row of metrics.jsonl and, where it is their turn, histograms and pictures of the model as it is now."""
        scalars = _scalars(row)
        self._each(lambda tracker: tracker.epoch(number, scalars))
        if self.active and self.watching.histograms and epoch % self.watching.histograms == 0:
            self._histograms(number, model)
        if self.active and self.draw and self.watching.pictures and epoch % self.watching.pictures == 0:
            self._draw(number, self.draw, model)

    def picture(self, number: int, name: str, picture: "Figure | NDArray[np.uint8] | Path") -> None:
        """A figure, a PNG file, or an array (see `pixels`)."""
        if self.active:
            shown = pixels(picture)
            self._each(lambda tracker: tracker.picture(number, name, shown))

    def end(self, final: Mapping[str, Any] | None) -> None:
        """The run is over: its final row of metrics.jsonl, or None where it was broken off."""
        scores = None if final is None else {f"final/{name}": value for name, value in _scalars(final).items() if math.isfinite(value)}
        self._each(lambda tracker: tracker.end(scores))
        self.active = []

    def state_dict(self) -> dict[str, str]:
        """What each tracker calls this run, for the checkpoint: with it a resumed run goes on in the same place."""
        return dict(self.known)

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        self.known = dict(state)

    def _made(self, name: str) -> Tracker:
        if name == "tensorboard":
            return TensorBoard(self.say, self.watching.graph)
        try:
            with redirect_stdout(sys.stderr):
                import_module(name)
        except ImportError as error:
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                raise ValueError(f"settings: track={name} needs a package that is not installed: pip install {name}") from None
            raise ValueError(f"settings: track={name}: the package is installed, but cannot be imported ({error}).") from None
        return SERVICES[name]()

    def _histograms(self, number: int, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            for kind, tensor in (("weights", parameter.detach()), ("gradients", parameter.grad)):
                values = None if tensor is None else _finite(tensor)
                if values is not None and values.numel():
                    self._tell_histogram(number, f"{kind}/{name}", values)

    def _draw(self, number: int, draw: Draw, model: nn.Module) -> None:
        """Pictures of the model as it is now; where they cannot be drawn that is told once, and none are drawn any more."""
        try:
            drawn = draw(model)
        except Exception as error:  # a model of one's own may be anything
            self.draw = None
            first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            self.say(f"pictures of the model cannot be drawn: {first}. The run goes on without them.")
            return
        for name, picture in drawn.items():
            self.picture(number, name, picture)

    def _tell_histogram(self, number: int, name: str, values: Tensor) -> None:
        self._each(lambda tracker: tracker.histogram(number, name, values))

    def _each(self, act: Callable[[Tracker], None]) -> None:
        """Let every tracker act; whoever fails is told and dropped. What they print is no output of ours, so it goes to stderr."""
        for tracker in list(self.active):
            try:
                with redirect_stdout(sys.stderr):
                    act(tracker)
            except Exception as error:  # code of others: whatever it raises, the run goes on
                self.active.remove(tracker)
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip()
                first = (reason.splitlines() or [type(error).__name__])[0].rstrip(".")
                self.say(f"{tracker.name} failed: {first}. The run goes on without it.")
                with suppress(Exception), redirect_stdout(sys.stderr):
                    tracker.end(None)


def _scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """Numbers as metric/part: {"train": {"loss": 1.5}} -> loss/train. Metrics first, so that both parts share a page."""
    parts = {part: row[part] for part in PART_NAMES if isinstance(row.get(part), Mapping)}
    return {
        f"{name}/{part}": float(value) for part, scores in parts.items() for name, value in scores.items() if isinstance(value, int | float)
    }


def _finite(tensor: Tensor) -> Tensor:
    """The finite values on the CPU, flat."""
    values = tensor.detach().float().flatten().cpu()
    return values[values.isfinite()]
