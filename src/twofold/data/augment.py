"""Augmentation: other pictures of the same things, made batch by batch from what lies in memory, without worker processes.

    geometry (flip, rotate, scale, shear, shift, crop, resized crop, elastic)  ->  colour  ->  erasing        then Preparation.normalise

What is drawn for a sample depends on (seed, epoch, sample) alone (augment_draws): whatever the batch, the number of processes and
however often training was stopped, the sample looks the same in the same epoch, bit for bit. Geometry is one resampling, or none at
all where pixels only change places (augment_whole), and moves masks, boxes and keypoints along.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data.augment_colour import Colour
from twofold.data.augment_draws import Draws
from twofold.data.augment_elastic import Elastic
from twofold.data.augment_erase import Erasing
from twofold.data.augment_geometry import Geometry
from twofold.data.augment_samples import Course, Samples, check, check_pictures, move_boxes, move_points
from twofold.data.augment_warp import warp
from twofold.data.augment_whole import EDGES, move_whole


@dataclass(frozen=True)
class Recipe:
    """What may happen to a picture. edge: what comes in from outside, "zeros" or "reflect"."""

    geometry: Geometry = field(default_factory=Geometry)
    elastic: Elastic = field(default_factory=Elastic)
    colour: Colour = field(default_factory=Colour)
    erasing: Erasing = field(default_factory=Erasing)
    edge: str = "zeros"

    def __post_init__(self) -> None:
        if self.edge not in EDGES:
            raise ValueError(f"augment edge: expected {' or '.join(EDGES)}, got {self.edge!r}.")

    def refuse_size(self, height: int, width: int) -> None:
        """Raise ValueError where pictures of that size are too small for it."""
        self.geometry.refuse_size(height, width)
        self.erasing.side(height, width)


@dataclass(frozen=True)
class Augmenter:
    """Applies a recipe.

    seed: decides everything that is drawn. outside: the mask value of what lies outside the picture. least: the share of a moved box
    that must still be inside for it to be kept. partners: in which order keypoints stand in a mirrored picture, for example
    (1, 0) for left and right eye.
    """

    recipe: Recipe
    seed: int = 0
    outside: int = 0
    least: float = 0.1
    partners: tuple[int, ...] = ()

    def pictures(self, x_BCHW: Tensor, epoch: int, numbers_B: Tensor) -> Tensor:
        """The pictures as they look in that epoch; numbers_B: which samples of the data set they are. A new tensor of the same type.

        Raises ValueError for what are no pictures (uint8 0..255 or float32 0..1, C 1 or 3) and where the recipe does not suit their size.
        """
        check_pictures(x_BCHW)
        return self._move(Samples(x_BCHW), epoch, numbers_B).x_BCHW

    def __call__(self, samples: Samples, epoch: int, numbers_B: Tensor) -> Samples:
        """The same with masks, boxes and keypoints. Raises ValueError where they do not fit together."""
        check(samples, self.partners)
        return self._move(samples, epoch, numbers_B)

    def _move(self, samples: Samples, epoch: int, numbers_B: Tensor) -> Samples:
        draws = Draws(self.seed, epoch, self._numbers(numbers_B, len(samples.x_BCHW)))
        samples = self._place(samples, draws)
        x_BCHW = samples.x_BCHW
        if not self.recipe.colour.still:
            x_BCHW = self.recipe.colour.apply(x_BCHW, draws)
        if not self.recipe.erasing.still:
            x_BCHW = self.recipe.erasing.apply_(x_BCHW, draws)
        return samples._replace(x_BCHW=x_BCHW)

    def _place(self, samples: Samples, draws: Draws) -> Samples:
        """The geometry. The pictures are new tensors, whatever happens."""
        x_BCHW, masks_BHW, boxes, points, visible, kept = samples
        height, width = x_BCHW.shape[2:]
        moves = self.recipe.geometry.draw(draws, height, width)
        bent = self.recipe.elastic.draw(draws, height, width)
        edge = self.recipe.edge
        if moves.linear_B22 is None and bent is None:
            x_BCHW = move_whole(x_BCHW, moves, edge)
            masks_BHW = None if masks_BHW is None else move_whole(masks_BHW[:, None], moves, edge, self.outside)[:, 0]
        else:
            x_BCHW, masks_BHW = warp(x_BCHW, masks_BHW, moves, bent, edge, self.outside)
        course = Course(moves, bent)
        if boxes is not None:
            boxes, kept = move_boxes(boxes, course, self.least)
        if points is not None:
            points, visible = move_points(points, visible, course, self.partners)
        return Samples(x_BCHW, masks_BHW, boxes, points, visible, kept)

    def _numbers(self, numbers_B: Tensor, count: int) -> NDArray[np.int64]:
        if numbers_B.shape != (count,) or numbers_B.is_floating_point() or numbers_B.dtype == torch.bool:
            got = f"{str(numbers_B.dtype).removeprefix('torch.')} {tuple(numbers_B.shape)}"
            raise ValueError(f"augment numbers: expected {count} whole numbers, one for each picture, got {got}.")
        return numbers_B.cpu().numpy().astype(np.int64)
