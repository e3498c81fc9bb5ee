"""Findings: what is known of a source before a model sees it.

repeated     pictures that are equal, value for value, as the model will see them
near         pictures of two splits that show the same: resized, recompressed, brighter, mirrored (near.py)
imbalance    pictures of the largest class / pictures of the smallest, in training
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from twofold.data.amount import amount
from twofold.data.near import near
from twofold.data.values import Images, ImageSource, Labelled, Skipped, Source, Text, TextSource

IMBALANCE = 10
_LISTED = 20  # classes or skipped files named in `lines`
_PAIRS = 10  # pairs of pictures named in a sentence
MOST_TO_COMPARE = 20_000  # pictures, in a `leaks` that nobody asked for


class Findings(NamedTuple):
    """counts: split -> class -> pictures, or split -> characters, codes, files. sizes: min, median, max -> (height, width)."""

    source: str
    task: str
    kind: str
    counts: dict[str, dict[str, int]]
    sizes: dict[str, tuple[int, int]]
    modes: dict[str, int]
    prepared: str
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for --json."""
        plain = self._asdict()
        plain["sizes"] = {which: list(size) for which, size in self.sizes.items()}
        plain["skipped"] = [file._asdict() for file in self.skipped]
        plain["notes"] = list(self.notes)
        return plain

    def lines(self) -> list[str]:
        """Sentences for people."""
        said = [f"{self.source}: {self.kind}; task: {self.task}"]
        for split, counts in self.counts.items():
            if self.task == "classify":
                shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:_LISTED])
                more = f", and {amount(len(counts) - _LISTED, 'class', 'classes')} more" if len(counts) > _LISTED else ""
                said.append(f"{split}: {amount(sum(counts.values()), 'picture', 'pictures')} ({shown}{more})")
            else:
                said.append(f"{split}: " + ", ".join(amount(count, what.removesuffix("s"), what) for what, count in counts.items()))
        if self.sizes:
            shown = ", ".join(f"{which} {height} x {width}" for which, (height, width) in self.sizes.items())
            said.append(f"height x width in the files: {shown}")
        if self.modes:
            said.append("modes in the files: " + ", ".join(f"{mode} {count:,}" for mode, count in self.modes.items()))
        said.append(f"prepared as {self.prepared}")
        said += self.notes
        said += [f"skipped {file.path}: {file.reason}" for file in self.skipped[:_LISTED]]
        if len(self.skipped) > _LISTED:
            said.append(f"and {amount(len(self.skipped) - _LISTED, 'file more was', 'files more were')} skipped")
        return said


def inspect(source: Source, kind: str) -> Findings:
    """The findings of an opened source. kind: what the user pointed at, in words."""
    return _of_images(source, kind) if isinstance(source, ImageSource) else _of_text(source, kind)


def leaks(source: ImageSource) -> tuple[str, ...]:
    """Sentences on what training would learn of the pictures that it is judged by; of near-duplicates only where all are in memory."""
    splits = _splits(source)
    small = all(isinstance(images, Images) for images in splits.values()) and sum(len(i.y_B) for i in splits.values()) <= MOST_TO_COMPARE
    return (*_leaked(splits), *(_near(splits) if small else ()))


