"""Checkpoints that survive: a crash, a full disk, a disk that forgets.

    state/000007-step5200-91c0f3a25be4d870.safetensors      7: the seventh that was written; 5200 steps; the sum's first 16 digits
    state/manifest.json                                     of each: name, step, epoch, best, size, sha256; and its own sha256

    write      copy the states -> (training goes on) -> temporary file, summed on the way -> disk -> rename -> manifest -> remove the old
    keep       the last k and the best
    read       the newest whose bytes have the sum that they were written with; each that has not is named, and the one before it is taken

A checkpoint is renamed only when it is whole on the disk, the manifest names it only then, and an older one is removed only when the
manifest no longer names it: at every instant the newest named checkpoint is good. The name carries the sum as well, so a lost manifest
loses nothing. A checkpoint is read as data; no code in it is ever run.
"""

import hashlib
import json
import random
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field

from twofold.data import files
from twofold.train import archive
from twofold.train.part import Part

MANIFEST = "manifest.json"
DIGITS = 16  # of the sum, in the name
_NAME = re.compile(rf"[0-9]{{6,18}}-step[0-9]+-[0-9a-f]{{{DIGITS}}}\.safetensors")
_WORKING = "checkpoint"  # what is being written, before it has its sum


class Keeping(Part):
    """Which checkpoints are written and kept."""

    keep_last: Annotated[int, Field(ge=1, le=1000)] = 2
    """Keep so many of the newest checkpoints; the best is kept besides."""
    save_every: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    """Minutes between two checkpoints within an epoch, so the most work that a crash can cost; 0: only at the ends of epochs."""


class Entry(NamedTuple):
    """What the manifest says of a checkpoint."""

    name: str
    step: int
    epoch: int
    best: bool
    size: int
    sha256: str

    @property
    def number(self) -> int:
        return _number(self.name)


class Loaded(NamedTuple):
    """A checkpoint as it was saved, and in `notes` what was wrong with those that were newer."""

    entry: Entry
    states: dict[str, Any]
    notes: tuple[str, ...]


class Checkpoints:
    """The checkpoints of one run, in one folder that one process writes."""

    def __init__(self, folder: Path, keeping: Keeping | None = None) -> None:
        self.folder, self.keeping = folder, keeping or Keeping()
        self._entries: list[Entry] | None = None
        self._writing: threading.Thread | None = None
        self._warnings: list[str] = []
        self._error: Exception | None = None
        self._saved = time.monotonic()

    @property
    def entries(self) -> list[Entry]:
        """The checkpoints that are there, oldest first."""
        if self._entries is None:
            self._entries, _ = self._take_stock()
        return self._entries

    def due(self) -> bool:
        """Whether `save_every` minutes have gone by since the last checkpoint was begun."""
        return 0 < 60 * self.keeping.save_every <= time.monotonic() - self._saved

    def save(self, step: int, states: Mapping[str, Any], *, epoch: int = 0, best: bool = False) -> tuple[str, ...]:
        """Copy the states now and write them while training goes on. Returns what went wrong with earlier writes, in sentences.

        A disk that refuses costs this checkpoint and nothing else: the sentence comes from the next `save` or `wait`. Of two saves in a row
        the second waits for the first, so there is one copy at most.
        Raises ValueError for a state that is neither tensors nor plain values.
        """
        warnings = self.wait()
        self._saved = time.monotonic()
        frozen = archive.freeze(dict(states))
        self._writing = threading.Thread(target=self._write, args=(frozen, step, epoch, best), name="checkpoint")
        self._writing.start()
        return warnings

    def wait(self) -> tuple[str, ...]:
        """Wait until what was saved is on the disk. Returns what went wrong, in sentences."""
        self._join()
        warnings, self._warnings = tuple(self._warnings), []
        return warnings

    def load(self, best: bool = False) -> Loaded:
        """The newest good checkpoint, or, if asked, the best one. Raises ValueError where there is none, saying what became of each."""
        self._join()
        self._entries, notes = self._take_stock()
        for entry in reversed([entry for entry in self._entries if entry.best or not best]):
            try:
                _, states = _read(self.folder / entry.name, entry.sha256, entry.size)
            except ValueError as error:
                notes.append(str(error))
                self._entries.remove(entry)
                continue
            return Loaded(entry, states, (*notes, f"The checkpoint of step {entry.step} is used.") if notes else ())
        wanted = "best checkpoint" if best else "checkpoint"
        if notes:
            raise ValueError(f"{self.folder} holds no {wanted} that can be used. {' '.join(notes)} Restore the files, or train anew.")
        raise ValueError(f"{self.folder} holds no {wanted}: the run ended before one was written. Train anew.")

    def _join(self) -> None:
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self, frozen: archive.Frozen, step: int, epoch: int, best: bool) -> None:
        earlier = self.entries
        try:
            entry = self._write_archive(frozen, step, epoch, best)
        except OSError as error:
            stays = f"The one of step {earlier[-1].step} is kept; training goes on." if earlier else "There is none before it."
            self._warn(f"The checkpoint of step {step} could not be written to {self.folder}", error, stays)
            return
        except Exception as error:  # our own fault: raised where the caller sees it
            self._error = error
            return
        every = _with_one_best([*earlier, entry])
        self._entries = [each for age, each in enumerate(reversed(every)) if each.best or age < self.keeping.keep_last][::-1]
        try:
            files.write(self.folder / MANIFEST, _manifest(self._entries))
        except OSError as error:
            self._warn(f"{self.folder / MANIFEST} could not be written", error, f"The checkpoint of step {step} itself is safe.")
            return
        self._sweep()

    def _warn(self, what: str, error: OSError, then: str) -> None:
        self._warnings.append(f"{what}: {files.refusal(error)}. {then}")

    def _write_archive(self, frozen: archive.Frozen, step: int, epoch: int, best: bool) -> Entry:
        facts = {"step": str(step), "epoch": str(epoch), "best": str(int(best))}
        number = 1 + max(map(_number, self._names()), default=0)  # damaged ones count: they may still lie there
        path, size, sha256 = files.write_pieces(
            self.folder, _WORKING, archive.pieces(frozen, facts), lambda total: f"{number:06d}-step{step}-{total[:DIGITS]}.safetensors"
        )
        return Entry(path.name, step, epoch, best, size, sha256)

    def _names(self) -> list[str]:
        """The files that are named as checkpoints are, oldest first."""
        inside = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted((path.name for path in inside if _NAME.fullmatch(path.name)), key=_number)

    def _sweep(self) -> None:
        """Remove what is no longer kept, and what killed writes left."""
        kept = {entry.name for entry in self.entries}
        with suppress(OSError):  # the next sweep may do it
            for path in list(self.folder.iterdir()):
                if (_NAME.fullmatch(path.name) and path.name not in kept) or files.left_of(path.name) in (_WORKING, MANIFEST):
                    path.unlink()

    def _take_stock(self) -> tuple[list[Entry], list[str]]:
        """The checkpoints that the manifest names, and those that it cannot name yet: a crash came before it, or it is lost."""
        names, path = self._names(), self.folder / MANIFEST
        entries: list[Entry] = []
        notes: list[str] = []
        try:
            entries = _read_manifest(path.read_bytes())
        except FileNotFoundError:
            if [_number(name) for name in names] not in ([], [1]):  # of the very first checkpoint it is not written yet
                notes = [f"{path} is missing: each checkpoint is judged by the sum in its name."]
        except (OSError, ValueError) as error:
            notes = [f"{path} is damaged ({error}): each checkpoint is judged by the sum in its name."]
        newest = max((entry.number for entry in entries), default=0)
        for name in names:
            if _number(name) > newest:
                try:
                    entries.append(_read(self.folder / name)[0])
                except ValueError as error:
                    notes.append(str(error))
        return _with_one_best(entries), notes


