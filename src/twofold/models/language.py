"""A recurrent language model: what comes next, given all that came before.

    e_t = E[x_t]        h_t, state = LSTM(e_t, state)        logits_t = h_t E' + b  (tied)   or   h_t W' + b

Tied: the output layer uses the embedding's own matrix, which saves V*D weights and learns each token once; where the number of
units differs from the embedding's size, a linear map without bias leads from one to the other. Dropout stands between the layers,
after the embedding and before the output.

Mikolov et al., "Recurrent neural network based language model", Interspeech 2010; Zaremba et al., "Recurrent neural network
regularization", 2014, eq. 7 to 10; Press and Wolf, "Using the output embedding to improve language models", EACL 2017, section 3
"""

from dataclasses import dataclass

from torch import Tensor

from twofold import nn
from twofold.models.config import Config, at_least, at_most, fraction

State = tuple[Tensor, Tensor]
MOST_LAYERS = 1000


@dataclass(frozen=True)
class LanguageConfig(Config):
    """V tokens, D embedding, U units in each of L layers."""

    vocabulary: int = 128
    embedding: int = 96
    units: int = 192
    layers: int = 1
    dropout: float = 0.0
    tied: bool = True

    def __post_init__(self) -> None:
        at_least("lstm language model", 2, vocabulary=self.vocabulary)
        at_least("lstm language model", 1, embedding=self.embedding, units=self.units, layers=self.layers)
        at_most("lstm language model", MOST_LAYERS, layers=self.layers)
        fraction("lstm language model", dropout=self.dropout)


PRESETS = {
    "char-lstm": LanguageConfig(),
    "word-lstm": LanguageConfig(vocabulary=10_000, embedding=200, units=200, layers=2, dropout=0.2),
}


class LanguageModel(nn.Module):
    """Logits (T, B, V) and the state after the last step, for token numbers (T, B) and the state before the first."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.embedding)
        between = config.dropout if config.layers > 1 else 0.0
        self.lstm = nn.LSTM(config.embedding, config.units, config.layers, dropout=between, forget_bias=1.0)
        self.dropout = nn.Dropout(config.dropout)
        same = config.units == config.embedding or not config.tied
        self.bridge = nn.Identity() if same else nn.Linear(config.units, config.embedding, bias=False)
        self.head = nn.Linear(config.embedding if config.tied else config.units, config.vocabulary)
        if config.tied:
            self.head.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=config.embedding**-0.5)
        nn.init.zeros_(self.head.bias)

    def forward(self, codes_TB: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        y_TBU, state = self.lstm(self.dropout(self.embedding(codes_TB)), state)
        return self.head(self.bridge(self.dropout(y_TBU))), state


def build(config: LanguageConfig) -> LanguageModel:
    """The model with the embedding scaled to unit length, so that tied logits start small; forget-gate bias 1."""
    return LanguageModel(config)