def _of_images(source: ImageSource, kind: str) -> Findings:
    splits = _splits(source)
    counts = {
        split: {name: int((images.y_B == label).sum()) for label, name in enumerate(source.classes)} for split, images in splits.items()
    }
    P = source.preparation
    sizes = sorted(source.sizes, key=lambda size: (size[0] * size[1], size))
    return Findings(
        source=source.name,
        task=source.task,
        kind=kind,
        counts=counts,
        sizes={"min": sizes[0], "median": sizes[(len(sizes) - 1) // 2], "max": sizes[-1]} if sizes else {},
        modes=dict(sorted(Counter(source.modes).items())),
        prepared=f"{P.height} x {P.width} {P.mode}, {len(source.classes)} classes",
        skipped=source.skipped,
        notes=(*source.notes, *_imbalance(counts["train"]), *_repeated(splits), *_near(splits)),
    )


def _of_text(source: TextSource, kind: str) -> Findings:
    parts: dict[str, Text | None] = {"train": source.train, "validation": source.validation, "test": source.test}
    V, unit = len(source.vocabulary), source.vocabulary.unit
    codes = "words" if unit == "word" else "codes"
    counts = {
        split: {"characters": text.characters, codes: len(text.codes_T), "files": len(text.names)}
        for split, text in parts.items()
        if text is not None
    }
    notes = list(source.notes)
    for split, text in parts.items():
        unknown = int((text.codes_T == 0).sum()) if text is not None and split != "train" else 0
        if text is not None and unknown > 0.01 * len(text.codes_T):
            notes.append(f"{unknown / len(text.codes_T):.1%} of {split} is unknown to the vocabulary of the training text")
    return Findings(
        source=source.name,
        task=source.task,
        kind=kind,
        counts=counts,
        sizes={},
        modes={},
        prepared=f"a stream of {unit} codes, vocabulary of {V:,}",
        skipped=source.skipped,
        notes=tuple(notes),
    )


def _splits(source: ImageSource) -> dict[str, Labelled]:
    splits = {"train": source.train, "validation": source.validation}
    return splits if source.test is None else {**splits, "test": source.test}


def _imbalance(counts: dict[str, int]) -> list[str]:
    most, least = max(counts, key=lambda n: counts[n]), min(counts, key=lambda n: counts[n])
    if counts[most] <= IMBALANCE * counts[least]:
        return []
    return [
        f"imbalance: {most} has {counts[most]:,} training pictures, {least} has {counts[least]:,}: "
        "accuracy will say little of the rare classes"
    ]


def _repeated(splits: dict[str, Labelled]) -> list[str]:
    """Sentences on equal pictures: inside a split, between training and another, under two classes."""
    inside, leaked, torn = _equal(splits)
    said = _of_leaks(leaked)
    if inside:
        said.append(f"{amount(len(inside), 'picture repeats', 'pictures repeat')} another one of the same split ({inside[0]})")
    if torn:
        said.append(f"{amount(len(torn), 'pair of equal pictures carries', 'pairs of equal pictures carry')} different classes ({torn[0]})")
    return said


def _leaked(splits: dict[str, Labelled]) -> list[str]:
    return _of_leaks(_equal(splits)[1])


def _of_leaks(leaked: dict[tuple[str, str], list[str]]) -> list[str]:
    return [
        f"{amount(len(pairs), f'picture of {split} also lies', f'pictures of {split} also lie')} in {earlier}: its figure will be too good "
        f"({_some(pairs)})"
        for (split, earlier), pairs in leaked.items()
    ]


def _equal(splits: dict[str, Labelled]) -> tuple[list[str], dict[tuple[str, str], list[str]], list[str]]:
    """Pairs of equal pictures: inside a split, by the two splits that they lie in, and those with two classes."""
    first: dict[bytes, tuple[str, str, int]] = {}
    inside: list[str] = []
    leaked: dict[tuple[str, str], list[str]] = {}
    torn: list[str] = []
    for split, images in splits.items():
        for mark, label, name in zip(images.digests(), images.y_B.tolist(), images.names, strict=True):
            earlier, other, known = first.setdefault(mark, (split, name, label))
            if (earlier, other) == (split, name):
                continue
            pair = f"{name} = {other}"
            (inside if earlier == split else leaked.setdefault((split, earlier), [])).append(pair)
            if known != label:
                torn.append(pair)
    return inside, leaked, torn


def _near(splits: dict[str, Labelled]) -> list[str]:
    """Sentences on pictures of two splits that show the same."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for one in near(splits):
        names = splits[one.split].names[one.row], splits[one.earlier].names[one.earlier_row]
        pairs.setdefault((one.split, one.earlier), []).append(" ~ ".join(names) + (", mirrored" if one.mirrored else ""))
    return [
        f"{amount(len(found), f'picture of {split} shows', f'pictures of {split} show')} nearly the same as one of {earlier}: its figure "
        f"will be too good. Look at them, and delete one of each pair ({_some(found)})"
        for (split, earlier), found in pairs.items()
    ]


def _some(pairs: list[str]) -> str:
    more = f"; and {len(pairs) - _PAIRS:,} more" if len(pairs) > _PAIRS else ""
    return "; ".join(pairs[:_PAIRS]) + more
