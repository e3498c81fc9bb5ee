"""The sheets show the pictures that came, with what was said about them; the worst mistakes come first."""

import numpy as np
import pytest
import torch

from twofold.see.predictions import mistakes, predictions
from twofold.see.style import PALETTE, png_bytes

CLASSES = ["cat", "dog", "eel"]
TRUTH = [0, 1, 2, 0]
PREDICTED = [0, 2, 1, 1]
CONFIDENCE = [0.99, 0.6, 0.8, 0.7]
TRUTH_CONFIDENCE = [0.99, 0.3, 0.15, 0.25]


def pictures(B=4, C=3, H=8, W=8):
    return np.random.default_rng(0).integers(0, 256, (B, C, H, W), dtype=np.uint8)


def words(figure):
    """The lines under the tiles, without the line beneath the title."""
    return [text.get_text() for text in figure.axes[0].texts[1:] if text.get_text()]


def test_the_tiles_are_the_pictures():
    given = pictures()
    images = predictions(given, TRUTH, PREDICTED, CONFIDENCE, CLASSES, 2).axes[0].images
    assert [np.asarray(image.get_array()).tolist() for image in images] == np.moveaxis(given, 1, -1).tolist()


def test_grey_pictures_are_drawn_from_black_to_white_in_sharp_pixels():
    given = pictures(C=1)
    images = predictions(torch.tensor(given), TRUTH, PREDICTED, CONFIDENCE, CLASSES).axes[0].images
    assert [np.asarray(image.get_array()).tolist() for image in images] == given[:, 0].tolist()
    assert {(image.get_clim(), image.get_interpolation(), image.get_cmap().name) for image in images} == {((0, 255), "nearest", "gray")}


def test_right_and_wrong_differ_by_sign_words_and_frame():
    figure = predictions(pictures(2), [0, 1], [0, 2], [0.99, 0.6], CLASSES)
    assert words(figure) == ["✓ cat", "99 %", "✗ eel", "60 %", "true dog"]
    right, wrong = figure.axes[0].patches
    assert (right.get_linewidth(), wrong.get_linewidth()) == (1, 3)
    assert figure.axes[0].get_title("left") == "Predictions"
    assert figure.axes[0].texts[0].get_text() == "1 right ✓, 1 wrong ✗; with the confidence of the model"


def test_the_worst_mistakes_are_the_most_confident_wrong_ones_with_the_share_of_the_truth():
    figure = mistakes(pictures(), TRUTH, PREDICTED, CONFIDENCE, TRUTH_CONFIDENCE, CLASSES, most=2)
    assert words(figure) == ["✗ dog", "80 %", "true eel", "15 %", "✗ dog", "70 %", "true cat", "25 %"]
    assert np.asarray(figure.axes[0].images[0].get_array()).tolist() == np.moveaxis(pictures()[2], 0, -1).tolist()
    assert figure.axes[0].get_title("left") == "Worst mistakes"
    assert "2 of the 3 that are wrong among 4 predictions" in figure.axes[0].texts[0].get_text()


def test_the_worst_may_be_given_alone_with_how_many_there_are():
    figure = mistakes(pictures(1), [2], [1], [0.8], [0.15], CLASSES, among=(30, 4000))
    assert "1 of the 30 that are wrong among 4,000 predictions" in figure.axes[0].texts[0].get_text()
    assert [text.get_text() for text in mistakes(pictures(0), [], [], [], [], CLASSES, among=(0, 70)).texts][
        1
    ] == "All 70 predictions are right."


def test_they_may_come_by_the_loss_of_the_truth_with_the_names_of_their_files():
    names = ["cat/0.png", "dog/a rather long name of a file.png", "eel/7.png", "cat/9.png"]
    given = (pictures(), TRUTH, PREDICTED, CONFIDENCE, TRUTH_CONFIDENCE, CLASSES)
    figure = mistakes(*given, names=names, by="loss")
    lines = words(figure)
    assert lines[:5] == ["✗ dog", "80 %", "true eel", "15 %", "7.png"] and lines[5:9] == ["✗ dog", "70 %", "true cat", "25 %"]
    assert lines[-1].startswith("a rather") and lines[-1].endswith("…")
    assert "3 of the 3 that are wrong among 4 predictions, the highest loss first" in figure.axes[0].texts[0].get_text()
    with pytest.raises(ValueError, match=r"mistakes names: expected B=4, one a picture, got 1\."):
        mistakes(*given, names=names[:1])


