"""Where resized pixels look: places by hand for every convention, rounding, both neighbours, factors and sizes, messages."""

import pytest
import torch

import twofold
from twofold.layers.check import check_message
from twofold.space.coordinates import ROUNDINGS, Axis, axes_of, linear_pixels, nearest_pixels, positions
from twofold.space.resize import Upsample, resize

PLACES = {  # by hand, from the formulas on top of the file
    ("half_pixel", 4, 2, None): [0.5, 2.5],
    ("half_pixel", 2, 4, None): [-0.25, 0.25, 0.75, 1.25],
    ("half_pixel", 5, 1, None): [2],
    ("pytorch_half_pixel", 4, 2, None): [0.5, 2.5],
    ("pytorch_half_pixel", 5, 1, None): [0],
    ("half_pixel", 5, 2, 0.5): [0.5, 2.5],  # the last pixel is left over on the right
    ("half_pixel_symmetric", 5, 2, 0.5): [1, 3],  # half of it on each side
    ("half_pixel_symmetric", 4, 2, None): [0.5, 2.5],
    ("align_corners", 3, 5, None): [0, 0.5, 1, 1.5, 2],
    ("align_corners", 3, 1, None): [0],
    ("asymmetric", 4, 2, None): [0, 2],
    ("asymmetric", 5, 6, 1.25): [0, 0.8, 1.6, 2.4, 3.2, 4],
}


@pytest.mark.parametrize(("coordinates", "before", "size", "scale"), PLACES)
def test_places_by_hand(coordinates, before, size, scale):
    wanted = torch.tensor(PLACES[coordinates, before, size, scale], dtype=torch.float64)
    assert torch.allclose(positions(Axis(before, size, scale, coordinates)), wanted, rtol=1e-15, atol=0)


