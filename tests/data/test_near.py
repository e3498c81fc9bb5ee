"""What was resized, recompressed, made brighter, mirrored or cut a little is found; what is merely alike is not."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from twofold.data import near as nearness
from twofold.data.digits import digits
from twofold.data.findings import inspect, leaks
from twofold.data.image_folder import image_folder
from twofold.data.near import FAR, averaged, correlation, groups, hashes, near, sketched, upon
from twofold.data.preparation import fit
from twofold.data.sources import open_source
from twofold.data.values import Images

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def scene(seed: int, side: int = 96) -> Image.Image:
    """A picture with shapes of several sizes, as photographs have; another seed, another picture."""
    random = np.random.default_rng(seed)
    layers = [
        Image.fromarray(random.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        for n in (3, 6, 12)
    ]
    return Image.fromarray(np.mean([np.asarray(layer, dtype=float) for layer in layers], axis=0).astype(np.uint8))


def recompressed(image: Image.Image, quality: int = 25) -> Image.Image:
    kept = io.BytesIO()
    image.save(kept, "JPEG", quality=quality)
    return Image.open(kept)


CHANGES = {
    "smaller": lambda image: image.resize((50, 41)),
    "recompressed": recompressed,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "cut": lambda image: image.crop((2, 2, 94, 94)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "everything": lambda image: recompressed(ImageEnhance.Brightness(image.resize((60, 60))).enhance(1.1)),
}


def images(pictures: list[Image.Image], name: str, side: int = 64) -> Images:
    x_BCHW = torch.from_numpy(np.stack([fit(picture.convert("RGB"), "RGB", side, side) for picture in pictures]))
    return Images(x_BCHW, torch.zeros(len(pictures), dtype=torch.long), tuple(f"{name}{i}" for i in range(len(pictures))))


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_found_and_no_other(change: str) -> None:
    train = images([scene(seed) for seed in range(40)], "t")
    test = images([scene(100), CHANGES[change](scene(7)), scene(101), CHANGES[change](scene(31))], "x")
    found = near({"train": train, "test": test})
    assert [(one.row, one.earlier_row, one.split, one.earlier) for one in found] == [(1, 7, "test", "train"), (3, 31, "test", "train")]
    assert all(one.mirrored == (change == "mirrored") and 0.9 <= one.likeness <= 1 for one in found)


CHANGES["recompressed less"] = lambda image: recompressed(image, 70)


@pytest.mark.parametrize("change", ["smaller", "recompressed less", "darker", "mirrored"])
def test_small_pictures_too(change: str) -> None:
    train = images([scene(seed) for seed in range(20)], "t", 32)
    assert [(one.row, one.earlier_row) for one in near({"train": train, "test": images([CHANGES[change](scene(7))], "x", 32)})] == [(0, 7)]


def test_every_pair_of_splits_is_compared_once_and_equal_pictures_are_left_to_the_digest() -> None:
    train, validation = images([scene(1), scene(2)], "t"), images([scene(1), recompressed(scene(3))], "v")
    found = near({"train": train, "validation": validation, "test": images([scene(3), recompressed(scene(2))], "x")})
    assert [(one.split, one.row, one.earlier, one.earlier_row) for one in found] == [("test", 0, "validation", 1), ("test", 1, "train", 1)]


def test_flat_pictures_are_not_compared() -> None:
    flat = [Image.new("RGB", (64, 64), (shade, shade, shade)) for shade in range(100, 120)]
    assert near({"train": images(flat, "t"), "test": images([Image.new("RGB", (64, 64), "white")], "x")}) == []


def test_the_hash_is_the_sign_of_the_difference_to_the_left() -> None:
    rising = np.tile(np.arange(9, dtype=np.float32), (1, 8, 1))
    assert hashes(np.concatenate([rising, -rising])).tolist() == [2**64 - 1, 0]
    rising[0, 3, 5] = 0
    assert bin(int(hashes(rising)[0])).count("0") == 2  # one bit, and the 0 of 0b


def test_bands_lose_no_pair() -> None:
    """Against all pairs, one by one."""
    random = np.random.default_rng(0)
    first = random.integers(0, 2**64, 300, dtype=np.uint64)
    flips = np.array(
        [sum(1 << int(bit) for bit in random.choice(64, random.integers(0, 9), replace=False)) for _ in first], dtype=np.uint64
    )
    second = (first ^ flips)[random.permutation(300)]
    compared = {(i, j) for rows, others in groups(first, second) for i in rows.tolist() for j in others.tolist()}
    wanted = {(i, j) for i in range(300) for j in range(300) if (int(first[i]) ^ int(second[j])).bit_count() <= FAR}
    assert len(wanted) > 200 and wanted <= compared and len(compared) < 300 * 300 / 2


def test_comparisons_end_at_the_bound_the_small_groups_first(monkeypatch: pytest.MonkeyPatch) -> None:
    first = np.random.default_rng(0).integers(0, 2**64, 200, dtype=np.uint64)
    first[:100] &= ~nearness._bands()[0]  # a crowd: 10,000 pairs in one group
    monkeypatch.setattr(nearness, "WORK", 8_000)
    compared = [(i, j) for rows, others in groups(first, first) for i in rows.tolist() for j in others.tolist()]
    assert len(compared) <= 8_000 and {(i, i) for i in range(200)} <= set(compared)


def test_averaging_is_the_mean_of_areas_and_correlation_that_of_differences() -> None:
    x_BHW = np.arange(24, dtype=np.float32).reshape(1, 4, 6)
    assert averaged(x_BHW, 2, 3)[0].tolist() == [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]]
    np.testing.assert_allclose(averaged(x_BHW, 1, 4)[0, 0], [9 + 1 / 3, 10 + 2 / 3, 12 + 1 / 3, 13 + 2 / 3], rtol=1e-6)
    noise = np.random.default_rng(0).normal(size=(2, 9, 9)).astype(np.float32)
    np.testing.assert_allclose(correlation(noise, 3 * noise + 7), 1, atol=1e-5)
    np.testing.assert_allclose(correlation(noise, -noise), -1, atol=1e-5)


def test_a_part_is_found_in_the_whole() -> None:
    whole = np.asarray(scene(5).convert("L"), dtype=np.float32)
    part = averaged(whole[None, 5:92, 1:91], 32, 32)[0]
    assert upon(whole, part) > 0.97 > 0.9 > correlation(averaged(whole[None], 32, 32), part[None])[0]
    assert upon(whole, averaged(np.asarray(scene(6).convert("L"), dtype=np.float32)[None], 32, 32)[0]) < 0.6


def test_digits_are_too_small_to_tell() -> None:
    source = digits()
    assert sketched(source.train) is None and near({"train": source.train, "test": source.test}) == []


@pytest.mark.skipif(not (DATA / "fashion-mnist").exists(), reason="Fashion-MNIST is not on this machine")
def test_fashion_mnist_holds_few_and_all_of_one_class() -> None:
    """Of 3,000 test pictures against 20,000; looked at, these are the same photograph in another brightness."""
    source = open_source(DATA / "fashion-mnist")
    train, test = (
        Images(part.x_BCHW[:count], part.y_B[:count], part.names[:count]) for part, count in ((source.train, 20_000), (source.test, 3_000))
    )
    found = near({"train": train, "test": test})
    assert [(test.names[one.row], train.names[one.earlier_row]) for one in found] == [
        ("test 2115", "train 18494"),
        ("test 2605", "train 11932"),
    ]


@pytest.mark.skipif(not (DATA / "clothing-small").exists(), reason="clothing-small is not on this machine")
def test_photographs_of_clothing_are_no_duplicates_until_they_are() -> None:
    source = open_source(DATA / "clothing-small")
    parts = {"train": source.train, "validation": source.validation, "test": source.test}
    assert near(parts) == []
    taken = [Image.fromarray(x_CHW.permute(1, 2, 0).numpy()) for x_CHW in source.train.x_BCHW[:100]]
    found = near({"train": source.train, "test": images([CHANGES["everything"](picture) for picture in taken], "x")})
    assert all(one.row == one.earlier_row for one in found) and len(found) >= 98


def folder(root: Path, changed: int = 1) -> Path:
    for split, first in (("train", 0), ("test", 100)):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for number in range(8):
                scene(first + number + 50 * (label == "b")).save(root / split / label / f"{number}.png")
    for number in range(changed):
        recompressed(scene(number)).save(root / "test" / "a" / f"copy{number:02}.jpg", quality=60)
    return root


def test_a_folder_names_the_files_and_what_to_do(tmp_path: Path) -> None:
    source = image_folder(folder(tmp_path))
    said = (
        "1 picture of test shows nearly the same as one of train: its figure will be too good. Look at them, and delete one of each pair "
        "(test/a/copy00.jpg ~ train/a/0.png)"
    )
    found = inspect(source, "folder")
    assert (said in found.notes) == ("train/a/0.png" in source.train.names)
    assert len([note for note in found.notes if "nearly the same" in note]) == 1
    assert leaks(source) == tuple(note for note in found.notes if "too good" in note)


def test_ten_pairs_are_named_and_the_others_counted(tmp_path: Path) -> None:
    train, test = images([scene(seed) for seed in range(13)], "t"), images([recompressed(scene(seed)) for seed in range(13)], "x")
    (note,) = leaks(image_folder(folder(tmp_path, 0))._replace(train=train, validation=images([scene(50)], "v"), test=test))
    assert note.startswith("13 pictures of test show nearly the same as one of train") and note.endswith("x9 ~ t9; and 3 more)")
