"""Colour: one map is what the four steps make one after the other; grey stays grey; the mean grey is what contrast turns about."""

import numpy as np
import pytest
import torch

from twofold.data.augment_colour import BACK, GREY, YIQ, Colour, channel_means
from twofold.data.augment_draws import Draws


def draws(count):
    return Draws(0, 0, np.arange(count))


def one_after_the_other(x_BCHW, colour):
    """In float64, as the four laws say it."""
    drawn = draws(len(x_BCHW))
    of = {name: drawn.between(name, 1 - amount, 1 + amount)[:, 0] for name, amount in vars(colour).items() if name != "hue"}
    hue = drawn.between("hue", -colour.hue, colour.hue)[:, 0]
    results = []
    for b, picture in enumerate(x_BCHW.double().numpy()):
        v = picture * of["brightness"][b]
        mean = np.tensordot(GREY, v, 1).mean() if len(v) == 3 else v.mean()
        v = mean + of["contrast"][b] * (v - mean)
        if len(v) == 3:
            grey = np.tensordot(GREY, v, 1)
            v = grey + of["saturation"][b] * (v - grey)
            angle = 2 * np.pi * hue[b]
            turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
            v = np.tensordot(BACK @ turn @ YIQ, v, 1)
        results.append(v)
    return torch.from_numpy(np.stack(results))


@pytest.mark.parametrize("colour", [Colour(0.4), Colour(contrast=0.5), Colour(0, 0, 0.6), Colour(hue=0.5), Colour(0.3, 0.3, 0.3, 0.2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_map_is_the_four_steps(colour, channels):
    x = torch.randint(0, 256, (12, channels, 6, 7), dtype=torch.uint8)
    wanted = one_after_the_other(x, colour)
    assert (colour.apply(x, draws(12)).double() - wanted.clamp(0, 255)).abs().max() <= 0.5 + 1e-3
    torch.testing.assert_close(colour.apply(x / 255, draws(12)), (wanted / 255).clamp(0, 1).float(), atol=1e-5, rtol=0)


def test_grey_stays_grey_and_hue_leaves_the_brightness():
    grey = torch.randint(0, 256, (8, 1, 5, 5), dtype=torch.uint8).expand(-1, 3, -1, -1)
    assert torch.equal(Colour(saturation=1, hue=0.5).apply(grey, draws(8)), grey)
    x = 0.4 + 0.2 * torch.rand(8, 3, 5, 5)
    weights = torch.tensor(GREY, dtype=torch.float32)[:, None, None]
    turned = Colour(hue=0.5).apply(x, draws(8))
    torch.testing.assert_close((turned * weights).sum(1), (x * weights).sum(1), atol=1e-5, rtol=0)
    assert (turned - x).abs().max() > 0.05


@pytest.mark.parametrize("channels", [1, 3])
def test_means_of_channels(channels):
    x = torch.randint(0, 256, (4, channels, 33, 65), dtype=torch.uint8)
    np.testing.assert_allclose(channel_means(x), x.double().mean((2, 3)), rtol=1e-14)
    np.testing.assert_allclose(channel_means(x / 255), (x / 255).double().mean((2, 3)), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("brightness", -0.1, "0 to 1 (factors"), ("saturation", 2, "0 to 1"), ("hue", 0.6, "0 to 0.5 (a share of the circle")],
)
def test_what_cannot_be_is_refused(name, value, words):
    with pytest.raises(ValueError) as error:
        Colour(**{name: value})
    assert f"augment {name}: expected a number from {words}" in str(error.value) and f"got {value}" in str(error.value)
