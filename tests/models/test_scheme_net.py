"""Nets from schemes: equal to hand-built ones, shapes foretold, what is not written, projections, names, and every refusal."""

import random
import time
from collections import OrderedDict

import pytest
import torch
from torch import nn as theirs

import twofold
from twofold import nn
from twofold.models.catalogue import MODELS, build, canonical, configure, find
from twofold.models.scheme_net import Residual, SchemeConfig, made_for, plan
from twofold.train.signals import StoppedError


class Sum(theirs.Module):
    def __init__(self, body, shortcut):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


def lecture():
    return theirs.Sequential(
        theirs.Conv2d(3, 32, 3, padding=1), theirs.ReLU(), theirs.MaxPool2d(2), theirs.Conv2d(32, 64, 3, padding=1), theirs.ReLU(),
        theirs.MaxPool2d(2), theirs.Flatten(), theirs.Linear(64 * 3 * 4, 128), theirs.ReLU(), theirs.Linear(128, 5),
    )  # fmt: skip


def residual():
    def block(i, o, s=1):
        body = theirs.Sequential(
            theirs.Conv2d(i, o, 3, s, 1, bias=False), theirs.BatchNorm2d(o), theirs.ReLU(), theirs.Conv2d(o, o, 3, 1, 1, bias=False),
            theirs.BatchNorm2d(o),
        )  # fmt: skip
        same = i == o and s == 1
        return Sum(body, theirs.Identity() if same else theirs.Sequential(theirs.Conv2d(i, o, 1, s, bias=False), theirs.BatchNorm2d(o)))

    return theirs.Sequential(
        theirs.Conv2d(3, 8, 3, 1, 1, bias=False), theirs.BatchNorm2d(8), theirs.ReLU(), block(8, 8), theirs.ReLU(), block(8, 8),
        theirs.ReLU(), block(8, 12, 2), theirs.ReLU(), theirs.AdaptiveAvgPool2d(1), theirs.Flatten(), theirs.Linear(12, 5),
    )  # fmt: skip


def separable():
    return theirs.Sequential(
        theirs.Conv2d(3, 8, 5, 2, bias=False), theirs.BatchNorm2d(8), theirs.Hardswish(), theirs.Conv2d(8, 16, 3, padding=1, groups=8),
        theirs.Conv2d(16, 10, 1), theirs.GroupNorm(2, 10), theirs.LeakyReLU(0.1), theirs.AvgPool2d(3, 2, 1), theirs.Flatten(),
        theirs.Linear(10 * 3 * 3, 6), theirs.LayerNorm(6), theirs.Tanh(), theirs.Linear(6, 5, bias=False),
    )  # fmt: skip


BY_HAND = {
    "INPUT -> [CONV -> RELU -> POOL]*2 -> [FC -> RELU]*1 -> FC": lecture,
    "conv8 bn relu [{conv8 bn relu conv8 bn}+ relu]*2 {conv12s2 bn relu conv12 bn}+ relu gap fc": residual,
    "conv8k5s2p0 bn hardswish dwm2 conv10k1 gn leaky.1 avgpool3s2p1 fc6 ln tanh fcb0": separable,
}


@pytest.mark.parametrize("text", BY_HAND)
@pytest.mark.parametrize("training", [False, True])
def test_a_net_is_the_one_built_by_hand(text, training):
    torch.manual_seed(0)
    ours, other = build(text, in_channels=3, height=13, width=16, classes=5), BY_HAND[text]()
    state = ours.state_dict()
    assert [tuple(v.shape) for v in state.values()] == [tuple(v.shape) for v in other.state_dict().values()]
    other.load_state_dict(OrderedDict(zip(other.state_dict(), state.values(), strict=True)))
    x = torch.randn(4, 3, 13, 16)
    torch.testing.assert_close(ours.train(training)(x), other.train(training)(x), rtol=1e-5, atol=1e-5)


