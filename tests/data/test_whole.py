"""A source read whole has the codes, the form and the class numbers of the model, and need not be fit to learn from."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from twofold.data.preparation import Preparation
from twofold.data.sources import open_source
from twofold.data.vocabulary import Vocabulary
from twofold.data.whole import conform, read_pictures_whole, read_text_whole

GREY = Preparation("L", 2, 4, (0.0,), (1.0,))
COLOUR = Preparation("RGB", 2, 4, (0.0,) * 3, (1.0,) * 3)
CLASSES = ("cat", "dog", "emu")


def picture(path: Path, mode: str = "L", size: tuple[int, int] = (4, 2), shade: int | tuple[int, ...] = 7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade).save(path)


def test_a_text_is_encoded_once_by_the_models_vocabulary(tmp_path: Path) -> None:
    """Characters that are rare in this text, and words that its own vocabulary would cut off, are known to the model all the same."""
    text = "ab " * 5000 + "z"
    (tmp_path / "a.txt").write_text(text)
    own = Vocabulary(("\ufffd", "a", "b", " ", "z"))
    whole = read_text_whole(tmp_path / "a.txt", own)
    assert torch.equal(whole.part.codes_T, own.encode(text)) and whole.part.codes_T[-1] == 4
    words = Vocabulary(("\ufffd", " ab", "ab"), "word")
    assert torch.equal(read_text_whole(str(tmp_path / "a.txt"), words).part.codes_T, words.encode(text))


def test_a_short_text_and_a_folder_of_texts(tmp_path: Path) -> None:
    own = Vocabulary.of("abc\n")
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name)
    (tmp_path / "c.txt").write_bytes(b"\xff")
    assert read_text_whole(tmp_path / "a.txt", own).part.characters == 1
    whole = read_text_whole(tmp_path, own)
    assert own.decode(whole.part.codes_T) == "a\n\n\nb" and [file.path for file in whole.skipped] == ["c.txt"]
    for name in "ab":
        (tmp_path / f"{name}.txt").unlink()
    with pytest.raises(ValueError, match=r"none of its files can be read. c.txt: not UTF-8"):
        read_text_whole(tmp_path, own)


def test_a_built_in_text_is_all_of_its_parts() -> None:
    own = Vocabulary.of("import os\n")
    source = open_source("python-source", vocabulary=own)
    assert source.vocabulary is own
    whole = read_text_whole("python-source", own)
    assert whole.part.characters == sum(part.characters for part in source[2:5]) == len(whole.part.codes_T)


def test_one_picture_of_one_class_is_enough(tmp_path: Path) -> None:
    picture(tmp_path / "emu" / "1.png")
    whole = read_pictures_whole(tmp_path, CLASSES, GREY)
    assert whole.part.x_BCHW.tolist() == [[[[7] * 4] * 2]] and whole.part.y_B.tolist() == [2] and whole.notes == ()


def test_pictures_of_every_split_count(tmp_path: Path) -> None:
    picture(tmp_path / "test" / "dog" / "1.png")
    picture(tmp_path / "val" / "cat" / "2.png")
    whole = read_pictures_whole(tmp_path, CLASSES, GREY)
    assert dict(zip(whole.part.names, whole.part.y_B.tolist(), strict=True)) == {"test/dog/1.png": 1, "val/cat/2.png": 0}


def test_other_colours_and_sizes_are_converted_and_it_is_said(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png", "RGB", (9, 9), (200, 200, 200))
    picture(tmp_path / "cat" / "2.png", "L", (4, 2), 10)
    grey = read_pictures_whole(tmp_path, CLASSES, GREY)
    assert grey.part.x_BCHW.flatten(1).unique(dim=1).tolist() == [[200], [10]]
    assert grey.notes == (
        "1 of 2 pictures is in colour and read as grey, as the model needs",
        "pictures are resized to 2 x 4 (as the model needs); sides are stretched to fit",
    )
    colour = read_pictures_whole(tmp_path, CLASSES, COLOUR)
    assert colour.part.x_BCHW.shape == (2, 3, 2, 4)
    assert colour.notes[0] == "1 of 2 pictures is grey and read as RGB, as the model needs"


def test_classes_that_the_model_does_not_know(tmp_path: Path) -> None:
    picture(tmp_path / "yak" / "1.png")
    with pytest.raises(ValueError, match="holds classes that the model does not know: yak. It knows cat, dog, emu"):
        read_pictures_whole(tmp_path, CLASSES, GREY)
    with pytest.raises(ValueError, match="digits: holds classes that the model does not know: 0, 1, 2"):
        read_pictures_whole("digits", CLASSES, GREY)


def test_pictures_without_class_folders_or_content(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    with pytest.raises(ValueError, match="found 1 picture but no class folders"):
        read_pictures_whole(tmp_path, CLASSES, GREY)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "2.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no picture can be read. cat/2.png: the file is empty"):
        read_pictures_whole(tmp_path, CLASSES, GREY)


def test_a_built_in_source_takes_the_models_form_and_numbers() -> None:
    digits = open_source("digits")
    turned = digits.classes[::-1]
    assert torch.equal(conform(digits, digits.test, turned, digits.preparation).y_B, 9 - digits.test.y_B)
    whole = read_pictures_whole("digits", digits.classes, COLOUR)
    assert whole.part.x_BCHW.shape == (1797, 3, 2, 4)
    assert torch.equal(whole.part.x_BCHW[0, 0], COLOUR._replace(mode="L").fit(Image.fromarray(digits.train.x_BCHW[0, 0].numpy()))[0])
