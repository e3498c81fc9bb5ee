"""Attention: the four witnesses for each score, laws of the weights, what stands behind the keys, mutants, and the modules."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import twofold
from twofold.layers.check import Case, check, check_differences, check_expression, noise
from twofold.time import attention
from twofold.time.attention import AdditiveAttention, DotAttention, GeneralAttention

T, S, B, Q, K, U = 2, 4, 3, 5, 3, 2
LENGTHS = torch.tensor([2, 4, 0])
VALID = torch.arange(S)[:, None] < LENGTHS
KINDS = {"additive": (Q, noise(U, Q, seed=4), noise(U, K, seed=5), noise(U, seed=6)), "dot": (K,), "general": (Q, noise(Q, K, seed=7))}


def arguments(kind, valid, queries=T, states=S):
    size, *weights = KINDS[kind]
    return noise(queries, B, size, seed=1), noise(states, B, K, seed=2), *weights, valid


def score(query, key, weights):
    """One query and one key, by sums over single features."""
    if not weights:
        return sum(q * k for q, k in zip(query, key, strict=True))
    if len(weights) == 1:
        return (torch.outer(query, key) * weights[0]).sum()
    W, V, v = weights
    return sum(v[u] * (1 - 2 / (torch.exp(2 * ((W[u] * query).sum() + (V[u] * key).sum())) + 1)) for u in range(len(v)))


def expression(query, keys, *rest):
    """Row by row, with the keys that there are alone; exponentials divided by their sum."""
    *weights, valid = rest
    counts = [keys.shape[0]] * B if valid is None else valid.sum(0).tolist()
    contexts, shares = [], []
    for t in range(query.shape[0]):
        for b, count in enumerate(counts):
            e = [torch.exp(score(query[t, b], keys[s, b], weights)) for s in range(count)]
            w = [share / sum(e) for share in e]
            contexts.append(sum((w[s] * keys[s, b] for s in range(count)), torch.zeros(K, dtype=torch.float64)))
            shares.append(torch.stack([*w, *[torch.zeros((), dtype=torch.float64)] * (keys.shape[0] - count)]))
    return torch.stack(contexts).unflatten(0, (-1, B)), torch.stack(shares).unflatten(0, (-1, B))


def operation(kind, module=attention):
    return getattr(module, f"{kind}_attention")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("valid", "queries"), [(None, T), (VALID, T), (VALID, 1)])
def test_witnesses(kind, valid, queries):
    check(Case(operation(kind), arguments(kind, valid, queries), expression, rows=False))


def test_luongs_general_score_is_the_dot_of_projected_keys_and_torchs_own_attention():
    query, keys, weight, valid = arguments("general", VALID)
    context, _ = operation("general")(query, keys, weight, valid)
    projected = torch.einsum("qk,sbk->sbq", weight, keys)
    mask = valid.t()[:, None, :].expand(B, T, S)
    theirs = F.scaled_dot_product_attention(query.transpose(0, 1), projected.transpose(0, 1), keys.transpose(0, 1), mask, scale=1.0)
    assert torch.allclose(context[:, :2], theirs.transpose(0, 1)[:, :2], rtol=1e-12)


LAYERS = {
    "additive": lambda **options: AdditiveAttention(Q, K, U, **options).double(),
    "dot": lambda **options: DotAttention(**options),
    "general": lambda **options: GeneralAttention(Q, K, **options).double(),
}


def inputs(kind, grad=False):
    query, keys, *_ = arguments(kind, None)
    return query.detach().requires_grad_(grad), keys.detach().requires_grad_(grad)


def same(left, right):
    return all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("kind", LAYERS)
def test_weights_are_shares(kind):
    context, weights = LAYERS[kind]()(*inputs(kind), LENGTHS)
    assert weights.shape == (T, B, S) and (weights >= 0).all()
    assert torch.allclose(weights.sum(-1), (LENGTHS > 0).double().expand(T, B), rtol=1e-14)
    assert torch.equal(weights > 0, VALID.t().expand(T, B, S))
    assert context[:, 2].count_nonzero() == 0
    assert torch.allclose(weights[:, 1].sum(-1), weights.new_ones(T), rtol=1e-14)


@pytest.mark.parametrize("kind", LAYERS)
def test_permuted_keys_permute_the_weights(kind):
    layer, order = LAYERS[kind](), [2, 0, 3, 1]
    query, keys = inputs(kind)
    (context, weights), (again, permuted) = layer(query, keys), layer(query, keys[order])
    assert same((context, weights[..., order]), (again, permuted))


@pytest.mark.parametrize("kind", LAYERS)
def test_rows_and_queries_are_independent_and_lengths_cut(kind):
    layer = LAYERS[kind]()
    query, keys = inputs(kind)
    context, weights = layer(query, keys, LENGTHS.tolist())
    for b, length in enumerate(LENGTHS.tolist()):
        alone = layer(query[:, b : b + 1], keys[:length, b : b + 1])
        assert same(alone, (context[:, b : b + 1], weights[:, b : b + 1, :length]))
        assert same(layer(query[1, b : b + 1], keys[:, b : b + 1], [length]), (context[1, b : b + 1], weights[1, b : b + 1]))


@pytest.mark.parametrize("kind", LAYERS)
def test_batch_first_is_the_same_with_the_axes_turned(kind):
    layer, turned = LAYERS[kind](), LAYERS[kind](batch_first=True)
    turned.load_state_dict(layer.state_dict())
    query, keys = inputs(kind)
    there = turned(query.transpose(0, 1), keys.transpose(0, 1), LENGTHS)
    assert same(layer(query, keys, LENGTHS), [y.transpose(0, 1) for y in there])
    assert same(layer(query[0], keys, LENGTHS), turned(query[0], keys.transpose(0, 1), LENGTHS))


def test_a_constant_added_to_the_scores_changes_nothing():
    e = noise(T, B, S, grad=False)
    for valid in (None, VALID):
        assert same([attention.shares(e, valid)], [attention.shares(e + 5, valid)])
    assert torch.equal(attention.shares(e + 1e6, VALID) > 0, VALID.t().expand(T, B, S))  # nor overflows
    query, keys, weight, _ = (a if a is None else a.detach() for a in arguments("general", None))
    shift = torch.cat((keys, torch.ones(S, B, 1, dtype=torch.float64)), -1)  # one feature that all keys share: q' w is added to all scores
    wide = torch.cat((weight, noise(Q, 1, seed=9, grad=False)), -1)
    assert same([operation("general")(query, keys, weight, None)[1]], [operation("general")(query, shift, wide, None)[1]])


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e300])
@pytest.mark.parametrize("kind", LAYERS)
def test_what_stands_behind_the_keys_changes_nothing(kind, garbage):
    layer, results = LAYERS[kind](), []
    for behind in (0.0, garbage):
        query, keys = inputs(kind)
        query[:, LENGTHS == 0] = behind  # nor does the query of a row without keys
        keys[~VALID] = behind
        leaves = [query.requires_grad_(), keys.requires_grad_(), *layer.parameters()]
        context, weights = layer(query, keys, LENGTHS)
        entropy = torch.special.entr(weights)  # its slope is infinite at 0
        gradients = torch.autograd.grad((context**2).sum() + entropy.sum(), leaves)
        results.append([context, weights, *gradients])
        assert gradients[1][~VALID].count_nonzero() == 0 and gradients[0][:, 2].count_nonzero() == 0
        assert all(g.isfinite().all() for g in gradients)
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("kind", LAYERS)
def test_nan_stays_in_its_row(kind):
    query, keys = inputs(kind, grad=True)
    with torch.no_grad():
        keys[1, 0, 0] = math.nan
    context, _ = LAYERS[kind]()(query, keys, LENGTHS)
    context.sum().backward()
    for y in (context, query.grad, keys.grad):
        assert y[:, 0].isnan().any() and y[:, 1:].isfinite().all()


@pytest.mark.parametrize("kind", LAYERS)
def test_no_key_no_query_no_row(kind):
    layer = LAYERS[kind]()
    query, keys = inputs(kind, grad=True)
    context, weights = layer(query, keys[:0])
    assert context.tolist() == [[[0.0] * K] * B] * T and weights.shape == (T, B, 0)
    context.sum().backward()
    assert query.grad.count_nonzero() == 0
    assert layer(query[:0], keys)[0].shape == (0, B, K) and layer(query[:, :0], keys[:, :0], LENGTHS[:0])[0].shape == (T, 0, K)


def test_weights_under_autocast_and_route():
    layer = AdditiveAttention(Q, K, U)
    query, keys = (x.float() for x in inputs("additive"))
    truth = layer(query, keys, LENGTHS)
    assert layer.last_route == "plain"
    with torch.autocast("cpu", torch.bfloat16):
        context, weights = layer(query.bfloat16(), keys, LENGTHS)
    assert torch.allclose(weights, truth[1], atol=2e-2) and torch.allclose(context, truth[0], atol=2e-2)
    with twofold.route("vendor"):
        layer(query, keys)
    assert layer.last_route == "plain"  # there is no other


MUTANTS = {
    "without the mask": ("score_TBS.masked_fill(~valid_BS, float", "score_TBS.masked_fill(valid_BS & False, float"),
    "mask turned around": ("score_TBS.masked_fill(~valid_BS, float", "score_TBS.masked_fill(valid_BS, float"),
    "masked scores are 0": ("masked_fill(~valid_BS, float(\"-inf\"))", "masked_fill(~valid_BS, 0.0)"),
    "softmax over the queries": ("return score_TBS.softmax(-1)", "return score_TBS.softmax(0)"),
    "softmax over the rows": ("return score_TBS.softmax(-1)", "return score_TBS.softmax(1)"),
    "dw of the context dropped": ("dweights_TBS + torch.einsum(\"tbk,sbk->tbs\"", "dweights_TBS + 0 * torch.einsum(\"tbk,sbk->tbs\""),
    "dw of the loss dropped": ("dweights_TBS = dweights_TBS + torch", "dweights_TBS = 0 * dweights_TBS + torch"),
    "de without the mean": ("(dweights_TBS - (weights_TBS * dweights_TBS).sum(-1, keepdim=True))", "dweights_TBS"),
    "de with the plain mean": ("(weights_TBS * dweights_TBS).sum(-1", "dweights_TBS.mean(-1"),
    "de without the weights": ("return weights_TBS * (dweights_TBS -", "return (dweights_TBS -"),
    "dkeys of the score dropped": ("dkeys_SBK = dkeys_SBK + torch", "dkeys_SBK = 0 * dkeys_SBK + torch"),
    "dkeys of the mean dropped": ("dkeys_SBK + torch.einsum", "dkeys_SBK + 0 * torch.einsum"),
    "tanh missing": ("(asked_TB1U + held_BSU).tanh()", "(asked_TB1U + held_BSU)"),
    "query not asked": ("(asked_TB1U + held_BSU)", "(0 * asked_TB1U + held_BSU)"),
    "keys not looked at": ("(asked_TB1U + held_BSU)", "(asked_TB1U + 0 * held_BSU)"),
    "da without v": ("dscore_TBS.unsqueeze(-1) * weight_score_U *", "dscore_TBS.unsqueeze(-1) *"),
    "da without the derivative of tanh": (" * (1 - n_TBSU * n_TBSU)", ""),
    "da as a sigmoid's": ("(1 - n_TBSU * n_TBSU)", "n_TBSU * (1 - n_TBSU)"),
    "dW of the keys for the query": ('"tbu,tbq->uq", dasked_TBU', '"tbu,tbq->uq", da_TBSU.mean(2)'),
    "dV dropped": ('torch.einsum("sbu,sbk->uk", dheld_SBU', '0 * torch.einsum("sbu,sbk->uk", dheld_SBU'),
    "dv dropped": ('torch.einsum("tbs,tbsu->u"', '0 * torch.einsum("tbs,tbsu->u"'),
    "dot with the keys in reverse": ('"tbq,sbq->tbs", query_TBQ, keys_SBQ)', '"tbq,sbq->tbs", query_TBQ, keys_SBQ.flip(0))'),
    "dot scaled": ('"tbq,sbq->tbs", query_TBQ, keys_SBQ)', '"tbq,sbq->tbs", query_TBQ, keys_SBQ) / sqrt(3)'),
    "dquery of the dot dropped": ('return torch.einsum("tbs,sbq->tbq"', 'return 0 * torch.einsum("tbs,sbq->tbq"'),
    "dkeys of the dot from the keys": ('"tbs,tbq->sbq", dscore_TBS, query_TBQ', '"tbs,tbq->sbq", dscore_TBS, query_TBQ.flip(0)'),
    "general without W": ("dp_SBQ @ saved.weight_QK", "0 * dp_SBQ @ saved.weight_QK"),
    "dW of the general score dropped": ('torch.einsum("sbq,sbk->qk"', '0 * torch.einsum("sbq,sbk->qk"'),
    "general with the dot's dquery": ("(saved.query_TBQ, saved.p_SBQ))", "(saved.query_TBQ, saved.p_SBQ.flip(0)))"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    wrong, caught = mutated(attention, *MUTANTS[name]), 0
    for kind in KINDS:
        for valid in (None, VALID):
            try:
                check_expression(Case(operation(kind, wrong), arguments(kind, valid), expression, rows=False))
            except AssertionError:
                caught += 1
    assert caught


@pytest.mark.parametrize("name", ["de with the plain mean", "da without the derivative of tanh", "dkeys of the mean dropped"])
def test_finite_differences_catch_wrong_gradients_alone(name, mutated):
    wrong = operation("additive", mutated(attention, *MUTANTS[name]))
    with pytest.raises((AssertionError, RuntimeError)):
        check_differences(Case(wrong, arguments("additive", None), expression, second_order=False))


zeros = torch.zeros
ADDITIVE, GENERAL = AdditiveAttention(Q, K, U), GeneralAttention(Q, K)
KEYS = zeros(S, B, K)
BAD = {
    "size": (lambda: AdditiveAttention(Q, 0, U), "AdditiveAttention: expected key_size to be a whole number of at least 1, got 0."),
    "general size": (
        lambda: GeneralAttention(2.5, K),
        "GeneralAttention: expected query_size to be a whole number of at least 1, got 2.5.",
    ),
    "too many weights": (lambda: GeneralAttention(2**20, 2**20), "GeneralAttention: expected at most 2147483647 weights in a matrix, got"),
    "batch_first": (lambda: DotAttention(5), "DotAttention: expected batch_first to be True or False, got 5."),
    "query features": (
        lambda: ADDITIVE(zeros(B, 2), KEYS),
        "AdditiveAttention query: expected (B=3, Q=5), got (3, 2): Q is 2, not 5.",
    ),
    "key features": (
        lambda: GENERAL(zeros(B, Q), zeros(S, B, 7)),
        "GeneralAttention keys: expected (S, B, K=3), got (4, 3, 7): K is 7, not 3.",
    ),
    "dot features": (
        lambda: DotAttention()(zeros(B, Q), KEYS),
        "DotAttention query: expected (B=3, Q=3), got (3, 5): Q is 5, not 3. "
        "They are multiplied feature by feature: project one of the two, or use GeneralAttention.",
    ),
    "batch first": (
        lambda: ADDITIVE(zeros(B, Q), zeros(B, S, K)),
        "AdditiveAttention query: expected (B=4, Q=5), got (3, 5): B is 3, not 4. "
        "Are the keys (B, S, K)? Build the layer with batch_first=True.",
    ),
    "time first": (
        lambda: AdditiveAttention(Q, K, U, batch_first=True)(zeros(B, Q), KEYS),
        "Are the keys (S, B, K)? Build the layer with batch_first=False.",
    ),
    "rows": (lambda: ADDITIVE(zeros(7, Q), KEYS), "B is 7, not 3. Each row has its own keys"),
    "a row alone": (
        lambda: ADDITIVE(zeros(1, Q), zeros(S, K)),
        "AdditiveAttention keys: expected (S, B, K=3), got (4, 3): 2 axes, not 3. A single row?",
    ),
    "too many axes": (
        lambda: ADDITIVE(zeros(1, T, B, Q), KEYS),
        "AdditiveAttention query: expected (T, B=3, Q=5), got (1, 2, 3, 5): 4 axes, not 3.",
    ),
    "numpy": (lambda: ADDITIVE(np.zeros((B, Q)), KEYS), "AdditiveAttention query: expected a torch tensor, got numpy.ndarray."),
    "tokens": (lambda: ADDITIVE(zeros(B, Q), KEYS.long()), "AdditiveAttention keys: expected floating point, got int64. Token numbers?"),
    "dtype": (
        lambda: ADDITIVE(zeros(B, Q), KEYS.double()),
        "AdditiveAttention keys: expected float32, the dtype of the weights, got float64.",
    ),
    "dot dtype": (
        lambda: DotAttention()(zeros(B, K).double(), KEYS),
        "DotAttention query: expected float32 on cpu, as the keys, got float64 on cpu.",
    ),
    "device": (lambda: DotAttention()(zeros(B, K, device="meta"), KEYS), "expected float32 on cpu, as the keys, got float32 on meta."),
    "too long": (
        lambda: ADDITIVE(zeros(B, Q), KEYS, [1, 2, 5]),
        "AdditiveAttention lengths: expected B=3 whole numbers from 0 to T=4, one a row, got 5",
    ),
    "too few lengths": (lambda: ADDITIVE(zeros(B, Q), KEYS, [1, 2]), "AdditiveAttention lengths: expected B=3 whole numbers"),
    "lengths as floats": (
        lambda: ADDITIVE(zeros(B, Q), KEYS, zeros(B)),
        "AdditiveAttention lengths: expected B=3 whole numbers from 0 to T=4, one a row, got float32.",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
