"""The worst mistakes: wrong answers by the loss of their truth."""

import pytest
import torch

from twofold.tasks.classify import assess
from twofold.tasks.worst import Mistake, worst

P = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.98, 0.01, 0.01], [0.4, 0.35, 0.25], [0.98, 0.01, 0.01]], dtype=torch.float64)
TRUTH = torch.tensor([0, 2, 2, 1, 1])


def judged():
    found = assess(P.log(), TRUTH, ("a", "b", "c"))
    return found._replace(details=found.details | {"names": tuple("vwxyz")})


def test_they_come_by_loss_of_equals_the_first():
    found = worst(judged(), ("a", "b", "c"), 9)
    assert [mistake.name for mistake in found] == ["x", "z", "w", "y"]  # v is right
    assert found[2] == Mistake(1, "w", "c", "b", pytest.approx(0.6), pytest.approx(0.3), pytest.approx(-torch.tensor(0.3).log().item()))
    assert worst(judged(), ("a", "b", "c"), 1) == found[:1]


def test_a_truth_that_rounds_to_nothing_is_still_ranked():
    logits = torch.tensor([[200.0, 0.0], [300.0, 0.0], [1.0, 0.0]])
    found = assess(logits, torch.tensor([1, 1, 0]), ("a", "b"))
    found = found._replace(details=found.details | {"names": ("less", "more", "right")})
    assert [(mistake.name, mistake.loss) for mistake in worst(found, ("a", "b"), 3)] == [("more", 300), ("less", 200)]


def test_less_than_one_is_refused():
    with pytest.raises(ValueError, match="mistakes: expected a number of 1 or more, got 0"):
        worst(judged(), ("a", "b", "c"), 0)
