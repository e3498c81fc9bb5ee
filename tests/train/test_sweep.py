"""A sweep: trials are drawn by the seed, ended early, kept when they fail, and gone on with after any break."""

import math
import sys

import pytest

from twofold.train.domain import Choice, Range
from twofold.train.sweep import STUDY, Trial, best, nested, sweep, told

SPACE = {"learning_rate": Range(1e-4, 0.1, log=True), "config.units": Range(8, 30, step=8), "optimizer": Choice(("adam", "sgd"))}
ORIGIN = {"source": "digits", "epochs": 3}


def goodness(settings):
    """Best at a rate of 0.01."""
    return 1 - abs(math.log10(settings["learning_rate"]) + 2)


def fit(settings, out, after_epoch):
    out.mkdir()
    for epoch in (1, 2, 3):
        after_epoch(epoch, goodness(settings) - 0.1 / epoch, {"accuracy": goodness(settings), "odd": "word"})


def trial(number, score=None, state="complete", reason="", folder=None):
    return Trial(number, {}, state, score, {}, 1, 1.0, folder, reason)


def test_values_become_settings_and_words():
    values = {"learning_rate": 0.00123456, "config.units": 64}
    assert nested(values) == {"learning_rate": 0.00123456, "config": {"units": 64}} and nested({"a": 1}) == {"a": 1}
    assert told(values) == "learning_rate=0.001235 units=64"


def test_the_best_is_the_highest_complete_one_and_the_earlier_of_equals():
    assert best([trial(0, 1.0), trial(1, 2.0), trial(2, 2.0), trial(3, 9.0, "pruned"), trial(4, None, "failed")]).number == 1
    with pytest.raises(ValueError, match=r"^sweep: none of 2 trials was completed. Trial 1: no memory$"):
        best([trial(0, 3.0, "pruned"), trial(1, None, "failed", "no memory")])


