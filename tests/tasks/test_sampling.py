"""Sampling: the restricted distributions by hand, and the text of a model whose next token is known."""

import pytest
import torch

from twofold import nn
from twofold.data.vocabulary import Vocabulary
from twofold.tasks.sampling import Sampling, continue_text, distribution

LOGITS = torch.log(torch.tensor([0.5, 0.1, 0.2, 0.05, 0.15]))  # the first is the unknown token


def test_the_unknown_token_is_never_drawn():
    assert distribution(LOGITS, Sampling(1.0)).tolist() == pytest.approx([0, 0.2, 0.4, 0.1, 0.3])


def test_temperature_is_a_power_of_the_probabilities():
    squares = torch.tensor([0, 0.1, 0.2, 0.05, 0.15]) ** 2
    assert distribution(LOGITS, Sampling(0.5)).tolist() == pytest.approx((squares / squares.sum()).tolist(), rel=1e-5)


def test_temperature_zero_takes_the_most_probable():
    assert distribution(LOGITS, Sampling(0.0)).tolist() == [0, 0, 1, 0, 0]


def test_top_k_keeps_k():
    assert distribution(LOGITS, Sampling(1.0, top_k=2)).tolist() == pytest.approx([0, 0, 4 / 7, 0, 3 / 7])


def test_top_k_keeps_no_more_where_tokens_tie():
    assert (distribution(torch.zeros(6), Sampling(1.0, top_k=2)) > 0).sum() == 2


@pytest.mark.parametrize(("top_p", "kept"), [(0.39, [2]), (0.41, [2, 4]), (0.71, [1, 2, 4]), (1.0, [1, 2, 3, 4]), (1e-9, [2])])
def test_top_p_keeps_the_smallest_set_that_reaches_p(top_p, kept):
    probabilities = distribution(LOGITS, Sampling(1.0, top_p=top_p))
    assert probabilities.nonzero().flatten().tolist() == kept
    assert probabilities.sum().item() == pytest.approx(1)


class Counting(nn.Module):
    """After token v comes v + 1, round and round among 1 to 3; the state counts the steps."""

    def forward(self, codes, state=None):
        steps = (state or 0) + len(codes)
        self.steps = steps
        logits = torch.full((*codes.shape, 4), -30.0)
        return logits.scatter(2, (codes % 3 + 1)[..., None], 30.0), steps


VOCABULARY = Vocabulary(("\ufffd", "a", "b", "c"), "character")


def test_the_text_goes_on_from_the_prompt_with_its_state():
    model = Counting()
    assert continue_text(model, VOCABULARY, "ab", 5, Sampling()) == "cabca"
    assert model.steps == 2 + 5 - 1


def test_an_empty_prompt_begins_with_the_first_token():
    assert continue_text(Counting(), VOCABULARY, "", 3, Sampling()) == "bca"


def test_length_zero_writes_nothing():
    assert continue_text(Counting(), VOCABULARY, "a", 0, Sampling()) == ""


class Flat(nn.Module):
    def forward(self, codes, state=None):
        return torch.zeros(*codes.shape, 4), None


def test_the_seed_decides_and_the_users_generator_is_left_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    texts = [continue_text(Flat(), VOCABULARY, "a", 40, Sampling(seed=seed)) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert set(texts[0]) == set("abc")
    assert torch.equal(before, torch.get_rng_state())


BAD = {
    "temperature": (lambda: Sampling(-1.0), "expected a temperature of 0 (greedy) or more, got -1.0"),
    "nan": (lambda: Sampling(float("nan")), "expected a temperature"),
    "top-k": (lambda: Sampling(top_k=-1), "expected top-k of 0 (all tokens) or more, got -1"),
    "top-p": (lambda: Sampling(top_p=0.0), "expected top-p above 0"),
    "length": (lambda: continue_text(Flat(), VOCABULARY, "a", -1, Sampling()), "expected a length of 0 or more tokens, got -1"),
    "prompt": (
        lambda: continue_text(Flat(), VOCABULARY, "abx", 1, Sampling()),
        "the prompt holds what the model has never seen: 'x' at position 2",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
