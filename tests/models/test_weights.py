"""Files of weights are read as data; whatever is cut, hostile or something else is refused in a sentence, in little memory and time."""

import argparse
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from twofold.models.weights import PICKLED, read_weights

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}


def written(path, content, legacy=False):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def refusal(path):
    with pytest.raises(ValueError) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


def same(found, wanted):
    return found.keys() == wanted.keys() and all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("ending", [".safetensors", *PICKLED])
def test_every_format_gives_the_same(tmp_path, ending, legacy):
    assert same(read_weights(written(tmp_path / f"w{ending}", STATE, legacy)), STATE)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_others_put_around_the_weights_is_taken_off(tmp_path, legacy):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    steps = torch.optim.AdamW(model.parameters())
    inside = {f"module.{name}": value for name, value in model.state_dict().items()}
    saved = {"epoch": 3, "best_prec1": 91.7, "state_dict": inside, "optimizer": steps.state_dict(), "betas": ((0.9, 0.99),) * 2}
    assert same(read_weights(written(tmp_path / "a.th", saved, legacy)), model.state_dict())
    compiled = {"net": {f"_orig_mod.module.{name}": value for name, value in STATE.items()}, "acc": 1}
    assert same(read_weights(written(tmp_path / "b.pth", compiled, legacy)), STATE)
    assert read_weights(written(tmp_path / "c.pt", {"w": nn.Parameter(torch.ones(2, dtype=torch.half))}, legacy))["w"].dtype == torch.half


def test_a_run_folder_is_its_weights(tmp_path):
    written(tmp_path / "model.safetensors", STATE)
    assert same(read_weights(tmp_path), STATE)


class Evil:
    def __reduce__(self):
        return os.system, ("echo > executed",)


def tuples():
    """2^60 values in as many bytes."""
    x = ()
    for _ in range(60):
        x = (x, x)
    return {"a": [x]}


REFUSED = {
    "a whole model": (lambda: nn.Linear(2, 2), "it holds torch.nn.modules.linear.Linear, which is no tensor. Such a file can run code"),
    "settings": (lambda: {"args": argparse.Namespace(), "state_dict": STATE}, "it holds argparse.Namespace, which is no tensor."),
    "code": (Evil, "it holds posix.system, which is no tensor. Such a file can run code, so it is not read. Save the weights alone: torch"),
    "an array of any length": (lambda: bytearray(9), "it holds __builtin__.bytearray"),
    "tuples of tuples": (tuples, "it holds a tuple of more than 10,000 values, as no file of weights does"),
    "a shape bomb": (
        lambda: {"a": torch.zeros(1).expand(10**12)},
        "its shapes, such as (1000000000000,), need 4,000,000,000,000 bytes, and",
    ),
    "no weights": (lambda: [1, 2], "FILE holds no tensors by name; it holds a list."),
    "other names": (lambda: {"epoch": 3, "loss": 0.5}, "it holds the names epoch, loss. Save the weights alone"),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_hostile_and_foreign_pickles(tmp_path, monkeypatch, name, legacy):
    monkeypatch.chdir(tmp_path)
    made, message = REFUSED[name]
    assert message in refusal(written(tmp_path / "w.pth", made(), legacy))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_cut_and_damaged_files_of_pytorch(tmp_path, legacy):
    path = written(tmp_path / "w.pth", {"w": torch.arange(500.0)}, legacy)
    content = path.read_bytes()
    for length in (1, 2, 5, 100, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:length])
        said = refusal(path)
        assert "cut off" in said or "is no file of weights" in said
    if not legacy:
        middle = content.index(torch.arange(500.0).numpy().tobytes()) + 99
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
        assert "is damaged: the checksum of" in refusal(path)


def test_archives_that_are_none_of_pytorch(tmp_path):
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 24))
    assert "its parts are packed, or overlap, as PyTorch writes none" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")
    assert "is an archive, but holds no weights as PyTorch writes them (data.pkl)" in refusal(path)
    path.write_bytes(b"<html>not found</html>")
    assert "FILE is no file of weights: PyTorch has written none that begins so. Is it a web page?" in refusal(path)
    path.write_bytes(pickle.dumps({"a": 1}, 4))
    assert "it has the instruction FRAME, as no file of weights does" in refusal(path)


def header(text, rest=b""):
    return struct.pack("<Q", len(text)) + text + rest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its header says 0 bytes, the file has 0: cut off, or of another format"),
        (struct.pack("<Q", 1 << 60), "its header says 1,152,921,504,606,846,976 bytes, the file has 8: cut off"),
        (header(b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}', bytes(4)), "is damaged or cut off ("),
        (header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(3)), "is damaged or cut off ("),
        (header(b"[" * 90_000), "is damaged or cut off ("),
        (header(b"{}"), "FILE holds no tensors by name; it holds nothing"),
    ],
)
def test_hostile_safetensors(tmp_path, content, message):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    assert message in refusal(path)


def test_what_is_no_file_of_weights(tmp_path):
    assert refusal(tmp_path / "w.pth") == "weights: there is no file FILE."
    assert "is a folder without model.safetensors: expected a run folder, or a file of weights." in refusal(tmp_path)
    (tmp_path / "w.onnx").write_text("")
    assert "expected a file that ends in .safetensors or .pth, .pt, .th, .bin, .tar." in refusal(tmp_path / "w.onnx")


def test_hostile_files_take_little_memory(tmp_path):
    resource = pytest.importorskip("resource")
    for name, (made, _) in REFUSED.items():
        written(tmp_path / f"{name}.pth", made(), legacy=True)
    program = (
        "import sys, resource; from pathlib import Path; from twofold.models.weights import read_weights\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in Path(sys.argv[1]).glob('*.pth'):\n"
        "    try: read_weights(path); raise SystemExit(f'{path} was read')\n"
        "    except ValueError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=120, check=True)
    assert resource and int(done.stdout) < 200 << 10  # KiB


def test_published_weights_of_the_shared_data():
    path = Path(__file__).parents[2].parent / "shared" / "data" / "weights" / "cifar-resnet" / "resnet20-12fca82f.th"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    found = read_weights(path)
    assert len(found) == 97 and next(iter(found)) == "conv1.weight" and sum(value.numel() for value in found.values()) == 269_722 + 2 * 688
