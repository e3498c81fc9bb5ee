"""Pictures repeat byte for byte, and every text can be drawn."""

import io
import subprocess
import sys

import pytest
from PIL import Image

from twofold.see import style


def lines(title: str = "Loss"):
    figure = style.figure(4, 3)
    axes = figure.subplots()
    axes.plot([1, 2], [3, 4])
    style.name_axes(axes, "epoch", "loss")
    style.headline(axes, title, "best: 3")
    return figure


def test_the_size_is_inches_times_dots():
    assert Image.open(io.BytesIO(style.png_bytes(lines(), 50))).size == (200, 150)


def test_the_same_input_gives_the_same_bytes_and_so_does_the_same_figure_again():
    figure = lines()
    first = style.png_bytes(figure)
    style.png_bytes(figure, 50)
    assert style.png_bytes(figure) == first == style.png_bytes(lines())


def test_no_date_and_no_version_is_written():
    assert set(Image.open(io.BytesIO(style.png_bytes(lines()))).info) <= {"dpi"}


def test_save_png_writes_the_same_bytes_and_nothing_else(tmp_path):
    path = style.save_png(lines(), tmp_path / "new" / "picture.png")
    assert path.read_bytes() == style.png_bytes(lines())
    assert [found.name for found in path.parent.iterdir()] == ["picture.png"]


def test_axes_carry_their_labels_and_title():
    axes = lines().axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title("left")) == ("epoch", "loss", "Loss")


def test_no_global_state_of_matplotlib_is_loaded():
    program = "import sys; from twofold.see import style; style.png_bytes(style.card('a', 'b')); print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"


def test_importing_loads_no_matplotlib():
    program = (
        "import sys; from twofold.see import confusion, curves, filters, gates, predictions, report, style; "
        "print('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_card_says_its_words():
    assert [text.get_text() for text in style.card("No mistakes", "All is right.").texts] == ["No mistakes", "All is right."]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve $x_2$", "naïve $x_2$"),
        ("a\nb\tc\rd", "a↵b⇥c␍d"),
        ("a\x00\u202eb", "a□□b"),
        ("\ud800", "□"),
        ("\U0001f9e8", "□"),
    ],
    ids=["plain", "breaks", "hidden", "half a character", "no glyph"],
)
def test_every_text_becomes_drawable(text, shown):
    assert style.legible(text) == shown


@pytest.mark.parametrize("text", ["WWWWWWWWWWWWWWWWWWWW", "iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii", "golden retriever, long-haired"])
def test_long_text_is_cut_to_its_width_and_not_much_shorter(text):
    cut = style.fit(text, 80, 10)
    assert cut.endswith("…")
    assert text.startswith(cut[:-1])
    assert 80 - style.text_width("W", 10) - style.text_width(" ", 10) < style.text_width(cut, 10) <= 80


def test_text_that_fits_stays_and_the_width_grows_with_the_size():
    assert style.fit("cat", 80, 10) == "cat"
    assert style.text_width("cat", 20) == pytest.approx(2 * style.text_width("cat", 10), rel=0.1)


def test_a_text_of_a_megabyte_is_cut_at_once():
    assert style.fit("x" * 1_000_000, 80, 10) == style.fit("x" * 500, 80, 10)


@pytest.mark.parametrize("colors", [style.diverging, style.sequential])
def test_zero_is_white_and_no_number_is_grey(colors):
    middle = 0.5 if colors is style.diverging else 0.0
    assert colors()(middle)[:3] == pytest.approx((1, 1, 1), abs=0.02)
    assert colors()(float("nan"))[:3] == pytest.approx((0.5, 0.5, 0.5), abs=0.01)


def test_blue_is_negative_and_orange_positive():
    (red_low, _, blue_low, _), (red_high, _, blue_high, _) = style.diverging()(0.1), style.diverging()(0.9)
    assert blue_low > red_low
    assert red_high > blue_high


def test_what_is_cut_is_legible_too():
    assert style.fit("two\nlines and many more words", 60, 10).startswith("two↵lin")
