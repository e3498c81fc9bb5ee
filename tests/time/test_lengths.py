"""Rows of unequal length: reversed, cut at their own ends, packed as torch packs; what is refused; mutants."""

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from twofold.layers.check import check_message, noise
from twofold.time import lengths as module
from twofold.time.lengths import expect_lengths, from_packed, last_by_length, reverse_by_length, to_packed, valid

T, LENGTHS = 4, torch.tensor([2, 4, 0, 3, 2])
X = noise(T, 5, 2, seed=1, grad=False)
BEHIND = torch.arange(T)[:, None] >= LENGTHS
CPU = torch.device("cpu")


def by_hand(x, lengths, what):
    """Row by row: the row reversed with zeros behind, or its last step."""
    if what == "last":
        return torch.stack([x[n - 1, b] if n else 0 * x[0, b] for b, n in enumerate(lengths.tolist())])
    rows = [torch.cat((x[:n, b].flip(0), torch.zeros_like(x[n:, b]))) for b, n in enumerate(lengths.tolist())]
    return torch.stack(rows, 1)


def agree(ours):
    """Whether all functions of a module (or of a copy with a mistake in it) do what is done by hand, forward and backward."""
    assert torch.equal(ours.valid(LENGTHS, T), ~BEHIND)
    dirty = X.masked_fill(BEHIND[..., None], float("nan"))
    assert torch.equal(ours.clear(dirty, ~BEHIND), X.masked_fill(BEHIND[..., None], 0))
    for name, what in (("reverse_by_length", "reverse"), ("last_by_length", "last")):
        x, same = (X.clone().requires_grad_() for _ in range(2))
        y, wanted = getattr(ours, name)(x, LENGTHS), by_hand(same, LENGTHS, what)
        assert torch.equal(y, wanted)
        weigh = noise(*y.shape, seed=2, grad=False)
        assert torch.equal(*(torch.autograd.grad((weigh * out).sum(), leaf)[0] for out, leaf in ((y, x), (wanted, same))))
        assert torch.equal(getattr(ours, name)(dirty, LENGTHS), wanted)
    for packed in packings():
        theirs, known = pad_packed_sequence(packed)
        x, lengths = ours.from_packed(packed)
        assert torch.equal(x, theirs) and torch.equal(lengths, known)
        garbage = x.masked_fill(~valid(lengths, len(x))[..., None], 7.0)
        for got, wanted in zip(ours.to_packed(garbage, packed), packed, strict=True):
            assert got is wanted or (got is not None and wanted is not None and torch.equal(got, wanted))


def packings():
    """Sorted by nobody, sorted before, sorted by torch; rows of equal length among them."""
    lengths = torch.tensor([2, 4, 1, 3, 2])
    order = lengths.argsort(descending=True, stable=True)
    yield pack_padded_sequence(X, lengths, enforce_sorted=False)
    yield pack_padded_sequence(X[:, order], lengths[order])
    yield pack_padded_sequence(X[:3, :2], torch.tensor([3, 3]), enforce_sorted=False)


def test_each_function_does_what_is_done_by_hand():
    agree(module)


