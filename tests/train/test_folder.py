"""The run folder: nothing of an earlier run is lost, and every damaged file is named."""

import errno
import json
import os

import pytest
import torch

from twofold.data import files
from twofold.models.catalogue import build
from twofold.train.folder import RunFolder
from twofold.train.settings import Settings


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def test_weights_come_back_bit_for_bit(folder):
    model, other = build("char-lstm", vocabulary=20, units=8, embedding=4), build("char-lstm", vocabulary=20, units=8, embedding=4)
    folder.write_model(model.state_dict(), {"architecture": "char-lstm"})
    folder.read_weights(other)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert other.head.weight is other.embedding.weight
    assert folder.read_description() == {"format": 1, "architecture": "char-lstm"}


def test_settings_and_rows_come_back(folder):
    settings = Settings.of("digits", epochs=3, config={"classes": 3}, limit=2000)
    folder.write_settings(settings)
    assert folder.read_settings() == settings
    rows = [{"epoch": 1, "train": {"loss": 0.5}}, {"final": True}]
    folder.write_rows(rows)
    assert folder.read_rows() == rows


def test_a_run_is_refused_without_overwrite_and_left_as_it_is(folder):
    folder.write_settings(Settings.of("digits"))
    folder.write_rows([{"epoch": 1}])
    with pytest.raises(ValueError, match="already holds a run.*--overwrite"):
        folder.check_free(overwrite=False)
    folder.check_free(overwrite=True)
    assert folder.read_rows() == [{"epoch": 1}]


@pytest.mark.parametrize("overwrite", [True, False])
def test_other_files_are_never_touched(folder, overwrite):
    folder.path.mkdir()
    (folder.path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds other files \(thesis.txt\)"):
        folder.check_free(overwrite)
    assert (folder.path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("overwrite", [True, False])
def test_pictures_that_only_have_the_name_of_ours_are_never_touched(folder, overwrite):
    (folder.path / "pictures" / "cats").mkdir(parents=True)
    (folder.path / "pictures" / "cats" / "1.png").write_bytes(b"mine")
    with pytest.raises(ValueError, match="holds pictures but no settings.yaml, so it is no run"):
        folder.check_free(overwrite)
    assert (folder.path / "pictures" / "cats" / "1.png").read_bytes() == b"mine"


def test_clearing_removes_our_files_and_nothing_else(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("kept")
    folder.write_rows([{"epoch": 1}])
    (folder.path / "pictures").mkdir()
    (folder.path / "pictures" / "curves.png").write_bytes(b"x")
    (folder.path / "tensorboard").symlink_to(tmp_path / "elsewhere")
    (folder.path / "mine.txt").write_text("mine")
    folder.clear()
    assert [p.name for p in folder.path.iterdir()] == ["mine.txt"]
    assert (tmp_path / "elsewhere" / "kept").read_text() == "kept"


def test_what_a_killed_write_left_is_ours(folder):
    folder.path.mkdir()
    (folder.path / ".settings.yaml.0123456789abcdef.tmp").write_bytes(b"half")
    folder.check_free(overwrite=False)
    folder.write_settings(Settings.of("digits"))
    (folder.path / ".model.safetensors.0123456789abcdef.tmp").write_bytes(b"half")
    (folder.path / "state").mkdir()
    (folder.path / "state" / ".run.pt.0123456789abcdef.tmp").write_bytes(b"half")
    folder.check_free(overwrite=True)
    folder.clear()
    assert list(folder.path.iterdir()) == []
    (folder.path / ".thesis.txt.0123456789abcdef.tmp").write_text("years of work")
    with pytest.raises(ValueError, match="holds other files"):
        folder.check_free(overwrite=True)


def test_a_link_that_leads_nowhere_is_refused(folder):
    folder.path.symlink_to(folder.path / "gone")
    with pytest.raises(ValueError, match="is a link that leads nowhere; name a folder"):
        folder.check_free(overwrite=True)


def test_a_file_in_the_place_of_the_folder_is_refused(folder):
    folder.path.write_text("x")
    with pytest.raises(ValueError, match="is a file; name a folder"):
        folder.check_free(overwrite=True)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
def test_cut_weights_are_noticed_and_the_model_is_unchanged(folder, share):
    model = build("lenet5")
    folder.write_model(model.state_dict(), {})
    path = folder.path / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    other = build("lenet5")
    before = [p.clone() for p in other.parameters()]
    with pytest.raises(ValueError, match=r"model.safetensors is damaged or cut off"):
        folder.read_weights(other)
    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))


def test_weights_of_another_architecture_are_named(folder):
    folder.write_model(build("lenet5", classes=3).state_dict(), {})
    with pytest.raises(ValueError, match=r"does not belong.*fc3.weight is \(3, 84\), not \(10, 84\)"):
        folder.read_weights(build("lenet5"))
    with pytest.raises(ValueError, match="is missing.*"):
        folder.read_weights(build("vgg-mini"))


DAMAGE = {
    "model.json cut": ("model.json", '{"format": 1', "model.json is damaged"),
    "model.json deep": ("model.json", "[" * 100_000, "model.json is damaged"),
    "model.json later": ("model.json", '{"format": 2}', "expected format 1, got 2. Was it written by a later version"),
    "model.json list": ("model.json", "[]", "expected format 1, got []"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_descriptions_are_named(folder, name):
    file, content, message = DAMAGE[name]
    files.write(folder.path / file, content.encode())
    with pytest.raises(ValueError) as error:
        folder.read_description()
    assert message in str(error.value) and len(str(error.value)) < 1000


def test_damaged_rows_and_settings_are_named(folder):
    files.write_all({folder.path / "metrics.jsonl": b'{"epoch": 1}\n{"epo', folder.path / "settings.yaml": b"a: [1"})
    with pytest.raises(ValueError, match="metrics.jsonl is damaged"):
        folder.read_rows()
    with pytest.raises(ValueError, match="settings.yaml is no YAML"):
        folder.read_settings()


def test_missing_places_are_named(folder):
    with pytest.raises(ValueError, match="no run folder .*: there is no such folder"):
        folder.read_rows()
    folder.path.mkdir()
    with pytest.raises(ValueError, match="is no run folder, or an unfinished one: it has no model.json"):
        folder.read_description()


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "Permission denied")])
def test_a_disk_that_refuses_loses_nothing(folder, monkeypatch, number, words):
    model = build("lenet5")
    folder.write_model(model.state_dict(), {"epoch": 1})

    def refuse(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ValueError, match=f"cannot write to .*: {words}. What was written before is intact"):
        folder.write_model(build("lenet5").state_dict(), {"epoch": 2})
    monkeypatch.undo()
    assert json.loads((folder.path / "model.json").read_text())["epoch"] == 1
    other = build("lenet5")
    folder.read_weights(other)
    assert torch.equal(other.fc3.weight, model.fc3.weight)
    assert sorted(p.name for p in folder.path.iterdir()) == ["model.json", "model.safetensors"]