def test_equal_confidence_keeps_the_order():
    figure = mistakes(pictures(3), [0, 1, 2], [1, 2, 0], [0.5] * 3, [0.5] * 3, CLASSES)
    assert [word for word in words(figure) if word.startswith("true")] == ["true cat", "true dog", "true eel"]


@pytest.mark.parametrize(("B", "says"), [(4, "All 4 predictions are right."), (0, "No prediction is wrong.")])
def test_no_mistake_is_said(B, says):
    figure = mistakes(pictures(B), TRUTH[:B], TRUTH[:B], CONFIDENCE[:B], CONFIDENCE[:B], CLASSES)
    assert [text.get_text() for text in figure.texts] == ["No mistakes", says]


def test_long_names_take_the_width_and_the_share_a_line_of_its_own():
    figure = predictions(pictures(1), [0], [1], [0.5], ["a very very long name of a cat", "$x_1$ and more of it"], 1)
    name, share, truth = figure.axes[0].texts[1::2][0], figure.axes[0].texts[4], figure.axes[0].texts[5]
    assert name.get_text().startswith("✗ $x_1$")
    assert (share.get_text(), share.get_color()) == ("50 %", PALETTE["grey"])
    assert truth.get_text().startswith("true a very")
    assert name.get_position()[1] < share.get_position()[1] < truth.get_position()[1]


def test_64_pictures_are_drawn_at_most():
    figure = predictions(pictures(70), [0] * 70, [0] * 70, [1.0] * 70, CLASSES, 12)
    assert len(figure.axes[0].images) == 64
    assert figure.axes[0].texts[0].get_text().endswith("(the first 64 of 70)")


def test_the_same_input_gives_the_same_bytes():
    drawn = [png_bytes(predictions(pictures(), TRUTH, PREDICTED, CONFIDENCE, CLASSES), 50) for _ in range(2)]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pictures_BCHW": pictures().astype(np.float32)}, "expected uint8, 0..255, got float32. Give the pictures as they were"),
        ({"pictures_BCHW": np.moveaxis(pictures(), 1, -1)}, r"\(B, C, H, W\) .*, got \(4, 8, 8, 3\). Channels last\?"),
        ({"pictures_BCHW": pictures(0)}, "expected at least one picture, got none|expected \\(B=0,\\)"),
        ({"truth": [0, 1]}, r"predictions truth: expected \(B=4,\), one value a picture, got \(2,\)"),
        ({"predicted": [0, 1, 2, 3]}, r"predictions predicted: expected class indices 0\.\.2, got 3"),
        ({"truth": [0, 1, 2, -1]}, r"predictions truth: expected class indices 0\.\.2, got -1"),
        ({"confidence": [1, 1, 1, 99.0]}, r"predictions confidence: expected probabilities 0\.\.1, got 99"),
        ({"confidence": [1, 1, 1, np.nan]}, r"predictions confidence: expected probabilities 0\.\.1, got nan"),
        ({"columns": 0}, r"columns: expected 1\.\.12, got 0"),
        ({"columns": 13}, r"columns: expected 1\.\.12, got 13"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message):
    given = {"pictures_BCHW": pictures(), "truth": TRUTH, "predicted": PREDICTED, "confidence": CONFIDENCE, "classes": CLASSES}
    with pytest.raises(ValueError, match=message):
        predictions(**(given | changed))


def test_how_many_mistakes_has_a_limit():
    with pytest.raises(ValueError, match=r"mistakes most: expected 1\.\.64 pictures, got 65"):
        mistakes(pictures(), TRUTH, PREDICTED, CONFIDENCE, TRUTH_CONFIDENCE, CLASSES, most=65)
