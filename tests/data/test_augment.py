"""Augmentation whole: a dot and its keypoint stay together, and a sample looks the same in every batch, bit for bit."""

import numpy as np
import pytest
import torch

from twofold.data.augment import Augmenter, Recipe
from twofold.data.augment_samples import Samples
from twofold.data.augment_text import PRESETS, read_recipe

H, W, COUNT = 48, 64, 60
MOVING = [
    "flip=both crop=5", "rotate=40", "scale=0.3", "shear=25", "shift=0.2", "resized-crop=0.3", "elastic=0.04",
    "flip=both rotate=30 scale=0.2 shear=10 crop=4 resized-crop=0.5", "digits", "strong erase=0 colour=0 hue=0",
]  # fmt: skip


def dots(recipe_text):
    """A round dot in each picture, its place, its box and its mask; and all that, moved."""
    places = np.random.default_rng(0).uniform((14, 12), (W - 14, H - 12), (COUNT, 2))
    across, down = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
    away = (across - places[:, 0, None, None]) ** 2 + (down - places[:, 1, None, None]) ** 2
    x = torch.from_numpy(np.exp(-away / (2 * 1.2**2)).astype(np.float32))[:, None]
    points = tuple(torch.from_numpy(places).float().split(1))
    boxes = tuple(torch.tensor([[px - 5, py - 5, px + 5, py + 5]], dtype=torch.float32) for px, py in places)
    given = Samples(x, (torch.from_numpy(away) < 5**2).long(), boxes, points)
    return Augmenter(read_recipe(recipe_text), seed=1)(given, 0, torch.arange(COUNT)), across, down


@pytest.mark.parametrize("text", MOVING)
def test_a_dot_its_point_its_box_and_its_mask_go_together(text):
    moved, across, down = dots(text)
    looked_at = 0
    for b in range(COUNT):
        (px, py), picture = moved.points[b][0].tolist(), moved.x_BCHW[b, 0].double().numpy()
        if not (11 < px < W - 11 and 11 < py < H - 11):
            continue  # part of the dot may be outside, or be mirrored
        looked_at += 1
        near = picture * (np.hypot(across - px, down - py) < 10)
        found = (near * across).sum() / near.sum(), (near * down).sum() / near.sum()
        assert np.hypot(found[0] - px, found[1] - py) < (
            0.8 if "elastic" in text or text == "digits" else 0.08
        )  # a bent dot is no longer round
        rows, columns = moved.masks_BHW[b].nonzero().T
        nearby = (abs(rows + 0.5 - py) < 11) & (abs(columns + 0.5 - px) < 11)
        rows, columns = rows[nearby], columns[nearby]
        x1, y1, x2, y2 = moved.boxes[b][0].tolist()
        assert x1 - 1 <= columns.min() and columns.max() < x2 + 1 and y1 - 1 <= rows.min() and rows.max() < y2 + 1
        assert moved.kept[b].tolist() == [True] and moved.visible[b].tolist() == [True]
        if text == "flip=both crop=5":
            assert (x2 - x1, y2 - y1) == pytest.approx((10, 10), abs=1e-3)
    assert looked_at > COUNT / 4


