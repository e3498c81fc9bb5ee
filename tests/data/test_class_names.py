"""Which class was likely meant: near misses by name, numbers by their order; at most ten of each are named, and nothing is loaded."""

from pathlib import Path

import pytest
from PIL import Image

from twofold.cli.main import main
from twofold.data import image_folder
from twofold.data.class_names import advice, near, some, unknown_classes
from twofold.data.image_folder import image_folder as open_folder

NEAR = [
    (["tshirt", "shoe"], ["T-Shirt", "shoe"], {"T-Shirt": "tshirt"}),
    (["cat", "dog"], ["Cats", "dogs"], {"Cats": "cat", "dogs": "dog"}),
    (["cat", "cats"], ["CATS", "Cat"], {"CATS": "cats", "Cat": "cat"}),
    (["long_sleeve"], ["Long Sleeve", "longsleeves"], {"Long Sleeve": "long_sleeve"}),  # each at most once
    (["cat", "dog"], ["cat", "zebra"], {}),
    (["cat", "dog"], ["cat", "cats", "dog"], {}),  # cat is there already
    (["Größe"], ["GRÖSSE"], {"GRÖSSE": "Größe"}),
    (["+", "-"], ["++", "-"], {}),
]


@pytest.mark.parametrize(("expected", "found", "meant"), NEAR)
def test_what_is_likely_meant(expected: list[str], found: list[str], meant: dict[str, str]) -> None:
    assert near(expected, found) == meant


def test_numbers_are_mapped_by_their_order_where_they_are_as_many() -> None:
    names = [f"c{letter}" for letter in "abcdefghijk"]
    said = advice(names, [str(number) for number in range(11)])
    assert said.startswith("It has numbers where names were expected. If they count the classes in order: 0 = ca, 1 = cb, 2 = cc, 3 = cd")
    assert said.endswith("9 = cj and 1 more.") and "10 =" not in said  # not in the order of letters, where 10 comes before 2
    assert advice(["2", "10"], ["dog", "cat"]) == (
        "It has names where numbers were expected. If they count the classes in order: cat = 2, dog = 10."
    )
    assert advice(["cat", "dog", "emu"], ["0", "1"]) == "It has numbers where names were expected, 2 for 3."
    assert advice(["cat", "dog"], ["01", "1"]) == advice(["0", "1"], ["1", "2"]) == advice(["cat"], ["3", "yak"]) == ""


def test_ten_are_named() -> None:
    assert some(map(str, range(12))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    assert unknown_classes("x", ("cat", "dog"), ("cat", "yak")) == "x: holds classes that the model does not know: yak. It knows cat, dog"


def lay(root: Path, **classes: list[str]) -> Path:
    for split, names in classes.items():
        for name in names:
            (root / split / name).mkdir(parents=True)
            for number in range(3):
                Image.new("L", (8, 8), 40 * number).save(root / split / name / f"{number}.png")
    return root


FOLDERS = {
    "near": (["cat", "tshirt"], ["cat", "T-Shirt"], "found T-Shirt, which the training folder lacks; training classes without pictures in "
             "it: tshirt. Likely the same: T-Shirt = tshirt. Rename the folders alike, or add training pictures"),
    "numbers": (["cat", "dog"], ["0", "1"], "which the training folder lacks; training classes without pictures in it: cat, dog. "
                "It has numbers where names were expected. If they count the classes in order: 0 = cat, 1 = dog. Rename the folders alike"),
    "names": (["0", "1"], ["cat", "dog"], "If they count the classes in order: cat = 0, dog = 1. Rename the folders alike"),
    "many": (["a", "b"], [f"x{n:02}" for n in range(13)], "x08, x09 and 3 more, which the training folder lacks"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("split", ["test", "val"])
def test_a_folder_is_refused_before_a_picture_is_opened(name: str, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, held, message = FOLDERS[name]
    monkeypatch.setattr(image_folder, "read_header", None)  # nobody calls it
    with pytest.raises(ValueError, match="expected the training classes") as caught:
        open_folder(lay(tmp_path, **{"train": train, split: held}))
    assert message in str(caught.value) and str(caught.value).startswith(f"{tmp_path / split}: ")


def test_training_leaves_nothing_and_evaluating_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(lay(tmp_path / "photos", train=["cat", "dog"], test=["Cats", "dog"]))]) == 2
    assert "Likely the same: Cats = cat." in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["photos"]
    words = ["train", str(tmp_path / "photos" / "train"), "--epochs", "1", "--config", "stages=8 M", "--out", "run"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(["evaluate", "run", str(lay(tmp_path / "others", a=["0", "1"]) / "a")]) == 2
    said = capsys.readouterr().err
    assert "does not know: 0, 1. It knows cat, dog. It has numbers where names were expected." in said and "0 = cat, 1 = dog." in said
