"""Sampling: a text, token by token, from what a language model believes comes next.

    p = softmax(logits / temperature), restricted to
        top-k    the k most probable tokens
        top-p    the smallest set of most probable tokens whose probabilities add up to at least p
    and scaled to sum to one.  Temperature 0: always the most probable token.

Fan, Lewis and Dauphin, "Hierarchical neural story generation", ACL 2018, section 5 (top-k);
Holtzman et al., "The curious case of neural text degeneration", ICLR 2020, section 3.1 (top-p)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from twofold.data.vocabulary import Vocabulary

UNKNOWN = 0  # the token that stands for everything outside the vocabulary: never sampled


@dataclass(frozen=True)
class Sampling:
    """How to choose. `top_k` 0 and `top_p` 1 restrict nothing. Raises ValueError for values that make no distribution."""

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"sample: expected a temperature of 0 (greedy) or more, got {self.temperature}.")
        if self.top_k < 0:
            raise ValueError(f"sample: expected top-k of 0 (all tokens) or more, got {self.top_k}.")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"sample: expected a seed from 0 up to 2**31 - 1, got {self.seed}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sample: expected top-p above 0 and up to 1 (all tokens), got {self.top_p}.")


def distribution(logits_V: Tensor, how: Sampling) -> Tensor:
    """The probabilities (V) by which the next token is drawn."""
    logits_V = logits_V.double().clone()
    logits_V[UNKNOWN] = -torch.inf
    if how.temperature == 0:
        return torch.nn.functional.one_hot(logits_V.argmax(), len(logits_V)).double()
    logits_V /= how.temperature
    if 0 < how.top_k < len(logits_V):
        keep = logits_V.topk(how.top_k).indices
        kept = torch.full_like(logits_V, -torch.inf)
        kept[keep] = logits_V[keep]
        logits_V = kept
    probabilities_V = logits_V.softmax(0)
    if how.top_p < 1:
        ordered, order = probabilities_V.sort(descending=True)
        before = ordered.cumsum(0) - ordered
        probabilities_V[order[before >= how.top_p]] = 0
        probabilities_V /= probabilities_V.sum()
    return probabilities_V


def continue_text(model: nn.Module, vocabulary: Vocabulary, prompt: str, length: int, how: Sampling) -> str:
    """The `length` tokens that follow the prompt, as text. Raises ValueError for a prompt that the vocabulary cannot spell."""
    if length < 0:
        raise ValueError(f"sample: expected a length of 0 or more tokens, got {length}.")
    strangers = vocabulary.unknown(prompt)
    if strangers:
        named = ", ".join(f"{token!r} at position {position}" for token, position in strangers[:5])
        raise ValueError(f"sample: the prompt holds what the model has never seen: {named}.")
    drawn = _draw(model, vocabulary, prompt, how)
    codes = torch.tensor([code for _, code in zip(range(length), drawn, strict=False)])
    return vocabulary.decode(codes)


def _draw(model: nn.Module, vocabulary: Vocabulary, prompt: str, how: Sampling) -> Iterator[int]:
    """Token after token, without end. An empty prompt starts after a line break, or after token 1 where there is none."""
    generator = torch.Generator().manual_seed(how.seed)
    start = prompt or ("\n" if "\n" in vocabulary.tokens else vocabulary.tokens[1])
    codes_TB = vocabulary.encode(start).long()[:, None]
    was_training = model.training
    model.eval()
    state = None
    try:
        while True:
            with torch.no_grad():
                logits_TBV, state = model(codes_TB, state)
            chosen = int(torch.multinomial(distribution(logits_TBV[-1, 0], how), 1, generator=generator))
            yield chosen
            codes_TB = torch.tensor([[chosen]])
    finally:
        model.train(was_training)
