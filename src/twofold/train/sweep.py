"""A sweep: many runs that search for good settings, each an ordinary run folder beneath the folder of the sweep.

    study.sqlite3     every trial: values, scores after each epoch, state; the same command again goes on with it
    trial-000/ ...    the runs

optuna chooses the values (a tree-structured Parzen estimator: Bergstra, Bardenet, Bengio and Kegl, "Algorithms for hyper-parameter
optimization", 2011, section 4) and ends a trial whose score is below the median of the others at the same epoch. Trial n draws with
seed + n, so a study that was interrupted goes on as if it had not been.

What one trial does comes from outside (`Fit`). A trial that fails is kept with its reason, and the next one begins.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from twofold.train.domain import Choice, Domain, Range, Space, spoken
from twofold.train.flat import Plain
from twofold.train.lock import locked

STUDY = "study.sqlite3"
NAME = "twofold"
STARTUP = 5  # trials before any is ended early
WARMUP = 1  # epochs in which none is
INTERRUPTED = "interrupted"


class PrunedTrial(Exception):  # noqa: N818 (the end of a trial is no error)
    """This trial is worse than most others were at this epoch. Raised by `AfterEpoch`; whoever trains lets it pass."""


class AfterEpoch(Protocol):
    """Told after each epoch how good the model is. Raises PrunedTrial to end the trial."""

    def __call__(self, epoch: int, score: float, scores: Mapping[str, Any], /) -> None:
        """epoch: from 1; score: larger is better (the first number of the task's rank); scores: those of the validation split."""
        ...


class Fit(Protocol):
    """One trial: train with these settings (flat names, config as a dict) into the folder `out`."""

    def __call__(self, settings: dict[str, Any], out: Path, after_epoch: AfterEpoch, /) -> None: ...


class Trial(NamedTuple):
    """What became of one trial. `score` and `scores` are those of its best epoch."""

    number: int
    values: dict[str, Plain]
    state: str  # complete, pruned, failed
    score: float | None
    scores: dict[str, float]
    epochs: int
    seconds: float
    folder: Path
    reason: str = ""


def sweep(
    space: Space,
    fit: Fit,
    folder: Path,
    *,
    trials: int = 20,
    seed: int = 0,
    origin: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Trial]:
    """Search until the study has `trials` trials that are over, and return them all. Ctrl-C leaves a study that goes on.

    origin: whatever else the scores depend on (the source, settings that all trials share), as JSON has it: a study of another origin
    or space is not gone on with. Raises ValueError for that, for optuna that is missing, and for a folder that holds something else.
    """
    optuna = _optuna()
    if not space or trials < 1:
        raise ValueError(f"sweep: expected at least one setting to search and one trial, got {len(space)} and {trials}.")
    inside = sorted(place.name for place in folder.iterdir()) if folder.is_dir() else []
    if inside and STUDY not in inside:
        raise ValueError(f"sweep: {folder} holds {', '.join(inside[:3])} but no {STUDY}: name an empty or a new folder with --out.")
    with locked(folder):
        study = _open(optuna, folder, {"space": spoken(space), "origin": json.loads(json.dumps(origin or {}))})
        _renew_interrupted(optuna, study)
        done = [trial for trial in _all(study, folder) if trial.reason != INTERRUPTED]
        if done:
            say(f"going on with {folder / STUDY}: {len(done)} of {trials} trials are over")
        for _ in range(trials - len(done)):
            trial = _next(optuna, study, space, seed)
            say(f"trial {trial.number}: {told(trial.params)}")
            _try(optuna, study, trial, fit, folder)
            say(_line(next(over for over in _all(study, folder) if over.number == trial.number)))
        return _all(study, folder)


def best(trials: Sequence[Trial]) -> Trial:
    """The complete trial with the highest score; of equals the earlier. Raises ValueError where none is complete."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.score is not None]
    if not complete:
        reason = next((f" Trial {trial.number}: {trial.reason}" for trial in trials if trial.reason), "")
        raise ValueError(f"sweep: none of {len(trials)} trials was completed.{reason}")
    return max(complete, key=lambda trial: trial.score if trial.score is not None else -math.inf)


def nested(values: Mapping[str, Plain]) -> dict[str, Any]:
    """Values by the names of a space as flat settings: {"config.units": 64} -> {"config": {"units": 64}}."""
    settings = {name: value for name, value in values.items() if not name.startswith("config.")}
    config = {name.removeprefix("config."): value for name, value in values.items() if name.startswith("config.")}
    return settings | ({"config": config} if config else {})


def told(values: Mapping[str, Any]) -> str:
    """Values in a line for people: learning_rate=0.0032 units=64."""
    return " ".join(f"{name.removeprefix('config.')}={f'{v:.4g}' if isinstance(v, float) else v}" for name, v in values.items())


def _optuna() -> Any:
    try:
        optuna: Any = import_module("optuna")
    except ImportError:
        raise ValueError("sweep: it needs optuna, which is not installed: pip install optuna") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # we speak for it
    return optuna


def _open(optuna: Any, folder: Path, wanted: dict[str, Any]) -> Any:
    """The study of the folder, made if it is not there. Raises ValueError where it is a study of something else, or none at all."""
    path = folder / STUDY
    if set("?%#") & set(str(path)):
        raise ValueError(f"sweep: {folder}: a study cannot lie in a folder whose name has ?, % or #. Name another with --out.")
    pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=WARMUP + 1)
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        study = optuna.create_study(storage=storage, study_name=NAME, direction="maximize", pruner=pruner, load_if_exists=True)
    except Exception as error:  # whatever a damaged file makes the database raise
        raise ValueError(f"sweep: {path} is no study that can be read ({str(error).splitlines()[0]}). Name another folder.") from None
    _compare(folder, dict(study.user_attrs), wanted)
    for name, value in wanted.items():
        study.set_user_attr(name, value)
    return study


def _compare(folder: Path, before: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise ValueError where a study was begun with another space or of another origin."""
    if "space" not in before:
        return
    if before["space"] != wanted["space"]:
        raise ValueError(f"sweep: {folder} searches {before['space']}, not {wanted['space']}. Name another folder with --out.")
    old, new = before.get("origin", {}), wanted["origin"]
    changed = [f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in {**old, **new} if old.get(name) != new.get(name)]
    if changed:
        raise ValueError(f"sweep: {folder} was begun otherwise: {'; '.join(changed)}. Name another folder with --out.")


def _renew_interrupted(optuna: Any, study: Any) -> None:
    """Trials that a killed session left in the middle are over; their values come first in this one."""
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        _interrupt(optuna, study, trial)


def _interrupt(optuna: Any, study: Any, trial: Any) -> None:
    study.set_user_attr(INTERRUPTED, [*study.user_attrs.get(INTERRUPTED, []), trial.number])
    study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    study.enqueue_trial(trial.params)


def _next(optuna: Any, study: Any, space: Space, seed: int) -> Any:
    states = optuna.trial.TrialState
    over = study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED, states.FAIL))
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(over) - len(study.user_attrs.get(INTERRUPTED, [])))
    return study.ask({name: _distribution(optuna, domain) for name, domain in space.items()})


