"""Test-time augmentation: each view against NumPy, the mean of the probabilities, and models for which nothing changes."""

import numpy as np
import pytest
import torch

from twofold import nn
from twofold.layers.check import noise
from twofold.tasks.classify import Pictures, predict
from twofold.tasks.views import Views, logits_of, read_views


def pictures(B=3, C=2, H=6, W=8):
    return noise(B, C, H, W, grad=False).float()


def views(words, x):
    return [each.numpy() for each in read_views(words).of(x)]


@pytest.mark.parametrize(
    ("words", "count"), [("flip", 2), ("shift=2", 5), ("crops=0.6", 5), ("flip shift=1", 10), ("crops=.5 shift=1 flip", 50)]
)
def test_words_multiply_and_every_view_has_the_size(words, count):
    x = pictures()
    found = views(words, x)
    assert len(found) == read_views(words).number == count and {each.shape for each in found} == {tuple(x.shape)}
    assert len({each.tobytes() for each in found}) == count


def test_the_mirror_and_the_moves_are_numpys():
    x = pictures()
    plain = x.numpy()
    assert np.array_equal(views("flip", x)[1], plain[..., ::-1])
    wide = np.pad(plain, ((0, 0), (0, 0), (2, 2), (2, 2)), "reflect")
    same, up, down, left, right = views("shift=2", x)
    assert np.array_equal(same, plain)
    for found, rows, columns in ((up, 4, 2), (down, 0, 2), (left, 2, 4), (right, 2, 0)):
        assert np.array_equal(found, wide[:, :, rows : rows + 6, columns : columns + 8])
    assert np.array_equal(up[:, :, :4], plain[:, :, 2:]) and np.array_equal(right[..., 2:], plain[..., :6])


def test_crops_are_the_middle_and_the_corners_scaled_to_the_whole():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8) + 10 * torch.arange(8.0)[:, None]  # a plane, which a bilinear scale keeps inside
    middle, *corners = views("crops=0.5", ramp)
    inside = (np.arange(8) + 0.5) / 2 - 0.5
    for found, top, left in zip((middle, *corners), (2, 0, 0, 4, 4), (2, 0, 4, 0, 4), strict=True):
        wanted = (left + inside)[None] + 10 * (top + inside)[:, None]
        assert found[0, 0, 1:-1, 1:-1] == pytest.approx(wanted[1:-1, 1:-1], abs=1e-5)


def test_probabilities_are_averaged():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(96, 4)), pictures()
    every = [net(each).softmax(1) for each in read_views("flip shift=1").of(x)]
    wanted = torch.stack(every).mean(0)
    found, _ = predict(net, [Pictures(x[:2], torch.zeros(2)), Pictures(x[2:], torch.zeros(1))], read_views("flip shift=1"))
    assert len(every) == 10 and torch.allclose(found.exp(), wanted, rtol=1e-5)
    assert torch.allclose(found.softmax(1), wanted, rtol=1e-5)


class Symmetric(torch.nn.Module):
    """Exactly the same for a picture and its mirror image."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 6, 5))

    def forward(self, x):
        return self.net(x) + self.net(x.flip(3))


def test_a_symmetric_model_gives_what_it_gives_without():
    model, x = Symmetric(), pictures()
    assert torch.allclose(logits_of(model, x, read_views("flip")), model(x).log_softmax(1), atol=1e-6)
    flat = torch.full((2, 2, 6, 8), 0.3)  # a picture without any edge stays the same under every view
    with_all = logits_of(model, flat, read_views("flip shift=2 crops=0.75"))
    assert torch.allclose(with_all, model(flat).log_softmax(1), atol=1e-5)
    assert logits_of(model, x, None) is not None and torch.equal(logits_of(model, x, None), model(x))


def test_words_are_read_and_printed():
    assert (
        read_views("crops=0.875 flip") == Views(True, 0, 0.875)
        and str(read_views("crops=0.875 shift=3 flip")) == "flip shift=3 crops=0.875"
    )


BAD = {
    "flop": "got 'flop'. For example: \"flip\"", "flip=2": "got 'flip=2'", "shift": "got 'shift'", "shift=0": "got 'shift=0'",
    "shift=1.5": "got 'shift=1.5'", "shift=-1": "got 'shift=-1'", "shift=99999999999999999999": "got 'shift=9999",
    "crops=1": "crops=PART (of each side, below 1), got 'crops=1'", "crops=0": "got 'crops=0'", "crops=x": "got 'crops=x'",
    "crops=nan": "got 'crops=nan'", "flip flip": "views: flip is given twice. Give it once.", " ": "views: expected words, got none.",
}  # fmt: skip


@pytest.mark.parametrize("words", BAD)
def test_words_that_mean_nothing_are_refused(words):
    with pytest.raises(ValueError) as caught:
        read_views(words)
    assert BAD[words] in str(caught.value)


def test_a_move_as_large_as_the_picture_is_refused():
    with pytest.raises(ValueError, match=r"views: shift=6 is as large as a picture of 6x8\. Take a smaller one\."):
        views("shift=6", pictures())
