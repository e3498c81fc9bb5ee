"""Python source: the standard library of the running interpreter, as text.

Split by file, 90/5/5, by a hash of the path inside the library: a file never changes sides. Files come in the order of the
hash, so that a limit takes a fair sample and not the names that begin with a.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from twofold.data.corpus import Passages, assemble, gather, join
from twofold.data.split import by_file
from twofold.data.values import Skipped, TextSource
from twofold.data.vocabulary import Vocabulary

SENTENCE = "the Python standard library's own source code, as characters, split by file"
LICENCE = "PSF-2.0"
LIMIT = 3_000_000  # characters of training text
# Tests, tables of characters and help texts are mostly data; generated files differ from machine to machine; installed packages
# are not Python's.
LEFT_OUT = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "turtledemo", "encodings", "pydoc_data"}
)
GENERATED = ("config-", "_sysconfigdata_")


def python_source(limit: int = LIMIT, unit: str = "character", vocabulary: Vocabulary | None = None) -> TextSource:
    """The library as a source: the first `limit` characters of the training files, or all.

    For validation whole files up to limit/40 characters, for test up to limit/10, at least one file each.
    Raises ValueError where the interpreter's library holds no source.
    """
    root = Path(sysconfig.get_path("stdlib"))
    names = source_files(root)
    if len(names) < 3:
        raise ValueError(
            f"python-source: expected the standard library's .py files under {root}, found {len(names)}. This interpreter's "
            "library is zipped, frozen or stripped of its source. Use an ordinary Python, or give a text file of your own"
        )
    files = by_file(names)
    skipped: list[Skipped] = []
    parts = Passages(
        join(gather(root, files.train, skipped, limit)),
        join(gather(root, files.validation, skipped, limit // 40, whole=True)),
        join(gather(root, files.test, skipped, limit // 10, whole=True)),
    )
    return assemble("python-source", unit, parts, skipped, vocabulary=vocabulary)


def source_files(root: Path) -> list[str]:
    """Every .py file that counts and is not empty, relative to the library, with forward slashes, sorted."""
    names = []
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not name.startswith((*GENERATED, "."))]
        for name in files:
            path = Path(place, name)
            if name.endswith(".py") and not name.startswith((*GENERATED, ".")) and path.stat().st_size:
                names.append(path.relative_to(root).as_posix())
    return sorted(names)
