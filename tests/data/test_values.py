"""The values are plain tuples that know their task."""

import torch

from twofold.data.preparation import Preparation
from twofold.data.values import Images, ImageSource, Text, TextSource
from twofold.data.vocabulary import Vocabulary


def test_each_source_knows_its_task_and_starts_without_remarks() -> None:
    part = Images(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), ("x",))
    pictures = ImageSource("p", ("a", "b"), Preparation("L", 2, 2, (0.0,), (1.0,)), part, part, None)
    V = Vocabulary.of("ab")
    text = TextSource("t", V, *[Text(V.encode("ab"), 2, ("x",))] * 2, None)
    assert (pictures.task, text.task) == ("classify", "language")
    for source in (pictures, text):
        assert (source.skipped, source.notes, source.test) == ((), (), None)
