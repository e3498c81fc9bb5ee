"""What pooling layers share: padding in numbers and in words, windows that hold no pixel, one look per shape, and the messages."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import twofold
from twofold.layers.check import check_message, noise
from twofold.space.average_pooling import AvgPool1d, AvgPool2d, AvgPool3d, average_pool
from twofold.space.max_pooling import MaxPool1d, MaxPool2d, MaxPool3d, max_pool, max_pool_with_places
from twofold.space.pooling import misses, padding_in_words, window_of
from twofold.space.windows import Window

sizes = st.integers(1, 20)


@given(size=sizes, kernel=st.integers(1, 6), stride=st.integers(1, 6), dilation=st.integers(1, 3))
@settings(max_examples=300, deadline=None)
def test_padding_in_words_gives_the_windows_it_promises(size, kernel, stride, dilation):
    promised, spread = -(-size // stride), dilation * (kernel - 1) + 1
    for word in ("same", "same_upper", "same_lower"):
        before, after = padding_in_words(word, [size], [kernel], [stride], [dilation])
        for ceil in (False, True):
            window = window_of("Pool", 1, kernel, stride, word, dilation, ceil, (size,))
            assert window.output_size((size,)) == (promised,) and window.sides() == [(before, after)]
        assert 0 <= (before - after if word == "same_lower" else after - before) <= 1
        if word == "same":
            assert before + after == spread - 1
        elif before + after:  # one less would lose the last window
            assert size + before + after - spread == (promised - 1) * stride
    assert padding_in_words("valid", [size], [kernel], [stride], [dilation]) == (0, 0)


def test_padding_in_words_on_a_map():
    x = torch.arange(1.0, 7.0).reshape(1, 1, 1, 6)
    wanted = {"valid": [2, 4, 6], "same": [2, 4, 6], "same_upper": [2, 4, 6], "same_lower": [2, 4, 6]}
    assert {word: MaxPool2d((1, 2), (1, 2), word)(x).flatten().tolist() for word in wanted} == wanted
    wanted = {"valid": [2, 3, 4, 5, 6], "same": [2, 3, 4, 5, 6, 6], "same_upper": [2, 3, 4, 5, 6, 6], "same_lower": [1, 2, 3, 4, 5, 6]}
    assert {word: MaxPool2d((1, 2), 1, word)(x).flatten().tolist() for word in wanted} == wanted
    layer = AvgPool1d(3, 2, "same_upper", count_include_pad=False)
    assert [layer(x[0, :, :, :n]).flatten().tolist() for n in (6, 5, 6)] == [[2, 4, 5.5], [1.5, 3, 4.5], [2, 4, 5.5]]
    assert repr(layer) == "AvgPool1d(kernel_size=(3,), stride=(2,), padding=same_upper)"


def test_padding_per_side():
    x = noise(1, 2, 5, 6, grad=False)
    framed = torch.nn.functional.pad(x, (0, 1, 1, 0), value=-9.0)
    assert torch.equal(MaxPool2d(3, 2, (1, 0, 0, 1))(x), MaxPool2d(3, 2)(framed))
    assert torch.equal(AvgPool1d(2, 1, (1, 0))(x[0]), AvgPool1d(2, 1)(torch.nn.functional.pad(x[0], (1, 0))))
    assert AvgPool3d(2, 1, (0, 0, 1, 1, 0, 1))(x[None]).shape == (1, 1, 1, 6, 6)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_window_without_a_pixel_is_seen(data):
    kernel, stride, dilation, size = (data.draw(st.integers(1, most)) for most in (4, 5, 6, 7))
    sides = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
    window = Window((kernel,), (stride,), sides, (dilation,), data.draw(st.booleans()))
    if size + sum(sides) < window.spread[0]:
        return
    (number,) = window.output_size((size,))
    held = [any(0 <= p * stride - sides[0] + i * dilation < size for i in range(kernel)) for p in range(number)]
    assert misses(window, 0, size, number) == (not all(held))


def test_a_shape_that_has_passed_hides_no_later_mistake():
    layer = AvgPool2d(2, dilation=3)
    assert layer(torch.zeros(1, 1, 6, 6)).shape == layer(torch.zeros(1, 1, 6, 6)).shape == (1, 1, 2, 2)
    check_message(lambda: layer(torch.zeros(1, 1, 6, 6, dtype=torch.int32)), "expected floating point, got int32")
    check_message(lambda: layer(torch.zeros(1, 1, 6, 3)), "does not fit")
    layer.kernel_size = 4
    check_message(lambda: layer(torch.zeros(1, 1, 6, 6)), "the kernel 4x4 (dilated 10x10) does not fit into the padded map 6x6")
    layer.kernel_size = 2
    assert copy.deepcopy(layer)(torch.ones(1, 6, 6)).tolist() == [[[1.0, 1.0]] * 2]


def test_sizes_at_the_limit_do_no_harm():
    far = 2**31 - 1
    for route in ("plain", "vendor", "auto"):
        with twofold.route(route):
            assert MaxPool2d(1, stride=far, dilation=far)(torch.ones(1, 1, 3, 4)).tolist() == [[[[1.0]]]]
            assert AvgPool2d(1, stride=far)(torch.ones(1, 1, 3, 4)).tolist() == [[[[1.0]]]]
            check_message(lambda: MaxPool2d(far)(torch.ones(1, 1, 3, 4)), "does not fit")


ONE = torch.zeros(1)
BAD = {
    "two axes": (
        lambda: MaxPool2d(2)(torch.zeros(4, 4)),
        "MaxPool2d input: expected (B, C, H, W), got (4, 4): 2 axes, not 4. Two axes? One map is x[None, None].",
    ),
    "a signal": (lambda: MaxPool1d(2)(torch.zeros(4)), "MaxPool1d input: expected (B, C, T), got (4,): 1 axes, not 3. One axis?"),
    "too many axes": (
        lambda: AvgPool1d(2)(torch.zeros(1, 1, 4, 4)),
        "AvgPool1d input: expected (B, C, T), got (1, 1, 4, 4): 4 axes, not 3.",
    ),
    "a volume": (lambda: AvgPool3d(2)(torch.zeros(4, 4)), "AvgPool3d input: expected (B, C, D, H, W), got (4, 4): 2 axes, not 5."),
    "list": (lambda: MaxPool2d(2)([1.0]), "MaxPool2d input: expected a torch tensor, got list."),
    "truth": (lambda: MaxPool2d(2)(torch.zeros(1, 1, 4, 4) > 0), "MaxPool2d input: expected real numbers, got bool. Use x.float()."),
    "complex": (lambda: MaxPool1d(2)(torch.zeros(1, 1, 4) * 1j), "MaxPool1d input: expected real numbers, got complex64."),
    "bytes": (lambda: AvgPool2d(2)(torch.zeros(1, 1, 4, 4, dtype=torch.uint8)), "Bytes? Convert and scale: x.float() / 255."),
    "no channel": (lambda: MaxPool2d(2)(torch.zeros(1, 0, 4, 4)), "MaxPool2d input: expected at least one channel, got (1, 0, 4, 4)."),
    "empty map": (lambda: AvgPool2d(2)(torch.zeros(1, 1, 0, 4)), "AvgPool2d input: expected maps of at least 1x1, got 0x4."),
    "empty map, in words": (
        lambda: MaxPool1d(3, 2, "same_upper")(torch.zeros(1, 1, 0)),
        "MaxPool1d input: expected maps of at least 1, got 0.",
    ),
    "too small": (
        lambda: MaxPool2d(2)(torch.zeros(1, 1, 1, 4)),
        "MaxPool2d input: the kernel 2x2 does not fit into the padded map 1x4 (map 1x4, padding 0+0, 0+0). Use larger maps",
    ),
    "taps that miss": (
        lambda: MaxPool2d(2, 1, 1, dilation=3)(torch.zeros(1, 1, 2, 5)),
        "MaxPool2d input: a window of 2 taps with dilation 3 misses all 2 rows of the map (padding 1+1). Use a dilation of at most 2.",
    ),
    "padding alone": (
        lambda: max_pool(torch.zeros(1, 1, 3, 4, 5), Window((2, 2, 2), (1, 1, 1), (0, 0, 0, 2, 0, 0))),
        "max_pool: a window of 2 taps misses all 4 rows of the map (padding 0+2). Use less padding.",
    ),
    "average of padding alone": (
        lambda: average_pool(torch.zeros(1, 1, 3), Window((2,), (1,), (2, 0))),
        "average_pool: a window of 2 taps misses all 3 steps of the map (padding 2+0).",
    ),
    "kernel 0": (lambda: MaxPool2d(0), "MaxPool2d: expected kernel_size to be one whole number or two, from 1 to 2147483647, got 0."),
    "kernel 2.5": (lambda: AvgPool2d(2.5), "AvgPool2d: expected kernel_size to be one whole number or two"),
    "kernel of two": (lambda: MaxPool3d((2, 2)), "MaxPool3d: expected kernel_size to be one whole number or 3"),
    "overflow": (lambda: MaxPool2d(2, dilation=2**62), "MaxPool2d: expected dilation to be one whole number or two"),
    "large stride": (lambda: AvgPool2d(2, stride=2**40), "AvgPool2d: expected stride to be one whole number or two"),
    "stride 0": (lambda: AvgPool1d(2, stride=0), "AvgPool1d: expected stride to be one whole number, from 1"),
    "padding": (
        lambda: MaxPool2d((3, 2), padding=(1, 2)),
        "MaxPool2d: expected padding of at most half the kernel 3x2, got (1, 2): windows at the edge would hold padding alone.",
    ),
    "padding of a side": (lambda: AvgPool1d(3, padding=(1, 2)), "AvgPool1d: expected padding of at most half the kernel 3, got (1, 2)"),
    "padding -1": (lambda: AvgPool2d(2, padding=-1), "AvgPool2d: expected padding to be one whole number or two, from 0 to"),
    "padding of three": (lambda: AvgPool2d(2, padding=(1, 1, 1)), "AvgPool2d: expected padding to be one whole number or two"),
    "padding in other words": (
        lambda: MaxPool1d(2, padding="full"),
        'MaxPool1d: expected padding to be whole numbers or one of "valid", "same", "same_upper", "same_lower", got \'full\'.',
    ),
    "divisor": (
        lambda: AvgPool2d(2, divisor_override=0),
        "AvgPool2d: expected divisor_override to be a whole number of at least 1, got 0.",
    ),
    "map too large": (
        lambda: MaxPool2d(2)(ONE.expand(1, 1, 2**16, 2**15)),
        "MaxPool2d input: expected maps of at most 2147483647 numbers, got 1x1x65536x32768 = 2147483648.",
    ),
    "axis too large": (lambda: MaxPool1d(1, 2**31 - 1)(ONE.expand(1, 1, 2**31)), "got 1x1x2147483648"),
    "output too large": (
        lambda: AvgPool2d(2, 1, 1)(ONE.expand(1, 1, 2**16 - 1, 2**15)),
        "AvgPool2d input: expected outputs of at most 2147483647 numbers, got 1x1x65536x32769 = 2147549184. Use smaller batches",
    ),
    "columns too large": (
        lambda: max_pool_with_places.by("plain", ONE.expand(1, 1, 2**13, 2**13), Window((7, 7), (1, 1), (3,) * 4)),
        "max_pool: expected columns of at most 2147483647 numbers, got 1x1x49x8192x8192 = 3288334336. Use smaller batches",
    ),
    "frame too large": (
        lambda: average_pool.by("plain", ONE.expand(1, 1, 3, 3), Window((2, 2), (2**17,) * 2, (2**16, 2**16) * 2, (2**16, 2**16))),
        "average_pool: expected padded maps of at most 2147483647 numbers, got 1x1x",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    check_message(*BAD[name])
