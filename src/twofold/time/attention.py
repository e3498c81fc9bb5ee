"""Attention: a query looks at the states of an encoder and takes their weighted mean.

T queries, S encoder states ("keys"), B rows, Q and K their features, U units of the additive score; row b has lengths[b] of the S keys

    forward    e[t,b,s] = score(query[t,b], keys[s,b])
               w[t,b,s] = exp(e[t,b,s]) / sum_s' exp(e[t,b,s'])          over s' < lengths[b]; behind them w = 0
               context[t,b] = sum_s w[t,b,s] keys[s,b]
    backward   dw = dw + dcontext' keys                                  what the loss asks of the weights, and what comes through context
               de = w (dw - sum_s w dw)                                  so sum_s de = 0
               dkeys[s,b] = sum_t w[t,b,s] dcontext[t,b] + its part in the score

    additive   n = tanh(W query + V keys)     e = v' n                   dn = de v     da = dn (1 - n^2)     dv = sum de n
               dquery = W' sum_s da     dkeys = V' sum_t da              dW = sum da query'     dV = sum da keys'
    dot        e = query' keys                                           dquery = sum_s de keys     dkeys = sum_t de query
    general    e = query' W keys                                         dot of query and p = W keys, and p's own backward

A row without keys (length 0) has zero weights and zero context. What stands behind a row's keys changes nothing, be it NaN.

Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align and translate", ICLR 2015, equations 5 and 6 and
appendix A.1.2 (additive); Luong, Pham and Manning, "Effective approaches to attention-based neural machine translation", EMNLP 2015,
section 3.1 (dot, general)
"""

from collections.abc import Callable
from math import prod, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twofold.layers.differentiable import Operation, differentiable
from twofold.layers.expect import expect_floating, expect_positive, expect_shape, expect_tensor, sentence
from twofold.layers.routes import Routed
from twofold.time.lengths import expect_lengths, valid
from twofold.time.sequence import expect_switches
from twofold.time.step import LIMIT


class Score(NamedTuple):
    """How well a query and a key match.

    forward     (query_TBQ, keys_SBK, *weights) -> score_TBS, saved
    backward    (dscore_TBS, saved) -> dquery_TBQ, dkeys_SBK, *dweights
    """

    forward: Callable[..., tuple[Tensor, Any]]
    backward: Callable[[Tensor, Any], tuple[Tensor, ...]]


class SavedAdditive(NamedTuple):
    """What backward of the additive score needs: its arguments, and n."""

    query_TBQ: Tensor
    keys_SBK: Tensor
    weight_query_UQ: Tensor
    weight_keys_UK: Tensor
    weight_score_U: Tensor
    n_TBSU: Tensor


def additive_score(
    query_TBQ: Tensor, keys_SBK: Tensor, weight_query_UQ: Tensor, weight_keys_UK: Tensor, weight_score_U: Tensor
) -> tuple[Tensor, SavedAdditive]:
    """(score_TBS, saved)"""
    asked_TB1U = (query_TBQ @ weight_query_UQ.t()).unsqueeze(2)
    held_BSU = (keys_SBK @ weight_keys_UK.t()).transpose(0, 1)
    n_TBSU = (asked_TB1U + held_BSU).tanh()
    return n_TBSU @ weight_score_U, SavedAdditive(query_TBQ, keys_SBK, weight_query_UQ, weight_keys_UK, weight_score_U, n_TBSU)


def additive_score_back(dscore_TBS: Tensor, saved: SavedAdditive) -> tuple[Tensor, ...]:
    """(dquery_TBQ, dkeys_SBK, dweight_query_UQ, dweight_keys_UK, dweight_score_U)"""
    query_TBQ, keys_SBK, weight_query_UQ, weight_keys_UK, weight_score_U, n_TBSU = saved
    da_TBSU = dscore_TBS.unsqueeze(-1) * weight_score_U * (1 - n_TBSU * n_TBSU)
    dasked_TBU, dheld_SBU = da_TBSU.sum(2), da_TBSU.sum(0).transpose(0, 1)
    return (
        dasked_TBU @ weight_query_UQ,
        dheld_SBU @ weight_keys_UK,
        torch.einsum("tbu,tbq->uq", dasked_TBU, query_TBQ),
        torch.einsum("sbu,sbk->uk", dheld_SBU, keys_SBK),
        torch.einsum("tbs,tbsu->u", dscore_TBS, n_TBSU),
    )


