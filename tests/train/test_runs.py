"""Many runs: each is read as far as it can be, and none stops the others."""

import json

import pytest
import torch
import yaml

from twofold.models.catalogue import build
from twofold.train.folder import RunFolder
from twofold.train.lock import locked
from twofold.train.runs import count_weights, differing, find_runs, read_run

FINAL = {"final": True, "best_epoch": 2, "seconds": 5.0, "validation": {"accuracy": 0.5}, "test": {"accuracy": 0.25}}


def rows(count):
    return [{"epoch": e, "seconds": 2.0 * e, "train": {"loss": 1.0}, "validation": {"accuracy": 0.1 * e}} for e in range(1, count + 1)]


def write(path, history=(), model=None, **settings):
    """A run folder with these files only."""
    path.mkdir(parents=True)
    (path / "settings.yaml").write_text(yaml.safe_dump({"source": "digits", "learning": {"epochs": 3, **settings}}))
    if history:
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    if model is not None:
        RunFolder(path).write_model(model.state_dict(), {})
    return path


@pytest.fixture(scope="module")
def model():
    return build("vgg-mini", height=8, width=8, in_channels=1, classes=3)


def test_a_finished_run(tmp_path, model):
    record = read_run(write(tmp_path / "a", [*rows(2), FINAL], model))
    assert (record.state, record.reason, record.epochs, record.seconds) == ("done", "", 2, 5.0)
    assert record.history == rows(2) and record.final == FINAL and record.settings == {"source": "digits", "epochs": 3}
    assert record.weights == sum(p.numel() for p in model.parameters())  # batch normalisation's running figures are not learned


def test_runs_that_have_not_ended(tmp_path, model):
    begun = read_run(write(tmp_path / "begun"))
    assert (begun.state, begun.epochs, begun.seconds, begun.final, begun.weights) == ("stopped", 0, None, None, None)
    path = write(tmp_path / "on", rows(1), model)
    assert (read_run(path).state, read_run(path).seconds) == ("stopped", 2.0)
    with locked(path):
        assert read_run(path).state == "running"
    (path / ".lock").write_text("left by a crash")
    assert read_run(path).state == "stopped"


DAMAGE = [
    ("settings.yaml", None, "settings.yaml is missing"),
    ("settings.yaml", b"source: [x", "settings.yaml is no YAML: while parsing a flow sequence"),
    ("settings.yaml", b"\xff\xfe", "settings.yaml is no YAML: 'utf-8' codec"),
    ("settings.yaml", b"- a\n- b\n", "settings.yaml names no source"),
    ("metrics.jsonl", b'{"epoch": 1, ', "metrics.jsonl is damaged: Expecting"),
    ("metrics.jsonl", b"\xff", "'utf-8' codec can't decode"),
    ("metrics.jsonl", b'{"epoch": 1}\n{"epoch": 1}\n', "metrics.jsonl is damaged: line 2 is no row of an epoch"),
    ("metrics.jsonl", b"[1]\n", "metrics.jsonl is damaged: line 1 is no row of an epoch"),
    ("metrics.jsonl", b'{"final": true}\n{"epoch": 1}\n', "metrics.jsonl is damaged: line 1"),
    ("metrics.jsonl", b'{"epoch": "1"}\n', "metrics.jsonl is damaged: line 1"),
    ("metrics.jsonl", b'{"epoch": 1, "validation": 3}\n', "metrics.jsonl is damaged: line 1"),
    ("model.safetensors", None, "model.safetensors is missing"),
    ("model.safetensors", 5000, "model.safetensors is damaged or cut off: 5,000 bytes, not"),
    ("model.safetensors", 5, "model.safetensors is damaged or cut off"),
    ("model.safetensors", b"\x03\0\0\0\0\0\0\0[1]", "model.safetensors is damaged or cut off"),
    ("model.safetensors", b"\xff" * 100, "model.safetensors is damaged or cut off"),
]


@pytest.mark.parametrize(("name", "content", "reason"), DAMAGE)
def test_a_damaged_run_is_named_and_the_rest_of_it_read(tmp_path, model, name, content, reason):
    path = write(tmp_path / "a", [*rows(2), FINAL], model)
    if content is None:
        (path / name).unlink()
    else:
        (path / name).write_bytes((path / name).read_bytes()[:content] if isinstance(content, int) else content)
    record = read_run(path)
    assert record.state == "damaged" and record.reason.startswith(reason)
    assert (name == "settings.yaml" or record.settings) and (name == "metrics.jsonl" or record.epochs == 2)
    assert name == "model.safetensors" or record.weights


def test_settings_of_another_version_are_read_as_they_are(tmp_path):
    path = write(tmp_path / "a", warp=9)
    assert read_run(path).settings == {"source": "digits", "epochs": 3, "warp": 9} and read_run(path).state == "stopped"


def test_runs_are_found_beneath_a_folder_in_order(tmp_path):
    for name in ("b", "a", "sweep/trial-001", "b/state/inner", ".hidden/x"):
        write(tmp_path / name)
    (tmp_path / "metrics").mkdir()
    assert [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)] == ["a", "b", "sweep/trial-001"]
    assert find_runs(tmp_path / "a") == [tmp_path / "a"]
    with pytest.raises(ValueError, match=r"^runs: there is no folder .*nowhere\. Name the folder that holds the runs"):
        find_runs(tmp_path / "nowhere")


def test_settings_that_differ_are_those_with_several_values(tmp_path):
    a, b, c = (read_run(write(tmp_path / n, **s)) for n, s in (("a", {"seed": 1}), ("b", {"seed": True}), ("c", {"epochs": 3, "odd": 2})))
    assert differing([a, b, c]) == {a.path: {"seed": 1}, b.path: {"seed": True}, c.path: {}}


def test_weights_are_counted_by_the_header(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))
    RunFolder(tmp_path).write_model(model.state_dict(), {})
    assert count_weights(tmp_path / "model.safetensors") == 3 * 2 + 2 + 2 + 2 + 2 + 1
