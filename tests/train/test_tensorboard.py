"""What TensorBoard reads back from the event files is what was told."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from twofold.models.catalogue import build
from twofold.train.tensorboard import TensorBoard
from twofold.train.tracker import Start


def read(folder):
    events = EventAccumulator(str(folder / "tensorboard"), {"images": 0, "histograms": 0, "scalars": 0})
    return events.Reload()


def begin(folder, said=None, model=None, example=(), **more):
    board = TensorBoard((said if said is not None else []).append)
    board.begin(Start(Path(folder), {"learning_rate": 0.5, "source": "digits"}, model, example, **more))
    return board


def test_scalars_pictures_and_histograms_come_back(tmp_path):
    board = begin(tmp_path)
    board.step(3, {"step/loss": 0.5})
    board.epoch(5, {"loss/train": float("nan"), "accuracy/validation": 0.25})
    picture = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    board.picture(5, "filters", picture)
    board.histogram(5, "weights/a", torch.tensor([0.0, 1.0, 1.0]))
    board.end(None)
    events = read(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("step/loss") + events.Scalars("accuracy/validation")] == [(3, 0.5), (5, 0.25)]
    assert np.isnan(events.Scalars("loss/train")[0].value)
    (image,) = events.Images("filters")
    assert (image.step, image.width, image.height) == (5, 4, 2)
    (histogram,) = events.Histograms("weights/a")
    kept = histogram.histogram_value
    assert (histogram.step, kept.min, kept.max, kept.num, kept.sum) == (5, 0, 1, 3, 2)


def test_an_epoch_is_on_the_disk_when_it_has_been_told(tmp_path):
    board = begin(tmp_path)
    board.epoch(5, {"loss/train": 0.5})
    assert read(tmp_path).Scalars("loss/train")[0].value == 0.5
    board.end(None)


def test_settings_stand_beside_the_final_scores(tmp_path):
    begin(tmp_path).end({"final/accuracy/test": 0.75})
    events = read(tmp_path)
    assert events.Scalars("final/accuracy/test")[0].value == 0.75
    begun = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"learning_rate" in begun and b"digits" in begun
    assert b"final/accuracy/test" in events.SummaryMetadata("_hparams_/experiment").plugin_data.content


def test_a_run_that_was_broken_off_has_no_final_scores(tmp_path):
    begin(tmp_path).end(None)
    assert not read(tmp_path).summary_metadata


def test_a_resumed_run_strikes_out_what_came_after(tmp_path):
    first = begin(tmp_path)
    for number in (1, 2, 3):
        first.step(number, {"step/loss": float(number)})
    first.end(None)
    again = begin(tmp_path, number=2)
    again.step(3, {"step/loss": 30.0})
    again.end(None)
    assert [e.value for e in read(tmp_path).Scalars("step/loss")] == [1, 2, 30]


MODELS = {
    "lenet5": ({}, torch.zeros(1, 1, 28, 28)),
    "vgg-mini": ({"height": 8, "width": 8, "in_channels": 1}, torch.zeros(1, 1, 8, 8)),
    "char-lstm": ({"vocabulary": 9, "units": 4, "embedding": 4}, torch.zeros(5, 1, dtype=torch.long)),
    "word-lstm": ({"vocabulary": 9, "units": 4, "embedding": 4}, torch.zeros(5, 1, dtype=torch.long)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_names_the_layers_and_leaves_the_model_as_it_was(tmp_path, name):
    changes, example = MODELS[name]
    model, said = build(name, **changes), []
    next(model.children()).eval()
    modes, before = [m.training for m in model.modules()], {n: v.clone() for n, v in model.state_dict().items()}
    random = torch.get_rng_state()
    begin(tmp_path, said, model, (example,)).end(None)
    nodes = " ".join(node.name for node in read(tmp_path).Graph().node)
    assert said == [] and all(f"[{layer}]" in nodes for layer, m in model.named_children() if any(True for _ in m.parameters()))
    assert [m.training for m in model.modules()] == modes and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[n]) for n, value in model.state_dict().items())


class Untraceable(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError("this model\ncannot be followed")


def test_a_model_that_cannot_be_traced_has_no_graph_and_that_is_said(tmp_path):
    said = []
    board = begin(tmp_path, said, Untraceable(), (torch.zeros(1),))
    board.epoch(1, {"loss/train": 1.0})
    board.end(None)
    assert said == ["tensorboard: no graph, for the model cannot be traced (this model). Everything else is kept."]
    assert not read(tmp_path).Tags()["graph"] and read(tmp_path).Scalars("loss/train")


def test_a_full_disk_is_heard_where_it_happens(tmp_path, monkeypatch):
    board = begin(tmp_path)
    board.events.flush()

    def full(content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(board.events.record, "write", full)
    with pytest.raises(OSError, match="No space left"):
        board.step(1, {"step/loss": 1.0})
    board.end(None)
