"""Downloaded sets lie where the platform keeps such things, are known to be whole, and are fetched by one process at a time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from twofold.data.cache import RECORD, alone, cache_folder, opened, present, read_record, set_folder, whole, write_record
from twofold.data.published import PUBLISHED

SET = PUBLISHED["tiny-shakespeare"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TWOFOLD_DATA", str(tmp_path))
    return tmp_path


def keep(content: bytes = b"to be") -> Path:
    place = set_folder(SET)
    place.mkdir(exist_ok=True)
    (place / "input.txt").write_bytes(content)
    write_record(place, SET, {"input.txt": "here"})
    return place


@pytest.mark.parametrize(
    ("platform", "variables", "place"),
    [
        ("linux", {}, "/home/me/.cache/twofold/data"),
        ("linux", {"XDG_CACHE_HOME": "/cache"}, "/cache/twofold/data"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/twofold/data"),
        ("darwin", {}, "/home/me/Library/Caches/twofold/data"),
        ("win32", {}, "/home/me/AppData/Local/twofold/data"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/twofold/data"),
        ("linux", {"TWOFOLD_CACHE": "/ours"}, "/ours/data"),
        ("linux", {"TWOFOLD_CACHE": "/ours", "TWOFOLD_DATA": "~/sets"}, "/home/me/sets"),
    ],
)
def test_where_it_is(platform, variables, place, monkeypatch):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "TWOFOLD_CACHE", "TWOFOLD_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == Path(place)


def test_no_home(monkeypatch):
    monkeypatch.setenv("TWOFOLD_DATA", "~nobody-of-that-name/sets")
    with pytest.raises(ValueError, match="there is no home folder for downloaded data .* TWOFOLD_DATA=/path/to/data"):
        cache_folder()


def test_a_set_that_is_there(folder):
    assert not present(SET) and not whole(SET)
    place = keep()
    assert present(SET) and whole(SET) and opened(SET) == {"input.txt": place / "input.txt"}
    assert json.loads((place / RECORD).read_text())["published"]["input.txt"]["from"] == "here"


def test_a_set_that_is_not_there(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    expected = (
        f"tiny-shakespeare is not on this machine ({folder / 'tiny-shakespeare'}). Download it once, 1.1 MB: twofold data get "
        "tiny-shakespeare (or, from files that you have: twofold data get tiny-shakespeare --from FOLDER)."
    )
    with pytest.raises(ValueError) as caught:
        opened(SET)
    assert str(caught.value) == expected
    (folder.parent / "tiny-shakespeare").mkdir()
    with pytest.raises(ValueError, match="To use your own folder called tiny-shakespeare, write ./tiny-shakespeare"):
        opened(SET)


def test_a_file_that_changed_on_the_disk(folder):
    place = keep()
    (place / "input.txt").write_bytes(b"to bE")
    assert present(SET) and not whole(SET)
    with pytest.raises(ValueError, match=r"input.txt is not as it was downloaded: its sha256 has changed. Get it again: twofold data get"):
        opened(SET)
    (place / "input.txt").write_bytes(b"to")
    assert not present(SET)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 60_000,
        b"[]",
        b"\xff",
        b'{"files": {}}',
        b'{"published": {"input.txt": {"sha256": "0"}}, "files": {}}',
        b"1" * 70_000,
    ],
)
def test_a_record_that_is_none(content, folder):
    place = keep()
    (place / RECORD).write_bytes(content)
    assert read_record(place, SET) == {} and not present(SET)


HOLD = """
import sys
from twofold.data.cache import alone
from twofold.data.published import PUBLISHED
with alone(PUBLISHED["tiny-shakespeare"], lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_and_a_killed_one_lets_go(folder):
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    waited = []
    held = r"another process has held .*\.tiny-shakespeare\.lock for 0 s"
    with pytest.raises(ValueError, match=held), alone(SET, lambda: waited.append(1), longest=0):
        pass
    holder.kill()
    holder.communicate()
    with alone(SET, lambda: waited.append(2)) as root:
        assert root == folder and waited == [1]
