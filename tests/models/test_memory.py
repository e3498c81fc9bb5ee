"""Memory: weights are counted before any is made, and drawing the real ones is not disturbed."""

import pytest
import torch

from twofold.models.catalogue import build
from twofold.models.memory import TRAINING, memory, refuse_beyond_memory


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("char-lstm", {"units": 10**7}, "weights need .* GiB of memory for the weights alone"),
        ("vgg-mini", {"stages": "15000 " * 40 + "M"}, "weights need"),
        ("char-lstm", {"units": 10**19}, "expected units to be at most 16,777,216, got 10,000,000,000,000,000,000"),
        ("char-lstm", {"layers": 10**6}, "expected layers to be at most 1,000, got 1,000,000"),
        ("vgg-mini", {"stages": "99999999999 M"}, "expected filters to be at most 16,777,216"),
        ("lenet5", {"height": 10**19}, "expected height to be at most"),
    ],
)
def test_what_no_machine_can_hold_is_refused(name, changes, words):
    with pytest.raises(ValueError, match=words):
        build(name, **changes)


def test_training_needs_four_times_as_much(monkeypatch):
    weights = 3 * 4 + 4
    monkeypatch.setattr("twofold.models.memory.memory", lambda: 4 * 4 * weights - 1)
    refuse_beyond_memory("x", lambda: torch.nn.Linear(3, 4))
    with pytest.raises(ValueError, match="to train it"):
        refuse_beyond_memory("x", lambda: torch.nn.Linear(3, 4), TRAINING)
    assert memory() > 1 << 20


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(3)
    whole = torch.nn.Linear(3, 4).weight
    torch.manual_seed(3)
    refuse_beyond_memory("x", lambda: torch.nn.Linear(3, 4))
    assert torch.equal(torch.nn.Linear(3, 4).weight, whole)
