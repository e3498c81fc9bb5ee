"""Every kind of picture comes in 8-bit, upright and opaque; what is none is refused with the reason."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twofold.data import pictures
from twofold.data.pictures import Header, PictureError, is_picture, read_header, read_image

COLOURS = np.array([[[250, 0, 0], [0, 250, 0], [0, 0, 250]], [[10, 20, 30], [200, 100, 50], [255, 255, 255]]], dtype=np.uint8)
GREYS = np.array([[0, 50, 100], [150, 200, 255]], dtype=np.uint8)


def refused(path: Path) -> str:
    with pytest.raises(PictureError) as caught:
        read_image(path)
    assert caught.value.path == str(path)
    assert str(caught.value) == f"picture {path}: {caught.value.reason}"
    return caught.value.reason


@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "ppm", "webp", "gif"])
def test_colours_come_in_exactly(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a.{extension}"
    Image.fromarray(COLOURS).save(path, **({"lossless": True, "exact": True} if extension == "webp" else {}))
    image = read_image(path)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), COLOURS)
    assert read_header(path) == Header("RGB", 2, 3)


@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "pgm"])
def test_greys_come_in_exactly(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a.{extension}"
    Image.fromarray(GREYS).save(path)
    assert read_image(path).mode == "L"
    np.testing.assert_array_equal(np.asarray(read_image(path)), GREYS)
    assert read_header(path) == Header("L", 2, 3)


def test_jpeg_is_close(tmp_path: Path) -> None:
    flat = np.full((16, 24, 3), (200, 100, 50), dtype=np.uint8)
    Image.fromarray(flat).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(np.asarray(read_image(tmp_path / "a.jpg")).astype(int) - flat).max() <= 3


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.jpg")), COLOURS)


def test_text_that_begins_like_a_bitmap_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "cars").write_text("BMW makes cars. " * 20)
    (tmp_path / "parts").write_text("P1 and P2 are parts. " * 20)
    assert not is_picture(tmp_path / "cars")
    assert not is_picture(tmp_path / "parts")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["png", "jpg", "tif"])
def test_exif_orientation_turns_the_picture_upright(tmp_path: Path, orientation: int, extension: str) -> None:
    """What a viewer shows: EXIF 2.32, tag 0x0112. The stored picture is the upright one, turned back."""
    upright = np.zeros((32, 48), dtype=np.uint8)
    upright[:16, :16] = 255  # only the top left corner is white
    store = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].T,
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{extension}"
    Image.fromarray(np.ascontiguousarray(store(upright))).save(path, exif=exif)
    assert read_header(path) == Header("L", 32, 48)
    assert np.abs(np.asarray(read_image(path)).astype(int) - upright).max() <= 20
    assert np.asarray(read_image(path, shrink_to=4)).shape == (8, 12) if extension == "jpg" else True


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129], [25700, 32896, 65535]], dtype=np.uint16)
    for name in ("a.png", "a.tif", "a.pgm"):
        Image.fromarray(values).save(tmp_path / name)
        image = read_image(tmp_path / name)
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), [[0, 0, 1], [100, 128, 255]])
        assert read_header(tmp_path / name).mode == "L"


def test_floats_from_0_to_1_are_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.tif")), [[0, 128, 255]])


@pytest.mark.parametrize(("value", "shown"), [(300.0, "300"), (np.nan, "nan"), (-1.0, "-1")])
def test_floats_outside_are_refused(tmp_path: Path, value: float, shown: str) -> None:
    Image.fromarray(np.array([[0.25, value]], dtype=np.float32)).save(tmp_path / "a.tif")
    reason = refused(tmp_path / "a.tif")
    assert shown in reason
    assert reason.endswith("expected 0 to 1: convert it to 8 or 16 bits")


def test_transparency_shows_white(tmp_path: Path) -> None:
    rgba = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png")), [[[200, 0, 0], [255, 255, 255], [204, 204, 204]]])


def test_grey_transparency_stays_grey(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[100, 255], [100, 0]]], dtype=np.uint8), "LA").save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), [[100, 255]])


def test_palette_and_its_transparent_entry(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "a.png", transparency=1)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png")), [[[250, 0, 0], [255, 255, 255], [0, 0, 250]]])


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png")), [[255, 0]])


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red = np.asarray(read_image(tmp_path / "a.jpg"))
    assert red.shape == (16, 16, 3)
    assert red[..., 0].min() >= 250
    assert red[..., 1:].max() <= 5


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.gif"))[0, 0], (255, 0, 0))


def test_shrinking_keeps_twice_the_side(tmp_path: Path) -> None:
    Image.new("L", (640, 400), 77).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", shrink_to=25).size == (80, 50)
    assert read_image(tmp_path / "a.jpg", shrink_to=26).size == (160, 100)
    assert read_image(tmp_path / "a.jpg").size == (640, 400)


def test_missing(tmp_path: Path) -> None:
    assert refused(tmp_path / "no.png") == "there is no such file"


def test_folder(tmp_path: Path) -> None:
    assert refused(tmp_path) == "is a folder, not a picture"


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert refused(tmp_path / "a.png") == "the file is empty (0 bytes)"


def test_not_a_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello" * 100)
    assert refused(tmp_path / "a.png").startswith("its content is not a picture; expected png, jpeg")


def test_postscript_is_never_run(tmp_path: Path) -> None:
    """Pillow would start an interpreter for it."""
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    assert "not a picture" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("extension", ["png", "jpg", "gif", "bmp", "webp", "tif", "ppm"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_cut_short(tmp_path: Path, extension: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{extension}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert any(word in refused(path) for word in ("cut short", "broken"))


def test_a_flipped_byte_is_read_or_refused(tmp_path: Path) -> None:
    """No mistake but PictureError, no warning, whatever a file holds."""
    random = np.random.default_rng(0)
    reasons: set[str] = set()
    small = Image.fromarray(random.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for extension in ("png", "jpg", "gif", "bmp", "webp", "tif"):
        path = tmp_path / f"a.{extension}"
        small.save(path, exif=exif) if extension != "bmp" else small.save(path)
        data = path.read_bytes()
        for at in range(0, len(data), 7):
            path.write_bytes(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :])
            for read in (read_image, read_header):
                try:
                    read(path)
                except PictureError as error:
                    reasons.add(error.reason)
    assert len(reasons) > 5
    assert all(reasons)


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 20000 5010 255\n" + bytes(100))
    assert refused(tmp_path / "a.ppm") == "too large: 20000 x 5010 is 100.2 million pixels, the limit is 100 million"
    (tmp_path / "b.ppm").write_bytes(b"P6 200000 200000 255\n" + bytes(100))
    assert refused(tmp_path / "b.ppm") == "too large: its header says far more than 100 million pixels, the limit"


def test_no_bomb_warning_leaks_below_the_limit(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Pillow warns from 89 million pixels on."""
    warnings.simplefilter("always")
    (tmp_path / "a.ppm").write_bytes(b"P6 9900 10000 255\n" + bytes(100))
    assert read_header(tmp_path / "a.ppm") == Header("RGB", 10000, 9900)
    assert not recwarn.list


@pytest.mark.parametrize(
    "data", [b"GIF89a" + bytes(7) + b";", b"P5 0 0 255\n", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(8) + b"\x08\x02\0\0\0"]
)
def test_no_pixels(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.png").write_bytes(data)
    said = "its first bytes are those of a picture, the rest of its header is broken or says that it has no pixels"
    assert refused(tmp_path / "a.png") == said


def test_large_pictures_are_decoded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(GREYS).save(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "_HEAVY", 5)
    held = []
    decode = pictures._decode
    monkeypatch.setattr(pictures, "_decode", lambda *a: held.append(pictures._one_heavy.locked()) or decode(*a))
    read_image(tmp_path / "a.png")
    assert held == [True]
