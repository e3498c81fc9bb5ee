"""Language: perplexity and bits on a model whose probabilities are known, and the carried state."""

import math

import pytest
import torch

from twofold import nn
from twofold.data.values import Text
from twofold.tasks.language import Language, Window


class Known(nn.Module):
    """Gives token v the logit log(v + 1) and counts the calls in its state."""

    def forward(self, codes, state=None):
        self.states = [*getattr(self, "states", []), state]
        logits = torch.log(torch.arange(1.0, 5.0)).expand(*codes.shape, 4)
        return logits, (torch.tensor(float(len(self.states)), requires_grad=True) * 1.0,)

    def __init__(self):
        super().__init__()


def window(fresh, *codes):
    return Window(torch.zeros(len(codes), 1, dtype=torch.long), torch.tensor(codes)[:, None], fresh)


def test_scores_of_known_probabilities():
    # p(v) = (v + 1) / 10
    evaluation = Language(tokens_per_character=0.25).evaluate(Known(), [window(True, 0, 1), window(False, 3)])
    nats = -(math.log(0.1) + math.log(0.2) + math.log(0.4)) / 3
    assert evaluation.scores["loss"] == pytest.approx(nats)
    assert evaluation.scores["perplexity"] == pytest.approx(math.exp(nats))
    assert evaluation.scores["bits_per_character"] == pytest.approx(nats / math.log(2) / 4)
    assert evaluation.scores["unknown"] == pytest.approx(1 / 3)  # token 0
    assert evaluation.details["tokens"] == 3


def test_the_task_of_a_text_has_its_tokens_per_character():
    assert Language.of(Text(torch.zeros(3, dtype=torch.int32), 12, ("a",))).tokens_per_character == 0.25


def test_a_model_that_fails_has_its_mode_again():
    model = nn.Linear(2, 3).train()
    with pytest.raises(TypeError):
        Language().evaluate(model, [window(True, 0)])
    assert model.training


def test_the_state_is_carried_cut_from_the_graph_and_dropped_where_a_stream_begins():
    model, task = Known(), Language()
    first = task.loss(model, window(True, 0), carried=("stale",))
    assert not first.carried[0].requires_grad
    task.loss(model, window(False, 1), first.carried)
    assert model.states[0] is None
    assert model.states[1][0].item() == 1.0


def test_the_best_epoch_has_the_smallest_loss():
    task = Language()
    assert task.rank({"loss": 1.0}) > task.rank({"loss": 1.1})
    assert task.explain({"bits_per_character": 1.8765, "unknown": 0.0004}) == ("bits per character", "1.877")
    assert task.explain({"bits_per_character": 1.8765, "unknown": 0.0625})[1] == "1.877 (6.2 % of the tokens unknown)"


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="there is no text to evaluate"):
        Language().evaluate(Known(), [])