def _distribution(optuna: Any, domain: Domain) -> Any:
    made = optuna.distributions
    if isinstance(domain, Choice):
        return made.CategoricalDistribution(domain.values)
    high = _last(domain)
    if isinstance(domain.low, int):
        return made.IntDistribution(domain.low, int(high), log=domain.log, step=int(domain.step or 1))
    return made.FloatDistribution(domain.low, high, log=domain.log, step=domain.step)


def _last(domain: Range) -> float:
    """The last value of a range that its steps reach."""
    if domain.step is None:
        return domain.high
    return domain.low + math.floor((domain.high - domain.low) / domain.step + 1e-9) * domain.step


def _try(optuna: Any, study: Any, trial: Any, fit: Fit, folder: Path) -> None:
    """One trial, from its values to its state in the study."""
    began = time.perf_counter()
    outcome: dict[str, Any] = {"score": None, "scores": {}, "epochs": 0}

    def after_epoch(epoch: int, score: float, scores: Mapping[str, Any]) -> None:
        trial.report(score, epoch)
        outcome["epochs"] = epoch
        if math.isfinite(score) and (outcome["score"] is None or score >= outcome["score"]):  # of equals the later, as the loop keeps it
            outcome["score"], outcome["scores"] = score, {n: value for n, value in scores.items() if isinstance(value, int | float)}
        if trial.should_prune():
            raise PrunedTrial

    states, state, reason = optuna.trial.TrialState, None, ""
    try:
        fit(nested(trial.params), folder / _folder(trial.number), after_epoch)
    except PrunedTrial:
        state = states.PRUNED
    except KeyboardInterrupt:
        with suppress(Exception):  # the interrupt is what counts; the next session renews what is left in the middle
            _interrupt(optuna, study, trial)
        raise
    except Exception as error:  # whatever these values bring about: they are bad ones, and the search goes on
        state, reason = states.FAIL, (str(error).strip().splitlines() or [type(error).__name__])[0]
    if state is None and outcome["score"] is None:
        state, reason = states.FAIL, "it ended without a score"
    trial.set_user_attr("outcome", {**outcome, "seconds": time.perf_counter() - began, "reason": reason})
    if state is None:
        study.tell(trial, outcome["score"])
    else:
        study.tell(trial, state=state)


def _folder(number: int) -> str:
    return f"trial-{number:03d}"


def _all(study: Any, folder: Path) -> list[Trial]:
    """The trials that are over, and those that an earlier session was interrupted in."""
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    interrupted = study.user_attrs.get(INTERRUPTED, [])
    none: dict[str, Any] = {"score": None, "scores": {}, "epochs": 0, "seconds": 0.0, "reason": ""}
    trials = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name in names:
            outcome = {**none, **trial.user_attrs.get("outcome", {})} | ({"reason": INTERRUPTED} if trial.number in interrupted else {})
            place = folder / _folder(trial.number)
            trials.append(Trial(trial.number, dict(trial.params), names[trial.state.name], folder=place, **outcome))
    return trials


def _line(trial: Trial) -> str:
    scores = " ".join(f"{name} {value:.4g}" for name, value in trial.scores.items())
    return f"trial {trial.number}: {trial.state}, {scores or 'no score'}, {trial.seconds:.1f} s{': ' if trial.reason else ''}{trial.reason}"