def dot_score(query_TBQ: Tensor, keys_SBQ: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """(score_TBS, saved); queries and keys have the same features."""
    return torch.einsum("tbq,sbq->tbs", query_TBQ, keys_SBQ), (query_TBQ, keys_SBQ)


def dot_score_back(dscore_TBS: Tensor, saved: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(dquery_TBQ, dkeys_SBQ)"""
    query_TBQ, keys_SBQ = saved
    return torch.einsum("tbs,sbq->tbq", dscore_TBS, keys_SBQ), torch.einsum("tbs,tbq->sbq", dscore_TBS, query_TBQ)


class SavedGeneral(NamedTuple):
    """What backward of the general score needs: its arguments, and p."""

    query_TBQ: Tensor
    keys_SBK: Tensor
    weight_QK: Tensor
    p_SBQ: Tensor


def general_score(query_TBQ: Tensor, keys_SBK: Tensor, weight_QK: Tensor) -> tuple[Tensor, SavedGeneral]:
    """(score_TBS, saved)"""
    p_SBQ = keys_SBK @ weight_QK.t()
    return dot_score(query_TBQ, p_SBQ)[0], SavedGeneral(query_TBQ, keys_SBK, weight_QK, p_SBQ)


def general_score_back(dscore_TBS: Tensor, saved: SavedGeneral) -> tuple[Tensor, ...]:
    """(dquery_TBQ, dkeys_SBK, dweight_QK)"""
    dquery_TBQ, dp_SBQ = dot_score_back(dscore_TBS, (saved.query_TBQ, saved.p_SBQ))
    return dquery_TBQ, dp_SBQ @ saved.weight_QK, torch.einsum("sbq,sbk->qk", dp_SBQ, saved.keys_SBK)


class Saved(NamedTuple):
    """What backward needs: the keys, the weights that they got, which keys there are, and what the score saved."""

    keys_SBK: Tensor
    weights_TBS: Tensor
    valid_SB: Tensor | None
    score: Any


def attention(score: Score) -> Operation:
    """The operation (query_TBQ, keys_SBK, *weights of the score, valid_SB or None) -> (context_TBK, weights_TBS)."""

    def forward(query_TBQ: Tensor, keys_SBK: Tensor, *rest: Any) -> tuple[tuple[Tensor, Tensor], Saved]:
        *weights, valid_SB = rest
        if valid_SB is not None:
            query_TBQ = torch.where(valid_SB.any(0)[:, None], query_TBQ, 0.0)  # nobody asks where there is nothing to look at
        keys_SBK = cleared(keys_SBK, valid_SB)
        score_TBS, saved = score.forward(query_TBQ, keys_SBK, *weights)
        weights_TBS = shares(score_TBS, valid_SB)
        context_TBK = torch.einsum("tbs,sbk->tbk", weights_TBS, keys_SBK)
        return (context_TBK, weights_TBS), Saved(keys_SBK, weights_TBS, valid_SB, saved)

    def backward(dy: tuple[Tensor, Tensor], saved: Saved) -> tuple[Tensor, ...]:
        dcontext_TBK, dweights_TBS = dy
        dweights_TBS = dweights_TBS + torch.einsum("tbk,sbk->tbs", dcontext_TBK, saved.keys_SBK)
        dscore_TBS = shares_back(dweights_TBS, saved.weights_TBS, saved.valid_SB)
        dquery_TBQ, dkeys_SBK, *dweights = score.backward(dscore_TBS, saved.score)
        dkeys_SBK = dkeys_SBK + torch.einsum("tbs,tbk->sbk", saved.weights_TBS, dcontext_TBK)
        return dquery_TBQ, cleared(dkeys_SBK, saved.valid_SB), *dweights

    return differentiable(forward, backward)


def shares(score_TBS: Tensor, valid_SB: Tensor | None) -> Tensor:
    """weights_TBS: the softmax over the keys that there are, 0 for the others."""
    if valid_SB is None:
        return score_TBS.softmax(-1)
    valid_BS = valid_SB.t()
    return torch.where(valid_BS, score_TBS.masked_fill(~valid_BS, float("-inf")).softmax(-1), 0.0)


def shares_back(dweights_TBS: Tensor, weights_TBS: Tensor, valid_SB: Tensor | None) -> Tensor:
    """dscore_TBS; what is asked of weights that are always 0 is not read: a loss with log w asks for infinity there."""
    if valid_SB is not None:
        dweights_TBS = torch.where(valid_SB.t(), dweights_TBS, 0.0)
    return weights_TBS * (dweights_TBS - (weights_TBS * dweights_TBS).sum(-1, keepdim=True))


def cleared(x_SBK: Tensor, valid_SB: Tensor | None) -> Tensor:
    """x with zeros where there is no key."""
    return x_SBK if valid_SB is None else torch.where(valid_SB[..., None], x_SBK, 0.0)


additive_attention = attention(Score(additive_score, additive_score_back))
dot_attention = attention(Score(dot_score, dot_score_back))
general_attention = attention(Score(general_score, general_score_back))


class Attention(Routed):
    """What the three have in common: questions to the input, the layout, and the call.

    context, weights = layer(query, keys, lengths=None) for keys (S, B, K) and one query a row (B, Q), or T of them (T, B, Q); with
    batch_first=True keys (B, S, K) and queries (B, Q) or (B, T, Q). context has the query's axes with K features; weights has them with
    the S keys in place of the features: they are not negative, and add up to 1, or to 0 in a row of length 0.
    lengths: how many of the S keys each row has (a list or a tensor of whole numbers); None: all.
    Raises ValueError for input of another shape, dtype or device, and for lengths that cannot be.
    """

    operation: Operation

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        expect_switches(type(self).__name__, batch_first=batch_first)
        self.batch_first = batch_first

    def empty(self, shape: tuple[int, ...], device: Any, dtype: Any) -> nn.Parameter:
        """Weights that are still to be drawn; ValueError where they are more than can be counted."""
        if prod(shape) > LIMIT:
            raise ValueError(f"{type(self).__name__}: expected at most {LIMIT} weights in a matrix, got {' * '.join(map(str, shape))}.")
        return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Draw the weights anew: uniform within 1 / sqrt(their last size), as in torch.nn.Linear."""
        for weight in self.parameters():
            nn.init.uniform_(weight, -1 / sqrt(weight.shape[-1]), 1 / sqrt(weight.shape[-1]))

    def weights(self) -> tuple[Tensor, ...]:
        """The weights of the score."""
        return ()

    def features(self, keys: Tensor) -> tuple[int, int]:
        """Q and K."""
        return keys.shape[-1], keys.shape[-1]

    def forward(self, query: Tensor, keys: Tensor, lengths: Any = None) -> tuple[Tensor, Tensor]:
        self._expect(query, keys)
        keys_SBK = keys.transpose(0, 1) if self.batch_first else keys
        S, B = keys_SBK.shape[:2]
        lengths_B = None if lengths is None else expect_lengths(type(self).__name__, lengths, B, S, keys.device)
        valid_SB = None if lengths_B is None else valid(lengths_B, S)
        steps = query.numel() // max(1, B * query.shape[-1])
        if B * S * steps > LIMIT:
            raise ValueError(
                f"{type(self).__name__}: expected at most {LIMIT} pairs of a query and a key, got {steps} queries for {S} keys in {B} "
                "rows. Attend in pieces, or to fewer keys."
            )
        query_TBQ = query.unsqueeze(0) if query.dim() == 2 else query.transpose(0, 1) if self.batch_first else query
        results = self.run(self.operation, query_TBQ, keys_SBK, *self.weights(), valid_SB)
        if query.dim() == 2:
            context, weights = (y[0] for y in results)
        else:
            context, weights = (y.transpose(0, 1) if self.batch_first else y for y in results)
        return context, weights

    def extra_repr(self) -> str:
        return "batch_first=True" if self.batch_first else ""

    def _expect(self, query: Any, keys: Any) -> None:
        who = type(self).__name__
        for name, x in (("query", query), ("keys", keys)):
            expect_tensor(f"{who} {name}", x)
            expect_floating(f"{who} {name}", x, *self.weights()[:1])
        Q, K = self.features(keys) if keys.dim() else (0, 0)
        cause = "A single row? Give it an axis: keys.unsqueeze(0) with batch_first=True, else keys.unsqueeze(1)." if keys.dim() == 2 else ""
        expect_shape(f"{who} keys", keys, "B S K" if self.batch_first else "S B K", {"K": K}, cause)
        rows = 0 if self.batch_first else 1
        B = keys.shape[rows]
        axes = "B Q" if query.dim() < 3 else "B T Q" if self.batch_first else "T B Q"
        expect_shape(f"{who} query", query, axes, {"B": B, "Q": Q}, self._cause(query, keys, rows))

    def _cause(self, query: Tensor, keys: Tensor, rows: int) -> str:
        if not 2 <= query.dim() <= 3 or keys.shape[rows] == query.shape[rows if query.dim() == 3 else 0]:
            return ""
        if keys.shape[1 - rows] == query.shape[1 - rows if query.dim() == 3 else 0]:
            meant = "(S, B, K)" if self.batch_first else "(B, S, K)"
            return f"Are the keys {meant}? Build the layer with batch_first={not self.batch_first}."
        return "Each row has its own keys: queries of all of them must come together."


class AdditiveAttention(Attention):
    """Bahdanau's attention: score v' tanh(W query + V keys). See `Attention` for the call.

    query_size Q, key_size K, hidden_size U; parameters weight_query (U, Q), weight_keys (U, K), weight_score (U,), drawn uniformly within
    1 / sqrt(their last size). Training keeps T B S U numbers. Raises ValueError for sizes below 1.

    >>> layer = AdditiveAttention(4, 6, 5)
    >>> context, weights = layer(torch.zeros(2, 4), torch.ones(3, 2, 6), lengths=[3, 1])
    >>> context.shape, [[round(w, 2) for w in row] for row in weights.tolist()]
    (torch.Size([2, 6]), [[0.33, 0.33, 0.33], [1.0, 0.0, 0.0]])
    """

    operation = additive_attention

    def __init__(  # type: ignore[no-untyped-def]
        self, query_size: int, key_size: int, hidden_size: int, batch_first: bool = False, device=None, dtype=None
    ) -> None:
        super().__init__(batch_first)
        expect_positive(type(self).__name__, query_size=query_size, key_size=key_size, hidden_size=hidden_size)
        self.query_size, self.key_size, self.hidden_size = query_size, key_size, hidden_size
        self.weight_query = self.empty((hidden_size, query_size), device, dtype)
        self.weight_keys = self.empty((hidden_size, key_size), device, dtype)
        self.weight_score = self.empty((hidden_size,), device, dtype)
        self.reset_parameters()

    def weights(self) -> tuple[Tensor, ...]:
        return self.weight_query, self.weight_keys, self.weight_score

    def features(self, keys: Tensor) -> tuple[int, int]:
        return self.query_size, self.key_size

    def extra_repr(self) -> str:
        return ", ".join(filter(None, (f"{self.query_size}, {self.key_size}, {self.hidden_size}", super().extra_repr())))


class DotAttention(Attention):
    """Luong's dot attention: score query' keys; queries and keys have the same features. See `Attention` for the call.

    >>> keys_SBK = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> context, weights = DotAttention()(torch.tensor([[0.0, 30.0]]), keys_SBK)
    >>> context.round(decimals=4).tolist(), weights.round(decimals=4).tolist()
    ([[0.0, 1.0]], [[0.0, 1.0]])
    """

    operation = dot_attention

    def __init__(self, batch_first: bool = False) -> None:
        super().__init__(batch_first)

    def _cause(self, query: Tensor, keys: Tensor, rows: int) -> str:
        if query.shape[-1:] != keys.shape[-1:]:
            return "They are multiplied feature by feature: project one of the two, or use GeneralAttention."
        return super()._cause(query, keys, rows)

    def _expect(self, query: Any, keys: Any) -> None:
        super()._expect(query, keys)
        if query.device != keys.device or (query.dtype != keys.dtype and not torch.is_autocast_enabled(keys.device.type)):
            wanted, got = (f"{str(x.dtype).removeprefix('torch.')} on {x.device}" for x in (keys, query))
            raise ValueError(sentence("DotAttention query", f"{wanted}, as the keys", got, "", "Convert it with query.to(keys)."))


class GeneralAttention(Attention):
    """Luong's general attention: score query' W keys. See `Attention` for the call.

    query_size Q, key_size K; parameter weight (Q, K), drawn uniformly within 1 / sqrt(K). Raises ValueError for sizes below 1.

    >>> layer = GeneralAttention(2, 3, batch_first=True)
    >>> context, weights = layer(torch.zeros(4, 5, 2), torch.ones(4, 7, 3))
    >>> context.shape, weights.shape
    (torch.Size([4, 5, 3]), torch.Size([4, 5, 7]))
    """

    operation = general_attention

    def __init__(self, query_size: int, key_size: int, batch_first: bool = False, device=None, dtype=None) -> None:  # type: ignore[no-untyped-def]
        super().__init__(batch_first)
        expect_positive(type(self).__name__, query_size=query_size, key_size=key_size)
        self.query_size, self.key_size = query_size, key_size
        self.weight = self.empty((query_size, key_size), device, dtype)
        self.reset_parameters()

    def weights(self) -> tuple[Tensor, ...]:
        return (self.weight,)

    def features(self, keys: Tensor) -> tuple[int, int]:
        return self.query_size, self.key_size

    def extra_repr(self) -> str:
        return ", ".join(filter(None, (f"{self.query_size}, {self.key_size}", super().extra_repr())))
