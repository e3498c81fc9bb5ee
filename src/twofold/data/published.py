"""Published sets: what `twofold data get` fetches, from where, and how each file is known to be the right one.

    the right file  =  its size and its sha256 are those below        nothing else is ever put into the cache

The checksums are those that TensorFlow Datasets (mnist, fashion_mnist, cifar10, cifar100, tiny_shakespeare) and Hugging Face Datasets
(wikitext-2-v1) publish; those of the CIFAR archives belong to the same files as the md5 on their authors' page. `tried` says whether this
code has met the files themselves, or knows them from these publications alone.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_LABELS = 1 << 12  # bytes: a list of class names


class PublishedFile(NamedTuple):
    """One file as published: size in bytes, sha256 or its first digits, addresses in the order in which they are asked.

    members: of an archive, what is taken out of it: path inside -> the most bytes that it may have.
    """

    name: str
    size: int
    sha256: str
    urls: tuple[str, ...]
    members: tuple[tuple[str, int], ...] = ()

    def fault(self, path: Path) -> str:
        """What tells the file at `path` from the published one, in words; empty where nothing does."""
        size = path.stat().st_size
        if size != self.size:
            return f"it has {size:,} bytes, the published one {self.size:,}"
        found = sha256_of(path)
        return "" if self.sha256 and found.startswith(self.sha256) else f"its sha256 is {found}, that of the published one {self.sha256}"


class Published(NamedTuple):
    """One set: its task, a sentence and the licence for people, its files, and whether this code was tried on them."""

    name: str
    task: str
    sentence: str
    licence: str
    files: tuple[PublishedFile, ...]
    tried: bool

    @property
    def asked(self) -> str:
        """The command that fetches it."""
        return f"data get {self.name}"

    @property
    def size(self) -> int:
        """Bytes to fetch."""
        return sum(file.size for file in self.files)

    @property
    def room(self) -> int:
        """Bytes of disk that fetching and unpacking may take."""
        return self.size + sum(most for file in self.files for _, most in file.members)

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the files that stay in the cache: the published ones, of an archive its members."""
        return tuple(name for file in self.files for name in ([PurePosixPath(m).name for m, _ in file.members] or [file.name]))


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bytes_in_words(count: int) -> str:
    """So many bytes, for people.

    >>> bytes_in_words(170052171), bytes_in_words(5148)
    ('170.1 MB', '5.1 kB')
    """
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count / 1e3:,.1f} kB"


def _idx(bases: tuple[str, ...], name: str, size: int, sha256: str) -> PublishedFile:
    return PublishedFile(name, size, sha256, tuple(f"{base}/{name}" for base in bases))


def _cifar(name: str, size: int, sha256: str, *members: tuple[str, int]) -> PublishedFile:
    authors, moved_to = f"https://www.cs.toronto.edu/~kriz/{name}", f"https://cave.cs.toronto.edu/kriz/{name}"
    return PublishedFile(name, size, sha256, (authors, moved_to), members)


_MNIST = ("https://storage.googleapis.com/cvdf-datasets/mnist", "https://ossci-datasets.s3.amazonaws.com/mnist")
_FASHION = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
)
_TEN, _HUNDRED = "cifar-10-batches-bin", "cifar-100-binary"
_BATCH = 10_000 * 3_073

_SETS = (
    Published(
        "mnist",
        "classify",
        "70,000 handwritten digits, 28x28, grey, 10 classes (LeCun, Cortes and Burges)",
        "CC BY-SA 3.0",
        (
            _idx(_MNIST, "train-images-idx3-ubyte.gz", 9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            _idx(_MNIST, "train-labels-idx1-ubyte.gz", 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            _idx(_MNIST, "t10k-images-idx3-ubyte.gz", 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            _idx(_MNIST, "t10k-labels-idx1-ubyte.gz", 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        tried=False,
    ),
    Published(
        "fashion-mnist",
        "classify",
        "70,000 pictures of clothing, 28x28, grey, 10 classes (Zalando Research)",
        "MIT",
        (
            _idx(_FASHION, "train-images-idx3-ubyte.gz", 26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            _idx(_FASHION, "train-labels-idx1-ubyte.gz", 29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            _idx(_FASHION, "t10k-images-idx3-ubyte.gz", 4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            _idx(_FASHION, "t10k-labels-idx1-ubyte.gz", 5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
        tried=True,
    ),
    Published(
        "cifar10",
        "classify",
        "60,000 photographs, 32x32, in colour, 10 classes (Krizhevsky 2009)",
        "none stated",
        (
            _cifar(
                "cifar-10-binary.tar.gz",
                170052171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                *((f"{_TEN}/data_batch_{number}.bin", _BATCH) for number in range(1, 6)),
                (f"{_TEN}/test_batch.bin", _BATCH),
                (f"{_TEN}/batches.meta.txt", _LABELS),
            ),
        ),
        tried=False,
    ),
    Published(
        "cifar100",
        "classify",
        "60,000 photographs, 32x32, in colour, 100 classes (Krizhevsky 2009)",
        "none stated",
        (
            _cifar(
                "cifar-100-binary.tar.gz",
                168513733,
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
                (f"{_HUNDRED}/train.bin", 50_000 * 3_074),
                (f"{_HUNDRED}/test.bin", 10_000 * 3_074),
                (f"{_HUNDRED}/fine_label_names.txt", _LABELS),
            ),
        ),
        tried=False,
    ),
    Published(
        "tiny-shakespeare",
        "language",
        "1,115,394 characters of Shakespeare's plays (Karpathy 2015)",
        "public domain",
        (
            PublishedFile(
                "input.txt",
                1115394,
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
            ),
        ),
        tried=True,
    ),
    Published(
        "wikitext-2",
        "language",
        "2.5 million words of Wikipedia, rare words replaced by <unk> (Merity and others 2016)",
        "CC BY-SA 3.0",
        (
            PublishedFile(
                "wikitext-2-v1.zip",
                4475746,
                "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
                (
                    "https://wikitext.smerity.com/wikitext-2-v1.zip",
                    "https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-2-v1.zip",
                ),
                (
                    ("wikitext-2/wiki.train.tokens", 1 << 24),
                    ("wikitext-2/wiki.valid.tokens", 1 << 21),
                    ("wikitext-2/wiki.test.tokens", 1 << 21),
                ),
            ),
        ),
        tried=False,
    ),
)

PUBLISHED: dict[str, Published] = {each.name: each for each in _SETS}


def find_published(name: str) -> Published:
    """The set of that name. Raises ValueError, naming them all."""
    if name not in PUBLISHED:
        raise ValueError(f"data get: there is no published set {name!r}. There are: {', '.join(PUBLISHED)}.")
    return PUBLISHED[name]
