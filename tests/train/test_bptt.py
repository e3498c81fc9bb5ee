"""How far the gradient goes back: the stretches are those of TBPTT, windows those of the batches, and documents stand for themselves."""

import re
from itertools import pairwise

import pytest
import torch

from twofold.data.values import Text
from twofold.layers.losses import cross_entropy
from twofold.models.language import LanguageConfig, LanguageModel
from twofold.tasks.language import Language
from twofold.time.stretch import read_stretch
from twofold.time.truncated import TBPTT
from twofold.train.batches import TextBatches, side_by_side
from twofold.train.bptt import Documents, Stretch, Truncation

V, B, WINDOW = 7, 3, 4
CODES = torch.randint(V, (70,), generator=torch.Generator().manual_seed(1))
X, Y = side_by_side(CODES, B)  # 23 steps of 3 streams: the last window is shorter
N = len(X)


def build():
    torch.manual_seed(0)
    model = LanguageModel(LanguageConfig(V, 4, 5, 2))
    return model, torch.optim.SGD(model.parameters(), 0.5)


def update(model, optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def by_stretches(truncation, starts=None):
    """The weights after a pass over the streams, as a loop makes it."""
    model, optimizer = build()
    carried = None
    for number in range(truncation.updates(N)):
        at = truncation.stretch(number, N)
        part = None if starts is None else starts.starts(at.first, at.end)
        y, _, carried = read_stretch(model, X[at.first : at.end], None if at.fresh else carried, part, at.carry)
        update(model, optimizer, loss_of(y[at.begin - at.first :], slice(at.begin, at.end)))
    return weights(model)


def loss_of(logits, steps):
    return cross_entropy(logits.flatten(0, 1), Y[steps].flatten())


def weights(model):
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (1, 3), (2, 5), (4, 4), (4, 7), (4, 12), (5, 100), (N, N), (30, 40)])
def test_the_updates_are_those_of_truncated_back_propagation(k1, k2):
    model, optimizer = build()
    for y, steps, _ in TBPTT(k1, k2)(model, X):
        update(model, optimizer, loss_of(y, steps))
    assert torch.equal(by_stretches(Truncation(k1, k2)), weights(model))


def test_windows_are_the_present_ones_bit_for_bit():
    model, optimizer = build()
    carried = None
    for window in TextBatches(Text(CODES, len(CODES), ("a",)), B, WINDOW).epoch(0):
        loss, _, carried = Language().loss(model, window, carried)
        update(model, optimizer, loss)
    assert torch.equal(by_stretches(Truncation.of("window", WINDOW)), weights(model))


@pytest.mark.parametrize("k2", [N, 10 * N, None])
def test_all_steps_back_and_all_at_once_is_full_back_propagation(k2):
    model, optimizer = build()
    update(model, optimizer, loss_of(model(X)[0], slice(None)))
    assert torch.equal(by_stretches(Truncation(N if k2 else None, k2)), weights(model))


def test_with_enough_steps_back_every_gradient_is_that_of_all_steps_so_far():
    model, _ = build()
    truncation, carried = Truncation(4, None), None
    for number in range(truncation.updates(N)):
        at = truncation.stretch(number, N)
        y, _, carried = read_stretch(model, X[at.first : at.end], None if at.fresh else carried, None, at.carry)
        mine = torch.autograd.grad(loss_of(y[at.begin - at.first :], slice(at.begin, at.end)), list(model.parameters()))
        whole = loss_of(model(X[: at.end])[0][at.begin :], slice(at.begin, at.end))
        for a, b in zip(mine, torch.autograd.grad(whole, list(model.parameters())), strict=True):
            assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("truncation", [Truncation(4, 4), Truncation(4, 7), Truncation(None, None)])
def test_documents_learn_as_if_each_were_alone(truncation):
    """One update by all documents, so that the weights are the same for all: the gradients add up."""
    places = torch.tensor([0, 5, 23, 30, 31, 69])  # in the text; 23 begins the second stream, 69 lies behind the streams
    documents, (model, _) = Documents(places, B, N), build()
    losses, carried = [], None
    for number in range(truncation.updates(N)):
        at = truncation.stretch(number, N)
        starts = documents.starts(at.first, at.end)
        y, _, carried = read_stretch(model, X[at.first : at.end], None if at.fresh else carried, starts, at.carry)
        losses.append(y[at.begin - at.first :])
    alone = [[0, 5, N], [0, 7, 8, N], [0, N]]
    wanted = [torch.cat([model(X[a:b, row : row + 1])[0] for a, b in pairwise(edges)]) for row, edges in enumerate(alone)]
    assert torch.allclose(torch.cat(losses), torch.cat(wanted, 1), atol=1e-6)
    if truncation.k1 is None:
        both = (torch.autograd.grad(loss_of(y, slice(None)), list(model.parameters())) for y in (losses[0], torch.cat(wanted, 1)))
        assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(*both, strict=True))


def test_the_steps_of_the_stretches_by_hand():
    assert [Truncation(2, 5).stretch(number, 7) for number in range(4)] == [
        Stretch(0, 0, 2, 0),
        Stretch(0, 2, 4, 1),
        Stretch(1, 4, 6, 2),
        Stretch(3, 6, 7, 1),
    ]
    assert [Truncation(2, 5).stretch(number, 7).fresh for number in range(4)] == [True, True, False, False]


def test_where_documents_begin_in_the_streams():
    documents = Documents(torch.tensor([5, 1, 9, 8]), 2, 4)
    assert documents.starts(0, 4).tolist() == [[False, False], [True, True], [False, False], [False, False]]
    assert documents.starts(1, 2).tolist() == [[True, True]]
    assert documents.starts(0, 1) is None and documents.starts(2, 4) is None


def test_what_the_settings_may_say():
    assert Truncation.of("window", 64) == Truncation.of("64", 64) == Truncation(64, 64)
    assert Truncation.of("256", 64) == Truncation.of(" 64, 256 ", 64) == Truncation(64, 256)
    assert Truncation.of("full", 64) == Truncation(None, None) and Truncation(None, None).updates(99) == 1


@pytest.mark.parametrize(
    ("bptt", "message"),
    [
        ("16", "64 steps from one update to the next, and only 16 back: the outputs more than 16 steps before an update would have no "
         "gradient. Take bptt=64 or more."),
        ("64,16", "64 steps from one update to the next, and only 16 back"),
        ("128,256", "bptt=128,256: 128 steps from one update to the next are more than the 64 that a window brings. Set window=128, or "
         "leave them out: bptt=256."),
        ("16,256", "16 steps from one update to the next are fewer than the 64 that a window brings. Set window=16"),
        ("all", 'bptt: expected "window", "full", steps back such as "256"'),
        ("-3", "got '-3'"),
        ("0", "bptt: expected k2 to be a whole number of at least 1, got 0."),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(bptt, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Truncation.of(bptt, 64)