def numbers_in(draw, word):
    wide = draw.choice(("", "1", "2", "3", "5"))
    return {
        "conv": f"conv{draw.choice((4, 8, 12))}k{wide or 3}s{draw.choice((1, 1, 2))}{draw.choice(('', 'p0', 'p2', 'd2', 'g2'))}",
        "dw": f"dw{draw.choice(('', 'k5', 'm2', 's2'))}",
        "pool": f"{draw.choice(('', 'avg', 'lp', 'gauss'))}pool{draw.choice(('', '3s2', '3s1p1', '2x3'))}",
        "residual": f"{{conv{draw.choice((4, 8))}s{draw.choice((1, 2))} {draw.choice(('bn relu', 'gn', 'relu'))} conv8}}+",
    }.get(word, word)


def test_shapes_that_were_foretold_are_those_that_come():
    draw, ran, told = random.Random(1), 0, []
    words = ("conv", "conv", "dw", "pool", "relu", "bn", "lrn", "residual", "residual", "adapt6", "maxout")
    for _ in range(120):
        maps = [numbers_in(draw, draw.choice(words)) for _ in range(draw.randint(1, 6))]
        tail = draw.choice(("", "gap", "spp1_2", "flatten dropout", "fc9 relu", "gmp {fc12 bn tanh fc12}+"))
        text = f"conv4 [{' '.join(maps)}]*{draw.randint(1, 2)} {tail} fc"
        size = {"in_channels": 2, "height": draw.randint(6, 20), "width": draw.randint(6, 20)}
        try:
            config = SchemeConfig(text, **size)
        except ValueError as error:
            told.append(str(error))
            continue
        net, came = build(text, **size), []
        x = torch.randn(2, 2, config.height, config.width)
        for layer in net:
            x = layer(x)
            came.append(tuple(x.shape[1:]))
        assert came == [layer.shape for layer in plan(config)], text
        assert build(config.scheme, **size).config == config == net.config
        ran += 1
    assert ran > 60
    assert all(line.startswith("scheme, character ") and "The sizes up to it: 2x" in line for line in told)


@pytest.mark.parametrize(
    ("text", "filters"),
    {
        "[conv]*3 fc": [32, 32, 32],
        "[conv conv pool]*3 fc": [32, 32, 64, 64, 128, 128],
        "conv12 conv pool conv avgpool pool conv conv20 conv fc": [12, 12, 24, 96, 20, 20],
        "pool conv pool fc": [32],
        "conv8 dwm2 conv pool dw conv fc": [8, 16, 16, 16, 32],
        "conv8 pool {conv relu conv}+ {conv8}+ conv gap fc": [8, 16, 16, 16, 8, 8, 8],
        "conv16 maxout conv fc": [16, 16],
    }.items(),
)
def test_a_conv_without_a_number(text, filters):
    net = build(text)
    assert [layer.out_channels for layer in net.modules() if isinstance(layer, nn.Conv2d)] == filters


@pytest.mark.parametrize(
    ("text", "outputs"), {"fc": [7], "[fc]*3": [128, 128, 7], "fc fc20 fc7": [128, 20, 7], "[fc9 relu]*2 [fc]": [9, 9, 7]}.items()
)
def test_an_fc_without_a_number(text, outputs):
    net = build(text, classes=7)
    assert [layer.out_features for layer in net if isinstance(layer, nn.Linear)] == outputs


def test_names_can_be_read_and_neighbours_stay_neighbours():
    net = build("[conv8 bn relu pool]*2 {conv8 relu {conv8 bn}+}+ relu6 relu spp dropout [fc relu] fc")
    assert [name for name, _ in net.named_children()] == [
        "conv1", "bn1", "relu1", "pool1", "conv2", "bn2", "relu2", "pool2", "block1", "relu6_1", "relu3", "spp", "dropout1", "fc1", "relu4",
        "fc2",
    ]  # fmt: skip
    assert {"block1.body.conv1.weight", "block1.body.block1.body.bn1.running_var"} <= set(net.state_dict())


def test_what_can_be_fused_is():
    net = build("[conv16 relu pool]*2 fc", height=32, width=32).eval()
    net(torch.randn(8, 1, 32, 32))
    assert [layer.last_route for layer in (net.conv1, net.relu1, net.pool1)] == ["fused"] * 3


