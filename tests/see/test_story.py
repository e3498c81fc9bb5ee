"""The picture of the gates is that of the first recurrent layer, whatever its kind."""

from types import SimpleNamespace

import pytest
import torch

from twofold import nn
from twofold.data.vocabulary import Vocabulary
from twofold.see import story

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
