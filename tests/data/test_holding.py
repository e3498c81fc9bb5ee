"""Held or in files, a folder gives the same pictures, the same statistics and the same fingerprint; memory decides which."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.data import holding as module
from twofold.data.findings import inspect
from twofold.data.fingerprint import fingerprint
from twofold.data.holding import fits
from twofold.data.image_folder import image_folder, whole_folder
from twofold.data.options import DataOptions
from twofold.data.streamed import Form, PictureFiles
from twofold.data.values import Images
from twofold.data.whole import conform


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes, kinds and modes, one cut short, one twice."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, ending in (("cat", "png"), ("dog", "jpg")):
        (root / name).mkdir()
        for number in range(11):
            x_HWC = random.integers(0, 256, (8 + number, 20 - number, 3), dtype=np.uint8)
            Image.fromarray(x_HWC if number else x_HWC[..., 0]).save(root / name / f"{number:02}.{ending}")
    (root / "cat" / "05.png").write_bytes((root / "cat" / "05.png").read_bytes()[:200])
    (root / "cat" / "06.png").write_bytes((root / "cat" / "07.png").read_bytes())
    return root


def test_files_give_what_memory_gives_bit_for_bit(folder: Path) -> None:
    held, filed = (image_folder(folder, DataOptions(image_size=9, hold=hold)) for hold in ("memory", "files"))
    for split in ("train", "validation", "test"):
        one, other = getattr(held, split), getattr(filed, split)
        assert (type(one), type(other)) == (Images, PictureFiles)
        assert torch.equal(one.x_BCHW, other.pictures(torch.arange(len(other.y_B))))
        assert torch.equal(one.y_B, other.y_B) and one.names == other.names and other.root.is_absolute()
    assert held.preparation == filed.preparation
    assert held._replace(train=0, validation=0, test=0) == filed._replace(train=0, validation=0, test=0)
    assert [file.path for file in filed.skipped] == ["cat/05.png"]
    assert fingerprint(held) == fingerprint(filed)
    assert inspect(held, "x") == inspect(filed, "x")
    assert any("cat/06.png" in note for note in inspect(filed, "x").notes)


def test_a_model_reads_files_in_its_own_form_and_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, filed = (image_folder(folder, DataOptions(image_size=9, hold=hold)) for hold in ("memory", "files"))
    classes = ("dog", "bird", "cat")
    for size in (9, 5):
        kind = held.preparation._replace(mode="L", height=size)
        part = conform(filed, filed.test, classes, kind)
        assert part.pictures(torch.tensor([0])).shape == (1, 1, size, 9)
        assert torch.equal(part.y_B, conform(held, held.test, classes, kind).y_B)
    assert conform(filed, filed.test, classes, held.preparation).marks == filed.test.marks
    kept = whole_folder(folder, classes, held.preparation)
    monkeypatch.setattr(module, "free_memory", lambda: 100)
    read = whole_folder(folder, classes, held.preparation)
    assert (type(kept.part), type(read.part)) == (Images, PictureFiles)
    assert torch.equal(kept.part.x_BCHW, read.part.pictures(torch.arange(21))) and kept.part.names == read.part.names
    assert read.skipped == kept.skipped and len(read.notes) == len(kept.notes) + 1


@pytest.mark.parametrize(
    ("hold", "free", "held"), [("auto", 4800, True), ("auto", 4799, False), ("memory", 2400, True), ("files", 1 << 40, False)]
)
def test_memory_decides_unless_the_user_does(hold: str, free: int, held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda: free)
    notes: list[str] = []
    assert fits("x", 4, Form("RGB", 10, 10), hold, notes) == held
    assert bool(notes) == (hold == "auto" and not held)


def test_what_stays_in_files_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda: 3 << 30)
    notes: list[str] = []
    fits("x", 1_000_000, Form("L", 64, 64), "auto", notes)
    assert notes == ["the pictures take 3.8 GiB, 3.0 GiB of memory are free: they stay in their files and are read batch by batch"]


def test_holding_more_than_there_is_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda: 1 << 20)
    with pytest.raises(ValueError) as caught:
        fits("photos", 1000, Form("RGB", 64, 64), "memory", [])
    assert str(caught.value) == (
        "photos: 1,000 pictures of 64 x 64 RGB take 11.7 MiB, 23.4 MiB while they are read, and 1.0 MiB of memory are free. "
        "To train all the same, make them smaller (--image-size 9 or less), or leave them in their files: --hold files"
    )