@pytest.mark.parametrize(
    ("text", "shortcut"),
    {
        "conv8 {conv8}+ gap fc": [],
        "conv8 {conv8s2 bn}+ gap fc": ["conv.weight", "bn.weight", "bn.bias"],
        "conv8 {conv6}+ gap fc": ["conv.weight", "conv.bias"],
        "conv8 {lrn conv6 gn2}+ gap fc": ["conv.weight", "conv.bias", "gn.weight", "gn.bias"],
        "conv8 {pool}+ gap fc": ["conv.weight", "conv.bias"],
        "gap {fc12 bn}+ fc": ["fc.weight", "bn.weight", "bn.bias"],
        "fc12 {fc12}+ fc": [],
    }.items(),
)
def test_the_shortcut_is_as_small_as_can_be(text, shortcut):
    net = build(text)
    block = next(layer for layer in net if isinstance(layer, Residual))
    assert [name for name, _ in block.shortcut.named_parameters()] == shortcut
    assert net(torch.randn(2, 1, 28, 28)).shape == (2, 10)


def test_every_weight_gets_a_gradient():
    torch.manual_seed(0)
    net = build("conv8 bn relu [{conv8 bn silu conv12s2 bn}+ gelu]*2 spp1_2 [fc relu dropout] fc")
    net(torch.randn(4, 1, 28, 28)).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


SIZE = {"in_channels": 1, "height": 28, "width": 28, "classes": 10}
REFUSED = {  # the text, with ^ before the character that is wrong, what is changed, and the words
    "conv64k5p0 pool4 conv64k5p0 pool2 ^conv64k5p0 gap fc": (
        {"in_channels": 3, "height": 32, "width": 40},
        "conv64k5p0 needs a map of at least 5x5, and a map of 1x2 comes in. The sizes up to it: 3x32x40 -> conv64k5p0 64x28x36 -> "
        "pool4 64x7x9 -> conv64k5p0 64x3x5 -> pool 64x1x2. It works for pictures from 60x60: take a larger --image-size, fewer poolings "
        "and strides, or more padding.",
    ),
    "[conv4 ^pool]*6 fc": ({}, "pool needs a map of at least 2x2, and a map of 1x1 comes in."),
    "[conv4 relu pool]*3^": ({}, "expected class scores at the end, and the last layer is pool. Add an fc: it has as many outputs as"),
    "conv4 {conv4}+^": ({}, "expected class scores at the end, and the last layer is a residual group. Add an fc"),
    "[fc relu]*2^": ({}, "and the last layer is relu. End with an fc: what stands behind it would change the scores."),
    "conv4 fc -> ^FC7": ({}, "expected 10 class scores at the end, and fc7 gives 7. Leave its number out."),
    "conv4 ^gap": ({}, "expected 10 class scores at the end, and gap gives 4. End with an fc, or give the last conv 10 filters."),
    "^[fc]*0": ({}, "no layer is left: everything is repeated 0 times."),
    "conv ^{[conv]*0}+ fc": ({}, "no layer is left in this residual group: everything is repeated 0 times."),
    "fc ^conv fc": ({}, "conv works on maps, and what comes here are 128 features. Put it before gap, spp, flatten and fc."),
    "conv4 ^{conv4k3p0}+ gap fc": (
        {},
        "a residual group adds its input, 4x28x28, to its output, 4x26x26: no stride of a 1x1 convolution leads from one map to the other. "
        "Keep the size by padding, or halve it by s2.",
    ),
    "conv4 ^{gap}+ fc": ({}, "adds its input, 4x28x28, to its output, 4: maps cannot become features in it."),
    "conv8 ^{gn4 conv6}+ gap fc": ({}, "in the convolution between them, gn4 makes 4 groups, and 6 channels are no multiple of 4."),
    "conv9 ^conv9g2 fc": ({}, "conv9g2 is in 2 groups"),
    "[^conv30000 relu]*3 fc": ({}, "conv30000 would have 8,100,000,000 weights, and at most 2,147,483,647 can be."),
}  # fmt: skip


@pytest.mark.parametrize("marked", REFUSED)
def test_a_net_that_cannot_be_is_shown_at_its_character(marked):
    (changes, words), place, text = REFUSED[marked], marked.index("^"), marked.replace("^", "")
    with pytest.raises(ValueError) as error:
        SchemeConfig(text, **{**SIZE, **changes})
    assert str(error.value).startswith(f"scheme, character {place + 1}: ") and words in str(error.value)
    assert error.value.__notes__ == [f"    {text}\n    {' ' * place}^"]


