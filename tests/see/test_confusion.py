"""The picture's data are the matrix, with the truth on the rows."""

import numpy as np
import pytest
import torch
from matplotlib.text import Annotation

from twofold.see.confusion import confusion
from twofold.see.style import png_bytes

MATRIX = [[8, 2, 0], [1, 1234567, 5], [0, 0, 0]]
CLASSES = ["cat", "dog", "eel"]


def matrix(N):
    return np.arange(N * N).reshape(N, N) % 7 + 90 * np.eye(N, dtype=int)


def written(figure):
    """What stands in the cells, by (column, row); the annotations around them are left out."""
    return {text.get_position(): text.get_text() for text in figure.axes[0].texts if not isinstance(text, Annotation)}


@pytest.mark.parametrize("source", [MATRIX, np.array(MATRIX, float), torch.tensor(MATRIX)], ids=["list", "array", "tensor"])
def test_the_colours_are_the_shares_of_each_row_and_an_empty_row_is_zero(source):
    shares = confusion(source, CLASSES).axes[0].images[0].get_array()
    expected = [[0.8, 0.2, 0], [1 / 1234573, 1234567 / 1234573, 5 / 1234573], [0, 0, 0]]
    np.testing.assert_allclose(shares, expected, rtol=1e-12)


def test_the_counts_stand_in_their_cells_at_column_and_row():
    places = written(confusion(MATRIX, CLASSES))
    assert [[places[column, row] for column in range(3)] for row in range(3)] == [
        ["8", "2", "0"],
        ["1", "1,234,567", "5"],
        ["0", "0", "0"],
    ]


def test_titles_labels_and_recall():
    figure = confusion(MATRIX, CLASSES)
    axes = figure.axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert axes.get_title("left") == "Confusion matrix"
    assert "1,234,575 of 1,234,583 predicted right, 100.0 %" in texts
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")
    assert [tick.get_text() for tick in axes.get_yticklabels()] == CLASSES
    assert [tick.get_text() for tick in axes.get_xticklabels()] == CLASSES
    recall = [text for text in axes.texts if text.get_position() == (54, 0)]
    assert [(text.xy[1], text.get_text()) for text in recall] == [(0, "80.0 %"), (1, "100.0 %"), (2, "-")]


@pytest.mark.parametrize(("N", "counts"), [(2, 4), (20, 400), (21, 0), (30, 0), (100, 0)])
def test_counts_are_written_up_to_20_classes_and_a_colour_bar_stands_in_for_them_beyond(N, counts):
    figure = confusion(matrix(N), [f"class {i}" for i in range(N)])
    assert len(written(figure)) == counts
    assert len(figure.axes) == (1 if counts else 2)


def test_no_text_is_below_10_points():
    figure = confusion(matrix(30), ["a long name of a class"] * 30)
    axes = figure.axes[0]
    assert min(text.get_size() for text in [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]) >= 10


def test_names_do_not_touch_where_there_are_too_many():
    names = [tick.get_text() for tick in confusion(matrix(100), [str(i) for i in range(100)]).axes[0].get_yticklabels()]
    assert names == [str(i) for i in range(0, 100, 3)]


def test_large_counts_are_short_where_cells_are_small():
    places = written(confusion(np.diag([999, 1234, 12345, 1234567, 99960, 999999, *[1] * 14]), [str(i) for i in range(20)]))
    assert [places[i, i] for i in range(6)] == ["999", "1.2k", "12k", "1.2M", "100k", "1000k"]


def test_long_and_strange_names_are_shortened_and_drawn_as_they_are():
    figure = confusion(matrix(3), ["a very very very long name of a class", "$\\frac{1}$", "two\nlines"])
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names[0].startswith("a very") and names[0].endswith("…")
    assert names[1:] == ["$\\frac{1}$", "two↵lines"]
    assert png_bytes(figure, 50).startswith(b"\x89PNG")


def test_the_same_matrix_gives_the_same_bytes():
    assert png_bytes(confusion(MATRIX, CLASSES), 50) == png_bytes(confusion(MATRIX, CLASSES), 50)


def test_no_prediction_at_all_has_no_share():
    assert "0 of 0 predicted right" in [text.get_text() for text in confusion(np.zeros((2, 2)), ["a", "b"]).axes[0].texts]


@pytest.mark.parametrize(
    ("source", "classes", "message"),
    [
        ([[1, 2]], ["a"], r"expected \(N, N\) counts, got shape \(1, 2\): it is not square"),
        ([1, 2], ["a", "b"], r"expected \(N, N\) counts, got shape \(2,\)"),
        (np.zeros((0, 0)), [], r"expected \(N, N\) counts, got shape \(0, 0\)"),
        ([[1, 2], [3, 4]], ["a"], r"confusion classes: expected N=2 names for the \(2, 2\) matrix, got 1"),
        ([[1, -2], [3, 4]], ["a", "b"], "expected counts of 0 or more, got -2"),
        ([[0.5, 0.5], [0, 1]], ["a", "b"], "expected whole numbers, got 0.5. Give counts"),
    ],
)
def test_what_is_no_confusion_matrix_is_refused(source, classes, message):
    with pytest.raises(ValueError, match=message):
        confusion(source, classes)