def _number(name: str) -> int:
    return int(name.partition("-")[0])


def _with_one_best(entries: list[Entry]) -> list[Entry]:
    """The same in the order of their writing; of those that were once the best, the newest is."""
    ordered = sorted(entries, key=lambda entry: entry.number)
    best = max((entry.number for entry in ordered if entry.best), default=0)
    return [entry._replace(best=entry.number == best) for entry in ordered]


def _manifest(entries: list[Entry]) -> bytes:
    rows = [entry._asdict() for entry in entries]
    total = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return (json.dumps({"checkpoints": rows, "sha256": total}, indent=1) + "\n").encode()


def _read_manifest(content: bytes) -> list[Entry]:
    """Raises ValueError unless every byte is as `_manifest` writes it."""
    try:
        entries = [Entry(**row) for row in json.loads(content)["checkpoints"]]
        if all(_NAME.fullmatch(entry.name) for entry in entries) and _manifest(entries) == content:
            return entries
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("it is no list of checkpoints") from None
    raise ValueError("its bytes are not those that were written")


def _read(path: Path, sha256: str = "", size: int | None = None) -> tuple[Entry, dict[str, Any]]:
    """A checkpoint, if its bytes have the sum (of which the name has the first digits), else ValueError naming file and fault."""
    try:
        if not path.is_file():
            raise ValueError(f"{path} is {'no file' if path.exists() else 'missing'}.")
        found = path.stat().st_size
        if not found or size not in (None, found):
            raise ValueError(f"{path} is {'empty' if not found else f'damaged: it has {found} bytes, and {size} were written'}.")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {files.refusal(error)}.") from None
    total, named = hashlib.sha256(content).hexdigest(), path.stem[-DIGITS:]
    if not total.startswith(named) or sha256 not in ("", total):
        raise ValueError(f"{path} is damaged or cut off: its bytes are not those that were written (sha256).")
    try:
        facts, states = archive.read(content)
        entry = Entry(path.name, int(facts["step"]), int(facts["epoch"]), facts["best"] == "1", found, total)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is no checkpoint: {error}.") from None
    if not isinstance(states, dict):
        raise ValueError(f"{path} is no checkpoint: expected states by their names, got {type(states).__name__}.")
    return entry, states


def random_states() -> dict[str, Any]:
    """Where every random generator stands: torch's, one for each GPU in use, NumPy's and Python's."""
    numpy_state: Any = np.random.get_state(legacy=False)
    inner = {**numpy_state["state"], "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))}
    version, words, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": {**numpy_state, "state": inner},
        "python": [version, torch.tensor(words), next_gauss],
    }


def restore_random(states: Mapping[str, Any]) -> None:
    """Put every random generator where it stood. Of GPUs, as many as there are now and were then."""
    torch.set_rng_state(states["torch"])
    for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
        torch.cuda.set_rng_state(state, device)
    inner = states["numpy"]["state"]
    np.random.set_state({**states["numpy"], "state": {**inner, "key": inner["key"].numpy().astype(np.uint32)}})
    version, words, next_gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), next_gauss))
