"""Options of a source: what a user may ask of the data, validated before any file is opened."""

from __future__ import annotations

from dataclasses import dataclass, fields

from twofold.data.normalising import read_numbers
from twofold.data.preparation import LARGEST_SIDE
from twofold.data.vocabulary import UNITS

SMALLEST_LIMIT = 1000  # characters
HOLD = ("auto", "memory", "files")


@dataclass(frozen=True)
class DataOptions:
    """What a user may set; None leaves the choice to the source. An option that does not apply to the source is an error.

    limit: characters of text to train on. image_size: side in pixels to which pictures are resized.
    unit: what a code of text stands for, "character" or "word".
    hold: where pictures are while they are used: in "memory", in their "files", or "auto": in memory if a quarter of what is free will do.
    normalise: by which mean and deviation pictures are normalised (normalising.py); None: by their own, with weights of others as those
    expect.
    """

    limit: int | None = None
    image_size: int | None = None
    unit: str = "character"
    hold: str = "auto"
    normalise: str | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and (type(self.limit) is not int or self.limit < SMALLEST_LIMIT):
            raise ValueError(
                f"limit: expected a whole number of characters, {SMALLEST_LIMIT:,} or more, got {self.limit!r}. "
                "Leave it out to use the source's own"
            )
        if self.image_size is not None and (type(self.image_size) is not int or not 1 <= self.image_size <= LARGEST_SIDE):
            raise ValueError(f"image_size: expected a whole number of pixels from 1 to {LARGEST_SIDE}, got {self.image_size!r}")
        if self.unit not in UNITS:
            raise ValueError(f"unit: expected one of {', '.join(UNITS)}, got {self.unit!r}")
        if self.hold not in HOLD:
            raise ValueError(f"hold: expected one of {', '.join(HOLD)}, got {self.hold!r}")
        if self.normalise is not None:
            read_numbers(self.normalise)

    def only(self, source: str, *names: str) -> None:
        """Raise ValueError where an option other than `names` was set: `source` has no use for it."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in names and value != field.default:
                offered = f"options that do: {', '.join(names)}" if names else "no option does"
                raise ValueError(f"{field.name}={value!r} does not apply to {source} ({offered}). Leave {field.name} out")
