"""The batch of a bad step: kept as it was, with its names; not too many, not too large, and never at the price of the run."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from twofold.tasks.classify import Pictures
from twofold.tasks.language import Window
from twofold.train import evidence
from twofold.train.culprit import Fault
from twofold.train.evidence import save_batch

FAULT = Fault("batch", "features.0", "Conv2d", "The batch is broken.", (2,))


def pictures():
    x = torch.arange(4.0)[:, None, None, None].expand(4, 1, 2, 2)  # strides of zero: stored as what it shows
    return Pictures(torch.where(x == 2, math.nan, x), torch.arange(4))


def test_batch_and_names_come_back(tmp_path):
    kept = save_batch(tmp_path / "faults", 12, pictures(), FAULT, names=["a", "b", "c", "d"])
    assert kept.said == f"The batch is kept in {kept.path}." and kept.path.name == "step-00000012.safetensors"
    content, told = load_file(kept.path), json.loads(kept.path.with_suffix(".json").read_text())
    assert torch.equal(content["x_BCHW"].nan_to_num(9), pictures().x_BCHW.nan_to_num(9)) and content["y_B"].tolist() == [0, 1, 2, 3]
    assert told["fault"] == {**FAULT._asdict(), "items": [2]} and told["samples"] == ["a", "b", "c", "d"] and told["items"] is None
    assert told["batch"] == "Pictures" and told["tensors"]["x_BCHW"] == {"shape": [4, 1, 2, 2], "dtype": "float32"}


def test_a_window_with_the_state_that_it_goes_on_from(tmp_path):
    codes, h = torch.zeros(3, 2, dtype=torch.int64), torch.ones(1, 2, 4)
    kept = save_batch(tmp_path, 0, Window(codes, codes, False), Fault("nowhere"), carried=(h, h))  # the same tensor twice
    assert {name: x.shape for name, x in load_file(kept.path).items()} == {
        "x_TB": (3, 2), "y_TB": (3, 2), "carried.0": (1, 2, 4), "carried.1": (1, 2, 4),
    }  # fmt: skip
    assert json.loads(kept.path.with_suffix(".json").read_text())["values"] == {"fresh": False, "carry": None, "starts_TB": None}


def test_of_a_large_batch_the_broken_items_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "LARGEST", 50)  # of 4 * (16 + 8) bytes: two items
    kept = save_batch(tmp_path, 1, pictures(), FAULT, names=torch.tensor([70, 71, 72, 73]))
    told = json.loads(kept.path.with_suffix(".json").read_text())
    assert told["items"] == [0, 2] and told["samples"] == [70, 72] and load_file(kept.path)["y_B"].tolist() == [0, 2]


def test_only_so_many_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "KEPT", 2)
    kept = [save_batch(tmp_path, step, pictures(), FAULT) for step in (1, 2, 3, 2)]
    assert [each.path is not None for each in kept] == [True, True, False, True]
    assert kept[2].said == f"2 batches are kept in {tmp_path} already: this one is not." and len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("place", ["a file", "a folder that says no"])
def test_a_disk_that_refuses_stops_nothing(tmp_path, monkeypatch, place):
    folder = tmp_path / "faults"
    if place == "a file":
        folder.write_text("")
    else:
        monkeypatch.setattr(evidence.files, "write_all", lambda contents: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    path, said = save_batch(folder, 1, pictures(), FAULT)
    assert path is None and said.startswith(f"The batch could not be kept in {folder}: ")
