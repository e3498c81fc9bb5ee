"""Progress: what counts as better, when patience ends, and a state that comes back whole or is named."""

import pytest
import torch

from twofold import nn
from twofold.train.optimizers import build_optimizer
from twofold.train.progress import Progress, load_progress, save_progress
from twofold.train.settings import Optimisation


def start():
    model = nn.Linear(1, 1)
    return model, build_optimizer(model, Optimisation()), None


def test_of_equals_the_later_is_the_best_but_patience_counts_what_is_better():
    progress = Progress()
    assert [progress.end_epoch({}, (rank,)) for rank in (0.5, 0.9, 0.9, 0.8)] == [True, True, True, False]
    assert (progress.best_epoch, progress.improved_epoch, progress.epoch) == (3, 2, 4)
    assert [progress.tired(patience) for patience in (0, 1, 2, 3)] == [False, True, True, False]


def test_a_rank_that_is_no_number_is_never_better():
    progress = Progress()
    assert [progress.end_epoch({}, (rank,)) for rank in (0.5, float("nan"), 0.4)] == [True, False, False]
    assert progress.best_epoch == 1


def test_an_epoch_counts_its_steps_and_items_from_zero():
    progress = Progress()
    progress.advance(2.0, 3, "carried")
    progress.advance(1.0, 1, "on")
    assert (progress.step, progress.items, progress.loss_sum, progress.carried) == (2, 4, 7.0, "on")
    progress.end_epoch({}, (0.0,))
    assert (progress.step, progress.items, progress.loss_sum, progress.carried) == (0, 0, 0.0, "on")


def test_everything_comes_back(tmp_path):
    model, optimizer, _ = start()
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    progress = Progress(3, 7, (torch.ones(2),), 1.5, 9, 2.25, (0.5,), 2, 1, [{"epoch": 1}])
    torch.manual_seed(4)
    save_progress(tmp_path / "run.pt", progress, model, optimizer)
    drawn = torch.rand(3)
    other, another, _ = start()
    back = load_progress(tmp_path / "run.pt", other, another)
    assert torch.equal(torch.rand(3), drawn)
    assert torch.equal(back.carried[0], progress.carried[0])
    assert {**vars(back), "carried": None} == {**vars(progress), "carried": None}
    assert torch.equal(other.weight, model.weight)
    moments = [state["exp_avg"] for optimiser in (optimizer, another) for state in optimiser.state.values()]
    assert torch.equal(moments[0], moments[2]) and torch.equal(moments[1], moments[3])


def test_a_damaged_state_is_named(tmp_path):
    path = tmp_path / "run" / "state" / "run.pt"
    model, optimizer, _ = start()
    with pytest.raises(ValueError, match="holds no state"):
        load_progress(path, model, optimizer)
    save_progress(path, Progress(), model, optimizer)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="is damaged or belongs to another model"):
        load_progress(path, model, optimizer)
