"""twofold models get and convert: a published file by the digits of its name, and weights by torchvision's names."""

import hashlib
import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import safetensors.torch
import torch

import twofold
from twofold.cli.main import main
from twofold.data import published_weights
from twofold.models.catalogue import build

CONTENT = b"weights" * 1000
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A small file in the place of resnet18's published weights, served on this machine."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            if self.server.says:
                self.send_header("Content-Length", str(len(self.server.content)))
            self.end_headers()
            self.wfile.write(self.server.content)

        def log_message(self, *_):
            pass

        def finish(self):
            with suppress(OSError):  # a client that has seen the size hangs up
                super().finish()

    made = HTTPServer(("127.0.0.1", 0), Answer)
    made.handle_error = lambda *_: None
    made.content, made.says = CONTENT, True
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("TWOFOLD_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(published_weights, "BASE", f"http://127.0.0.1:{made.server_port}")
    monkeypatch.setitem(published_weights.FILES, "resnet18", f"resnet18-{DIGITS}.pth")
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def told(capsys, *words, code=0):
    assert main(["models", *map(str, words)]) == code
    return capsys.readouterr()


def test_published_weights_come_once_and_whole(server, capsys, tmp_path):
    said = told(capsys, "get", "resnet18")
    path = tmp_path / "data" / "resnet18-weights" / f"resnet18-{DIGITS}.pth"
    assert path.read_bytes() == CONTENT and said.err.startswith("resnet18: torchvision publishes the first eight digits of the checksum")
    assert said.out.splitlines() == [
        f"resnet18: resnet18-{DIGITS}.pth, 7.0 kB, licence: BSD-3-Clause; pictures normalised by imagenet",
        f"here now: {path}",
        f"use it: twofold train photos/ --model resnet18 --weights {path} --image-size 224",
    ]
    server.content = b"gone"
    again = json.loads(told(capsys, "get", "resnet18", "--json").out)
    assert again == {"architecture": "resnet18", "file": str(path), "bytes": len(CONTENT), "new": False, "licence": "BSD-3-Clause"}


def test_a_file_of_ones_own(server, capsys, tmp_path):
    server.content = b""
    (tmp_path / f"resnet18-{DIGITS}.pth").write_bytes(CONTENT)
    assert "here now" in told(capsys, "get", "resnet18", "--from", tmp_path).out


@pytest.mark.parametrize(
    ("content", "says", "message"),
    [
        (CONTENT + b"!", True, f"that of the published one {DIGITS}. What came is kept, and the same command goes on from there."),
        (CONTENT, False, "expected a file of at most 1,073,741,824 bytes, the server says nothing of its size"),
        (b"", True, "expected a file of at most 1,073,741,824 bytes, the server says 0"),
    ],
)
def test_another_file_is_refused(server, capsys, tmp_path, content, says, message):
    server.content, server.says = content, says
    err = " ".join(told(capsys, "get", "resnet18", code=2).err.split())
    assert message in err and "data get" not in err
    assert not list((tmp_path / "data").rglob(f"resnet18-{DIGITS}.pth"))


def test_all_published_files_are_of_architectures_that_there_are():
    from twofold.models.catalogue import MODELS

    assert set(published_weights.FILES) <= set(MODELS)
    for name in published_weights.FILES:
        (file,) = published_weights.published_weights(name).files
        assert len(file.sha256) == 8 and int(file.sha256, 16) and file.urls == (f"https://download.pytorch.org/models/{file.name}",)


def test_convert_writes_names_that_load_again(capsys, tmp_path):
    wanted = build("cifar-resnet20", classes=7)
    state = {f"module.{name}".replace("linear.", "fc."): value for name, value in wanted.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.th")
    out = tmp_path / "w.safetensors"
    said = told(capsys, "convert", "cifar-resnet20", "--weights", tmp_path / "w.th", "--out", out).out
    assert "in downsample and fc names; the head too. 116 tensors of cifar-resnet20 written to" in " ".join(said.split())
    found = safetensors.torch.load_file(out)
    assert all(torch.equal(found[name], value) for name, value in wanted.state_dict().items()) and len(found) == 116


def test_convert_a_run(capsys, tmp_path):
    run = twofold.fit("digits", model="vgg-mini", config={"stages": "8 M 8"}, epochs=1, quiet=True, out=tmp_path / "run")
    found = json.loads(told(capsys, "convert", run.path, "--out", tmp_path / "w.safetensors", "--json").out)
    assert found == {"architecture": "vgg-mini", "file": str(tmp_path / "w.safetensors"), "tensors": len(run.model.state_dict())}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["get", "lenet"], "models get: there are no published weights for 'lenet'. There are those of alexnet, vgg11,"),
        (["get", "resnet18", "--from", "nowhere"], "models get resnet18: --from nowhere: there is no such file or folder."),
        (["got", "resnet18"], "models: expected nothing, `get ARCHITECTURE [--from FILE]` or `convert RUN|ARCHITECTURE"),
        (["--out", "x"], "got ''."),
        (["convert", "lenet5"], "models convert: expected --out as the name of a .safetensors file, for example lenet5.safetensors."),
        (["convert", "lenet5", "--out", "x.safetensors"], "models convert: lenet5 is an architecture, and has learnt nothing:"),
        (["convert", "runs/a", "--config", "a=1", "--out", "x.safetensors"], "models convert: --config belongs to an architecture"),
        (["convert", "lenet5", "--weights", "w.pth", "--out", "there.safetensors"], "there.safetensors is there already. Remove it"),
    ],
)
def test_mistakes(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TWOFOLD_DATA", str(tmp_path / "data"))
    (tmp_path / "there.safetensors").write_text("")
    assert message in " ".join(told(capsys, *words, code=2).err.split())
