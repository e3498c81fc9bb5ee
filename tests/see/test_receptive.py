"""Receptive fields: against the pixels that the gradient of one output reaches, for chains of layers drawn at random."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from twofold.see.arithmetic import law_of
from twofold.see.law import ALONE
from twofold.see.receptive import field, reach, sliding
from twofold.see.sliding import axes_of
from twofold.see.summary import summarise


def seen(model, x, output):
    """The pixels (first, last) that one output sees, or None."""
    x = x.clone().requires_grad_()
    model(x)[0, 0, output].backward()
    places = x.grad[0, 0].nonzero().flatten().tolist()
    return (places[0], places[-1]) if places else None


def ones(layer):
    for parameter in layer.parameters():
        nn.init.ones_(parameter)
    return layer.double()


small = st.integers(1, 3)
LAYERS = st.one_of(
    st.builds(lambda k, s, p, d: ones(nn.Conv1d(1, 1, k, s, p, d)), st.integers(1, 5), small, st.integers(0, 3), small),
    st.builds(lambda k, s, p: nn.AvgPool1d(k, s, min(p, k // 2)), st.integers(1, 4), small, st.integers(0, 2)),
    st.builds(lambda k, s, p, d: ones(nn.ConvTranspose1d(1, 1, k, s, p, dilation=d)), st.integers(1, 5), small, st.integers(0, 2), small),
    st.builds(nn.AdaptiveAvgPool1d, st.integers(5, 30)),
    st.builds(lambda f, m: nn.Upsample(scale_factor=f, mode=m), st.integers(1, 3), st.sampled_from(["nearest", "linear"])),
    st.just(nn.Sigmoid()),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(LAYERS, min_size=1, max_size=3))
def test_every_output_in_the_middle_sees_what_its_gradient_reaches(layers):
    x, shape, path = torch.rand(1, 1, 60, dtype=torch.float64), (1, 1, 60), ()
    for layer in layers:
        law = law_of(layer, shape)
        if law is None or min(law.output) < 1:  # the map has become too small
            return
        shape, path = law.output, (*path, *(law.sees if law.sees != ALONE else ()))
    middle = range(shape[2] // 3, shape[2] - shape[2] // 3)
    for output, first, last in zip(middle, *reach(path, np.array(middle, dtype=float)), strict=True):
        if first > 12 and last < 47:  # else zeros around one of the maps may be meant
            assert seen(nn.Sequential(*layers), x, output) == (first, last)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv1d(1, 1, 7, 2, 3), nn.AvgPool1d(3, 2, 1), nn.Conv1d(1, 1, 3, dilation=2)],
        [nn.Conv1d(1, 1, 3, 2, 1), nn.ConvTranspose1d(1, 1, 4, 2, 1), nn.Conv1d(1, 1, 3, padding=1)],
        [nn.ConvTranspose1d(1, 1, 2, 3), nn.Conv1d(1, 1, 3, dilation=3)],
        [nn.ConvTranspose1d(1, 1, 1, 3), nn.Conv1d(1, 1, 3, dilation=2)],
        [nn.Conv1d(1, 1, 3), nn.AdaptiveAvgPool1d(7), nn.Conv1d(1, 1, 2)],
        [nn.AvgPool1d(2), nn.Upsample(scale_factor=2, mode="linear"), nn.Conv1d(1, 1, 3)],
        [nn.Upsample(scale_factor=3), nn.AvgPool1d(2, 1)],
    ],
)
def test_first_last_and_extent_are_exact_where_the_field_lies_inside(layers):
    model, x = nn.Sequential(*map(ones, layers)), torch.rand(1, 1, 64, dtype=torch.float64)
    line, exact = summarise(model, x)[-1], []
    for output in range(line.shape[2]):
        found = seen(model, x, output)
        exact += [found[1] - found[0] + 1] if found and found[0] > 0 and found[1] < 63 else []
    assert max(exact) == line.field[0]


def test_places_stride_and_centre():
    """Two layers of a ResNet: 7 taps, stride 2, padding 3; 3 taps, stride 2, padding 1."""
    path = (sliding(7, 2, 3, 1), sliding(3, 2, 1, 1))
    found = field([path], [56])
    assert (found.extent, found.stride, found.first, found.centre) == ((11,), (4,), (-5,), (0.0,))
    model = nn.Sequential(ones(nn.Conv1d(1, 1, 7, 2, 3)), nn.AvgPool1d(3, 2, 1))
    for output in (2, 5, 9):
        first, last = (int(place[0]) for place in reach(path, np.array([float(output)])))
        assert seen(model.double(), torch.rand(1, 1, 64, dtype=torch.float64), output) == (first, last) == (4 * output - 5, 4 * output + 5)


def test_the_name_of_a_class_says_its_axes():
    assert [axes_of(layer) for layer in (nn.Conv3d(1, 1, 1), nn.LPPool1d(2, 2), nn.BatchNorm2d(3), nn.Linear(1, 1))] == [3, 1, 2, None]