def test_the_smallest_picture_that_is_named_works_and_one_less_does_not():
    text = "conv4k5p0 pool4 conv4k5p0 pool2 conv4k5p0 gap fc"
    assert build(text, height=60, width=60)(torch.zeros(1, 1, 60, 60)).shape == (1, 10)
    with pytest.raises(ValueError, match="from 60x60"):
        build(text, height=59, width=60)


def test_of_a_long_way_the_middle_is_left_out():
    with pytest.raises(ValueError, match="The sizes up to it: 1x28x28 -> conv2 2x28x28 -> ") as error:
        SchemeConfig("conv1 conv2 conv3 conv4 conv5 conv6 conv7 conv8 conv9 conv10 conv11 conv12 conv13 conv14 conv15p0k99 fc")
    assert "-> conv3 3x28x28 -> ... -> conv7 7x28x28" in str(error.value)


BAD = {
    "picture": (lambda: SchemeConfig("fc", height=0), "scheme: expected height to be at least 1, got 0."),
    "classes": (lambda: SchemeConfig("fc", classes=1), "scheme: expected classes to be at least 2, got 1."),
    "one score": (lambda: find("fc1"), "expected at least 2 class scores at the end, and fc1 gives 1."),
    "option": (lambda: configure("fc", clases=3), "scheme: no option 'clases'; it has scheme, in_channels,"),
    "another scheme": (lambda: configure("conv -> fc", scheme="fc"), "scheme: the model is conv fc, and its config says fc."),
    "no text": (lambda: configure("fc", scheme=3), "scheme: expected scheme to be text, got 3."),
    "memory": (lambda: build("[conv15000k1 relu]*900 fc"), "weights need"),
    "a name": (lambda: find("resnet19"), "no model 'resnet19': did you mean"),
    "two words": (lambda: find("lenet 5"), 'did you mean "lenet5"'),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name):
    call, words = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


def test_what_is_too_much_is_refused_at_once():
    began = time.process_time()
    for text in ("[[[[conv]*1000]*1000]*1000]", "[[[[conv]*0]*1000]*1000]*1000", "[conv pool]*900 fc", "{[bn]*999}+*2 fc" * 9, "[" * 9999):
        with pytest.raises(ValueError, match="^scheme, character"):
            find(text)
    assert time.process_time() - began < 5


def test_a_scheme_is_a_model_like_any_other():
    text = "INPUT -> [CONV8 -> RELU]*1 -> GAP -> FC"
    found = find(text)
    assert text not in MODELS and found.task == "classify" and found.preset == SchemeConfig("[conv8 relu] gap fc")
    assert canonical(text) == "[conv8 relu] gap fc" and canonical("lenet5") == "lenet5"
    assert configure(text, height=9, classes=3).as_dict() == {
        "scheme": "[conv8 relu] gap fc", "in_channels": 1, "height": 9, "width": 28, "classes": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "size"),
    {"fc": (1, 28, 28, 10), "[conv pool]*6 fc4": (1, 64, 64, 4), "conv6g6 fc": (6, 28, 28, 10), "conv3g3k1 gap": (3, 28, 28, 3)}.items(),
)
def test_what_a_scheme_is_made_for(text, size):
    made = made_for(text)
    assert (made.in_channels, made.height, made.width, made.classes) == size


def test_it_trains_resumes_and_loads_again(tmp_path):
    def stop(epoch, score, scores):
        raise StoppedError(2)

    settings = {"model": "INPUT -> [CONV8 -> BN -> RELU -> POOL]*2 -> FC", "epochs": 2, "quiet": True, "seed": 3}
    with pytest.raises(StoppedError):
        twofold.fit("digits", out=tmp_path, after_epoch=stop, **settings)
    resumed, again = twofold.resume(tmp_path, quiet=True), twofold.load(tmp_path)
    assert again.model.config == resumed.model.config == SchemeConfig("[conv8 bn relu pool]*2 fc", 1, 8, 8, 10)
    assert again.evaluate().scores == resumed.metrics["test"]
    assert resumed.metrics["test"]["accuracy"] > 0.7
