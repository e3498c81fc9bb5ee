"""Progress: what counts as better, when patience ends, and what a checkpoint holds of it."""

from twofold.train.progress import Progress


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


def test_a_step_that_is_left_out_counts_for_the_place_alone():
    progress = Progress()
    progress.leave_out("state")
    assert (progress.step, progress.items, progress.loss_sum, progress.carried) == (1, 0, 0.0, "state")


def test_everything_comes_back():
    progress = Progress(3, 7, "carried", 1.5, 9, (0.5,), 2, 1, 0, [{"epoch": 1}])
    state, other = progress.state_dict(), Progress()
    progress.history.append({"epoch": 2})  # what is saved is a copy
    other.load_state_dict({**state, "best_rank": [0.5]})
    assert vars(other) == {**vars(progress), "history": [{"epoch": 1}]}


def test_where_patience_ended_it_stays_ended():
    assert Progress(stopped_epoch=4).tired(0)
