"""A source read whole, in the way of a model that is to be judged by it.

What learning needs, splits, two classes, a thousand characters, judging does not: one picture of one class will do.

    text       in the codes of the model's vocabulary
    pictures   in the mode and size of its preparation, with its class numbers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from twofold.data.class_names import unknown_classes
from twofold.data.image_folder import whole_folder
from twofold.data.preparation import Preparation
from twofold.data.records import find_records
from twofold.data.sources import open_source, require
from twofold.data.streamed import Form, PictureFiles
from twofold.data.text_file import whole_text
from twofold.data.values import Images, ImageSource, Labelled, Text, TextSource, Whole
from twofold.data.vocabulary import Vocabulary


def read_text_whole(source: str | Path, vocabulary: Vocabulary) -> Whole:
    """All text of a name, a file or a folder. Raises ValueError where there is none."""
    path = require(source)
    if path is not None:
        return whole_text(path, vocabulary)
    opened = open_source(source, vocabulary=vocabulary)
    assert isinstance(opened, TextSource)
    texts = [part for part in (opened.train, opened.validation, opened.test) if part is not None]
    codes_T, names = torch.cat([text.codes_T for text in texts]), sum((text.names for text in texts), ())
    return Whole(opened.name, Text(codes_T, sum(text.characters for text in texts), names), opened.skipped, opened.notes)


def read_pictures_whole(source: str | Path, classes: Sequence[str], kind: Preparation) -> Whole:
    """All pictures of a name or a folder. Raises ValueError where there are none, or where a class is none of `classes`."""
    path = require(source)
    if path is not None and find_records(path) is None:
        return whole_folder(path, classes, kind)
    opened = open_source(source)
    assert isinstance(opened, ImageSource)
    parts = [part for part in (opened.train, opened.validation, opened.test) if part is not None]
    y_B = torch.cat([part.y_B for part in parts])
    x_BCHW = torch.cat([part.pictures(torch.arange(len(part.y_B))) for part in parts])  # what has a name fits into memory
    images = conform(opened, Images(x_BCHW, y_B, sum((part.names for part in parts), ())), classes, kind)
    return Whole(opened.name, images, opened.skipped, opened.notes)


def conform(source: ImageSource, part: Labelled, classes: Sequence[str], kind: Preparation) -> Labelled:
    """Pictures of a source in the form and with the class numbers of a model. Raises ValueError for classes that it does not know."""
    if any(name not in classes for name in source.classes):
        raise ValueError(unknown_classes(source.name, classes, source.classes))
    y_B = torch.tensor([classes.index(name) for name in source.classes])[part.y_B]
    form = Form(kind.mode, kind.height, kind.width)
    if isinstance(part, PictureFiles):
        return replace(part, y_B=y_B) if part.form == form else replace(part, y_B=y_B, form=form, marks=None)
    assert isinstance(part, Images)
    x_BCHW = part.x_BCHW
    if x_BCHW.shape[1:] != form.shape:
        planes = [x_CHW.squeeze(0) if len(x_CHW) == 1 else x_CHW.permute(1, 2, 0) for x_CHW in x_BCHW]
        x_BCHW = torch.stack([kind.fit(Image.fromarray(plane.numpy())) for plane in planes])
    return Images(x_BCHW, y_B, part.names)
