"""The preview: the originals on top, their versions beneath, with what is marked in them."""

import re

import numpy as np
import pytest
import torch

from twofold.data.augment import Augmenter
from twofold.data.augment_samples import Samples
from twofold.data.augment_text import read_recipe
from twofold.see.augmented import augmented
from twofold.see.sheet import Head

HEAD = Head("Augmentation", "flip")


def drawn(figure):
    return [np.ma.getdata(image.get_array()) for image in figure.axes[0].images]


@pytest.mark.parametrize("channels", [1, 3])
def test_originals_stand_on_top_and_versions_beneath(channels):
    x = torch.randint(0, 256, (4, channels, 6, 5), dtype=torch.uint8)
    augmenter = Augmenter(read_recipe("flip=both"))
    versions = [Samples(augmenter.pictures(x, epoch, torch.arange(4))) for epoch in range(2)]
    figure = augmented(Samples(x), versions, HEAD)
    shown = torch.cat([x, *(version.x_BCHW for version in versions)]).permute(0, 2, 3, 1).squeeze(-1).numpy()
    np.testing.assert_array_equal(drawn(figure), shown)
    tops = [image.get_extent()[3] for image in figure.axes[0].images]
    assert tops[0] == tops[3] < tops[4] == tops[7] < tops[8]


def test_masks_boxes_and_points_are_drawn():
    x, masks = torch.full((1, 3, 8, 8), 0.5), torch.zeros(1, 8, 8).long()
    masks[0, 2:4] = 1
    samples = Samples(
        x,
        masks,
        (torch.tensor([[1.0, 2, 5, 6], [0, 0, 3, 3]]),),
        (torch.tensor([[4.0, 4.0], [20.0, 4.0]]),),
        kept=(torch.tensor([True, False]),),
    )
    figure = augmented(samples, [samples], HEAD)
    picture = drawn(figure)[0]
    assert picture[0, 0].tolist() == [128, 128, 128] and picture[2, 0].tolist() == [85, 116, 148]  # 0.55 of grey, 0.45 of #2166ac
    patches = figure.axes[0].patches
    assert [type(p).__name__ for p in patches].count("Circle") == 2  # one a row; the other point is outside
    styles = [p.get_linestyle() for p in patches if type(p).__name__ == "Rectangle" and p.get_linewidth() > 1]
    assert styles == ["solid", "dashed"] * 2


def test_what_cannot_be_drawn_is_refused():
    x = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="expected at least one picture and one version of it, got 2 and 0"):
        augmented(Samples(x), [], HEAD)
    with pytest.raises(ValueError, match=re.escape("expected versions of the 2 pictures, got one of 1.")):
        augmented(Samples(x), [Samples(x[:1])], HEAD)
