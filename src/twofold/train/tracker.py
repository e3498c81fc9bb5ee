"""What a tracker is: whoever keeps the numbers and the pictures of a run for people to look at, while it trains and afterwards.

`number` is everywhere the count of steps done, so that what is kept each step, each epoch and now and then shares one axis.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from twofold.train.flat import Plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scalars = Mapping[str, float]


class Start(NamedTuple):
    """What a tracker is told at the beginning."""

    folder: Path  # of the run; its name is the name of the run
    settings: Mapping[str, Plain]  # by flat names
    model: nn.Module
    example: tuple[Any, ...]  # what the model is called with; empty: no graph
    number: int = 0  # steps already done, where a run goes on
    known_as: str = ""  # what the tracker called the run when it was begun; "": a new one


class Tracker(Protocol):
    """One place to keep a run. Whatever it raises, the run goes on without it."""

    name: str
    known_as: str  # what it calls the run: with this name it goes on after a break

    def begin(self, start: Start) -> None: ...

    def step(self, number: int, scalars: Scalars) -> None:
        """Numbers of one step; not every step is told."""
        ...

    def epoch(self, number: int, scalars: Scalars) -> None:
        """Numbers of one epoch. What was told so far should now be on the disk."""
        ...

    def picture(self, number: int, name: str, pixels_HWC: NDArray[np.uint8]) -> None: ...

    def histogram(self, number: int, name: str, values: Tensor) -> None:
        """The distribution of finite numbers, at least one."""
        ...

    def end(self, scores: Scalars | None) -> None:
        """The final scores; None for a run that was broken off."""
        ...


def pixels(picture: "Figure | NDArray[Any] | Path") -> NDArray[np.uint8]:
    """Red, green and blue (H, W, 3) of a figure, of a PNG file, or of an array: uint8, or shares of full light 0..1; (H, W) is grey.

    Raises ValueError for an array of another kind.
    """
    if isinstance(picture, Path):
        from PIL import Image

        with Image.open(picture) as opened:
            return np.asarray(opened.convert("RGB"))
    if isinstance(picture, np.ndarray):
        return _colours(picture)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(picture)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _colours(values: NDArray[Any]) -> NDArray[np.uint8]:
    shares = np.issubdtype(values.dtype, np.floating)
    shaped = values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 3)
    if not shaped or values.size == 0 or not (shares or values.dtype == np.uint8):
        raise ValueError(f"picture: expected (H, W) or (H, W, C=3), uint8 or shares 0..1, got {values.dtype} {values.shape}.")
    light = np.round(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8) if shares else values
    return np.repeat(light[..., None], 3, axis=2) if light.ndim == 2 else light
