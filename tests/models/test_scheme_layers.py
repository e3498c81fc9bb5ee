"""Every word's layer: what torch calls it, the shape that was foretold against the one that comes, and where it cannot stand."""

import pytest
import torch

from twofold.models.scheme import parse
from twofold.models.scheme_layers import MisfitError, Site, step
from twofold.models.scheme_words import FORMS

MAP = (6, 9, 12)
LAYERS = {
    "conv8": "Conv2d(6, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))",
    "conv": "Conv2d(6, 24, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))",
    "conv8k5s2p0": "Conv2d(6, 8, kernel_size=(5, 5), stride=(2, 2))",
    "conv8k3x5s2x1d2g2": "Conv2d(6, 8, kernel_size=(3, 5), stride=(2, 1), padding=(2, 4), dilation=(2, 2), groups=2)",
    "conv8k1b0": "Conv2d(6, 8, kernel_size=(1, 1), stride=(1, 1), bias=False)",
    "dw": "DepthwiseConv2d(6, 6, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=6)",
    "dwk5s2m2": "DepthwiseConv2d(6, 12, kernel_size=(5, 5), stride=(2, 2), padding=(2, 2), groups=6)",
    "fc": "Linear(in_features=648, out_features=99, bias=True)",
    "fc7b0": "Linear(in_features=648, out_features=7, bias=False)",
    "pool": "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)",
    "pool3x2s2x1p1x0": "MaxPool2d(kernel_size=(3, 2), stride=(2, 1), padding=(1, 0), dilation=1, ceil_mode=False)",
    "avgpool3s2": "AvgPool2d(kernel_size=3, stride=2, padding=0)",
    "lppool2n3": "LPPool2d(norm_type=3, kernel_size=2, stride=2, ceil_mode=False)",
    "gausspool3s2p1": (
        "GaussianPool2d(kernel_size=3, stride=2, padding=1, ceil_mode=False, count_include_pad=False, sigma=None, dilation=1)"
    ),
    "stochpool": "StochasticPool2d(kernel_size=2, stride=2, padding=0, ceil_mode=False, dilation=1)",
    "adapt4x5": "AdaptiveAvgPool2d(output_size=(4, 5))",
    "spp": 'SpatialPyramidPool2d(levels=(1, 2, 4), kind="max")',
    "spp1_3": 'SpatialPyramidPool2d(levels=(1, 3), kind="max")',
    "gap": "GlobalAvgPool(flatten=True)",
    "gmp": "GlobalMaxPool(flatten=True)",
    "flatten": "Flatten(start_dim=1, end_dim=-1)",
    "bn": "BatchNorm2d(6, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)",
    "gn": "GroupNorm(2, 6, eps=1e-05, affine=True, bias=True)",
    "gn3": "GroupNorm(3, 6, eps=1e-05, affine=True, bias=True)",
    "ln": "GroupNorm(1, 6, eps=1e-05, affine=True, bias=True)",
    "lrn": "LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0)",
    "relu": "ReLU()",
    "relu6": "ReLU6()",
    "leaky.2": "LeakyReLU(negative_slope=0.2)",
    "prelu": "PReLU(num_parameters=1)",
    "elu": "ELU(alpha=1.0)",
    "selu": "SELU()",
    "celu": "CELU(alpha=1.0)",
    "gelu": "GELU(approximate='none')",
    "silu": "SiLU()",
    "mish": "Mish()",
    "tanh": "Tanh()",
    "sigmoid": "Sigmoid()",
    "softplus": "Softplus(beta=1.0, threshold=20.0)",
    "hardtanh": "Hardtanh(min_val=-1.0, max_val=1.0)",
    "hardsigmoid": "Hardsigmoid()",
    "hardswish": "Hardswish()",
    "maxout3": "Maxout(pieces=3, dim=1)",
    "dropout.25": "Dropout(p=0.25, inplace=False)",
}


def made(text, shape, **site):
    return step(parse(text).items[0], Site(shape, 24, 99, **site))


@pytest.mark.parametrize("text", LAYERS)
def test_a_word_is_its_layer_and_its_shape_is_foretold(text):
    foretold, make = made(text, MAP)
    layer = make()
    assert repr(layer) == LAYERS[text]
    x = torch.randn(2, *MAP)
    assert layer(x.flatten(1) if text.startswith("fc") else x).shape == (2, *foretold)


def test_the_table_has_every_word():
    assert {parse(text).items[0].word for text in LAYERS} == set(FORMS)


@pytest.mark.parametrize(
    ("text", "layer"),
    {"bn": "BatchNorm1d(8,", "ln": "LayerNorm((8,),", "gn4": "GroupNorm(4, 8,", "maxout": "Maxout(pieces=2", "relu": "ReLU()"}.items(),
)
def test_features_have_layers_of_their_own(text, layer):
    foretold, make = made(text, (8,))
    assert repr(make()).startswith(layer)
    assert make()(torch.randn(5, 8)).shape == (5, *foretold)


@pytest.mark.parametrize("text", ["conv8", "dw", "fc"])
def test_right_before_batch_norm_there_is_no_bias_unless_it_is_asked_for(text):
    assert made(text, MAP, normed=True).make().bias is None
    assert made(f"{text}b1", MAP, normed=True).make().bias is not None


MISFITS = {
    ("conv8k5p0", (3, 4, 9)): ("conv8k5p0 needs a map of at least 5x5, and a map of 4x9 comes in.", True),
    ("conv8k7p1d2", (3, 4, 9)): ("conv8k7p1d2 needs a map of at least 11x11, and a map of 4x9 comes in.", True),
    ("pool", (3, 1, 1)): ("pool needs a map of at least 2x2, and a map of 1x1 comes in.", True),
    ("gn3", (3, 1, 1)): ("gn3 would have one value a group, whose variance is 0. Take fewer groups.", True),
    ("gn3", (3,)): ("gn3 would have one value a group, whose variance is 0. Take fewer groups.", False),
    ("ln", (1,)): ("ln would have one value, whose variance is 0.", False),
    ("pool", (64,)): ("pool works on maps, and what comes here are 64 features. Put it before gap, spp, flatten and fc.", False),
    ("lrn", (64,)): ("lrn works on maps, and what comes here are 64 features.", False),
    ("flatten", (64,)): ("flatten works on maps", False),
    ("conv8g3", MAP): ("conv8g3 is in 3 groups, and its 8 filters are no multiple of 3.", False),
    ("conv8g4", MAP): ("conv8g4 is in 4 groups, and its 6 channels that come in are no multiple of 4.", False),
    ("gn4", MAP): ("gn4 makes 4 groups, and 6 channels are no multiple of 4.", False),
    ("maxout4", MAP): ("maxout4 takes the largest of every 4 channels, and 6 channels are no multiple of 4.", False),
    ("pool3p2", MAP): ("pool3p2 has more padding than half its window of 3x3", False),
    ("fc16777216", MAP): ("fc16777216 would have 10,871,635,968 weights, and at most 2,147,483,647 can be. Take smaller numbers.", False),
    ("conv16777216k1", (6, 99, 99)): ("conv16777216k1 would have 164,433,494,016 outputs", False),
    ("adapt99999", MAP): ("adapt99999 would have 59,998,800,006 outputs", False),
    ("spp4000", (999, 9, 9)): ("spp4000 would have 15,984,000,000 outputs", False),
}


@pytest.mark.parametrize(("text", "shape"), MISFITS)
def test_where_a_layer_cannot_stand(text, shape):
    words, small = MISFITS[text, shape]
    with pytest.raises(MisfitError) as error:
        made(text, shape)
    assert words in str(error.value) and error.value.small == small
