"""Pictures: the one door by which a picture file comes in.

A file is known by its first bytes, not by its name. Its header is judged before anything is decoded: `LARGEST` pixels at most.
What comes out is 8-bit, upright (EXIF) and opaque (on white), in mode "L" if the file is grey and "RGB" if it is not.

    16-bit v -> round(v / 257)        float v in 0..1 -> round(255 v)        animated -> the first frame
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from PIL import Image

LARGEST = 100_000_000  # pixels
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
SPOKEN = "png, jpeg, gif, bmp, webp, tiff, ppm or pgm"
EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("png", "jpg", "jpeg", "jpe", "jfif", "gif", "bmp", "dib", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"),
        *("heic", "heif", "avif", "jp2", "jxl", "ico"),  # pictures too, that we do not read: said, not passed over
    )
)
GREY = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"})

_SIGNATURES = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|II\*\0|MM\0\*|II\+\0|MM\0\+"
    rb"|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0|P[1-6]\s+(?:#[^\n]*\n\s*)*\d+\s",
    re.DOTALL,
)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HEAVY = 10_000_000  # pixels; threads decode larger pictures one at a time, so that memory stays bounded
_one_heavy = Lock()


class PictureError(ValueError):
    """A picture that cannot be read: `path` and `reason`, a phrase."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"picture {path}: {reason}")
        self.path = str(path)
        self.reason = reason


class Header(NamedTuple):
    """What a file says about itself before decoding: the mode it is read in, and its upright size."""

    mode: str
    height: int
    width: int


def is_picture(path: Path) -> bool:
    """True where the first bytes are those of a picture that we read."""
    with path.open("rb") as file:
        return _SIGNATURES.match(file.read(256)) is not None


def read_header(path: str | Path) -> Header:
    """The mode, height and width of a picture, without decoding it. Raises PictureError."""
    with silence():
        try:
            with _open(Path(path)) as image:
                turned = _orientation(image) >= 5 and image.format != "TIFF"  # Pillow turns a TIFF's own size
                width, height = image.size[::-1] if turned else image.size
                return Header("L" if image.mode in GREY else "RGB", height, width)
        except PictureError:
            raise
        except Exception as error:  # a decoder may raise anything on hostile bytes
            raise PictureError(path, _explain(error)) from error


def read_image(path: str | Path, shrink_to: int | None = None) -> Image.Image:
    """The whole picture, 8-bit, upright, opaque, in mode "L" or "RGB".

    shrink_to: a side in pixels. A JPEG that is many times larger is decoded at 1/2, 1/4 or 1/8, never below twice that side.
    Raises PictureError: missing, a folder, empty, not a picture, cut short or broken, larger than LARGEST pixels.
    """
    with silence():
        return read_quietly(path, shrink_to)


def read_quietly(path: str | Path, shrink_to: int | None = None) -> Image.Image:
    """`read_image` for threads, inside one `silence()` of the thread that started them: warning filters belong to the process."""
    try:
        with _open(Path(path)) as image:
            if image.width * image.height <= _HEAVY:
                return _decode(image, shrink_to)
            with _one_heavy:
                return _decode(image, shrink_to)
    except PictureError as error:
        raise PictureError(path, error.reason) from error
    except Exception as error:  # a decoder may raise anything on hostile bytes
        raise PictureError(path, _explain(error)) from error


@contextmanager
def silence() -> Iterator[None]:
    """A block in which no reader's warning leaks: what is wrong with a picture is said by PictureError or not at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """The opened file, its header judged."""
    if not path.exists():
        raise PictureError(path, "is a link that leads nowhere" if path.is_symlink() else "there is no such file")
    if path.is_dir():
        raise PictureError(path, "is a folder, not a picture")
    if not path.is_file():
        raise PictureError(path, "is not a regular file")
    if path.stat().st_size == 0:
        raise PictureError(path, "the file is empty (0 bytes)")
    if not is_picture(path):
        raise PictureError(path, f"its content is not a picture; expected {SPOKEN}")
    # By stream, not by name: Pillow maps a named raw TIFF into memory and scrambles it where its EXIF orientation is 5 to 8.
    with path.open("rb") as stream, Image.open(stream, formats=FORMATS) as image:
        pixels = image.width * image.height
        size = f"{image.width} x {image.height}"
        if pixels > LARGEST:
            limit = f"{LARGEST // 10**6} million"
            raise PictureError(path, f"too large: {size} is {pixels / 1e6:,.1f} million pixels, the limit is {limit}")
        yield image


def _explain(error: Exception) -> str:
    """A phrase for what a decoder raised."""
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: its header says far more than {LARGEST // 10**6} million pixels, the limit"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    said = str(error)
    if "truncated" in said.lower() or isinstance(error, EOFError):
        return "the file is cut short: some of its bytes are missing"
    if isinstance(error, Image.UnidentifiedImageError):
        return "its first bytes are those of a picture, the rest of its header is broken or says that it has no pixels"
    return f"the file is broken ({said or type(error).__name__})"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or where it cannot be read (the pixels are good all the same)."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # EXIF is parsed by hand in Pillow: broken bytes raise what they will
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _decode(image: Image.Image, shrink_to: int | None) -> Image.Image:
    if shrink_to is not None and image.format in ("JPEG", "MPO"):
        image.draft(image.mode, (2 * shrink_to, 2 * shrink_to))
    image.load()
    turn = _UPRIGHT.get(_orientation(image))  # after load: Pillow has then turned a TIFF itself and says 1
    plain = _opaque(image)
    return plain if turn is None else plain.transpose(turn)


def _opaque(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit "L" or "RGB"; what is transparent shows white."""
    grey = image.mode in GREY
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(image, mask=image.getchannel("A"))
        image = paper
    wanted = "L" if grey else "RGB"
    return image.copy() if image.mode == wanted else image.convert(wanted)


def _eight_bits(values_HW: np.ndarray) -> np.ndarray:
    """16-bit whole numbers, or floats in 0..1, as uint8."""
    low, high = float(values_HW.min()), float(values_HW.max())
    whole = values_HW.dtype.kind in "iu"
    limit = 65535 if whole else 1
    if not 0 <= low <= high <= limit:  # false for NaN too
        kind = "whole numbers" if whole else "floats"
        raise PictureError(".", f"its {kind} run from {low:g} to {high:g}; expected 0 to {limit}: convert it to 8 or 16 bits")
    if whole:
        return ((values_HW.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.rint(values_HW * 255).astype(np.uint8)
