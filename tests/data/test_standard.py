"""The standard sets open with the published parts, and a validation part that is cut from training in one way for all time."""

import struct
from pathlib import Path

import pytest
import torch

from twofold.data.cache import set_folder, write_record
from twofold.data.obtaining import obtain
from twofold.data.published import PUBLISHED
from twofold.data.sources import DataOptions, check, open_source, published_lines, task_of
from twofold.data.split import take

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("TWOFOLD_DATA", str(tmp_path))
    return tmp_path


def lay(name: str, files: dict[str, bytes]) -> None:
    """Put files into the cache as if they had been downloaded."""
    folder = set_folder(PUBLISHED[name])
    folder.mkdir()
    for file, content in files.items():
        (folder / file).write_bytes(content)
    write_record(folder, PUBLISHED[name], {file.name: "" for file in PUBLISHED[name].files})


def idx(values: torch.Tensor) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.to(torch.uint8).numpy().tobytes()


def records(labels: list[list[int]], shade: int) -> bytes:
    """CIFAR records whose pixels are all `shade` + their row."""
    return b"".join(bytes(row) + bytes([shade + number]) * 3072 for number, row in enumerate(labels))


def test_mnist(root):
    y_B = torch.arange(10).repeat(20)
    x_BHW = torch.arange(200)[:, None, None].expand(200, 28, 28)
    train = {"train-images-idx3-ubyte.gz": idx(x_BHW), "train-labels-idx1-ubyte.gz": idx(y_B)}
    lay("mnist", {**train, "t10k-images-idx3-ubyte.gz": idx(x_BHW[:30] + 9), "t10k-labels-idx1-ubyte.gz": idx(y_B[:30])})
    source = open_source("mnist")
    assert (source.name, source.task, source.classes) == ("mnist", "classify", tuple("0123456789"))
    assert (
        source.train.x_BCHW.shape == (180, 1, 28, 28) and source.train.x_BCHW.dtype == torch.uint8 and source.train.y_B.dtype == torch.int64
    )
    assert [int((source.validation.y_B == label).sum()) for label in range(10)] == [2] * 10
    for part in (source.train, source.validation):  # every picture still has its own class and name
        rows = [int(name.removeprefix("train ")) for name in part.names]
        assert part.x_BCHW[:, 0, 0, 0].tolist() == rows == sorted(rows) and part.y_B.tolist() == [row % 10 for row in rows]
    assert not set(source.train.names) & set(source.validation.names)
    zeros = [f"train {row}" for row in range(0, 200, 10)]
    assert {n for n in source.validation.names if n in zeros} == set(take(zeros, 0.1)[1])
    assert source.test.x_BCHW[:, 0, 0, 0].tolist() == list(range(9, 39)) and source.test.names[0] == "test 0"
    assert source.preparation.mode == "L" and check("mnist").kind == "downloaded set"


def test_cifar10(root):
    batches = {f"data_batch_{number}.bin": records([[label] for label in range(10)] * 2, 20 * number) for number in range(1, 6)}
    names = "\n".join(["airplane", *"bcdefghij", ""])
    lay("cifar10", {**batches, "test_batch.bin": records([[3], [4]], 5), "batches.meta.txt": names.encode()})
    source = open_source("cifar10")
    assert source.classes[0] == "airplane" and len(source.classes) == 10
    assert source.train.x_BCHW.shape == (90, 3, 32, 32) and len(source.validation.y_B) == 10
    rows = [int(name.removeprefix("train ")) for name in source.train.names]
    assert source.train.x_BCHW[:, 2, 31, 31].tolist() == [20 + row for row in rows] and source.train.y_B.tolist() == [r % 10 for r in rows]
    assert source.test.y_B.tolist() == [3, 4] and source.preparation.mode == "RGB"


def test_cifar100_has_its_fine_classes(root):
    names = "\n".join(f"class {number}" for number in range(100))
    both = [[label // 5, label] for label in range(100)] * 2
    lay("cifar100", {"train.bin": records(both, 0), "test.bin": records([[19, 99]], 7), "fine_label_names.txt": names.encode()})
    source = open_source("cifar100")
    assert source.classes[99] == "class 99" and source.test.y_B.tolist() == [99]
    assert sorted(source.train.y_B.tolist()) == sorted(source.validation.y_B.tolist()) == list(range(100))


def test_tiny_shakespeare(root):
    text = "".join(chr(97 + number % 26) for number in range(1_005))
    lay("tiny-shakespeare", {"input.txt": text.encode()})
    source = open_source("tiny-shakespeare")
    assert (
        source.vocabulary.decode(source.train.codes_T) == text[:904] and source.vocabulary.decode(source.validation.codes_T) == text[904:]
    )
    assert source.test is None and source.name == "tiny-shakespeare"
    short = open_source("tiny-shakespeare", DataOptions(limit=1_000))
    assert short.train.characters == 904 and short.validation.characters == 101


def test_wikitext_2(root):
    lay("wikitext-2", {f"wiki.{part}.tokens": f" = {part} = \n".encode() * 200 for part in ("train", "valid", "test")})
    source = open_source("wikitext-2", DataOptions(limit=1_000, unit="word"))
    assert source.train.characters == 1_000 and source.vocabulary.unit == "word"
    assert source.validation.characters == 2400 and source.test.characters == 2200
    assert open_source("wikitext-2", vocabulary=source.vocabulary).vocabulary is source.vocabulary


def test_a_set_that_is_not_downloaded_is_said_and_never_fetched(root):
    for name, published in PUBLISHED.items():
        with pytest.raises(ValueError, match=f"{name} is not on this machine .* twofold data get {name}"):
            open_source(name)
        assert task_of(name) == published.task
    assert [line.present for line in published_lines()] == [False] * 6 and list(root.iterdir()) == []


def test_options_that_do_not_apply(root):
    with pytest.raises(ValueError, match="limit=5000 does not apply to mnist"):
        open_source("mnist", DataOptions(limit=5000))
    with pytest.raises(ValueError, match="image_size=8 does not apply to wikitext-2"):
        open_source("wikitext-2", DataOptions(image_size=8))


def own(name: str) -> Path:
    if not (SHARED / name).is_dir():
        pytest.skip(f"the published files of {name} are not at {SHARED}")
    return SHARED / name


def test_fashion_mnist_as_published(root):
    obtain(PUBLISHED["fashion-mnist"], own("fashion-mnist"))
    source = open_source("fashion-mnist")
    assert [len(part.y_B) for part in (source.train, source.validation, source.test)] == [54_000, 6_000, 10_000]
    assert torch.bincount(source.train.y_B).tolist() == [5_400] * 10 and torch.bincount(source.test.y_B).tolist() == [1_000] * 10
    assert [source.classes[label] for label in source.test.y_B[:5]] == ["Ankle boot", "Pullover", "Trouser", "Trouser", "Shirt"]
    assert source.preparation.mean[0] == pytest.approx(0.286, abs=1e-3) and source.preparation.std[0] == pytest.approx(0.353, abs=1e-3)


def test_tiny_shakespeare_as_published(root):
    obtain(PUBLISHED["tiny-shakespeare"], own("tinyshakespeare"))
    source = open_source("tiny-shakespeare")
    assert (source.train.characters, source.validation.characters) == (1_003_854, 111_540)
    assert source.vocabulary.decode(source.train.codes_T[:14]) == "First Citizen:"