def test_nearest_rounds_and_stays_on_the_map():
    rows = [nearest_pixels(Axis(2, 4, None, "half_pixel", rounding)).tolist() for rounding in ROUNDINGS]
    assert rows == [[0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_halves_are_rounded_as_asked():
    assert [nearest_pixels(Axis(4, 2, None, "half_pixel", r)).tolist() for r in ROUNDINGS] == [[0, 2], [1, 3], [0, 2], [1, 3]]


def test_linear_weighs_both_neighbours():
    low, high, u = linear_pixels(Axis(2, 4, None, "half_pixel"), torch.zeros(()))
    assert (low.tolist(), high.tolist(), u.tolist()) == ([0, 0, 0, 1], [1, 1, 1, 1], [0, 0.25, 0.75, 0])


@pytest.mark.parametrize(
    ("factor", "recompute", "wanted"),
    [(2, None, (14, None)), (0.5, None, (3, 0.5)), (0.5, True, (3, None)), (1.3, None, (9, 1.3)), (8 / 7, None, (8, None))],
)
def test_the_ratio_is_the_factor_unless_the_sizes_have_it(factor, recompute, wanted):
    axis = axes_of("who", (7,), None, factor, "linear", None, recompute, None, None)[0]
    assert (axis.size, axis.scale) == wanted


VECTORS = {  # by hand, from the formulas on top of the file
    "half_pixel": ([0, 4, 8], {"size": 6, "mode": "linear"}, [0, 1, 3, 5, 7, 8]),
    "align_corners": ([0, 4, 8], {"size": 5, "mode": "linear", "align_corners": True}, [0, 2, 4, 6, 8]),
    "asymmetric": ([0, 4, 8], {"size": 6, "mode": "linear", "coordinates": "asymmetric"}, [0, 2, 4, 6, 8, 8]),
    "half, one pixel": ([0, 4, 8], {"size": 1, "mode": "linear"}, [4]),
    "pytorch, one pixel": ([0, 4, 8], {"size": 1, "mode": "linear", "coordinates": "pytorch_half_pixel"}, [0]),
    "middles": ([1, 2, 3, 4], {"scale_factor": 0.6, "mode": "linear", "coordinates": "half_pixel_symmetric"}, [5 / 3, 10 / 3]),
    "factor itself": ([1, 2, 3, 4], {"scale_factor": 0.6, "mode": "linear"}, [4 / 3, 3]),
    "recomputed": ([1, 2, 3, 4], {"scale_factor": 0.6, "mode": "linear", "recompute_scale_factor": True}, [1.5, 3.5]),
    "prefer floor": ([1, 2, 3, 4], {"size": 2, "coordinates": "half_pixel", "rounding": "round_prefer_floor"}, [1, 3]),
    "prefer ceil": ([1, 2, 3, 4], {"size": 2, "coordinates": "half_pixel", "rounding": "round_prefer_ceil"}, [2, 4]),
    "ceil": ([1, 2, 3, 4], {"size": 6, "coordinates": "asymmetric", "rounding": "ceil"}, [1, 2, 3, 3, 4, 4]),
}


@pytest.mark.parametrize("name", VECTORS)
def test_numbers_on_paper(name):
    values, options, expected = VECTORS[name]
    for route in ("plain", "vendor"):
        with twofold.route(route):
            y = resize(torch.tensor([[values]], dtype=torch.float64), **options)
        assert torch.allclose(y, torch.tensor([[expected]], dtype=torch.float64), rtol=1e-12), y


X = torch.zeros(1, 2, 4, 4)
BAD = {
    "mode": (
        lambda: Upsample(2, mode="cubic"),
        'Upsample: expected mode to be one of "nearest", "nearest-exact", "linear", "bilinear", "trilinear", got \'cubic\'.',
    ),
    "area": (lambda: resize(X, 2, mode="area"), "got 'area'. Use AdaptiveAvgPool."),
    "bicubic": (lambda: resize(X, 2, mode="bicubic"), "got 'bicubic'. Use torch.nn.functional.interpolate."),
    "neither": (lambda: resize(X), "resize: expected size or scale_factor, got neither."),
    "both": (lambda: Upsample(2, 2), "Upsample: expected size or scale_factor, got both."),
    "size 0": (lambda: Upsample(0), "Upsample: expected size to be one whole number, from 1 to 2147483647, got 0."),
    "size 2.5": (lambda: resize(X, 2.5), "resize: expected size to be one whole number or two, from 1"),
    "three sizes": (lambda: resize(X, (2, 2, 2)), "got (2, 2, 2)."),
    "factor 0": (lambda: Upsample(scale_factor=0), "Upsample: expected scale_factor to be a number above 0 or 1 of them, got 0."),
    "factor nan": (lambda: resize(X, scale_factor=float("nan")), "expected scale_factor to be a number above 0 or 2 of them, got nan."),
    "three factors": (lambda: resize(X, scale_factor=(2, 2, 2)), "above 0 or 2 of them, got (2, 2, 2)."),
    "words": (lambda: resize(X, scale_factor="2"), "got '2'."),
    "coordinates": (
        lambda: resize(X, 2, coordinates="tf_crop_and_resize"),
        "resize: expected coordinates to be one of half_pixel, pytorch_",
    ),
    "rounding": (
        lambda: resize(X, 2, rounding="up"),
        "resize: expected rounding to be one of floor, ceil, round_prefer_floor, round_prefer_ceil",
    ),
    "rounding of linear": (
        lambda: resize(X, 2, mode="linear", rounding="ceil"),
        'rounding=\'ceil\' is for mode "nearest"; "linear" rounds nothing.',
    ),
    "corners of nearest": (lambda: Upsample(2, align_corners=False), 'align_corners is for linear modes; "nearest" takes coordinates='),
    "twice": (
        lambda: resize(X, 2, mode="linear", align_corners=True, coordinates="asymmetric"),
        "align_corners=True and coordinates='asymmetric' say the same thing twice. Give one.",
    ),
    "recompute": (lambda: resize(X, 2, recompute_scale_factor=True), "recompute_scale_factor is for scale_factor; got size=2."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings(name):
    check_message(*BAD[name])
