"""Language: the next token, given all that came before.

    loss               L = -(1/T) sum_t log p(x[t+1] | x[..t])          nats per token
    perplexity         exp(L)
    bits per character (L / log 2) * tokens / characters        of the text that is evaluated
    unknown            tokens that are code 0 / tokens

An unknown token is a single guess, yet all characters of the piece that it stands for count, and nobody has to spell them: the more is
unknown, the more bits per character flatter. Words suffer most. Compare two models only where the share of the unknown is alike, and small.

The state is carried from one batch to the next (and cut from the graph there: truncated back-propagation through time), so a batch
continues where the one before it ended.

Mikolov et al., "Recurrent neural network based language model", Interspeech 2010; Williams and Peng, "An efficient gradient-based
algorithm for on-line training of recurrent network trajectories", Neural Computation 2, 1990
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from twofold.data.values import Text
from twofold.layers.losses import cross_entropy
from twofold.tasks.task import Evaluation, Step, judging
from twofold.time.stretch import read_stretch

UNKNOWN = 0  # the code of whatever the vocabulary lacks
NOTABLE = 0.0005  # a share of unknown tokens that does not round to 0.0 %


class Window(NamedTuple):
    """A batch: T steps of B streams, and what follows each of the last of them. `fresh`: the streams begin here, so no state is carried in.

    Where y has fewer steps than x, the first of x are read for the gradient that goes back through them, and are not asked again.
    carry: the next batch goes on from the state after so many steps; None: after all. starts_TB: where a document begins, without a past.
    """

    x_TB: Tensor
    y_TB: Tensor
    fresh: bool
    carry: int | None = None
    starts_TB: Tensor | None = None


@dataclass(frozen=True)
class Language:
    """The task of continuing a text. `tokens_per_character` is that of the text which is evaluated: 1 for characters."""

    tokens_per_character: float = 1.0

    name = "language"

    @classmethod
    def of(cls, text: Text) -> "Language":
        """The task as it is judged on that text."""
        return cls(len(text.codes_T) / text.characters)

    def loss(self, model: nn.Module, batch: Window, carried: Any = None) -> Step:
        logits_TBV, _, kept = read_stretch(model, batch.x_TB, None if batch.fresh else carried, batch.starts_TB, batch.carry)
        asked_TBV = logits_TBV[len(batch.x_TB) - len(batch.y_TB) :]
        return Step(cross_entropy(asked_TBV.flatten(0, 1), batch.y_TB.flatten()), batch.y_TB.numel(), kept)

    def evaluate(self, model: nn.Module, batches: Iterable[Window]) -> Evaluation:
        """Scores: loss (nats per token), perplexity, bits_per_character, unknown (a share); details: the number of tokens."""
        total, tokens, unknown, carried = 0.0, 0, 0, None
        with judging(model):
            for batch in batches:
                loss, items, carried = self.loss(model, batch, carried)
                total, tokens = total + loss.item() * items, tokens + items
                unknown += int((batch.y_TB == UNKNOWN).sum())
        if not tokens:
            raise ValueError("language: there is no text to evaluate: this split has fewer than two tokens.")
        return Evaluation(self.scores(total / tokens, unknown / tokens), {"tokens": tokens})

    def scores(self, nats: float, unknown: float = 0.0) -> dict[str, float]:
        """The scores that follow from a mean loss in nats per token, where a share of the tokens is unknown."""
        bits = nats / math.log(2) * self.tokens_per_character
        return {"loss": nats, "perplexity": math.exp(min(nats, 700.0)), "bits_per_character": bits, "unknown": unknown}

    def rank(self, scores: dict[str, float]) -> tuple[float, ...]:
        """The smaller loss."""
        return (-scores["loss"],)

    def example(self, batch: Window) -> tuple[Tensor]:
        return (batch.x_TB[:8, :1],)

    def explain(self, scores: dict[str, float]) -> tuple[str, str]:
        flattered = f" ({100 * scores['unknown']:.1f} % of the tokens unknown)" if scores["unknown"] >= NOTABLE else ""
        return "bits per character", f"{scores['bits_per_character']:.3f}{flattered}"
