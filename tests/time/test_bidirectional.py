"""Look-ahead's windows against a loop over steps, and mutants of them."""

import pytest
import torch

from twofold.time import bidirectional


def walk(x_nMD, copies):
    """The smallest recurrence: the numbers read so far as digits, so that every output tells what was read, and in which order."""
    y, digits = [], 0
    for x in x_nMD:
        digits = digits * 100 + x
        y.append(digits)
    assert copies * len(LENGTHS) == x_nMD.shape[1]
    return torch.stack(y)


LENGTHS = (6, 3, 1, 0, 5)


def wrong_steps(module, T=6):
    """How many steps, for all numbers of steps ahead, tell of other digits than a loop over steps."""
    x = (torch.arange(1.0, T + 1)[:, None, None] + 10 * torch.arange(len(LENGTHS))[:, None]).double()
    wrong = 0
    for kind in ("sliding", "chunked"):
        for k in range(kind == "chunked", T + 2):
            y = module.read_ahead(walk, x, getattr(module, kind)(torch.tensor(LENGTHS), T, k))
            for b, n in enumerate(LENGTHS):
                for t in range(n):
                    end = min(t + k if kind == "sliding" else (t // k + 1) * k - 1, n - 1)
                    wrong += y[t, b].item() != sum((s + 1 + 10 * b) * 100 ** (s - t) for s in range(t, end + 1))
    return wrong


def test_windows_read_back_from_the_last_step_that_may_be_seen():
    assert wrong_steps(bidirectional) == 0


WINDOW_MUTANTS = {
    "one step too far ahead": ("None] + ahead, lengths_B - 1)", "None] + ahead + 1, lengths_B - 1)"),
    "the row's end forgotten": ("None] + ahead, lengths_B - 1)", "None] + ahead, 0 * lengths_B + T - 1)"),
    "one window too few": ("clamp(max=T - steps)", "clamp(max=max(T - steps - 1, 0))"),
    "chunks begin one step late": ("* size + size - 1, lengths_B - 1)", "* size + size, lengths_B - 1)"),
    "chunks behind a row's end": ("* size + size - 1, lengths_B - 1)", "* size + size - 1, 0 * lengths_B + T - 1)"),
    "walks forwards": ("(end_WB - torch.arange(n", "(end_WB - n + 1 + torch.arange(n"),
    "the walk's last output": ("walked_TB * W + window_T", "(n - 1) * W + window_T"),
    "the first window for all": ("walked_TB * W + window_T[:, None]", "walked_TB * W"),
    "rows exchanged": ("read_nWB * B + row_B)", "read_nWB * B + row_B.flip(0))"),
    "rows of the answer exchanged": ("[:, None]) * B + row_B)", "[:, None]) * B + row_B.flip(0))"),
}  # fmt: skip


@pytest.mark.parametrize("name", WINDOW_MUTANTS)
def test_mutants_of_the_windows_are_caught(name, mutated):
    wrong = mutated(bidirectional, *WINDOW_MUTANTS[name])
    try:
        caught = wrong_steps(wrong) > 0
    except IndexError:  # it reads a step that is not there
        caught = True
    assert caught
