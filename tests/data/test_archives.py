"""Named members come out of an archive byte for byte; a hostile one is refused, quickly, in little memory, and leaves nothing."""

import gzip
import io
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from twofold.data.archives import ArchiveError, unpack

WANTED = {"set/a.bin": 100_000, "set/b.txt": 100}
CONTENTS = {"set/a.bin": bytes(range(250)) * 400, "set/b.txt": b"b", "set/readme.html": b"not wanted"}


def entry(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **more) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.size = kind, size
    for key, value in more.items():
        setattr(made, key, value)
    return made


def tar(path: Path, *extra: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz", contents: dict[str, bytes] = CONTENTS) -> Path:
    with tarfile.open(path, mode) as archive:
        archive.addfile(entry("set", tarfile.DIRTYPE))
        for name, content in contents.items():
            archive.addfile(entry(name, size=len(content)), io.BytesIO(content))
        for made, content in extra:
            archive.addfile(made, io.BytesIO(content))
    return path


def zipped(path: Path, extra: dict[str, bytes] | None = None, **more) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("set")
        for name, content in {**CONTENTS, **(extra or {})}.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in more.get(name, {}).items():
                setattr(info, key, value)
            archive.writestr(info, content)
    return path


def refused(archive: Path, folder: Path, members: dict[str, int] = WANTED) -> str:
    """The reason of the refusal; nothing is left in the folder nor beside it, and it took little memory."""
    folder.mkdir(exist_ok=True)
    beside = sorted(archive.parent.iterdir())
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as caught:
            unpack(archive, members, folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert list(folder.iterdir()) == [] and sorted(archive.parent.iterdir()) == beside and peak < 4 << 20
    return str(caught.value)


@pytest.mark.parametrize("make", [lambda p: tar(p), lambda p: tar(p, mode="w"), lambda p: tar(p, mode="w:xz"), zipped])
def test_the_wanted_members_come_out(make, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    unpack(make(tmp_path / "archive"), WANTED, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.bin": CONTENTS["set/a.bin"], "b.txt": b"b"}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "set/../../x", "a\\..\\x", "c:x", "set//x", "line\nbreak", "x" * 300, "set/./x"])
def test_names_that_lead_elsewhere(name, tmp_path):
    assert "leads out of the folder" in refused(tar(tmp_path / "a.tar.gz", (entry(name), b"")), tmp_path / "out")
    if "\n" not in name and "\\" not in name:
        assert "leads out of the folder" in refused(zipped(tmp_path / "a.zip", {name: b""}), tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE])
def test_what_is_no_file(kind, tmp_path):
    archive = tar(tmp_path / "a.tar.gz", (entry("set/link", kind, linkname="/etc/passwd"), b""))
    assert "'set/link' is neither a file nor a folder" in refused(archive, tmp_path / "out")


def test_a_link_in_a_zip(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"set/link": b"/etc/passwd"}, **{"set/link": {"external_attr": 0o120777 << 16}})
    assert "'set/link' is neither a file nor a folder" in refused(archive, tmp_path / "out")


def test_names_that_repeat(tmp_path):
    assert "'set/A.BIN' is in it twice" in refused(tar(tmp_path / "a.tar.gz", (entry("set/A.BIN"), b"")), tmp_path / "out")
    assert "'set/B.txt' is in it twice" in refused(zipped(tmp_path / "a.zip", {"set/B.txt": b""}), tmp_path / "out")


def test_bombs(tmp_path):
    zeros = bytes(8 << 20)
    for archive in (tar(tmp_path / "a.tar.gz", (entry("set/zeros", size=len(zeros)), zeros)), zipped(tmp_path / "a.zip", {"set/z": zeros})):
        assert "more than 1,048,576 bytes" in refused(archive, tmp_path / "out")


def test_more_than_is_known_of_a_member(tmp_path):
    for archive in (tar(tmp_path / "a.tar.gz"), zipped(tmp_path / "a.zip")):
        message = refused(archive, tmp_path / "out", {"set/a.bin": 99_999})
        assert "set/a.bin has 100,000 bytes, 99,999 at most are known of it" in message


def test_too_many_members(tmp_path):
    many = {f"set/{number}": b"" for number in range(1000)}
    assert "more than 1,000 members" in refused(tar(tmp_path / "a.tar.gz", contents=CONTENTS | many), tmp_path / "out")
    assert "it lists 1,004 members" in refused(zipped(tmp_path / "a.zip", many), tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE])
def test_a_header_that_says_it_is_long_is_not_read(kind, tmp_path):
    """tarfile would read all of it into memory."""
    header = entry("x", kind, size=60 << 20).tobuf()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header + bytes(60 << 20), 1))
    assert "a header in it is longer than 65,536 bytes" in refused(tmp_path / "a.tar.gz", tmp_path / "out")


def test_headers_upon_headers_and_sizes_below_zero(tmp_path):
    pax = entry("x", tarfile.XHDTYPE, size=10).tobuf() + b"10 path=a\n".ljust(512, b"\0")
    (tmp_path / "deep.tar").write_bytes(pax * 2000)
    assert "is broken" in refused(tmp_path / "deep.tar", tmp_path / "out")
    below = entry("x", tarfile.XHDTYPE, size=15).tobuf() + b"15 size=-10240\n".ljust(512, b"\0")
    for name, reason in (("set/a.bin", "set/a.bin has -10,240 bytes"), ("set/other", "its headers lead backwards")):
        (tmp_path / "back.tar").write_bytes(below + entry(name).tobuf() + bytes(1024))
        assert reason in refused(tmp_path / "back.tar", tmp_path / "out")


@pytest.mark.parametrize("make", [lambda p: tar(p), lambda p: tar(p, mode="w"), zipped])
def test_cut_and_flipped_archives(make, tmp_path):
    content = make(tmp_path / "whole").read_bytes()
    archive = tmp_path / "broken"
    for count in (0, 3, 100, 600, len(content) // 2):
        archive.write_bytes(content[:count])
        refused(archive, tmp_path / "out")
    if content[:2] in (b"\x1f\x8b", b"PK"):  # a plain tar has no checksum of its content: the published sha256 is there for that
        place = content.index(b"a.bin") + 60 if content[:2] == b"PK" else len(content) // 3
        archive.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        refused(archive, tmp_path / "out")


def test_a_member_that_is_missing_and_one_that_lies_there_already(tmp_path):
    archive = tar(tmp_path / "a.tar.gz")
    assert refused(archive, tmp_path / "out", {**WANTED, "set/c": 1}) == f"archive: {archive} is refused: set/c is not in it."
    (tmp_path / "out" / "b.txt").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        unpack(archive, WANTED, tmp_path / "out")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "out").iterdir()] == [("b.txt", b"mine")]


def test_encrypted_and_strangely_packed(tmp_path):
    content = bytearray(zipped(tmp_path / "a.zip").read_bytes())
    listed = content.index(b"PK\1\2")
    content[listed + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    assert "'set/' is encrypted" in refused(tmp_path / "a.zip", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("set/a.bin", b"x")
    assert "packed in a way" in refused(tmp_path / "b.zip", tmp_path / "out")
    with pytest.raises(ArchiveError, match="its end is not that of a zip"):
        (tmp_path / "c.zip").write_bytes(b"PK\3\4")
        unpack(tmp_path / "c.zip", WANTED, tmp_path / "out")
