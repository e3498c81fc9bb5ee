"""The table of published sets is complete, and a file is told from the published one."""

import hashlib
import re

import pytest

from twofold.data.published import PUBLISHED, PublishedFile, find_published


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_file_is_pinned_and_asked_for_over_https(name):
    published = PUBLISHED[name]
    assert published.name == name and published.task in ("classify", "language") and published.licence
    assert len(set(published.kept)) == len(published.kept) and published.room >= published.size
    for file in published.files:
        assert file.size > 0 and re.fullmatch(r"[0-9a-f]{64}", file.sha256) and file.urls
        assert all(url.startswith("https://") and url.endswith(f"/{file.name}") for url in file.urls)


def test_what_is_kept_of_an_archive_are_its_members():
    assert PUBLISHED["cifar100"].kept == ("train.bin", "test.bin", "fine_label_names.txt")
    assert PUBLISHED["tiny-shakespeare"].kept == ("input.txt",)


def test_a_file_is_told_from_the_published_one(tmp_path):
    file = PublishedFile("a", 3, hashlib.sha256(b"abc").hexdigest(), ())
    path = tmp_path / "a"
    for content, fault in ((b"abc", ""), (b"abcd", "it has 4 bytes, the published one 3"), (b"abd", "its sha256 is a52d159f")):
        path.write_bytes(content)
        assert file.fault(path).startswith(fault) and bool(file.fault(path)) == bool(fault)


def test_a_name_that_is_none_of_them():
    with pytest.raises(ValueError, match=r"there is no published set 'minst'. There are: mnist, fashion-mnist, cifar10, cifar100,"):
        find_published("minst")
