"""Bad input at the door: each case is answered by its own sentence and exit code 2, and an earlier run is left bit for bit as it was."""

import errno
import hashlib
import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from twofold.cli.main import main


def fingerprint(folder):
    """Every file below the folder with its content."""
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An earlier run that nothing here may harm."""
    place = tmp_path_factory.mktemp("earlier") / "run"
    assert main(["train", "digits", "--epochs", "1", "--config", "stages=8 M", "--out", str(place)]) == 0
    return place


def pictures(folder, count=8, size=(16, 16), classes=("cats", "dogs")):
    """Class folders of noise, a different grey for each class."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            values = generator.integers(100 * number, 100 * number + 90, (*size, 3), dtype=np.uint8)
            Image.fromarray(values).save(folder / name / f"{index}.png")
    return folder


def enormous(path):
    """A PNG whose header says 20000 x 20000, and nothing more."""
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))


def answer(capsys, *words):
    """The sentence of a refused command line."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("twofold: ") and captured.err.count("\n") == 1, captured.err
    return captured.err


def empty_folder(place):
    (place / "data").mkdir()


def one_image(place):
    (place / "data" / "cats").mkdir(parents=True)
    Image.new("L", (9, 9)).save(place / "data" / "cats" / "one.png")


def short_text(place):
    (place / "data").write_text("abc")


def latin_text(place):
    (place / "data").write_bytes("Übergröße und Äpfel. ".encode("latin-1") * 100)


def one_class(place):
    pictures(place / "data", classes=("cats",))


def loose_pictures(place):
    (place / "data").mkdir()
    for index in range(5):
        Image.new("L", (9, 9), index).save(place / "data" / f"{index}.png")


SOURCES = {
    "missing path": (lambda place: None, "no source"),
    "empty folder": (empty_folder, "found none among 0 files"),
    "one image": (one_image, "at least 2 classes, found 1: cats"),
    "one class": (one_class, "at least 2 classes, found 1: cats"),
    "no class folders": (loose_pictures, "class"),
    "text of 3 characters": (short_text, "at least 1,000 characters of text to learn from and to check with, got 3"),
    "text that is not UTF-8": (latin_text, "latin-1"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_sources_that_cannot_be_learned_from(name, capsys, tmp_path, run):
    make, words = SOURCES[name]
    make(tmp_path)
    before = fingerprint(run)
    for out in (tmp_path / "new", run):
        message = answer(capsys, "train", tmp_path / "data", "--out", out, *(["--overwrite"] if out == run else []))
        assert words in message
    assert fingerprint(run) == before and not (tmp_path / "new").exists()


def test_damaged_pictures_are_left_out_and_the_good_ones_train(capsys, tmp_path):
    folder = pictures(tmp_path / "data")
    whole = folder / "cats" / "0.png"
    Image.open(whole).save(folder / "cats" / "cut.jpg", quality=95)
    content = (folder / "cats" / "cut.jpg").read_bytes()
    (folder / "cats" / "cut.jpg").write_bytes(content[: len(content) // 2])
    enormous(folder / "dogs" / "huge.png")
    Image.new("RGB", (1, 1), (9, 9, 9)).save(folder / "dogs" / "dot.png")
    assert main(["train", str(folder), "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "cut.jpg" in page and "huge.png" in page and "100 million" in page
    found = json.loads(said(capsys, "data", "check", folder, "--json"))
    assert {os.path.basename(s["path"]) for s in found["skipped"]} == {"cut.jpg", "huge.png"}


def said(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_pictures_that_cannot_be_predicted(capsys, tmp_path, run):
    (tmp_path / "cut.jpg").write_bytes(b"")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    enormous(tmp_path / "huge.png")
    Image.new("L", (1, 1)).save(tmp_path / "dot.png")
    (tmp_path / "words.png").write_text("not a picture")
    assert "cut short" in answer(capsys, "predict", run, tmp_path / "cut.jpg")
    assert "more than 100 million pixels, the limit" in answer(capsys, "predict", run, tmp_path / "huge.png")
    assert "dot.png is 1x1" in answer(capsys, "predict", run, tmp_path / "dot.png")
    assert "words.png" in answer(capsys, "predict", run, tmp_path / "words.png")
    assert "none.png" in answer(capsys, "predict", run, tmp_path / "none.png")
    assert said(capsys, "predict", run, tmp_path / "dot.png", "--resize")


@pytest.fixture
def damaged(run, tmp_path):
    """A copy of the run, to be damaged."""
    copy = tmp_path / "copy"
    for name in fingerprint(run):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((run / name).read_bytes())
    return copy


def test_weights_cut_in_half(capsys, damaged):
    path = damaged / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for command in ("evaluate", "predict", "sample"):
        words = ["x.png"] if command == "predict" else []
        assert "model.safetensors is damaged or cut off" in answer(capsys, command, damaged, *words)


def test_an_unknown_architecture(capsys, damaged):
    path = damaged / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architecture": "lenet6"}))
    assert "no model 'lenet6': did you mean \"lenet5\"?" in answer(capsys, "evaluate", damaged)


def test_a_folder_that_holds_a_run_is_refused_and_kept(capsys, run):
    before = fingerprint(run)
    assert "already holds a run" in answer(capsys, "train", "digits", "--out", run)
    assert "--overwrite" in answer(capsys, "train", "digits", "--out", run)
    assert fingerprint(run) == before


def test_a_model_that_does_not_exist(capsys, run):
    before = fingerprint(run)
    assert 'did you mean "vgg-mini"' in answer(capsys, "train", "digits", "--model", "vgg-mimi", "--out", run, "--overwrite")
    assert fingerprint(run) == before


def fill(monkeypatch, first, last=10**6):
    """The disk is full from the first to the last file that is written."""
    synced, sync = [], os.fsync

    def full(handle):
        synced.append(handle)
        if first <= len(synced) <= last:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)


def expect_whole(place):
    """What lies there was written whole."""
    assert not list(place.rglob("*.tmp"))
    for path in place.glob("*.json*"):
        for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(line)


SHORT = ("train", "digits", "--epochs", "2", "--config", "stages=8 M", "--out")


@pytest.mark.parametrize(("first", "words"), [(1, "What was written before is intact"), (3, "Nothing was trained. Make room")])
def test_a_disk_that_is_full_at_the_beginning(capsys, tmp_path, monkeypatch, run, first, words):
    """Exit 2 before anything is trained, and nothing lies in the way of the same command."""
    before = fingerprint(run)
    fill(monkeypatch, first)
    message = answer(capsys, *SHORT, tmp_path / "new")
    assert "the disk is full" in message and words in message
    assert fingerprint(run) == before and not list((tmp_path / "new").iterdir())


def test_a_disk_that_fills_up_on_the_way(capsys, tmp_path, monkeypatch):
    """Training goes on, every write that failed is said, and what was written before is whole; the end, without weights, is exit 2."""
    fill(monkeypatch, 7)
    assert main([*SHORT, str(tmp_path / "new")]) == 2
    err = capsys.readouterr().err
    assert "epoch   1/2" in err and "epoch   2/2" in err and "the disk is full" in err and "Training goes on" in err
    assert "The checkpoint of step 34 could not be written" in err and "The one of step 0 is kept; training goes on." in err
    assert err.splitlines()[-1].startswith("twofold: The weights of epoch 2, the best, are not kept: cannot write to ")
    expect_whole(tmp_path / "new")


def test_a_disk_that_has_room_again_in_time_costs_nothing(capsys, tmp_path, monkeypatch):
    fill(monkeypatch, 6, 10)
    assert main([*SHORT, str(tmp_path / "new")]) == 0
    captured = capsys.readouterr()
    assert "the disk is full" in captured.err and "test:        accuracy" in captured.out
    expect_whole(tmp_path / "new")
    assert [json.loads(line).get("epoch") for line in (tmp_path / "new" / "metrics.jsonl").read_text().splitlines()] == [1, 2, None]
