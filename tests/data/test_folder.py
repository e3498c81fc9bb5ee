"""What lies in a folder is found in a stable order, and nothing outside it is."""

import os
from pathlib import Path

import pytest

from twofold.data.folder import nearest, printable, printed, subfolders, walk
from twofold.data.values import Skipped


def test_files_come_sorted_and_hidden_ones_do_not(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/1.txt", "a.txt", ".hidden", ".git/x.txt", "b/.x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert walk(tmp_path) == (["a.txt", "b/1.txt", "b/2.txt"], [])
    assert subfolders(tmp_path) == ["b"]


def test_links_are_followed_to_files_inside_only(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "file.txt").touch()
    (inside / "good.txt").symlink_to(inside / "file.txt")
    (inside / "bad.txt").symlink_to(outside / "file.txt")
    (inside / "broken.txt").symlink_to(inside / "none.txt")
    (inside / "loop.txt").symlink_to(inside / "loop.txt")
    (inside / "folder").symlink_to(outside)
    names, skipped = walk(inside)
    assert names == ["file.txt", "good.txt"]
    assert skipped == [
        Skipped("bad.txt", "a link that leads outside the folder is not followed"),
        Skipped("broken.txt", "a link that leads nowhere"),
        Skipped("folder", "a link to a folder is not followed"),
        Skipped("loop.txt", "a link that leads nowhere"),
    ]
    assert subfolders(inside) == []


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert walk(tmp_path / "link") == (["a.txt"], [])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert walk(tmp_path) == ([], [Skipped("pipe.txt", "not a regular file")])


def test_names_that_are_not_utf8_can_be_written_down() -> None:
    name = os.fsdecode(b"caf\xe9.png")
    assert printable(name).encode("utf-8") == "caf\ufffd.png".encode()
    assert printable("café.png") == "café.png"
    assert printed([Skipped(name, "why")]) == (Skipped("caf\ufffd.png", "why"),)


def test_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert nearest(tmp_path / "fotos") == str(tmp_path / "photos")
    assert nearest(tmp_path / "quite else") is None
    assert nearest(tmp_path / "none" / "photos") is None


def test_runs_of_ours_are_not_data(tmp_path):
    for place in ("photos/cats", "photos/runs/first", "photos/second", "photos/runs-of-salmon"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "photos" / "cats" / "1.png").write_bytes(b"x")
    (tmp_path / "photos" / "runs-of-salmon" / "1.png").write_bytes(b"x")
    for run in ("runs/first", "second"):
        (tmp_path / "photos" / run / "settings.yaml").write_text("source: digits")
        (tmp_path / "photos" / run / "metrics.jsonl").write_text("")
        (tmp_path / "photos" / run / "pictures").mkdir()
        (tmp_path / "photos" / run / "pictures" / "curves.png").write_bytes(b"x")
    names, skipped = walk(tmp_path / "photos")
    assert names == ["cats/1.png", "runs-of-salmon/1.png"]
    assert [(s.path, s.reason) for s in skipped] == [("runs", "a run of ours, not data"), ("second", "a run of ours, not data")]
    assert subfolders(tmp_path / "photos") == ["cats", "runs-of-salmon"]
