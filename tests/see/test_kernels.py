"""The page of fixed kernels: it shows the kernels and answers that the mathematics gives, and the command line writes it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.cli.main import main
from twofold.see.kernels import SHOWN, answer, entries, kernels, number
from twofold.see.style import png_bytes
from twofold.space import filters

NOISE = np.random.default_rng(0)


def noise(*shape):
    return NOISE.integers(0, 256, shape, dtype=np.uint8)


def images(figure):
    return [np.ma.getdata(image.get_array()) for image in figure.axes[0].images]


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_every_kernel_of_the_table_is_shown():
    assert set(SHOWN) == set(filters.FILTERS)
    names = [entry.name for entry in entries()]
    assert len(set(names)) == len(names) == 22 and all(entry.make().dim() == 2 for entry in entries())
    assert [entry.name for entry in entries(["sobel", "box"])] == ["sobel vertical", "sobel horizontal", "box"]


def test_the_page_holds_the_picture_the_kernels_and_their_answers():
    given = noise(20, 30, 3)
    figure = kernels(given, "On noise", ["box", "sobel"])
    shown, _, box, mean, sobel, edges, _, _ = images(figure)
    x = torch.from_numpy(given / 255).permute(2, 0, 1)[None]
    grey = (0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2])[:, None]
    assert np.allclose(shown, given / 255) and np.allclose(box, 1 / 25) and np.array_equal(sobel, filters.sobel())
    assert np.allclose(mean, filters.apply(x, filters.box(5), "replicate")[0].permute(1, 2, 0))
    expected = filters.apply(grey, filters.sobel(), "replicate")[0, 0].numpy()
    assert np.allclose(edges, expected)
    scale = figure.axes[0].images[5].get_clim()[1]
    assert figure.axes[0].images[5].get_clim() == (-scale, scale) and (abs(expected) > scale).mean() == pytest.approx(0.01, abs=0.003)
    found = words(figure)
    assert {"On noise", "20×30 pixels", "sobel vertical", "3×3, sum 0", "5×5, each 1/25", f"full colour ±{scale:.2g}"} <= set(found)
    assert "Each kernel K slides over the picture x; its answer is" in found and not any("photo" in text for text in found)
    assert found.count("−2") == 2 and found.count("2") == 2  # the numbers of the two Sobel kernels
    assert not any(text.startswith(".") for text in words(kernels(given, "", ["gaussian"])))  # 13×13 have no room for numbers


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (40, 7, 1), (7, 300, 3), (900, 1100)])
def test_every_size_is_drawn_unstretched_and_on_the_page(shape):
    given = noise(*shape)
    figure = kernels(given, "x", ["identity", "laplacian_of_gaussian", "gabor"])
    width, height = figure.get_size_inches()
    H, W = shape[:2]
    for image in figure.axes[0].images:
        left, right, bottom, top = image.get_extent()
        assert left >= 0.3 and right <= width - 0.3 and top >= 0.9 and bottom <= height
        if image.get_array().shape[0] not in (3, 13, 17, 21):  # the kernels and the bar of colours
            assert (right - left) / (bottom - top) == pytest.approx(W / H, rel=0.1)
    reduced = any("reduced to" in text for text in words(figure))
    assert reduced == (max(shape[:2]) > 500)
    if reduced:
        assert max(images(figure)[3].shape) <= 410
    assert np.array_equal(answer(np.ones((4, 5, 1)), filters.sobel()), np.zeros((4, 5)))


def test_the_same_picture_gives_the_same_bytes():
    given = noise(9, 12)
    assert png_bytes(kernels(given, "a", ["line"]), 50) == png_bytes(kernels(given, "a", ["line"]), 50)


def test_numbers_take_few_characters():
    assert [number(v) for v in (-2.0, 0.04, -0.125, 0.001, -0.001, 10.0)] == ["−2", ".04", "−.12", "0", "0", "10"]


@pytest.mark.parametrize(
    ("given", "only", "message"),
    [
        (np.zeros((3, 8, 8)), (), r"expected \(H, W\) or \(H, W, 3\).* got \(3, 8, 8\)\. Channels first\?"),
        (np.zeros((0, 8)), (), r"none of them 0, got \(0, 8\)"),
        (np.full((4, 4), 255.0), (), "expected bytes, or numbers from 0 to 1, got 255 to 255"),
        (np.array([[0.0, np.nan]]), (), "numbers from 0 to 1, got nan to nan"),
        (np.zeros((4, 4)), ("sobl",), "expected names out of identity, .*, got 'sobl'. Did you mean \"sobel\"?"),
    ],
)
def test_what_cannot_be_drawn_is_refused(given, only, message):
    with pytest.raises(ValueError, match=message):
        kernels(given, "", only)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise(20, 30, 3)).save("street.png")
    (tmp_path / "notes.png").write_text("no picture")
    return tmp_path


def test_see_kernels_writes_the_page_and_says_where(place, capsys):
    assert main(["see", "kernels", "street.png", "--only", "sobel, gaussian"]) == 0
    assert capsys.readouterr().out == "3 kernels on street.png: street-kernels.png\n"
    with Image.open("street-kernels.png") as page:
        assert page.width == 1440
    assert main(["see", "kernels", "street.png", "--only", "box", "--out", "pages/box.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"picture": "street.png", "kernels": ["box"], "out": "pages/box.png"}
    assert (place / "pages" / "box.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.png"], "picture nothing.png: there is no such file"),
        (["notes.png"], "picture notes.png: its content is not a picture"),
        (["."], "is a folder, not a picture"),
        (["street.png", "--only", "sobel,gausian"], "got 'gausian'. Did you mean \"gaussian\"?"),
        (["street.png", "--out", "page.jpg"], "see kernels: expected --out as the name of a PNG file, for example page.png, got page.jpg"),
        (["street.png", "--out", "street.png"], "--out street.png is the picture itself"),
        (["street.png", "--outt", "x.png"], "Unknown option: --outt. Did you mean --out?"),
        ([], "IMAGE"),
    ],
)
def test_mistakes_are_answered_in_one_paragraph(place, capsys, arguments, message):
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert main(["see", "kernels", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
