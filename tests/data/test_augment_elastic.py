"""The field: of the wanted deviation everywhere, smooth over sigma, and between the pixels the same as on them."""

import numpy as np
import pytest
import torch

from twofold.data.augment_draws import Draws
from twofold.data.augment_elastic import Elastic

SIZE = (24, 40)


def field(elastic, count, size=SIZE):
    return elastic.draw(Draws(0, 0, np.arange(count)), *size)


def over_pixels(drawn, count, scale=(1.0, 1.0)):
    grid = torch.zeros(count, *drawn.size, 2)
    drawn.add_to_(grid, slice(0, count), np.array(scale))
    return grid.numpy()


def test_the_deviation_is_the_amount_at_every_point_and_neighbours_go_together():
    count = 4000
    d = over_pixels(field(Elastic(0.05), count), count)
    deviation = d.std(0)  # over the samples, at each pixel
    assert deviation == pytest.approx(0.05 * 24, rel=0.08)
    assert abs(d.mean(0)).max() < 0.1
    sigma = 24 / 7
    for away in (2, 6):  # noise smoothed by G correlates as exp(-r^2 / 4 sigma^2)
        found = (d[:, 12, 10] * d[:, 12, 10 + away]).mean(0) / deviation[12, 10] ** 2
        assert found == pytest.approx(np.exp(-(away**2) / (4 * sigma**2)), abs=0.08)
    assert abs(np.corrcoef(d[:, 12, 10].T)[0, 1]) < 0.07  # x and y are strangers


def test_at_a_point_is_what_it_is_over_the_pixels():
    drawn = field(Elastic(0.06), 3)
    pixels = over_pixels(drawn, 3)
    rows, columns, owners = np.array([0, 5, 23]), np.array([39, 7, 0]), np.array([2, 0, 1])
    np.testing.assert_allclose(drawn.at(np.stack([columns, rows], 1) + 0.5, owners), pixels[owners, rows, columns], atol=1e-5)
    np.testing.assert_allclose(drawn.at(np.array([[99.0, -5.0]]), np.array([0])), drawn.at(np.array([[40.0, 0.0]]), np.array([0])))


def test_scaled_and_added():
    drawn = field(Elastic(0.06), 2)
    np.testing.assert_allclose(over_pixels(drawn, 2, (2.0, -3.0)), over_pixels(drawn, 2) * (2, -3), atol=1e-5)


def test_no_amount_no_field():
    assert field(Elastic(), 3) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.3,), "augment elastic: expected a number from 0 to 0.1 "),
        ((-1,), "got -1"),
        ((0.05, 0), "augment elastic: expected a smoothness from 0.05 to 1"),
    ],
)
def test_what_cannot_be_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Elastic(*values)
