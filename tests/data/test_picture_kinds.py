"""From file to tensor to prediction: every kind of picture file gives the values that it shows, and a model takes it as these."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import twofold
from twofold.data.preparation import Preparation
from twofold.run import Run

SIDE = 16
UPRIGHT = np.full((SIDE, SIDE, 3), (40, 90, 200), np.uint8)
UPRIGHT[: SIDE // 2, : SIDE // 2] = (240, 30, 10)  # the upper left quarter is red, so that no two turns are equal
UPRIGHT[SIDE // 2 :, : SIDE // 2] = (120, 120, 120)
GREY = np.asarray(Image.fromarray(UPRIGHT).convert("L"))
CLEAR = np.zeros((SIDE, SIDE), np.uint8)
CLEAR[:, : SIDE // 2] = 255  # the right half is transparent
ON_WHITE = np.where(CLEAR[:, :, None] > 0, UPRIGHT, 255).astype(np.uint8)
GREY_ON_WHITE = np.where(CLEAR > 0, GREY, 255).astype(np.uint8)
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def turned(orientation: int, **how: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(np.ascontiguousarray(STORED[orientation](UPRIGHT))), exif=exif, **how)


def encoded(image: Image.Image, **how: object) -> bytes:
    kept = io.BytesIO()
    image.save(kept, **how)
    return kept.getvalue()


def quantised(clear: bool) -> Image.Image:
    """With a palette; where it is to be clear, one entry is transparent."""
    image = Image.fromarray(UPRIGHT).quantize(8, dither=Image.Dither.NONE)
    if not clear:
        return image
    pixels = np.asarray(image).copy()
    pixels[:, SIDE // 2 :] = 3
    marked = Image.fromarray(pixels, "P")
    marked.putpalette([*image.getpalette("RGB")[:9], 1, 2, 3], "RGB")
    return marked


def ycck() -> bytes:
    """As Photoshop writes: four channels, inverted, of which three are kept as luminance and chrominance (Adobe marker, transform 2)."""
    inks = 255 - UPRIGHT.astype(int)
    luminance = np.asarray(Image.fromarray(inks.astype(np.uint8)).convert("YCbCr"))
    channels = np.concatenate([255 - luminance, np.zeros((SIDE, SIDE, 1), np.uint8)], axis=2)
    data = encoded(Image.fromarray(channels, "CMYK"), format="JPEG", quality=100, subsampling=0)
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    return data[:at] + b"\x02" + data[at + 1 :]


def frames(**how: object) -> bytes:
    blue = Image.new("RGB", (SIDE, SIDE), "blue")
    return encoded(Image.fromarray(UPRIGHT), save_all=True, append_images=[blue, blue], duration=50, **how)


def tiff_of_other_end() -> bytes:
    """16 bits, the larger byte first."""
    image = Image.frombytes("I;16B", (SIDE, SIDE), (GREY.astype(">u2") * 257).tobytes())
    return encoded(image, format="TIFF")


def orientations(**how: object) -> dict[str, Callable[[], bytes]]:
    return {f"EXIF {turn}, {how['format']}": lambda turn=turn: turned(turn, **how) for turn in STORED}


def several(image: Image.Image, other: Image.Image, kind: str) -> bytes:
    return encoded(image, format=kind, save_all=True, append_images=[other])


COLOUR: dict[str, Callable[[], bytes]] = {
    **orientations(format="PNG"),
    **orientations(format="TIFF"),
    **orientations(format="WEBP", lossless=True),
    "palette": lambda: encoded(quantised(False), format="PNG"),
    "palette, GIF": lambda: encoded(quantised(False), format="GIF"),
    "opaque RGBA": lambda: encoded(Image.fromarray(UPRIGHT).convert("RGBA"), format="PNG"),
    "animated GIF": lambda: several(quantised(False), Image.new("P", (SIDE, SIDE), 2), "GIF"),
    "animated PNG": lambda: frames(format="PNG"),
    "animated WebP": lambda: frames(format="WEBP", lossless=True),
    "TIFF of several pages": lambda: several(Image.fromarray(UPRIGHT), Image.new("RGB", (9, 9)), "TIFF"),
}
LOSSY: dict[str, Callable[[], bytes]] = {
    **orientations(format="JPEG", quality=100, subsampling=0),
    "CMYK": lambda: encoded(Image.fromarray(UPRIGHT).convert("CMYK"), format="JPEG", quality=100, subsampling=0),
    "YCCK": ycck,
}
SEEN_THROUGH: dict[str, Callable[[], bytes]] = {
    "RGBA": lambda: encoded(Image.fromarray(np.dstack([UPRIGHT, CLEAR])), format="PNG"),
    "RGBA, WebP": lambda: encoded(Image.fromarray(np.dstack([UPRIGHT, CLEAR])), format="WEBP", lossless=True, exact=True),
    "RGBA, TIFF": lambda: encoded(Image.fromarray(np.dstack([UPRIGHT, CLEAR])), format="TIFF"),
    "palette with transparency": lambda: encoded(quantised(True), format="PNG", transparency=3),
    "palette with transparency, GIF": lambda: encoded(quantised(True), format="GIF", transparency=3),
}
IN_GREY: dict[str, Callable[[], bytes]] = {
    "8 bits": lambda: encoded(Image.fromarray(GREY), format="PNG"),
    "16 bits, PNG": lambda: encoded(Image.fromarray(GREY.astype(np.uint16) * 257), format="PNG"),
    "16 bits, TIFF": lambda: encoded(Image.fromarray(GREY.astype(np.uint16) * 257), format="TIFF"),
    "16 bits, TIFF of the other end": tiff_of_other_end,
    "floats": lambda: encoded(Image.fromarray((GREY / 255).astype(np.float32)), format="TIFF"),
    "opaque LA": lambda: encoded(Image.fromarray(np.dstack([GREY, np.full_like(GREY, 255)]), "LA"), format="PNG"),
}
CASES = {
    **{name: (make, UPRIGHT, 0) for name, make in COLOUR.items()},
    **{name: (make, UPRIGHT, 5) for name, make in LOSSY.items()},
    **{name: (make, ON_WHITE, 0) for name, make in SEEN_THROUGH.items()},
    **{name: (make, np.dstack([GREY] * 3), 0) for name, make in IN_GREY.items()},
    "LA": (lambda: encoded(Image.fromarray(np.dstack([GREY, CLEAR]), "LA"), format="PNG"), np.dstack([GREY_ON_WHITE] * 3), 0),
    "1 bit": (lambda: encoded(Image.fromarray(GREY > 100), format="PNG"), np.dstack([np.where(GREY > 100, 255, 0)] * 3), 0),
    "1 bit, TIFF": (lambda: encoded(Image.fromarray(GREY > 100), format="TIFF"), np.dstack([np.where(GREY > 100, 255, 0)] * 3), 0),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("kinds")
    random = np.random.default_rng(0)
    for label, colour in (("red", (220, 40, 20)), ("blue", (40, 60, 220))):
        (root / "photos" / label).mkdir(parents=True)
        for number in range(6):
            values = np.clip(random.normal(colour, 30, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(values).save(root / "photos" / label / f"{number}.png")
    return twofold.fit(root / "photos", out=root / "run", quiet=True, model="vgg-mini", epochs=1, config={"stages": "8 M"})


@pytest.mark.parametrize("name", CASES)
def test_values_from_file_to_tensor_to_prediction(name: str, tmp_path: Path, run: Run) -> None:
    make, shown_HWC, tolerance = CASES[name]
    path = tmp_path / "picture"
    path.write_bytes(make())
    x_CHW = Preparation("RGB", SIDE, SIDE, (0.5,) * 3, (0.5,) * 3).picture(path)
    shown_CHW = torch.from_numpy(shown_HWC.astype(np.uint8)).permute(2, 0, 1)
    assert (x_CHW.int() - shown_CHW.int()).abs().max() <= tolerance
    (said,), (wanted,) = run.predict([path]), run.predict([x_CHW])  # each alone: rows of one product may be summed in another order
    assert said.ranking == wanted.ranking
