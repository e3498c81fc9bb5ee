"""twofold train SOURCE --sweep ...: many runs in search of good settings, then a table, a picture, and the command of the best."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twofold.cli.output import print_json, print_line, print_table, visible

if TYPE_CHECKING:
    from twofold.train.domain import Kind, Space
    from twofold.train.sweep import AfterEpoch, Fit, Trial

FROM_DATA = ("in_channels", "height", "width", "classes", "vocabulary")  # of a configuration: they follow from the source
PICTURE = "sweep.png"


def sweep_and_print(source: str, text: str, given: Mapping[str, Any], fit: "Fit", out: Path, trials: int, json: bool) -> None:
    """Search the space that `text` describes, and print what was found.

    given: settings by flat names that every trial shares (config as a dict). fit: is called with these and those of its trial. out: the
    folder of the sweep. Raises ValueError, before anything is written, for a space that the settings or the model cannot have.
    """
    from twofold.see.style import save_png
    from twofold.see.sweeps import Dot, sweep_picture
    from twofold.train.domain import Range, parse
    from twofold.train.sweep import best, sweep

    space = parse(text, known_kinds(given))
    refuse_impossible(source, space, given)
    origin = {"source": source, **given}
    seed = int(given.get("seed", 0))

    def fit_whole(settings: dict[str, Any], folder: Path, after_epoch: "AfterEpoch") -> None:
        fit(_joined(given, settings), folder, after_epoch)

    done = sweep(space, fit_whole, out, trials=trials, seed=seed, origin=origin, say=lambda line: print(visible(line), file=sys.stderr))
    chosen = best(done)
    key = _key(chosen)
    dots = [Dot(trial.number, trial.values, trial.state, trial.scores.get(key)) for trial in done]
    logarithmic = [name for name, domain in space.items() if isinstance(domain, Range) and domain.log]
    save_png(sweep_picture(dots, key, f"Sweep of {Path(source).name}", logarithmic), out / PICTURE)
    command = best_command(source, chosen, given)
    if json:
        listed = [{**trial._asdict(), "folder": str(trial.folder)} for trial in done]
        print_json({"folder": str(out), "trials": listed, "best": chosen.number, "command": command, "plot": str(out / PICTURE)})
        return
    print_trials(done, key)
    print_line(f"{'best:':<9} {chosen.folder}")
    print_line(f"{'plot:':<9} {out / PICTURE}")
    print_line(f"{'command:':<9} {command}")


def known_kinds(given: Mapping[str, Any]) -> "dict[str, Kind]":
    """What each setting that may be searched holds: those of the settings, and those of the model's configuration as config.NAME.

    The model is the one that is given; without one, any option of any architecture may be searched.
    """
    from twofold.models.catalogue import MODELS, find
    from twofold.train.domain import kinds_of
    from twofold.train.settings import Settings

    presets = [find(given["model"])] if given.get("model") else list(MODELS.values())
    kinds = {name: kind for name, kind in kinds_of(Settings).items() if name != "source"}
    for preset in presets:
        kinds |= {f"config.{name}": kind for name, kind in kinds_of(type(preset.preset)).items() if name not in FROM_DATA}
    return kinds


def refuse_impossible(source: str, space: "Space", given: Mapping[str, Any]) -> None:
    """Raise ValueError for a setting that is searched and given at once, and for an end of a range, or a choice, that cannot be."""
    from twofold.models.catalogue import configure
    from twofold.train.domain import ends
    from twofold.train.settings import Settings
    from twofold.train.sweep import nested

    config = dict(given.get("config") or {})
    for name, domain in space.items():
        if name in given or name.removeprefix("config.") in (config if name.startswith("config.") else ()):
            raise ValueError(f"sweep: {name.removeprefix('config.')} is searched, but also given. Leave one of them out.")
        for value in ends(domain):
            chosen = nested({name: value})
            joined = _joined(given, chosen)
            Settings.of(source, **joined)
            if joined.get("model"):
                configure(joined["model"], **joined.get("config", {}))


def print_trials(trials: "Sequence[Trial]", key: str) -> None:
    """The trials in the order of their scores, those without one last; failed ones with the reason."""
    from twofold.see.runs import metric_of, said

    names = list(dict.fromkeys(name for trial in trials for name in trial.values))
    worst = float("inf")
    sign = -1 if metric_of(key).higher_is_better else 1
    order = sorted(trials, key=lambda trial: sign * trial.scores[key] if key in trial.scores else worst)
    header = ("trial", key.replace("_", " "), *(name.removeprefix("config.") for name in names), "epochs", "time", "state")
    rows = [
        (
            str(trial.number),
            said(key, trial.scores[key]) if key in trial.scores else "-",
            *(_value(trial.values.get(name, "-")) for name in names),
            str(trial.epochs),
            f"{trial.seconds:.1f} s",
            f"{trial.state}: {trial.reason}" if trial.reason else trial.state,
        )
        for trial in order
    ]
    print_table(header, rows)


def best_command(source: str, trial: "Trial", given: Mapping[str, Any]) -> str:
    """The command line that trains with the settings of this trial."""
    from twofold.train.sweep import nested

    settings = _joined(given, nested(trial.values))
    config = settings.pop("config", {})
    words = ["twofold", "train", source]
    for name, value in settings.items():
        words += _words(f"--{name.replace('_', '-')}", value)
    if config:
        words += ["--config", *(f"{name}={_exact(value)}" for name, value in config.items())]
    return shlex.join(words)


def _joined(given: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Shared settings with those of a trial, and both parts of the configuration in one."""
    config = {**(given.get("config") or {}), **(chosen.get("config") or {})}
    return {**given, **chosen} | ({"config": config} if config else {})


def _words(option: str, value: Any) -> list[str]:
    """An option as words: --graph, --no-graph, --track a --track b, --epochs 5."""
    if isinstance(value, bool):
        return [option if value else option.replace("--", "--no-", 1)]
    if isinstance(value, list | tuple):
        return [word for one in value for word in (option, _exact(one))]
    return [option, _exact(value)]


def _exact(value: Any) -> str:
    """So that the same number is read again."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _key(trial: "Trial") -> str:
    """The name of the number that the trials are compared by."""
    from twofold.see.runs import headline

    return headline(trial.scores) or next(iter(trial.scores), "score")
