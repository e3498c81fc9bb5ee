"""The tiles are the weights, on one scale for all, symmetric about zero."""

import numpy as np
import pytest
import torch

from twofold.see.filters import filters
from twofold.see.style import png_bytes


def weight(*shape):
    return np.random.default_rng(0).normal(size=shape)


def tiles(figure):
    return [np.ma.getdata(image.get_array()) for image in figure.axes[0].images]


def head(figure):
    return figure.axes[0].texts[0].get_text()


def test_one_channel_is_drawn_as_it_is_on_a_scale_symmetric_about_zero():
    given = weight(6, 1, 5, 4)
    figure = filters(torch.tensor(given, requires_grad=True), "First layer")
    np.testing.assert_array_equal(tiles(figure), given[:, 0])
    assert {image.get_clim() for image in figure.axes[0].images} == {(-abs(given).max(), abs(given).max())}
    assert figure.axes[0].get_title("left") == "First layer"
    assert head(figure) == "6 filters of 5×4 over 1 channel"


def test_the_colour_bar_says_the_scale():
    given = np.zeros((2, 1, 3, 3))
    given[1, 0, 2, 2] = -0.25
    bar = filters(given, "").axes[1]
    assert [tick.get_text() for tick in bar.get_xticklabels()] == ["−0.25", "0", "0.25"]
    assert [text.get_text() for text in bar.texts] == ["weight"]


def test_three_channels_are_colours_with_grey_for_zero_on_one_scale():
    given = weight(4, 3, 5, 5)
    figure = filters(given, "RGB")
    expected = 0.5 + np.moveaxis(given, 1, -1) / (2 * abs(given).max())
    np.testing.assert_allclose(tiles(figure), expected, rtol=1e-6)
    assert len(figure.axes) == 1


@pytest.mark.parametrize(("F", "C", "rows", "channels"), [(4, 2, 4, 2), (32, 6, 16, 6), (8, 64, 8, 16)])
def test_other_channels_are_columns_and_filters_rows(F, C, rows, channels):
    given = weight(F, C, 3, 3)
    figure = filters(given, "Second layer")
    np.testing.assert_array_equal(tiles(figure), given[:rows, :channels].reshape(-1, 3, 3))
    assert len({image.get_extent()[0] for image in figure.axes[0].images}) == channels
    cut = (rows, channels) != (F, C)
    assert (f"the first {rows} over {channels} shown" in head(figure)) is cut


@pytest.mark.parametrize("C", [1, 3])
def test_64_filters_are_drawn_at_most_and_the_rest_is_said(C):
    figure = filters(weight(96, C, 3, 3), "")
    assert len(tiles(figure)) == 64
    assert "96 filters" in head(figure)
    assert "the first 64 shown" in head(figure)


@pytest.mark.parametrize("C", [1, 2, 3])
def test_what_is_not_finite_is_grey_and_counted_and_does_not_spoil_the_scale(C):
    given = weight(4, C, 3, 3)
    given[0, 0, 0, 0], given[1, 0, 0, 0] = np.nan, np.inf
    figure = filters(given, "")
    assert "; 2 not finite (grey)" in head(figure)
    if C == 3:
        assert np.isfinite(tiles(figure)).all()
        assert tiles(figure)[0][0, 0, 0] == 0.5
    else:
        assert figure.axes[0].images[0].get_clim()[1] == abs(given[np.isfinite(given)]).max()


def test_weights_of_zero_are_drawn():
    assert png_bytes(filters(np.zeros((1, 1, 3, 3)), "Zero"), 50).startswith(b"\x89PNG")


def test_the_same_weights_give_the_same_bytes():
    assert png_bytes(filters(weight(3, 1, 3, 3), "a"), 50) == png_bytes(filters(weight(3, 1, 3, 3), "a"), 50)


@pytest.mark.parametrize("shape", [(3, 3), (8, 1, 5), (0, 1, 3, 3), (2, 3, 3, 3, 3)])
def test_what_is_no_convolution_is_refused(shape):
    with pytest.raises(ValueError, match=r"filters weight: expected \(F, C, H, W\), none of them 0, got .* a Conv2d layer"):
        filters(np.zeros(shape), "")
