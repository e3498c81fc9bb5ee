"""What the report tells: the gates of the first recurrent layer, where losses part, where patience ended, where the time went."""

from types import SimpleNamespace

import pytest
import torch

from twofold import nn
from twofold.data.vocabulary import Vocabulary
from twofold.see import story
from twofold.tasks.classify import assess

LAYERS = {
    "LSTM": (lambda: nn.LSTM(3, 4, 2, peephole=True, bidirectional=True, proj_size=2), ("input", "forget", "output", "cell")),
    "GRU": (lambda: nn.GRU(3, 4, reset="before", layer_norm=True), ("reset", "update", "hidden")),
    "RNN": (lambda: nn.RNN(3, 4, nonlinearity="relu", zoneout=0.5), ("hidden",)),
}


def told(monkeypatch, layer, unit="character"):
    """(the pictures, what was drawn in them) of a model with that layer."""
    vocabulary, drawn = Vocabulary.of(story.GATES_TEXT, unit), {}
    model = nn.Module()
    model.embedding, model.further = nn.Embedding(len(vocabulary), 3), nn.Sequential(nn.Dropout(), layer)
    monkeypatch.setattr(story, "gates", lambda shown, text: drawn.update(shown))
    pictures = story._gates(model, SimpleNamespace(vocabulary=vocabulary))
    return pictures, drawn, model.embedding(vocabulary.encode(story.GATES_TEXT).long()[:, None])


@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_of_layer_shows_its_gates(kind, monkeypatch):
    layer, names = LAYERS[kind][0](), LAYERS[kind][1]
    (picture,), drawn, x_TBD = told(monkeypatch, layer)
    assert tuple(drawn) == names and picture.caption.startswith(f"The first {kind} layer while it reads: ")
    assert picture.alt.endswith(f" over {len(story.GATES_TEXT)} characters.")
    gates = layer.gates(x_TBD)
    assert all(torch.equal(drawn[name], gates[name][0, :, 0]) for name in names)


def test_words_and_models_without_recurrence_have_no_such_picture(monkeypatch):
    assert told(monkeypatch, nn.LSTM(3, 4), "word")[0] == []
    assert told(monkeypatch, nn.Linear(3, 4))[0] == []
    assert told(monkeypatch, torch.nn.LSTM(3, 4))[0] == []  # torch's own does not tell


def row(epoch, train, validation):
    return {"epoch": epoch, "train": {"loss": train}, "validation": {"loss": validation}}


OVER = [row(1, 2.0, 2.0), row(2, 1.0, 1.5), row(3, 0.5, 1.6), row(4, 0.2, 1.8)]


def test_the_curves_say_where_training_and_validation_part():
    told = "After epoch 2 training and validation part: the training loss falls on, from 1 to 0.2, and the validation loss rises, from 1.5"
    picture = story._curves(OVER)
    assert told in picture.caption and told in picture.alt
    assert "part" not in story._curves(OVER[:3]).caption


def test_the_headlines_say_where_patience_ended_and_what_the_majority_class_gives():
    task = SimpleNamespace(explain=lambda scores: ("loss", str(scores["loss"])))
    final = {"test": {"loss": 1}, "validation": {"loss": 2}, "best_epoch": 2}
    lines = [("test loss", "1"), ("validation loss", "2"), ("best epoch", "2")]
    assert story._headlines(task, final) == lines
    assert story._headlines(task, final | {"stopped_epoch": 5}) == [
        *lines, ("patience ended", "after epoch 5; everything went back to epoch 2"),
    ]  # fmt: skip
    beside = {"majority": {"class": "cats", "test": 0.25}}
    assert story._headlines(task, final | beside) == [lines[0], ("majority class, test", "25.00 % (cats)"), *lines[1:]]


def test_the_table_of_times_has_every_phase_as_a_share_and_in_seconds():
    table = story._time({"time": {"data": 0.25, "forward": 0.75}, "seconds": 8.0})
    assert table.rows == [("data", "25.0 %", "2.0 s"), ("forward", "75.0 %", "6.0 s")]


def test_reliability_is_told_as_the_model_is_and_with_its_temperature():
    logits, truth = torch.tensor([[3.0, 0.0]] * 10), torch.tensor([0] * 7 + [1] * 3)
    plain, warm = (story._reliable(assess(logits, truth, ("a", "b"), T)) for T in (1.0, 3.54))
    assert plain.alt == "Reliability: ECE 25.3 %, largest gap 25.3 %, loss 0.949."
    assert (
        warm.alt == "Before: ECE 25.3 %, largest gap 25.3 %, loss 0.949; With temperature 3.54: ECE 0.0 %, largest gap 0.0 %, loss 0.611."
    )
    assert [len(picture.figure.axes) for picture in (plain, warm)] == [2, 4] and warm.name == "reliability"


def test_the_table_of_scores_has_the_splits_in_columns():
    table = story._scores({"validation": {"loss": 0.5, "ece": 0.0312}, "test": {"loss": 0.25}, "seconds": 3.0})
    assert (table.header, table.rows) == (("score", "test", "validation"), [("loss", "0.2500", "0.5000"), ("ece", "-", "0.0312")])


def test_how_far_the_gradient_reached_back_is_drawn_where_that_was_recorded():
    recorded = [{**OVER[0], "reach": [{"step": 0, "reach": [1.0, 0.5, None]}, {"step": 9, "reach": [1.0, 0.1, 0.01]}]}, OVER[1]]
    (picture,) = story._reach(recorded)
    assert picture.name == "gradient-flow" and picture.alt == "Gradient norm against time lag, at 2 steps of the training."
    assert story._reach(OVER) == []
