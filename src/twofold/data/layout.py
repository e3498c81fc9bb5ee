"""The layout of an image folder: which class and which split each file belongs to, told by the folders that it lies in.

photos/CLASS/picture                         one folder per class
photos/train/CLASS/picture, test/, val/      the same, split by the user (validation/ and valid/ are val/ too)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from twofold.data.amount import amount
from twofold.data.class_names import advice, some, unknown_classes
from twofold.data.folder import printable, subfolders, walk
from twofold.data.pictures import EXTENSIONS, SPOKEN, is_picture
from twofold.data.values import Skipped

SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


_CLASSLESS = "lies beside the class folders: it has no class"


class Found(NamedTuple):
    """A picture file, relative to the folder, and its class number."""

    name: str
    label: int


class Layout(NamedTuple):
    """What lies in an image folder. A split that the user did not make is None."""

    classes: tuple[str, ...]
    train: tuple[Found, ...]
    validation: tuple[Found, ...] | None
    test: tuple[Found, ...] | None
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


def find_layout(root: Path) -> Layout:
    """The layout of a folder. Raises ValueError where there is none to learn from, and says how to lay it out."""
    names, skipped = _pictures(root)
    notes: list[str] = []
    splits = _splits(root, names)
    if not splits:
        classes, found = _classes(root, "", names, skipped, notes)
        return Layout(_shown(classes), found, None, None, tuple(skipped), tuple(notes))

    others = [name for name in subfolders(root) if name not in splits.values()]
    if "train" not in splits:
        given = ", ".join(f"{name}/" for name in splits.values())
        raise ValueError(f"{root}: found {given} but no train/. Put the class folders to learn from into {root / 'train'}")
    ignored = sum(name.split("/")[0] not in splits.values() for name in names)
    if ignored:
        where = f" ({', '.join(others)})" if others else ""
        unused = amount(ignored, "picture", "pictures")
        notes.append(f"{unused} beside {', '.join(sorted(splits.values()))} {'is' if ignored == 1 else 'are'} not used{where}")
    classes, train = _classes(root, splits["train"], names, skipped, notes)
    held = {
        split: _held(root, splits[split], names, classes, skipped, notes) if split in splits else None for split in ("validation", "test")
    }
    return Layout(_shown(classes), train, held["validation"], held["test"], tuple(skipped), tuple(notes))


def find_labelled(root: Path, classes: Sequence[str]) -> tuple[tuple[Found, ...], list[Skipped]]:
    """Every picture of a folder whose class is told by the folder that it lies in, be it split or not, numbered as in `classes`.

    Raises ValueError where no picture lies in a class folder, or where a class folder is none of `classes`.
    """
    names, skipped = _pictures(root)
    inside: dict[str, list[str]] = {}
    for base in sorted(_splits(root, names).values()) or [""]:
        for folder, own in _by_folder(base, names).items():
            inside.setdefault(folder, []).extend(own)
    flat = inside.pop("", [])
    if not inside:
        raise ValueError(_flat(root, len(flat)))
    skipped += [Skipped(name, _CLASSLESS) for name in flat]
    if any(printable(folder) not in classes for folder in inside):
        raise ValueError(unknown_classes(str(root), classes, [printable(folder) for folder in sorted(inside)]))
    return tuple(Found(name, classes.index(printable(folder))) for folder in sorted(inside) for name in inside[folder]), skipped


def _pictures(root: Path) -> tuple[list[str], list[Skipped]]:
    """The pictures below a folder, and what was left out. Raises ValueError where there are none."""
    everything, skipped = walk(root)
    names = pictures_among(root, everything, skipped)
    if not names:
        reason = f" Skipped: {printable(skipped[0].path)}: {skipped[0].reason}." if skipped else ""
        among = amount(len(everything), "file", "files")
        raise ValueError(f"{root}: expected pictures ({SPOKEN}) in one folder per class, found none among {among}.{reason}")
    return names, skipped


def pictures_among(root: Path, names: list[str], skipped: list[Skipped]) -> list[str]:
    """The files that are pictures by content, or claim to be by extension (whether they are is seen when they are opened)."""
    kept = []
    for name in names:
        try:
            if Path(name).suffix.lower() in EXTENSIONS or is_picture(root / name):
                kept.append(name)
        except OSError as error:
            skipped.append(Skipped(name, f"cannot be read ({error.strerror})"))
    return kept


def _splits(root: Path, names: list[str]) -> dict[str, str]:
    """split -> folder, for folders that hold class folders. A folder called train with pictures of its own is a class: trains."""
    splits: dict[str, str] = {}
    direct = {name.split("/")[0] for name in names if name.count("/") == 1}
    for folder in subfolders(root):
        split = SPLITS.get(folder.lower())
        if split is None or folder in direct or not subfolders(root / folder):
            continue
        if split in splits:
            raise ValueError(f"{root}: expected one {split} folder, found two: {splits[split]}/ and {folder}/. Remove or merge one")
        splits[split] = folder
    return splits


def _classes(root: Path, base: str, names: list[str], skipped: list[Skipped], notes: list[str]) -> tuple[list[str], tuple[Found, ...]]:
    """The class folders below base and their pictures; at least two classes."""
    inside = _by_folder(base, names)
    folders = subfolders(root / base)
    place = root / base
    flat = inside.pop("", [])
    if not inside:
        raise ValueError(_flat(place, len(flat)))
    skipped += [Skipped(name, _CLASSLESS) for name in flat]
    empty = [name for name in folders if name not in inside]
    if empty:
        notes.append(f"class folders without pictures are left out: {', '.join(map(printable, empty))}")
    classes = sorted(inside)
    if len(classes) < 2:
        deeper = subfolders(place / classes[0])
        hint = "Add a second class folder"
        if deeper:
            hint = f"If the classes lie deeper ({', '.join(map(printable, deeper[:3]))}), give {place / classes[0]}"
        raise ValueError(f"{place}: expected pictures of at least 2 classes, found 1: {printable(classes[0])}. {hint}")
    return classes, tuple(Found(name, label) for label, folder in enumerate(classes) for name in inside[folder])


def _held(root: Path, base: str, names: list[str], classes: list[str], skipped: list[Skipped], notes: list[str]) -> tuple[Found, ...]:
    """The pictures of a validation or test folder, whose classes must be training classes."""
    inside = _by_folder(base, names)
    skipped += [Skipped(name, _CLASSLESS) for name in inside.pop("", [])]
    strange = sorted(set(inside) - set(classes))
    missing = [name for name in classes if name not in inside]
    if strange:
        absent = f"; training classes without pictures in it: {some(missing)}" if missing else ""
        likely = advice(classes, sorted(inside))
        raise ValueError(
            f"{root / base}: expected the training classes, found {some(strange)}, which the training folder lacks{absent}. "
            f"{likely}{' ' if likely else ''}Rename the folders alike, or add training pictures"
        )
    if not inside:
        raise ValueError(f"{root / base}: expected pictures in class folders, found none. Fill it, or remove it: one is split off")
    if missing:
        notes.append(f"{base} has no pictures of {', '.join(map(printable, missing))}")
    return tuple(Found(name, classes.index(folder)) for folder in sorted(inside) for name in inside[folder])


def _flat(place: Path, count: int) -> str:
    return (
        f"{place}: found {amount(count, 'picture', 'pictures')} but no class folders. Expected one folder per class, for example "
        f"{place / 'cat'}/1.jpg and {place / 'dog'}/1.jpg"
    )


def _by_folder(base: str, names: list[str]) -> dict[str, list[str]]:
    """Names below base by the folder that they lie in; those that lie in none under the empty name."""
    start = f"{base}/" if base else ""
    inside: dict[str, list[str]] = {}
    for name in names:
        if name.startswith(start):
            folder, slash, _ = name[len(start) :].partition("/")
            inside.setdefault(folder if slash else "", []).append(name)
    return inside


def _shown(classes: list[str]) -> tuple[str, ...]:
    return tuple(map(printable, classes))
