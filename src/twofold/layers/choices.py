"""What was measured, remembered on disk: one small JSON file for each processor, torch, instruction set, kernels and number of threads.

    $TWOFOLD_CACHE, else $XDG_CACHE_HOME/twofold, else ~/.cache/twofold

The file holds only names and milliseconds, so reading it cannot do more than choose among forms that are all right. Whoever writes reads it
again first, under a lock: processes that write at once keep each other's choices, and of two choices for one question the first stands.
It is replaced as a whole, so that no reader sees half of it. A file that cannot be read or written costs one warning, never an error.
"""

import hashlib
import json
import math
import os
import platform
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from twofold import kernels

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MOST = 5_000  # choices in a file; no more are made then
PATIENCE = 1.0  # seconds to wait for another process, which holds the lock for a millisecond

_told = False
_parsed: dict[Path, tuple[tuple[int, int, int], dict[str, "Choice"]]] = {}
_lock = threading.Lock()


class Choice(NamedTuple):
    """A route, and the milliseconds of each contender. `within`: the seconds that were spent before all had run; else None."""

    route: str
    milliseconds: dict[str, float]
    within: float | None = None

    def settles(self, seconds: float) -> bool:
        """Whether it stands where measuring may take so long: a choice for want of time is taken up again only with more time."""
        return self.within is None or self.within >= seconds


def folder() -> Path | None:
    """Where choices are kept; None where the user has no home."""
    if own := os.environ.get("TWOFOLD_CACHE"):
        return _at_home(own)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    return Path(shared) / "twofold" if os.path.isabs(shared) else _at_home("~/.cache/twofold")


def place() -> Path | None:
    """The file of this machine, torch, kernels and number of threads."""
    where, about = folder(), machine()
    if where is None:
        return None
    names = (about["torch"], about["instructions"], about["threads"], _digest(json.dumps(about).encode()))
    return where / f"routes-{'-'.join(names)}.json"


def machine() -> dict[str, str]:
    """What a measurement depends on, and the file belongs to."""
    return {
        "torch": torch.__version__,
        "instructions": kernels.instruction_set() or torch.backends.cpu.get_cpu_capability().lower().replace(" ", "-"),
        "kernels": _compiled(),
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "threads": f"{torch.get_num_threads()}t",
    }


@cache
def processor() -> str:
    """The name of the processor, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def look_up(question: str) -> Choice | None:
    """The choice on disk, if there is one."""
    path = place()
    with _lock:
        return None if path is None else _read(path).get(question)


def number() -> int:
    """The choices on disk."""
    path = place()
    with _lock:
        return 0 if path is None else len(_read(path))


def keep(question: str, choice: Choice) -> Choice:
    """Write the choice down, and return the one that counts: another process may have been first."""
    path = place()
    if path is None:
        return choice
    with _lock:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(path.with_suffix(".lock")):
                known = dict(_read(path))
                first = known.get(question)
                if first is not None and (first.within is None or choice.within is not None):
                    return first
                _write(path, {**known, question: choice})
        except OSError as error:
            _warn(f"measured routes cannot be written to {path} ({error.strerror or error}): they hold for this process alone")
    return choice


def _read(path: Path) -> dict[str, Choice]:
    """What the file holds; a file that has not changed since is not read again."""
    try:
        found = path.stat()
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if path not in _parsed or _parsed[path][0] != stamp:
            _parsed[path] = (stamp, _choices(json.loads(path.read_text(encoding="utf-8"))))
        return _parsed[path][1]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _warn(f"the measured routes in {path} cannot be read ({type(error).__name__}: {error}): they are measured anew")
        return {}


def _choices(document: Any) -> dict[str, Choice]:
    entries = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise ValueError("no choices in it")
    return {question: choice for question, entry in entries.items() if (choice := _choice(entry)) is not None}


def _choice(entry: Any) -> Choice | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("route"), str) or not isinstance(entry.get("milliseconds"), dict):
        return None
    times, within = entry["milliseconds"], entry.get("within")
    numbers = [*times.values(), 0.0 if within is None else within]
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        return None
    return Choice(entry["route"], times, within)


def _write(path: Path, choices: dict[str, Choice]) -> None:
    document = {"about": machine(), "choices": {question: choice._asdict() for question, choice in choices.items()}}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While no other process writes; after PATIENCE, or where there are no locks, without that certainty."""
    if fcntl is None:
        yield
        return
    with path.open("w") as file:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:  # a file system without locks
                break
        yield


def _warn(message: str) -> None:
    global _told
    if not _told:
        _told = True
        warnings.warn(f"twofold: {message}.", RuntimeWarning, stacklevel=2)


def _at_home(path: str) -> Path | None:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return None


@cache
def _compiled() -> str:
    """A digest of the compiled kernels: built anew, they are measured anew."""
    if not kernels.available():
        return ""
    return _digest(b"".join(path.read_bytes() for path in sorted(kernels.FOLDER.glob("_native*"))))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]
