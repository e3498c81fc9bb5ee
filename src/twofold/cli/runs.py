"""twofold runs: every run beneath a folder, in a table and a plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twofold.cli.options import Flag
from twofold.cli.output import print_json, print_line, print_table

if TYPE_CHECKING:
    from twofold.see.runs import Standing
    from twofold.train.runs import Record

COLUMNS = ("name", "source", "model", "epochs", "seconds", "weights", "state")
NOT_COMPARED = ("source", "model")  # they have columns of their own


def runs(folder: Path = Path("runs"), *, sort: str = "", plot: Path | None = None, json: Flag = False) -> None:
    """List and compare the runs beneath a folder: unfinished ones too, and damaged ones with the reason.

    Parameters
    ----------
    folder
        Where to look.
    sort
        Best first by a score of the validation split (accuracy, loss, ...), or by name, source, model, epochs, seconds, weights or
        state. Default: by name.
    plot
        Also draw the validation curves into this PNG file.
    json
        Print JSON.
    """
    from twofold.see.runs import standing
    from twofold.train.runs import differing, find_runs, read_run

    if plot is not None and plot.suffix.lower() != ".png":
        raise ValueError(f"runs: expected --plot as the name of a PNG file, for example runs.png, got {plot}.")
    records = [read_run(path) for path in find_runs(folder)]
    if not records:
        raise ValueError(f"runs: there is no run in {folder}. Make one: twofold train digits")
    names = {record.path: _name(record.path, folder) for record in records}
    apart = {path: {k: v for k, v in some.items() if k not in NOT_COMPARED} for path, some in differing(records).items()}
    key = "" if sort in (*COLUMNS, "") else sort
    records = _sorted(records, sort, key)
    if plot is not None:
        from twofold.see.runs import compare
        from twofold.see.style import save_png

        save_png(compare({names[record.path]: record.history for record in records if record.history}, key), plot)
    if json:
        listed = [{**_facts(record, names[record.path], key), "differs": apart[record.path]} for record in records]
        print_json({"folder": str(folder), "plot": None if plot is None else str(plot), "runs": listed})
        return
    stands = {record.path: standing(record.history, key) for record in records}
    metrics = {stand.key for stand in stands.values() if stand is not None}
    shared = metrics.pop() if len(metrics) == 1 else ""  # then it is said once, above the column
    header = ("run", "source", "model", "epochs", f"best {shared or 'score'}".replace("_", " "), "test", "time", "weights", "state")
    print_table(header, [_row(record, names[record.path], stands[record.path], key, not shared) for record in records])
    rows = [(names[record.path], _words(apart[record.path])) for record in records if apart[record.path]]
    if len(records) > 1 and rows:
        print_line("")
        print_table(("run", "differs in"), rows)
    for record in records:
        if record.reason:
            print_line(f"{names[record.path]}: {record.reason}")
    if plot is not None:
        print_line(f"plot: {plot}")


def _sorted(records: "Sequence[Record]", sort: str, key: str) -> "list[Record]":
    """Best first by a score, those without it last; else by a column. Raises ValueError for a column and a score that nobody has."""
    from twofold.see.runs import standing

    if not sort:
        return list(records)
    if key:
        stands = {record.path: standing(record.history, key) for record in records}
        if not any(stands.values()):
            scores = sorted({name for record in records for row in record.history for name in row.get("validation", {})})
            raise ValueError(f"runs: no run has {key!r} to sort by. There are {', '.join([*scores, *COLUMNS])}.")
        return sorted(records, key=lambda record: float("inf") if (stand := stands[record.path]) is None else stand.order)
    columns: dict[str, Any] = {
        "name": lambda record: str(record.path),
        "epochs": lambda record: -record.epochs,
        "seconds": lambda record: record.seconds or 0.0,
        "weights": lambda record: record.weights or 0,
        "state": lambda record: record.state,
    }
    return sorted(records, key=columns.get(sort, lambda record: str(record.settings.get(sort, ""))))


def _facts(record: "Record", name: str, key: str) -> dict[str, Any]:
    """What is known of a run, for programs."""
    from twofold.see.runs import standing

    best = standing(record.history, key)
    return {
        "name": name,
        "path": str(record.path),
        "state": record.state,
        "reason": record.reason,
        "source": record.settings.get("source"),
        "model": record.settings.get("model"),
        "epochs": record.epochs,
        "planned": record.settings.get("epochs"),
        "best": None if best is None else {"metric": best.key, "value": best.value, "epoch": best.epoch},
        "test": (record.final or {}).get("test"),
        "seconds": record.seconds,
        "weights": record.weights,
        "settings": record.settings,
    }


def _row(record: "Record", name: str, best: "Standing | None", key: str, metric: bool) -> tuple[str, ...]:
    """What is known of a run, for people. metric: whether the best score says what it is."""
    from twofold.see.runs import headline, said

    test = (record.final or {}).get("test") or {}
    shown = key or headline(test)
    planned = record.settings.get("epochs")
    scored = "-" if best is None else str(best)
    return (
        name,
        Path(str(record.settings.get("source", "-"))).name,
        str(record.settings.get("model") or "-"),
        f"{record.epochs}/{planned}" if planned else str(record.epochs),
        f"{best.key.replace('_', ' ')} {scored}" if best is not None and metric else scored,
        said(shown, test[shown]) if shown and shown in test else "-",
        "-" if record.seconds is None else _time(record.seconds),
        "-" if record.weights is None else _short(record.weights),
        record.state,
    )


def _time(seconds: float) -> str:
    """2.9 s, 4:05 (minutes), 3:12:07 (hours)."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _short(count: int) -> str:
    """812, 67.8 k, 11.7 M."""
    return str(count) if count < 1000 else f"{count / 1e3:.1f} k" if count < 999_950 else f"{count / 1e6:.1f} M"


def _words(settings: dict[str, Any]) -> str:
    return " ".join(f"{name.removeprefix('config.')}={f'{v:.4g}' if isinstance(v, float) else v}" for name, v in settings.items())


def _name(path: Path, folder: Path) -> str:
    """The path from the folder; its own name where it is the folder itself."""
    inner = path.relative_to(folder)
    return str(inner) if inner.parts else path.resolve().name
