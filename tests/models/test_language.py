"""The language model: tied weights are one, and the state carries on."""

import pytest
import torch

from twofold.models.catalogue import build


def test_tied_weights_are_one():
    model = build("char-lstm", vocabulary=30)
    assert model.head.weight is model.embedding.weight


def test_carried_state_continues_where_the_text_was_cut():
    model = build("char-lstm", vocabulary=30, units=16, embedding=8).eval()
    codes = torch.randint(0, 30, (10, 2))
    whole, _ = model(codes)
    first, state = model(codes[:4])
    second, _ = model(codes[4:], state)
    assert torch.allclose(torch.cat([first, second]), whole, atol=1e-6)


def test_no_token_sees_what_comes_after_it():
    model = build("char-lstm", vocabulary=30, units=16, embedding=8).eval()
    codes = torch.randint(0, 30, (10, 2))
    other = codes.clone()
    other[6:] = (other[6:] + 1) % 30
    first, second = model(codes)[0], model(other)[0]
    assert torch.equal(first[:6], second[:6]) and not torch.allclose(first[6], second[6])


def test_units_are_at_least_one():
    with pytest.raises(ValueError, match="expected units to be at least 1, got 0"):
        build("char-lstm", units=0)
