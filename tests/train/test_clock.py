"""The clock: every moment belongs to the phase that it ends, and earlier sessions count."""

import pytest

from twofold.train import clock
from twofold.train.clock import PHASES, Clock


@pytest.fixture
def at(monkeypatch):
    """A time that passes only where a test says so."""
    now = [100.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def passes(seconds):
        now[0] += seconds

    return passes


def test_what_passes_belongs_to_the_phase_that_ends(at):
    ours = Clock()
    for phase, seconds in (("data", 1), ("forward", 2), ("backward", 4), ("forward", 1)):
        at(seconds)
        ours.lap(phase)
    assert ours.seconds == {**dict.fromkeys(PHASES, 0.0), "data": 1, "forward": 3, "backward": 4}
    assert ours.shares() == {**dict.fromkeys(PHASES, 0.0), "data": 0.125, "forward": 0.375, "backward": 0.5}


def test_what_passes_before_a_start_is_nobodys(at):
    ours = Clock()
    at(9)
    ours.start()
    at(1)
    ours.lap("validation")
    assert sum(ours.seconds.values()) == ours.seconds["validation"] == 1


def test_earlier_sessions_count_and_the_time_between_them_does_not(at):
    first = Clock()
    at(3)
    first.lap("keeping")
    kept = first.state_dict()
    at(1)
    first.lap("keeping")  # what was kept is a copy
    second = Clock()
    at(50)
    second.load_state_dict(kept)
    at(2)
    second.lap("keeping")
    assert second.seconds["keeping"] == 5


def test_without_any_time_all_shares_are_zero(at):
    assert Clock().shares() == dict.fromkeys(PHASES, 0.0)