@pytest.mark.parametrize("text", MOVING)
def test_at_a_moved_point_lies_what_lay_at_the_point(text):
    """The pictures hold their own coordinates, so what is read there is the place that it came from."""
    across, down = torch.meshgrid((torch.arange(W) + 0.5) / W, (torch.arange(H) + 0.5) / H, indexing="xy")
    x = torch.stack([across, down]).repeat(COUNT, 1, 1, 1)
    places = torch.rand(COUNT, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor([W - 24, H - 24]) + 12
    augmenter, numbers = Augmenter(read_recipe(text), seed=1), torch.arange(COUNT)
    moved = [augmenter(Samples(x[:, [c]], points=places.split(1)), 0, numbers) for c in (0, 1)]
    points = torch.cat(moved[0].points)
    found = torch.cat([samples.x_BCHW for samples in moved], 1)
    grid = (2 * points / torch.tensor([W, H]) - 1)[:, None, None]
    read = torch.nn.functional.grid_sample(found, grid, align_corners=False)[:, :, 0, 0] * torch.tensor([W, H])
    inside = ((points > 2) & (points < torch.tensor([W, H]) - 2)).all(1)
    assert inside.sum() > COUNT / 4
    assert (read - places)[inside].abs().max() < (0.06 if "elastic" in text or text == "digits" else 2e-3)


EVERY = [*MOVING, *PRESETS, "colour=0.3 hue=0.1", "brightness=0.5", "erase=0.7 cutout=6 edge=reflect", "rotate=20 edge=reflect"]


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_a_sample_is_the_same_in_every_batch_and_with_any_number_of_threads(text, kind):
    x = torch.randint(0, 256, (23, 3, 17, 22), dtype=torch.uint8)
    x = x if kind == torch.uint8 else x / 255
    before, augmenter, numbers = x.clone(), Augmenter(read_recipe(text), seed=3), torch.arange(23) * 1000
    whole = augmenter.pictures(x, 5, numbers)
    assert whole.dtype == kind and whole.shape == x.shape and torch.equal(x, before)
    order = torch.randperm(23)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads % 2 + 1)
    try:
        for chosen in order.split(5):
            assert torch.equal(augmenter.pictures(x[chosen], 5, numbers[chosen]), whole[chosen])
    finally:
        torch.set_num_threads(threads)


def test_seed_epoch_and_sample_decide():
    x = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8).expand(40, -1, -1, -1)
    recipe, numbers = read_recipe("flip rotate=10 crop=3 colour=0.2"), torch.arange(40)
    base = Augmenter(recipe, 0).pictures(x, 0, numbers)
    assert len(base.flatten(1).unique(dim=0)) == 40
    for other in (Augmenter(recipe, 1).pictures(x, 0, numbers), Augmenter(recipe, 0).pictures(x, 1, numbers)):
        assert not (other == base).flatten(1).all(1).any()


def test_flipped_twice_is_as_before_and_nothing_is_nothing():
    x, numbers = torch.randint(0, 256, (20, 1, 6, 9), dtype=torch.uint8), torch.arange(20)
    flips = Augmenter(read_recipe("flip=both"))
    once = flips.pictures(x, 0, numbers)
    assert not torch.equal(once, x) and torch.equal(flips.pictures(once, 0, numbers), x)
    assert torch.equal(Augmenter(Recipe()).pictures(x, 0, numbers), x)


def test_an_empty_batch_stays_empty():
    for text in EVERY:
        assert Augmenter(read_recipe(text)).pictures(torch.zeros(0, 3, 16, 16), 0, torch.arange(0)).shape == (0, 3, 16, 16)


def test_masks_take_the_value_of_outside():
    x, masks = torch.zeros(30, 1, 8, 8, dtype=torch.uint8), torch.ones(30, 8, 8, dtype=torch.uint8)
    for text in ("crop=3", "rotate=45"):
        moved = Augmenter(read_recipe(text), outside=255)(Samples(x, masks), 0, torch.arange(30))
        assert moved.masks_BHW.unique().tolist() == [1, 255] and moved.boxes is None


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="augment edge: expected zeros or reflect, got 'wrap'"):
        Recipe(edge="wrap")
    augmenter, x = Augmenter(read_recipe("crop=9")), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"augment numbers: expected 2 whole numbers, one for each picture, got float32 \(2,\)"):
        augmenter.pictures(x, 0, torch.zeros(2))
    with pytest.raises(ValueError, match="augment crop=9: expected moves of fewer pixels than the height 8"):
        augmenter.pictures(x, 0, torch.arange(2))
    with pytest.raises(ValueError, match="augment cutout=9"):
        read_recipe("cutout=9").refuse_size(8, 8)
