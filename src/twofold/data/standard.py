"""The standard sets, opened: downloaded files -> pictures or text in parts.

    pictures            test: as published        validation: a tenth of each class of the published training part (arrays.py)
    tiny-shakespeare    the first 90 % to learn from, the last 10 % to validate, nothing kept for the end, as its users report it
    wikitext-2          the three parts as published

Nothing is ever downloaded here: a set that is not on the machine is an error that says how to get it.
"""

from __future__ import annotations

from pathlib import Path

import torch

from twofold.data.arrays import CLASSES, in_parts
from twofold.data.cache import opened
from twofold.data.cifar import read_cifar
from twofold.data.corpus import Passage, encoded
from twofold.data.idx import read_idx
from twofold.data.options import DataOptions
from twofold.data.plain_text import read_text
from twofold.data.published import PUBLISHED
from twofold.data.values import ImageSource, Source, Text, TextSource
from twofold.data.vocabulary import Vocabulary


def open_standard(name: str, options: DataOptions, vocabulary: Vocabulary | None = None) -> Source:
    """The set of that name, one of PUBLISHED. Raises ValueError: not downloaded, damaged, an option that does not apply."""
    if PUBLISHED[name].task == "classify":
        options.only(name)
        return _pictures(name, opened(PUBLISHED[name]))
    options.only(name, "limit", "unit")
    return _text(name, opened(PUBLISHED[name]), options, vocabulary)


def _pictures(name: str, files: dict[str, Path]) -> ImageSource:
    if name in CLASSES:
        classes = CLASSES[name]
        train, test = (
            (read_idx(files[f"{part}-images-idx3-ubyte.gz"])[:, None], read_idx(files[f"{part}-labels-idx1-ubyte.gz"]).long())
            for part in ("train", "t10k")
        )
    elif name == "cifar10":
        classes = _lines(files["batches.meta.txt"])
        batches = [read_cifar(files[f"data_batch_{number}.bin"]) for number in range(1, 6)]
        train = (torch.cat([x_BCHW for x_BCHW, _ in batches]), torch.cat([y_B for _, y_B in batches]))
        test = read_cifar(files["test_batch.bin"])
    else:
        classes = _lines(files["fine_label_names.txt"])
        train, test = read_cifar(files["train.bin"]), read_cifar(files["test.bin"])
    return in_parts(name, classes, train, test)


def _text(name: str, files: dict[str, Path], options: DataOptions, vocabulary: Vocabulary | None) -> TextSource:
    if name == "tiny-shakespeare":
        text = read_text(files["input.txt"])
        cut = len(text) * 9 // 10
        passages = [Passage(text[:cut], ("input.txt",)), Passage(text[cut:], ("input.txt",))]
    else:
        passages = [Passage(read_text(files[part]), (part,)) for part in ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens")]
    passages[0] = Passage(passages[0].text[: options.limit], passages[0].names)
    vocabulary = vocabulary or Vocabulary.of(passages[0].text, options.unit)
    texts: list[Text] = [encoded(passage, vocabulary) for passage in passages]
    return TextSource(name, vocabulary, texts[0], texts[1], texts[2] if len(texts) > 2 else None)


def _lines(path: Path) -> tuple[str, ...]:
    """Class names, one a line."""
    return tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
