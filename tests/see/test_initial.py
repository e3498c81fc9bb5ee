"""The sizes follow the laws of the schemes, and the picture shows the sizes."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from twofold.models.catalogue import build
from twofold.see.initial import Size, apart, initial, schemes_of, sizes

WIDE, DEEP = 300, 12


def chain(activation):
    layers = [layer for _ in range(DEEP) for layer in (nn.Linear(WIDE, WIDE), activation())]
    return nn.Sequential(*layers[:-1])


def slope(values):
    """The factor from layer to layer, over the chain."""
    return (values[-1] / values[1]) ** (1 / (len(values) - 2))


LAWS = {
    "uniform": 0.2 / 3**0.5,
    "uniform(-0.05, 0.05)": 0.05 / 3**0.5,
    "normal": 0.01,
    "lecun": WIDE**-0.5,
    "glorot_uniform": WIDE**-0.5,
    "he": (2 / WIDE) ** 0.5,
    "orthogonal": WIDE**-0.5,
}


@pytest.mark.parametrize("scheme", LAWS)
@pytest.mark.parametrize(("activation", "passes"), [(nn.Identity, 1.0), (nn.ReLU, 0.5)])
def test_signal_and_gradient_change_by_the_factor_of_the_law(scheme, activation, passes):
    x = torch.randn(128, WIDE, generator=torch.Generator().manual_seed(0))
    found = sizes(chain(activation), x, scheme)
    factor = (WIDE * passes) ** 0.5 * LAWS[scheme]
    assert slope([size.signal for size in found]) == pytest.approx(factor, rel=0.05)
    assert slope([size.gradient for size in found][::-1]) == pytest.approx(factor, rel=0.05)
    assert found[-1].gradient == pytest.approx(1, rel=0.02)


def test_he_keeps_a_deep_relu_net_and_data_makes_it_one():
    x = torch.randn(128, WIDE, generator=torch.Generator().manual_seed(0))
    he = [size.signal for size in sizes(chain(nn.ReLU), x, "he")]
    assert max(he) / min(he) < 1.5
    assert [size.signal for size in sizes(chain(nn.ReLU), x, "data")] == pytest.approx([1] * DEEP, rel=1e-3)


def test_the_size_is_that_of_the_output_and_of_the_gradient_with_respect_to_it():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Dropout(0.9), nn.LayerNorm(4), nn.Linear(4, 3)), torch.randn(7, 5)
    found = sizes(model, x, seed=3)
    torch.manual_seed(3)
    noise = torch.randn(7, 3)
    model.eval()
    first = model[0](x).detach().requires_grad_()
    y = model[1:](first)
    (dfirst,) = torch.autograd.grad(y, first, noise)
    expected = [("0", "Linear", first, dfirst), ("4", "Linear", y, noise)]
    for size, (name, kind, signal, gradient) in zip(found, expected, strict=True):
        assert size[:2] == (name, kind)
        assert size[2:] == pytest.approx([part.detach().std(correction=0).item() for part in (signal, gradient)], rel=1e-5)


def test_the_model_and_torchs_generator_stay_as_they_were():
    model, x = build("vgg-mini"), torch.randn(4, 1, 8, 8)
    before, state = {name: values.clone() for name, values in model.state_dict().items()}, torch.get_rng_state()
    assert sizes(model, x, "data", seed=1) == sizes(model, x, "data", seed=1)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and all(values.grad is None for values in model.parameters())


def test_frozen_weights_keep_their_values_and_are_measured():
    model, x = nn.Linear(5, 4).requires_grad_(False), torch.randn(7, 5)
    assert sizes(model, x, "he")[0].signal == pytest.approx(model(x).std(correction=0).item()) and sizes(model, x)[0].gradient > 0


def test_the_schemes_that_fit_a_model():
    usual = ["built", "uniform", "lecun", "glorot", "he", "orthogonal"]
    assert schemes_of(nn.Linear(2, 2)) == [*usual, "data"] and schemes_of(build("word-lstm")) == [*usual, "identity"]


def test_a_recurrent_model_is_measured_from_its_tables_to_its_tied_output():
    found = sizes(build("char-lstm"), torch.randint(0, 128, (6, 4)), "identity")
    assert [size.layer for size in found] == ["embedding", "lstm", "bridge", "head"] and all(min(size[2:]) > 0 for size in found)


def rows(signals, names="abcdef"):
    return [Size(f"net.{name}", "Linear", signal, 2 * signal) for name, signal in zip(names, signals, strict=False)]


def test_the_picture_has_a_line_for_each_scheme_on_logarithmic_axes():
    figure = initial({"he": rows([1.0, 2.0, 0.5]), "lecun": rows([1e-3, 0.0, math.inf]), "normal": rows([0.0, 0.0, 0.0])}, "First weights")
    for axes, factor in zip(figure.axes, (1, 2), strict=True):
        assert axes.get_yscale() == "log" and [tick.get_text() for tick in axes.get_xticklabels()] == ["a", "b", "c"]
        lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()[1:]}
        np.testing.assert_array_equal(lines["he"], factor * np.array([1.0, 2.0, 0.5]))
        np.testing.assert_array_equal(lines["lecun"], [factor * 1e-3, np.nan, np.nan])
        named = {text.get_text(): text.get_color() for text in axes.texts[:3]}
        assert list(named) == ["he", "lecun, not finite", "normal, 0"] and len(set(named.values())) == 3
        low, high = axes.get_ylim()
        assert low < factor * 1e-3 and high > 2 * factor
    assert figure.axes[0].get_title("left") == "First weights" and figure.axes[0].texts[-1].get_text().startswith("signal: ")


def test_many_layers_are_numbered():
    axes = initial({"he": rows(range(1, 18), "abcdefghijklmnopq")}, "").axes[0]
    assert not [tick.get_text() for tick in axes.get_xticklabels() if tick.get_text().isalpha()]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ({"a": 0.5, "b": 0.1}, {"a": 0.5, "b": 0.1}),
        ({"a": 0.5, "b": 0.5, "c": 0.5}, {"a": 0.4, "b": 0.5, "c": 0.6}),
        ({"a": 1.0, "b": 0.98}, {"b": 0.9, "a": 1.0}),
        ({"a": 0.0, "b": 0.0, "c": 0.15}, {"a": 0.0, "b": 0.1, "c": 0.2}),
    ],
)
def test_names_keep_apart_and_near(places, expected):
    assert apart(places, 0.1) == pytest.approx(expected)


BAD = {
    "no scheme": (lambda: initial({}, ""), "see init: expected 1 to 8 schemes in one picture, got 0."),
    "too many": (lambda: initial({str(n): rows([1.0]) for n in range(9)}, ""), "got 9."),
    "no layer": (lambda: initial({"he": []}, ""), "see init: expected the same layers for every scheme, at least one."),
    "other layers": (lambda: initial({"he": rows([1.0]), "lecun": rows([1.0], "b")}, ""), "expected the same layers"),
    "no weights": (lambda: sizes(nn.ReLU(), torch.ones(1)), "see init: ReLU calls no layer with weights"),
    "unknown": (lambda: sizes(nn.Linear(1, 1), torch.ones(1, 1), "hee"), 'Did you mean "he"?'),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
