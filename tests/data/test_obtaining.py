"""A set comes into the cache whole or not at all, from a server or from the user's own files, for one process or for several."""

import gzip
import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from twofold.data.cache import opened, present
from twofold.data.downloads import Patience
from twofold.data.obtaining import obtain
from twofold.data.published import Published, PublishedFile

TEXT, PICTURES = b"some text\n" * 50, bytes(range(100)) * 30
QUICK = Patience(timeout=5, attempts=2, pause=0)


def packed() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in (("set/a.bin", PICTURES), ("set/readme", b"x")):
            made = tarfile.TarInfo(name)
            made.size = len(content)
            archive.addfile(made, io.BytesIO(content))
    return out.getvalue()


FILES = {"text.txt": TEXT, "set.tar.gz": packed()}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("TWOFOLD_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server():
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            content = self.server.files.get(self.path[1:])
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    made.files, made.asked = dict(FILES), []
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def published(port: int = 9, most: int = 3000) -> Published:
    files = [
        PublishedFile(name, len(content), hashlib.sha256(content).hexdigest(), (f"http://127.0.0.1:{port}/{name}",), members)
        for (name, content), members in zip(FILES.items(), ((), (("set/a.bin", most),)), strict=True)
    ]
    return Published("set", "language", "a set", "MIT", tuple(files), True)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "record.json"}


def test_from_a_server(server, root):
    wanted = published(server.server_port)
    got = obtain(wanted, patience=QUICK)
    assert got == (root / "set", 2, len(TEXT) + len(PICTURES), True)
    assert contents(root / "set") == {"text.txt": TEXT, "a.bin": PICTURES} and list(opened(wanted)) == ["text.txt", "a.bin"]
    assert sorted(path.name for path in root.iterdir()) == [".set.lock", "set"]
    assert obtain(wanted, patience=QUICK).new is False and len(server.asked) == 2


def test_what_came_before_a_failure_is_not_fetched_again(server, root):
    content = server.files.pop("set.tar.gz")
    wanted = published(server.server_port)
    with pytest.raises(
        ValueError, match=r"data get set: set.tar.gz: no address served it. .*404.*\. What came is kept, and the same command"
    ):
        obtain(wanted, patience=QUICK)
    assert not present(wanted) and not (root / "set").exists()
    server.files["set.tar.gz"] = content
    obtain(wanted, patience=QUICK)
    assert server.asked == ["/text.txt", "/set.tar.gz", "/set.tar.gz"] and contents(root / "set")["a.bin"] == PICTURES


def test_an_archive_that_is_refused_leaves_nothing_in_place(server, root):
    with pytest.raises(ValueError, match="set/a.bin has 3,000 bytes"):
        obtain(published(server.server_port, most=2999), patience=QUICK)
    assert not (root / "set").exists()
    (root / ".set.part" / "a.bin").write_bytes(b"half of one that was killed")
    assert obtain(published(server.server_port), patience=QUICK).new and contents(root / "set")["a.bin"] == PICTURES


@pytest.mark.parametrize("damage", ["flipped", "missing", "a file in its place"])
def test_a_damaged_set_is_got_again(damage, server, root):
    wanted = published(server.server_port)
    obtain(wanted, patience=QUICK)
    if damage == "flipped":
        (root / "set" / "a.bin").write_bytes(PICTURES[:-1] + b"?")
    else:
        for path in (root / "set").iterdir():
            path.unlink()
    if damage == "a file in its place":
        (root / "set").rmdir()
        (root / "set").write_bytes(b"")
    assert obtain(wanted, patience=QUICK).new and contents(root / "set") == {"text.txt": TEXT, "a.bin": PICTURES}
    assert sorted(path.name for path in root.iterdir()) == [".set.lock", "set"]


def test_several_at_once_fetch_it_once(server, root):
    wanted = published(server.server_port)
    got = []
    threads = [threading.Thread(target=lambda: got.append(obtain(wanted, patience=QUICK).new)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False, False, False, True] and len(server.asked) == 2 and whole_set(wanted)


def whole_set(wanted: Published) -> bool:
    return {name: path.read_bytes() for name, path in opened(wanted).items()} == {"text.txt": TEXT, "a.bin": PICTURES}


def test_from_a_folder(root, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "text.txt.gz").write_bytes(gzip.compress(TEXT))
    wanted = published()
    with pytest.raises(ValueError, match=r"set.tar.gz is not in .*own. Expected there, as published: text.txt, set.tar.gz\."):
        obtain(wanted, own)
    (own / "set.tar.gz").write_bytes(FILES["set.tar.gz"])
    assert obtain(wanted, own).new and whole_set(wanted) and len(list(own.iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("text.txt", TEXT[:-1] + b"?", r"text.txt is not the published text.txt: its sha256 is"),
        ("text.txt", TEXT + b"?", r"text.txt is not the published text.txt: it has more than the 500 bytes"),
        ("text.txt.gz", gzip.compress(bytes(1 << 24)), r"text.txt.gz is not the published text.txt: it has more than the 500 bytes"),
        ("text.txt.gz", gzip.compress(TEXT)[:-4], r"text.txt.gz is cut short"),
    ],
)
def test_files_that_are_not_the_published_ones(name, content, reason, root, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"data get set: .*{reason}"):
        obtain(published(), own)
    assert not (root / "set").exists()


def test_one_file_for_a_set_of_several(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(ValueError, match="is one file. Give the folder that holds text.txt, set.tar.gz"):
        obtain(published(), tmp_path / "a")
    with pytest.raises(ValueError, match="there is no such file or folder"):
        obtain(published(), tmp_path / "b")


def test_a_full_disk_is_told_before_anything_comes(server, root, monkeypatch):
    monkeypatch.setattr("twofold.data.obtaining.shutil.disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(ValueError, match=r"data get set: it takes 16.8 MB of disk, 1.0 MB are free at .* TWOFOLD_DATA="):
        obtain(published(server.server_port), patience=QUICK)
    assert server.asked == [] and [path.name for path in root.iterdir()] == [".set.lock"]
