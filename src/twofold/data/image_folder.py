"""An image folder: pictures of the user's own, one folder per class.

    files -> headers (size, mode) -> one mode and one size for all -> decoded, resized, uint8 -> splits
                                                                        in memory, or in their files (holding.py)

mode     "L" where every picture is grey, else "RGB"
size     image_size, else the size that all pictures have if it is at most SMALL, else SMALL x SMALL
splits   those that the folder has; what is missing is split off the training pictures, 15 % of each class each
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from twofold.data.amount import amount
from twofold.data.folder import printable, printed
from twofold.data.holding import Holding, fits
from twofold.data.layout import Found, Layout, find_labelled, find_layout
from twofold.data.options import DataOptions
from twofold.data.pictures import Header, PictureError, read_header
from twofold.data.preparation import Preparation
from twofold.data.split import take
from twofold.data.streamed import Form
from twofold.data.values import ImageSource, Skipped, Whole

SMALL = 64  # pixels
SHARE = 0.15  # of a class, for validation and again for test


def image_folder(path: str | Path, options: DataOptions | None = None) -> ImageSource:
    """A folder of class folders as a source, prepared; held in memory, or read from its files when needed.

    Pictures that cannot be read are skipped with the reason. Raises ValueError: no layout, fewer than 2 classes, a class with
    too few pictures to split or none that can be read, classes that training lacks, hold="memory" for more than there is.
    """
    options = options or DataOptions()
    options.only("pictures", "image_size", "hold")
    root = Path(path)
    layout = find_layout(root)
    skipped, notes = list(layout.skipped), list(layout.notes)
    given = {"train": layout.train, "validation": layout.validation, "test": layout.test}
    files = [found for part in given.values() for found in part or ()]

    headers = _headers(root, files, skipped)
    form = _form(list(headers.values()), options.image_size, notes) if headers else Form("L", 1, 1)
    pictures = Holding(root, list(headers), form, fits(path, len(headers), form, options.hold, notes), skipped)
    readable = {split: [f for f in part if f.name in pictures] if part is not None else None for split, part in given.items()}
    parts = _split(path, layout, readable, skipped, notes)
    preparation = pictures.preparation(parts[0])
    train, validation, test = map(pictures.part, parts)
    return ImageSource(
        name=printable(root.resolve().name),
        classes=layout.classes,
        preparation=preparation,
        train=train,
        validation=validation,
        test=test if parts[2] else None,
        skipped=printed(skipped),
        notes=tuple(notes),
        sizes=tuple((header.height, header.width) for header in headers.values()),
        modes=tuple(header.mode for header in headers.values()),
    )


def whole_folder(path: str | Path, classes: Sequence[str], kind: Preparation) -> Whole:
    """All pictures of a folder of class folders, in the form and with the class numbers of a model. Any number of each will do.

    Raises ValueError: no class folders, a class that is none of `classes`, no picture that can be read.
    """
    root = Path(path)
    files, skipped = find_labelled(root, classes)
    headers = _headers(root, files, skipped)
    form, notes = Form(kind.mode, kind.height, kind.width), []
    other = sum(header.mode != kind.mode for header in headers.values())
    if other:
        which = "in colour and read as grey" if kind.mode == "L" else "grey and read as RGB"
        notes.append(
            f"{other} of {amount(len(headers), 'picture', 'pictures')} {'is' if other == 1 else 'are'} {which}, as the model needs"
        )
    _say_resized({(header.height, header.width) for header in headers.values()}, form, "as the model needs", notes)
    pictures = Holding(root, list(headers), form, fits(path, len(headers), form, "auto", notes), skipped)
    readable = [found for found in files if found.name in pictures]
    if not readable:
        raise ValueError(f"{path}: no picture can be read. {_first(skipped[-1:])}")
    return Whole(printable(root.resolve().name), pictures.part(readable), printed(skipped), tuple(notes))


def _headers(root: Path, files: Iterable[Found], skipped: list[Skipped]) -> dict[str, Header]:
    """The headers of the files that have one, by name."""
    headers = {}
    for found in files:
        try:
            headers[found.name] = read_header(root / found.name)
        except PictureError as error:
            skipped.append(Skipped(found.name, error.reason))
    return headers


def _form(headers: Sequence[Header], image_size: int | None, notes: list[str]) -> Form:
    """One mode and one size for all pictures; what that changes is said."""
    grey = sum(header.mode == "L" for header in headers)
    if 0 < grey < len(headers):
        notes.append(f"{grey} of {len(headers)} pictures {'is' if grey == 1 else 'are'} grey, the others in colour: all are read as RGB")
    mode = "L" if grey == len(headers) else "RGB"
    sizes = {(header.height, header.width) for header in headers}
    height, width = next(iter(sizes)) if len(sizes) == 1 else (0, 0)
    if image_size is not None:
        form = Form(mode, image_size, image_size)
    elif 0 < max(height, width) <= SMALL:
        return Form(mode, height, width)
    else:
        form = Form(mode, SMALL, SMALL)
    _say_resized(sizes, form, "--image-size", notes)
    return form


def _say_resized(sizes: set[tuple[int, int]], form: Form, reason: str, notes: list[str]) -> None:
    if sizes <= {(form.height, form.width)}:
        return
    stretched = "; sides are stretched to fit" if any(h * form.width != w * form.height for h, w in sizes) else ""
    notes.append(f"pictures are resized to {form.height} x {form.width} ({reason}){stretched}")


def _split(
    path: str | Path,
    layout: Layout,
    readable: dict[str, list[Found] | None],
    skipped: Sequence[Skipped],
    notes: list[str],
) -> tuple[list[Found], list[Found], list[Found]]:
    """Train, validation and test: those of the folder where it has them, else split off class by class."""
    parts: dict[str, list[Found]] = {"train": [], "validation": readable["validation"] or [], "test": readable["test"] or []}
    missing = [split for split in ("validation", "test") if readable[split] is None]
    for split in ("validation", "test"):
        if readable[split] == []:
            raise ValueError(f"{path}: no picture of the {split} folder can be read. {_first(skipped)}")
    for label, name in enumerate(layout.classes):
        mine = [found for found in readable["train"] or [] if found.label == label]
        if not mine:
            raise ValueError(f"{path}: no training picture of class {name} can be read. {_first(skipped)}")
        if missing and len(mine) < 2:
            raise ValueError(
                f"{path}: class {name} has 1 training picture; expected at least 2, one to learn from and one to check with. "
                "Add pictures, or remove the class folder"
            )
        shares = take([found.name for found in mine], *[SHARE] * len(missing))
        for split, names in zip(("train", *missing), shares, strict=True):
            parts[split] += [Found(name, label) for name in names]
            if not names:
                notes.append(f"class {name} has {amount(len(mine), 'picture', 'pictures')}, too few for a {split} picture")
    return parts["train"], parts["validation"], parts["test"]


def _first(skipped: Sequence[Skipped]) -> str:
    return f"{printable(skipped[0].path)}: {skipped[0].reason}" if skipped else "The folder holds none"