MUTANTS = {
    "one step too many": ("[:, None] < lengths_B\n", "[:, None] <= lengths_B\n"),
    "one step too few": ("[:, None] < lengths_B\n", "[:, None] < lengths_B - 1\n"),
    "reversed at the padded end": ("from_TB = (lengths_B - 1 -", "from_TB = (T + 0 * lengths_B - 1 -"),
    "reversed one step off": ("from_TB = (lengths_B - 1 -", "from_TB = (lengths_B - 2 -"),
    "reversed from the second row's end": ("from_TB = (lengths_B - 1 -", "from_TB = (lengths_B[1] - 1 + 0 * lengths_B -"),
    "reversed with what stands behind": ("return clear(flipped_TBD, valid(lengths_B, T))", "return flipped_TBD"),
    "cleared by a product": ("torch.where(valid_TB[..., None], x_TBD, 0)", "valid_TB[..., None] * x_TBD"),
    "cleared inside": ("torch.where(valid_TB[..., None], x_TBD, 0)", "torch.where(valid_TB[..., None], 0, x_TBD)"),
    "last at the padded end": ("last_1B1 = (lengths_B - 1)", "last_1B1 = (x_TBD.shape[0] + 0 * lengths_B - 1)"),
    "last one step off": ("last_1B1 = (lengths_B - 1)", "last_1B1 = (lengths_B - 2)"),
    "last of a row without steps": ("torch.where(lengths_B[:, None] > 0,", "torch.where(lengths_B[:, None] > -1,"),
    "packed in the padded order": ("x_TBD if like.sorted_indices is None else", "x_TBD if True else"),
    "packed in the opposite order": ("index_select(1, like.sorted_indices)", "index_select(1, like.unsorted_indices)"),
    "packed without the indices": ("like.sorted_indices, like.unsorted_indices)\n", "None, None)\n"),
    "packed with the padding": ("rows_B < like", "rows_B <= like"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    wrong = mutated(module, *MUTANTS[name])
    with pytest.raises(AssertionError):
        agree(wrong)


def test_reversed_twice_is_the_row_itself():
    twice = reverse_by_length(reverse_by_length(X, LENGTHS), LENGTHS)
    assert torch.equal(twice, X.masked_fill(BEHIND[..., None], 0))


@pytest.mark.parametrize("rows", [0, 2])
def test_no_steps_and_no_rows(rows):
    lengths = torch.zeros(rows, dtype=torch.int64)
    assert valid(lengths, 0).shape == (0, rows)
    for steps in (0, 3):
        x = torch.ones(steps, rows, 2)
        assert torch.equal(reverse_by_length(x, lengths), torch.zeros(steps, rows, 2))
        assert torch.equal(last_by_length(x, lengths), torch.zeros(rows, 2))


def test_the_gradient_of_packing_and_padding_is_that_of_torch():
    padded, lengths = X[:, [0, 1, 3]].clone().requires_grad_(), LENGTHS[[0, 1, 3]]
    packed = pack_padded_sequence(padded, lengths, enforce_sorted=False)
    back = to_packed(2 * from_packed(packed)[0], packed)
    assert isinstance(back, PackedSequence)
    weigh = noise(*back.data.shape, seed=2, grad=False)
    ours, theirs = (torch.autograd.grad((weigh * out).sum(), padded, retain_graph=True)[0] for out in (back.data, 2 * packed.data))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "lengths", [[2, 0, 4], (2, 0, 4), torch.tensor([2, 0, 4]), torch.tensor([2, 0, 4], dtype=torch.uint8), list(torch.tensor([2, 0, 4]))]
)
def test_lengths_become_an_int64_tensor(lengths):
    known = expect_lengths("LSTM", lengths, 3, 4, CPU)
    assert known.dtype == torch.int64 and known.tolist() == [2, 0, 4]


def test_lengths_are_told_to_the_inputs_device():
    assert expect_lengths("LSTM", torch.tensor([2, 0]), 2, 4, torch.device("meta")).is_meta
    assert expect_lengths("LSTM", [], 0, 4, CPU).shape == (0,)


WANTED = "LSTM lengths: expected B=2 whole numbers from 0 to T=4, one a row"
BAD = {
    "too long": ([2, 5], f"{WANTED}, got 5 for row 1. Cut to a window? Cut the lengths, too."),
    "too long to count": ((2, 2**70), f"got {2**70} for row 1."),
    "negative": (torch.tensor([-1, 2]), "one a row, got -1 for row 0. Lengths count steps."),
    "floats": ([2.0, 3.0], "one a row, got 2.0 among them. Lengths count steps."),
    "truth values": ([True, 3], "one a row, got True among them."),
    "a tensor of floats": (torch.tensor([2.0, 3.0]), "one a row, got float32. Convert them with lengths.long()."),
    "a tensor of truth values": (torch.tensor([True, False]), "one a row, got bool."),
    "too few": ([2], f"{WANTED}, got 1 of them. Batches along the other axis? See batch_first."),
    "a tensor of too many": (torch.tensor([2, 2, 2]), "one a row, got (3,)."),
    "a mask": (torch.ones(4, 2, dtype=torch.bool), "got (4, 2). A mask? Count it: lengths = mask.sum(0), or sum(1) with batch_first."),
    "a number": (4, "one a row, got 4. Give a list, a tuple or a tensor."),
    "words": ("42", "one a row, got '42'. Give a list, a tuple or a tensor."),
    "a set": ({2, 4}, "one a row, got set. Give a list, a tuple or a tensor."),
    "elsewhere": (torch.tensor([2, 4], device="meta"), "LSTM lengths: expected device cpu, where the input is, or cpu, got meta."),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_lengths(name):
    lengths, message = BAD[name]
    check_message(lambda: expect_lengths("LSTM", lengths, 2, 4, CPU), message)
