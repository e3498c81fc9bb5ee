"""Many runs: every run folder beneath a folder, read as far as it can be.

    done       it has its final scores and its weights
    running    a process holds its lock at this moment
    stopped    neither: `twofold train --resume` goes on with it
    damaged    a file of it cannot be read, or lacks; `reason` names it. What can be read is there all the same

Nothing is raised for what lies in a run folder, and nothing is written there; a lock that a crash has left is taken away.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from twofold.train.flat import Plain, flat
from twofold.train.folder import RunFolder
from twofold.train.lock import NAME as LOCK
from twofold.train.lock import locked

MARKS = ("settings.yaml", "metrics.jsonl")  # a folder that has one of these is a run's
HEADER = 1 << 26  # bytes: a longer one is none
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # in the file of weights, but not learned


class Record(NamedTuple):
    """One run folder. history: a row for each epoch; final: the last row, with the scores of the best epoch; weights: how many."""

    path: Path
    state: str
    reason: str = ""
    settings: dict[str, Plain] = {}  # noqa: RUF012 (never changed)
    history: Sequence[dict[str, Any]] = ()
    final: dict[str, Any] | None = None
    weights: int | None = None

    @property
    def epochs(self) -> int:
        """How many epochs are done."""
        return int(self.history[-1]["epoch"]) if self.history else 0

    @property
    def seconds(self) -> float | None:
        """The time of training so far."""
        rows = [*self.history, self.final or {}]
        return next((float(row["seconds"]) for row in reversed(rows) if _number(row.get("seconds"))), None)


def find_runs(folder: Path) -> list[Path]:
    """Every run folder in this folder and beneath, the folder itself included, in the order of their names.

    Raises ValueError where there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"runs: there is no folder {folder}. Name the folder that holds the runs: twofold runs DIR")
    return sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        if any(mark in names for mark in MARKS):
            folders.clear()  # no run lies in a run
            yield Path(place)
        folders[:] = [name for name in folders if not name.startswith(".")]


def read_run(path: Path) -> Record:
    """What a run folder says. It is damaged where a file cannot be read; raises nothing."""
    reasons: list[str] = []
    settings: dict[str, Plain] = {}
    rows: list[dict[str, Any]] = []
    weights = None
    try:
        settings = _settings(path / "settings.yaml")
    except (ValueError, OSError) as error:
        reasons.append(_told(path, error))
    try:
        if (path / "metrics.jsonl").exists():
            rows = _checked(RunFolder(path).read_rows())
    except (ValueError, OSError) as error:
        reasons.append(_told(path, error))
    final = rows.pop() if rows and "final" in rows[-1] else None
    try:
        weights = count_weights(path / "model.safetensors")
    except FileNotFoundError:
        reasons += ["model.safetensors is missing"] if final is not None else []
    except (ValueError, OSError) as error:
        reasons.append(_told(path, error))
    state = "damaged" if reasons else "running" if _locked(path) else "stopped" if final is None else "done"
    return Record(path, state, "; ".join(reasons), settings, rows, final, weights)


def differing(records: Sequence[Record]) -> dict[Path, dict[str, Plain]]:
    """Of each run, by its path, the settings that have several values among the runs.

    One that a run does not have (another version wrote it, or its model is as it comes) is no value.
    """
    values: dict[str, set[tuple[str, Plain]]] = {}
    for record in records:
        for name, value in record.settings.items():
            values.setdefault(name, set()).add((str(isinstance(value, bool)), value))  # True and 1 are two values
    apart = [name for name, several in values.items() if len(several) > 1]
    return {record.path: {name: record.settings[name] for name in apart if name in record.settings} for record in records}


def count_weights(path: Path) -> int:
    """How many learned numbers a file of weights holds, by its header alone; also a check that the file is not cut.

    Raises ValueError for a damaged file, OSError for one that cannot be read.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= HEADER else b""
    try:
        header = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        counts = {name: _product(entry["shape"]) for name, entry in header.items()}
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError):
        raise ValueError(f"{path.name} is damaged or cut off") from None
    if path.stat().st_size != 8 + length + end:
        raise ValueError(f"{path.name} is damaged or cut off: {path.stat().st_size:,} bytes, not {8 + length + end:,}")
    return sum(count for name, count in counts.items() if name.rpartition(".")[2] not in BUFFERS)


def _product(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _settings(path: Path) -> dict[str, Plain]:
    """The settings as they stand there, whichever version wrote them. Raises ValueError for what no run's are."""
    try:
        values = yaml.safe_load(path.read_bytes().decode())
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path.name} is no YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict) or not isinstance(values.get("source"), str) or not all(isinstance(name, str) for name in values):
        raise ValueError(f"{path.name} names no source, so it is no run's")
    return flat(values)


def _checked(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """The rows. Raises ValueError for one that no log has: epochs rise, and only the last row is final."""
    before = 0
    for number, row in enumerate(rows, 1):
        good = isinstance(row, dict) and all(isinstance(row.get(part, {}), dict) for part in ("train", "validation", "test"))
        if good and "final" in row:
            good = number == len(rows)
        elif good:
            epoch = row.get("epoch")
            good = type(epoch) is int and epoch > before
            before = epoch
        if not good:
            raise ValueError(f"metrics.jsonl is damaged: line {number} is no row of an epoch, or stands in the wrong place.")
    return list(rows)


def _locked(path: Path) -> bool:
    """Whether a process is writing this run. Where no lock lies, none is; one that a crash has left is held by nobody."""
    if not (path / LOCK).exists():
        return False
    try:
        with locked(path):
            return False
    except ValueError:
        return True
    except OSError:  # a folder of someone else: whoever may not lock it cannot know
        return False


def _told(path: Path, error: Exception) -> str:
    """The mistake in a few words, files by their names in the folder."""
    if isinstance(error, OSError):
        return f"{Path(str(error.filename)).name}: {error.strerror}"
    return str(error).splitlines()[0].rstrip(".").replace(f"{path}{os.sep}", "")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
