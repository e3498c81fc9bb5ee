"""twofold data and twofold data get: what is listed, what is fetched, and what is said of a mistake."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from twofold.cli.main import main
from twofold.data.published import PUBLISHED, Published, PublishedFile

TEXT = b"To be, or not to be, that is the question.\n" * 60


@pytest.fixture
def server():
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.server.content)))
            self.end_headers()
            self.wfile.write(self.server.content)

        def log_message(self, *_):
            pass

    made = HTTPServer(("127.0.0.1", 0), Answer)
    made.content = TEXT
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(autouse=True)
def small(server, tmp_path, monkeypatch):
    """A set of one small text under the name of a published one, served on this machine."""
    monkeypatch.setenv("TWOFOLD_DATA", str(tmp_path / "data"))
    url = f"http://127.0.0.1:{server.server_port}/input.txt"
    file = PublishedFile("input.txt", len(TEXT), hashlib.sha256(TEXT).hexdigest(), (url,))
    made = Published("tiny-shakespeare", "language", "a little text", "public domain", (file,), tried=False)
    monkeypatch.setitem(PUBLISHED, "tiny-shakespeare", made)


def told(capsys, *words, code=0):
    assert main([str(word) for word in words]) == code
    return capsys.readouterr()


def test_get_then_list_then_look(capsys, tmp_path):
    before = {line["name"]: line["present"] for line in json.loads(told(capsys, "data", "--json").out)}
    assert before["digits"] is True and before["tiny-shakespeare"] is False
    said = told(capsys, "data", "get", "tiny-shakespeare")
    place = tmp_path / "data" / "tiny-shakespeare"
    assert said.out.splitlines() == [
        "tiny-shakespeare: 1 file, 2.6 kB, sha256 as published, licence: public domain",
        f"here now: {place}",
        "use it: twofold train tiny-shakespeare",
    ]
    assert said.err.splitlines()[0].startswith("tiny-shakespeare: its checksums are as published; nobody has tried them here")
    assert said.err.splitlines()[1:] == ["input.txt: 2.6 kB"] and (place / "input.txt").read_bytes() == TEXT
    assert f"was here already: {place}" in told(capsys, "data", "get", "tiny-shakespeare").out
    row = next(line for line in told(capsys, "data").out.splitlines() if line.startswith("tiny-shakespeare"))
    assert row.split()[-3:] == ["2.6", "kB", "yes"] and "a little text" in row and "public domain" in row
    assert "tiny-shakespeare: downloaded set; task: language" in told(capsys, "data", "check", "tiny-shakespeare").out


def test_json(capsys, tmp_path):
    found = json.loads(told(capsys, "data", "get", "tiny-shakespeare", "--json").out)
    assert found == {
        "source": "tiny-shakespeare",
        "folder": str(tmp_path / "data" / "tiny-shakespeare"),
        "files": 1,
        "bytes": len(TEXT),
        "new": True,
        "licence": "public domain",
    }


def test_from_own_files(capsys, tmp_path, server):
    server.content = b"another text"
    (tmp_path / "input.txt").write_bytes(TEXT)
    assert "here now" in told(capsys, "data", "get", "tiny-shakespeare", "--from", tmp_path / "input.txt").out


def test_training_says_how_to_get_it_and_then_trains(capsys, tmp_path):
    refused = told(capsys, "train", "tiny-shakespeare", "--out", tmp_path / "run", code=2)
    assert "Download it once, 2.6 kB: twofold data get tiny-shakespeare" in refused.err and not (tmp_path / "run").exists()
    told(capsys, "data", "get", "tiny-shakespeare")
    words = ["--epochs", 1, "--batch-size", 2, "--window", 20, "--config", "units=8", "embedding=8", "--out", tmp_path / "run"]
    assert "validation:" in told(capsys, "train", "tiny-shakespeare", *words).out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["get", "minst"], "data get: there is no published set 'minst'. There are: mnist, fashion-mnist,"),
        (["get"], "data: expected nothing, `check PATH`, `get NAME` or `preview PATH`, got 'get'."),
        (["--from", "x"], "data: --from belongs to `get NAME`."),
        (["check", "digits", "--from", "x"], "data: --from belongs to `get NAME`."),
        (["get", "mnist", "--limit", "9"], "data get: --image-size and --limit belong to `check` and to training."),
        (["get", "mnist", "--from", "nowhere"], "data get mnist: --from nowhere: there is no such file or folder."),
    ],
)
def test_mistakes(words, message, capsys):
    said = told(capsys, "data", *words, code=2)
    assert message in said.err and said.err.count("Traceback") == 0


def test_a_server_with_another_file(capsys, server):
    server.content = TEXT[:-1] + b"?"
    err = told(capsys, "data", "get", "tiny-shakespeare", code=2).err
    assert "twofold: data get tiny-shakespeare: input.txt: no address served it. " in err and "not the published file: its sha256 is" in err


def test_an_interrupted_download_says_how_to_go_on(capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("twofold.cli.getting.obtain", interrupt)
    err = told(capsys, "data", "get", "tiny-shakespeare", code=130).err
    assert "interrupted; what came of tiny-shakespeare is kept, and the same command goes on from there" in err
