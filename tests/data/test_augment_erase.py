"""Erasing: so often, so large, nothing outside the rectangle; cutout puts the mean."""

import numpy as np
import pytest
import torch

from twofold.data.augment_draws import Draws
from twofold.data.augment_erase import Erasing


def draws(count):
    return Draws(0, 0, np.arange(count))


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_rectangles_are_of_the_wanted_number_and_size_and_hold_noise(kind):
    count, H, W = 600, 24, 30
    x = torch.full((count, 3, H, W), 77, dtype=torch.uint8)
    x = x if kind == torch.uint8 else x / 255
    y = Erasing(erase=0.5).apply_(x.clone(), draws(count))
    changed = (y != x).any(1)
    hit = changed.flatten(1).any(1)
    assert hit.float().mean() == pytest.approx(0.5, abs=0.07)
    areas = []
    for b in hit.nonzero()[:, 0].tolist():
        rows, columns = changed[b].any(1).nonzero()[:, 0], changed[b].any(0).nonzero()[:, 0]
        inside = changed[b, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert inside.float().mean() > 0.9  # one rectangle; a random value may be the old one
        areas.append(inside.numel() / (H * W))
    assert min(areas) < 0.06 and max(areas) == pytest.approx(0.33, abs=0.05) and np.mean(areas) == pytest.approx(0.17, abs=0.03)
    noise = y[y != x].float() / (255 if kind == torch.uint8 else 1)
    assert noise.mean() == pytest.approx(0.5, abs=0.01) and noise.std() == pytest.approx(12**-0.5, abs=0.01)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_cutout_puts_the_mean_in_a_square_that_may_hang_over(kind):
    x = torch.randint(0, 256, (300, 3, 12, 16), dtype=torch.uint8)
    x = x if kind == torch.uint8 else x / 255
    y = Erasing(cutout=6).apply_(x, draws(300))
    mean = x.double().mean((2, 3), keepdim=True)
    mean = mean.add(0.5).floor() if kind == torch.uint8 else mean
    same, cut = y == x, (y.double() - mean).abs() < 1e-6
    assert (same | cut).all()
    areas = cut.all(1).flatten(1).sum(1)
    assert areas.max() >= 36 and areas.min() < 20
    assert (areas == 36).float().mean() == pytest.approx(7 * 11 / (12 * 16), abs=0.08)


def test_a_share_of_the_shorter_side():
    assert [Erasing(cutout=share).side(28, 32) for share in (0, 0.25, 0.001, 8)] == [0, 7, 1, 8]


BAD = {
    "often": (lambda: Erasing(erase=1.5), "augment erase: expected a number from 0 to 1 (the probability), got 1.5."),
    "half": (lambda: Erasing(cutout=2.5), "augment cutout: expected the side of a square in whole pixels, or a share if below 1, got 2.5."),
    "negative": (lambda: Erasing(cutout=-3), "augment cutout: expected the side of a square"),
    "large": (
        lambda: Erasing(cutout=30).side(28, 40),
        "augment cutout=30: expected a square no larger than the picture of 28x40, got a side of 30.",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
