"""A folder of the user's: the files that count, in a stable order.

Hidden files do not count. A link counts where it leads to a file inside the folder: what lies outside was not given to us.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from twofold.data.values import Skipped


def walk(root: Path) -> tuple[list[str], list[Skipped]]:
    """Names of all files below root, relative, with forward slashes, sorted; and what was left out."""
    inside = os.path.realpath(root)
    names: list[str] = []
    skipped: list[Skipped] = []

    def refused(error: OSError) -> None:
        skipped.append(Skipped(_relative(Path(error.filename), root), "no permission to look inside"))

    for place, folders, files in os.walk(root, onerror=refused):
        skipped += [
            Skipped(_relative(Path(place, name), root), "a run of ours, not data") for name in folders if of_runs(Path(place, name))
        ]
        folders[:] = [name for name in folders if not name.startswith(".") and not of_runs(Path(place, name))]
        links = [Path(place, name) for name in folders if Path(place, name).is_symlink()]
        skipped += [Skipped(_relative(link, root), "a link to a folder is not followed") for link in links]
        for name in files:
            path = Path(place, name)
            if name.startswith("."):
                continue
            reason = _unfit(path, inside)
            if reason:
                skipped.append(Skipped(_relative(path, root), reason))
            else:
                names.append(_relative(path, root))
    return sorted(names), sorted(skipped)


def subfolders(folder: Path) -> list[str]:
    """Names of the folders directly inside, sorted; no hidden ones, no links, no runs of ours."""
    inside = (f for f in folder.iterdir() if f.is_dir() and not f.is_symlink() and not f.name.startswith("."))
    return sorted(f.name for f in inside if not of_runs(f))


def of_runs(folder: Path) -> bool:
    """Whether a folder is a run, or holds runs and nothing else: its pictures are of training, not to train on."""
    if (folder / "settings.yaml").is_file() and ((folder / "metrics.jsonl").is_file() or (folder / "state").is_dir()):
        return True
    if folder.name != "runs" or not os.access(folder, os.R_OK | os.X_OK):
        return False
    entries = list(folder.iterdir())
    return bool(entries) and all(entry.is_dir() and not entry.is_symlink() and of_runs(entry) for entry in entries)


def printable(name: str) -> str:
    """A name that any file can hold: bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def printed(skipped: Iterable[Skipped]) -> tuple[Skipped, ...]:
    """What was left out, under names that any file can hold."""
    return tuple(Skipped(printable(path), reason) for path, reason in skipped)


def leads_nowhere(path: Path) -> bool:
    """Whether it is a link to what is not there."""
    return path.is_symlink() and not path.exists()


def nearest(path: Path) -> str | None:
    """What lies where `path` was looked for and has nearly its name, written as `path` was."""
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return None
    near = get_close_matches(path.name, names, 1)
    return str(path.with_name(near[0])) if near else None


def _unfit(path: Path, inside: str) -> str | None:
    if path.is_symlink():
        target = os.path.realpath(path)
        if leads_nowhere(path):
            return "a link that leads nowhere"
        if os.path.commonpath([inside, target]) != inside:
            return "a link that leads outside the folder is not followed"
    return None if path.is_file() else "not a regular file"


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
