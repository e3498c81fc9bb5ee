"""A preparation is measured exactly, survives model.json, and makes the same tensor of the same picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.data.preparation import Preparation, fit

GOOD = {"mode": "RGB", "height": 4, "width": 6, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 1.0]}


def test_mean_and_std_are_those_of_the_pictures() -> None:
    x = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    P = Preparation.of(x)
    scaled = x.double() / 255
    assert (P.mode, P.height, P.width) == ("RGB", 4, 6)
    torch.testing.assert_close(torch.tensor(P.mean).double(), scaled.mean((0, 2, 3)), atol=1e-7, rtol=0)
    torch.testing.assert_close(torch.tensor(P.std).double(), scaled.std((0, 2, 3), correction=0), atol=1e-7, rtol=0)
    y = P.normalise(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-6, rtol=0)


def test_a_constant_channel_gets_std_1() -> None:
    P = Preparation.of(torch.full((2, 1, 3, 3), 51, dtype=torch.uint8))
    assert P.mean == pytest.approx((0.2,))
    assert P.std == (1.0,)


def test_normalise_leaves_its_input_alone() -> None:
    x = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
    y = Preparation("L", 2, 2, (0.5,), (0.25,)).normalise(x)
    assert torch.equal(y, torch.full((1, 1, 2, 2), 2.0))
    assert int(x.sum()) == 4 * 255


@pytest.mark.parametrize(
    "x", [torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8), torch.zeros(1, 3, 2, 2, dtype=torch.uint8)]
)
def test_normalise_says_what_it_expects(x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected a uint8 tensor \(B, C=1, H, W\) .* got .*Make pictures with"):
        Preparation("L", 2, 2, (0.0,), (1.0,)).normalise(x)


def test_picture_converts_and_resizes(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (250, 0, 0)).save(tmp_path / "a.png")
    grey = Preparation("L", 4, 6, (0.0,), (1.0,)).picture(tmp_path / "a.png")
    assert torch.equal(grey, torch.full((1, 4, 6), 75, dtype=torch.uint8))  # luma: 0.299 R + 0.587 G + 0.114 B
    colour = Preparation("RGB", 4, 6, (0.0,) * 3, (1.0,) * 3).picture(tmp_path / "a.png")
    assert colour.shape == (3, 4, 6)
    assert colour[:, 0, 0].tolist() == [250, 0, 0]


def test_shrinking_averages() -> None:
    """One white column in eight leaves an eighth of the light in every place: sampling would lose it or keep all."""
    x = np.zeros((64, 64), dtype=np.uint8)
    x[:, ::8] = 255
    assert np.abs(fit(Image.fromarray(x), "L", 8, 8).astype(int) - 32).max() <= 8


def test_a_picture_of_the_right_size_is_untouched() -> None:
    x = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fit(Image.fromarray(x), "RGB", 5, 7), x.transpose(2, 0, 1))


def test_dictionary_and_back() -> None:
    P = Preparation("RGB", 4, 6, (0.1, 0.2, 0.3), (0.4, 0.5, 1.0))
    assert Preparation.from_dict(GOOD) == P
    assert P.as_dict() == GOOD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "CMYK"}, "mode: expected"),
        ({"mode": ["L"]}, "mode: expected"),
        ({"height": 0}, "height: expected a whole number from 1 to 4096, got 0"),
        ({"width": 5000}, "width: expected a whole number from 1 to 4096, got 5000"),
        ({"width": True}, "width: expected a whole number"),
        ({"height": 4.0}, "height: expected a whole number"),
        ({"mean": [0.1]}, "mean: expected a list of 3 numbers"),
        ({"mean": "abc"}, "mean: expected a list of 3 numbers"),
        ({"mean": [0.1, 0.2, float("nan")]}, "mean: expected finite numbers"),
        ({"std": [0.1, 0.2, float("inf")]}, "std: expected finite numbers"),
        ({"std": [0.1, 0.2, "0.3"]}, "std: expected finite numbers"),
        ({"std": [0.1, 0.2, 0]}, "std: expected numbers above 0"),
        ({"extra": 1}, "expected an object with the keys mode, height, width, mean, std"),
    ],
)
def test_nonsense_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"preparation .*{message}"):
        Preparation.from_dict({**GOOD, **change})


@pytest.mark.parametrize("values", [None, [], "x" * 10_000, {}])
def test_what_is_no_object_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match="expected an object with the keys") as caught:
        Preparation.from_dict(values)
    assert len(str(caught.value)) < 300
