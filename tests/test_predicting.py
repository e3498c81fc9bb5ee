"""Many pictures: folders and patterns are found in order, what cannot be read is passed over, and no more than a batch is held."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import twofold
from twofold import predicting
from twofold.data.values import Skipped
from twofold.predicting import find_pictures, predict_each
from twofold.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return twofold.fit("digits", out=tmp_path_factory.mktemp("many") / "run", quiet=True, epochs=1, config={"stages": "8 M"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five digits in two folders, one that is broken, a text, and a hidden file."""
    root = tmp_path / "many"
    for number, name in enumerate(("b/2.png", "a/1.png", "b/10.png", "c.png", "[1].png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)).save(root / name)
    (root / "a" / "broken.png").write_bytes((root / "c.png").read_bytes()[:60])
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden.png").write_bytes((root / "c.png").read_bytes())
    return root


NAMES = ["[1].png", "a/1.png", "a/broken.png", "b/10.png", "b/2.png", "c.png"]


def test_a_folder_is_walked_in_order(folder: Path) -> None:
    assert list(find_pictures([folder])) == [folder / name for name in NAMES]


def test_patterns_and_names_that_look_like_patterns(folder: Path) -> None:
    assert list(find_pictures([f"{folder}/b/*.png", folder / "[1].png"])) == [folder / "b/10.png", folder / "b/2.png", folder / "[1].png"]
    assert sorted(find_pictures([f"{folder}/**/1*.png"])) == [folder / "a/1.png", folder / "b/10.png"]
    assert list(find_pictures([f"{folder}/*.gif", folder / "no.png"])) == [Skipped(f"{folder}/*.gif", "matches no file"), folder / "no.png"]


def test_a_folder_without_pictures_is_said(tmp_path: Path) -> None:
    assert list(find_pictures([tmp_path])) == [Skipped(str(tmp_path), "holds no picture")]


@pytest.mark.parametrize("batch", [1, 2, 256])
def test_the_rest_is_done_and_batches_change_nothing(run: Run, folder: Path, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "EVALUATION_BATCH", batch)
    Image.new("L", (9, 8)).save(folder / "b" / "large.png")
    said = list(predict_each(run, find_pictures([folder])))
    assert [Path(one[0]).relative_to(folder).as_posix() for one in said] == [*NAMES[:-1], "b/large.png", NAMES[-1]]
    unread = {Path(one.path).name: one.reason for one in said if isinstance(one, Skipped)}
    assert unread["broken.png"].startswith("the file is ") and "every picture that the model has seen was 8x8" in unread["large.png"]
    read = [one for one in said if not isinstance(one, Skipped)]
    alone = [run.predict(one.name)[0] for one in read]
    assert [one.label for one in read] == [one.label for one in alone]
    assert [one.probability for one in read] == pytest.approx([one.probability for one in alone], abs=1e-5)


def test_files_are_read_when_their_turn_comes(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "EVALUATION_BATCH", 2)
    asked = []

    def endless():
        for number in range(10**9):
            asked.append(number)
            yield folder / "c.png"

    said = predict_each(run, endless())
    for _ in range(5):
        next(said)
    assert len(asked) == 6


def test_views_and_sizes_are_passed_on(run: Run, folder: Path) -> None:
    Image.new("L", (20, 30)).save(folder / "d.png")
    resized, flipped = (next(predict_each(run, [folder / "d.png"], resize=True, tta=tta)) for tta in ("", "flip"))
    assert resized.ranking == run.predict(folder / "d.png", resize=True)[0].ranking
    assert flipped.ranking == run.predict(folder / "d.png", resize=True, tta="flip")[0].ranking