def test_without_optuna_the_line_that_installs_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match="^sweep: it needs optuna, which is not installed: pip install optuna$"):
        sweep(SPACE, fit, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna", reason="optuna is not installed: pip install optuna")


def test_trials_keep_values_scores_and_folders(tmp_path, optuna):
    said = []
    trials = sweep(SPACE, fit, tmp_path / "sweep", trials=4, origin=ORIGIN, say=said.append)
    assert [(t.number, t.state, t.epochs, t.folder.name) for t in trials] == [(n, "complete", 3, f"trial-00{n}") for n in range(4)]
    for one in trials:
        assert one.score == pytest.approx(goodness(one.values) - 0.1 / 3) and one.scores == {"accuracy": goodness(one.values)}
        assert 1e-4 <= one.values["learning_rate"] <= 0.1 and one.values["config.units"] in (8, 16, 24)
        assert one.values["optimizer"] in ("adam", "sgd") and one.folder.is_dir()
    assert len({t.values["learning_rate"] for t in trials}) == 4
    assert said[1].startswith("trial 0: complete, accuracy ") and sweep(SPACE, fit, tmp_path / "sweep", trials=4, origin=ORIGIN) == trials


def test_a_sweep_in_two_sessions_is_that_in_one(tmp_path, optuna):
    def quick(settings, out, after_epoch):
        after_epoch(1, goodness(settings), {})

    whole = sweep(SPACE, quick, tmp_path / "a", trials=13, seed=3)  # the first ten are drawn at random, the others learn from them
    first = sweep(SPACE, quick, tmp_path / "b", trials=11, seed=3)
    said = []
    both = sweep(SPACE, quick, tmp_path / "b", trials=13, seed=3, say=said.append)
    assert [t.values for t in both] == [t.values for t in whole] and first == both[:11]
    assert said[0] == f"going on with {tmp_path / 'b' / STUDY}: 11 of 13 trials are over" and len(said) == 1 + 2 * 2
    (other,) = sweep(SPACE, quick, tmp_path / "c", trials=1, seed=4)
    assert other.values != whole[0].values


def test_a_failed_trial_keeps_its_reason_and_the_sweep_goes_on(tmp_path, optuna):
    def sometimes(settings, out, after_epoch):
        if out.name == "trial-001":
            raise RuntimeError("out of memory\nlong story")
        if out.name == "trial-002":
            return after_epoch(1, float("nan"), {})
        return fit(settings, out, after_epoch)

    trials = sweep(SPACE, sometimes, tmp_path / "sweep", trials=4)
    assert [(t.state, t.reason) for t in trials] == [
        ("complete", ""), ("failed", "out of memory"), ("failed", "it ended without a score"), ("complete", ""),
    ]  # fmt: skip


def test_a_trial_below_the_median_is_ended_early(tmp_path, optuna):
    def worse_and_worse(settings, out, after_epoch):
        for epoch in (1, 2, 3):
            after_epoch(epoch, -float(out.name[-3:]), {"loss": 1.0})

    trials = sweep(SPACE, worse_and_worse, tmp_path / "sweep", trials=7)
    assert [(t.state, t.epochs) for t in trials] == [("complete", 3)] * 5 + [("pruned", 2)] * 2


@pytest.mark.parametrize("how", ["Ctrl-C", "killed"])
def test_an_interrupted_trial_is_begun_anew_and_does_not_count(tmp_path, optuna, monkeypatch, how):
    def broken_off(settings, out, after_epoch):
        if out.name == "trial-001":
            raise KeyboardInterrupt
        fit(settings, out, after_epoch)

    if how == "killed":  # nothing after the interrupt is written
        monkeypatch.setattr("twofold.train.sweep._interrupt", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        sweep(SPACE, broken_off, tmp_path / "sweep", trials=3)
    monkeypatch.undo()
    trials = sweep(SPACE, fit, tmp_path / "sweep", trials=3)
    assert [(t.number, t.state, t.reason) for t in trials] == [
        (0, "complete", ""), (1, "failed", "interrupted"), (2, "complete", ""), (3, "complete", ""),
    ]  # fmt: skip
    assert trials[1].values == trials[2].values
    assert [t.values for t in trials if not t.reason] == [t.values for t in sweep(SPACE, fit, tmp_path / "other", trials=3)]


@pytest.mark.parametrize(
    ("space", "origin", "message"),
    [
        ({"learning_rate": Range(1.0, 2.0)}, ORIGIN, r"sweep searches learning_rate=0.0001..0.1:log,.*, not learning_rate=1.0..2.0"),
        (
            SPACE,
            {**ORIGIN, "source": "photos"},
            r"sweep was begun otherwise: source was 'digits', is 'photos'. Name another folder with --out.",
        ),
    ],
)
def test_a_study_of_something_else_is_not_gone_on_with(tmp_path, optuna, space, origin, message):
    sweep(SPACE, fit, tmp_path / "sweep", trials=1, origin=ORIGIN)
    with pytest.raises(ValueError, match=message):
        sweep(space, fit, tmp_path / "sweep", trials=2, origin=origin)
    assert len(sweep(SPACE, fit, tmp_path / "sweep", trials=1, origin=ORIGIN)) == 1


def test_a_folder_that_holds_something_else_is_refused(tmp_path, optuna):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=rf"holds thesis.txt but no {STUDY}: name an empty or a new folder"):
        sweep(SPACE, fit, tmp_path)
    with pytest.raises(ValueError, match=r"whose name has \?, % or #"):
        sweep(SPACE, fit, tmp_path / "what?")
    (tmp_path / STUDY).write_bytes(b"no database at all" * 100)
    with pytest.raises(ValueError, match=f"{STUDY} is no study that can be read"):
        sweep(SPACE, fit, tmp_path)


@pytest.mark.parametrize(("space", "trials"), [({}, 3), (SPACE, 0)])
def test_a_sweep_of_nothing_is_refused(tmp_path, optuna, space, trials):
    with pytest.raises(ValueError, match="expected at least one setting to search and one trial"):
        sweep(space, fit, tmp_path / "sweep", trials=trials)
