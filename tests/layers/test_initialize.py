"""First weights: the laws of variance, orthogonality, what is filled and what is left alone, and what is refused."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import twofold.nn
from twofold.layers import initialize as page
from twofold.layers.initialize import INITIALIZERS, fans, initialize
from twofold.space.connection import ConnectedConv2d, full

RANDOM = [name for name in INITIALIZERS if name not in ("identity", "constant")]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def filled(name, *shape, seed=0, dtype=torch.float64, **options):
    return INITIALIZERS[name](torch.full(shape, float("nan"), dtype=dtype), generator(seed), **options)


@pytest.mark.parametrize(
    ("shape", "expected"), [((4, 3), (3, 4)), ((8, 3, 5), (15, 40)), ((8, 3, 5, 2), (30, 80)), ((2, 3, 2, 2, 2), (24, 16))]
)
def test_fans(shape, expected):
    assert fans(shape) == expected


VARIANCES = {
    "lecun": lambda fan_in, fan_out: 1 / fan_in,
    "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he": lambda fan_in, fan_out: 2 / fan_in,
}


@pytest.mark.parametrize("shape", [(300, 200), (60, 20, 7, 5)])
@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize("law", VARIANCES)
def test_the_variance_is_that_of_the_law(law, kind, shape):
    weight = filled(f"{law}_{kind}", *shape)
    n, variance = weight.numel(), VARIANCES[law](*fans(shape))
    assert abs(weight.mean().item()) < 5 * (variance / n) ** 0.5
    assert weight.var().item() == pytest.approx(variance, rel=5 * (2 / n) ** 0.5)
    largest = weight.abs().max().item() / variance**0.5
    if kind == "uniform":  # never beyond the edge, and near it
        assert 0.999 * 3**0.5 < largest <= 3**0.5
    else:
        assert largest > 3.5
        within = (weight.abs() < variance**0.5).double().mean().item()
        assert within == pytest.approx(math.erf(0.5**0.5), abs=0.01)


def test_glorot_uniform_is_equation_16():
    edge = 6**0.5 / (50 + 70) ** 0.5
    weight = filled("glorot_uniform", 70, 50)
    assert 0.99 * edge < weight.max().item() <= edge and -edge <= weight.min().item() < -0.99 * edge


def test_the_plain_distributions():
    weight = filled("uniform", 200, 300, low=1.0, high=3.0)
    assert weight.min() >= 1 and weight.max() < 3
    assert weight.mean().item() == pytest.approx(2, abs=0.01) and weight.var().item() == pytest.approx(1 / 3, rel=0.02)
    weight = filled("normal", 200, 300, mean=1.0, std=2.0)
    assert weight.mean().item() == pytest.approx(1, abs=0.04) and weight.std().item() == pytest.approx(2, rel=0.02)
    assert filled("constant", 2, 3, value=0.5).tolist() == [[0.5] * 3] * 2


@pytest.mark.parametrize(("law", "activation"), [("lecun", lambda z: z), ("he", F.relu)])
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_a_layer_keeps_the_size_of_the_signal(law, activation, kind):
    z = torch.randn(100, 300, generator=generator(99), dtype=torch.float64)
    after = [(activation(z) @ filled(f"{law}_{kind}", 40, 300, seed=seed).t()).square().mean() for seed in range(50)]
    assert torch.stack(after).mean().item() == pytest.approx(1, abs=0.02)


def test_he_keeps_through_relu_what_lecun_loses():
    sizes = {}
    for name in ("he_normal", "lecun_normal"):
        x = torch.randn(400, 300, generator=generator(99), dtype=torch.float64)
        for layer in range(10):
            x = F.relu(x @ filled(name, 300, 300, seed=layer).t())
        sizes[name] = x.square().mean().item()
    assert sizes["lecun_normal"] / sizes["he_normal"] == pytest.approx(2**-10, rel=1e-9)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_glorot_keeps_signal_and_gradient_between_equal_sizes_and_else_lies_between(kind):
    for D, U in ((200, 200), (100, 300)):
        x, dy = (torch.randn(100, n, generator=generator(99), dtype=torch.float64) for n in (D, U))
        weights = [filled(f"glorot_{kind}", U, D, seed=seed) for seed in range(50)]
        there = torch.stack([(x @ weight.t()).square().mean() for weight in weights]).mean().item()
        back = torch.stack([(dy @ weight).square().mean() for weight in weights]).mean().item()
        assert there == pytest.approx(2 * D / (D + U), rel=0.03) and back == pytest.approx(2 * U / (D + U), rel=0.03)


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5), (6, 2, 3, 2), (20, 2, 3, 2)])
def test_orthogonal_rows_or_columns_of_the_length_of_the_gain(shape):
    matrix = filled("orthogonal", *shape, gain=3.0).flatten(1)
    product = matrix @ matrix.t() if matrix.shape[0] <= matrix.shape[1] else matrix.t() @ matrix
    assert torch.allclose(product, 9 * torch.eye(len(product), dtype=torch.float64), rtol=0, atol=1e-12)


def test_orthogonal_favours_no_sign():
    corners = torch.stack([filled("orthogonal", 3, 3, seed=seed).diagonal() for seed in range(400)])
    assert (corners.mean(0).abs() < 5 * (1 / 3 / 400) ** 0.5).all()


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
def test_identity_passes_the_input_on(shape):
    x = torch.arange(1.0, shape[1] + 1, dtype=torch.float64)
    y = filled("identity", *shape) @ x
    assert y.tolist() == [*x[: shape[0]].tolist(), *[0.0] * (shape[0] - shape[1])]


def test_identity_of_a_convolution_passes_the_map_on():
    maps = torch.randn(2, 3, 5, 6, generator=generator(), dtype=torch.float64)
    assert torch.equal(F.conv2d(maps, filled("identity", 3, 3, 3, 5), padding=(1, 2)), maps)


@pytest.mark.parametrize("name", RANDOM)
def test_a_seed_repeats_and_another_differs(name):
    assert torch.equal(filled(name, 4, 5), filled(name, 4, 5))
    assert not torch.equal(filled(name, 4, 5), filled(name, 4, 5, seed=1))


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parameters_are_filled_in_place_without_a_graph(name, dtype):
    weight = nn.Parameter(torch.full((6, 4), float("nan"), dtype=dtype))
    assert INITIALIZERS[name](weight, generator()) is weight
    assert weight.isfinite().all() and weight.grad_fn is None and weight.requires_grad and weight.dtype == dtype


def test_a_view_fills_its_part():
    weight = torch.zeros(4, 6)
    page.normal(weight[:, ::2], generator())
    assert weight[:, 1::2].count_nonzero() == 0 and weight[:, ::2].count_nonzero() == 12


def test_the_whole_model_is_filled_and_its_normalisation_is_not():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    initialize(model, "constant", bias=0.25, value=0.5)
    conv, norm, _, linear = model
    for layer in (conv, linear):
        assert (layer.weight == 0.5).all() and (layer.bias == 0.25).all()
    assert (norm.weight == 1).all() and (norm.bias == 0).all()


@pytest.mark.parametrize("name", RANDOM)
def test_the_seed_decides_and_leaves_torchs_generator_alone(name):
    models = [nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4)) for _ in range(3)]
    before = torch.get_rng_state()
    for model, seed in zip(models, (7, 7, 8), strict=True):
        initialize(model, name, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(models[0][1].weight, models[1][1].weight) and not torch.equal(models[0][1].weight, models[2][1].weight)
    torch.manual_seed(7)
    initialize(models[2], name)
    assert torch.equal(models[2][0].weight, models[0][0].weight)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1), (nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_every_gate_of_a_recurrent_layer_is_a_map_of_its_own(kind, gates):
    layer = kind(6, 5).double()
    initialize(layer, "orthogonal", seed=0)
    recurrent = [weight for name, weight in layer.named_parameters() if name.startswith("weight_hh")]
    for gate in (gate for weight in recurrent for gate in weight.chunk(gates)):
        assert torch.allclose(gate @ gate.t(), torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_projection_of_an_lstm_is_one_map():
    layer = nn.LSTM(6, 8, proj_size=4).double()
    initialize(layer, "orthogonal", seed=0)
    (projection,) = [weight for name, weight in layer.named_parameters() if name.startswith("weight_hr")]
    assert torch.allclose(projection @ projection.t(), torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-12)


def test_every_group_of_a_convolution_is_a_map_of_its_own():
    layer = nn.Conv2d(6, 6, 3, padding=1, groups=3, bias=False)
    initialize(layer, "identity")
    maps = torch.randn(2, 6, 4, 5, generator=generator())
    assert torch.equal(layer(maps), maps)


def test_a_transposed_convolution_counts_its_inputs_on_the_first_axis():
    layer = nn.ConvTranspose2d(400, 50, 2)
    initialize(layer, "lecun_normal", seed=0)
    assert layer.weight.var().item() == pytest.approx(1 / 1600, rel=0.03)


def striped(filters, channels):
    """A table with few and many inputs for each map: map f sees the first 1, 2, .. channels."""
    return torch.ones(filters, channels).tril(channels - filters).bool()


@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize("law", VARIANCES)
def test_a_connection_counts_what_its_own_map_sees_and_who_sees_its_channel(law, kind):
    table = striped(4, 6)  # maps that see 3, 4, 5, 6 channels; channels that 4, 4, 4, 3, 2, 1 maps see
    layer = ConnectedConv2d(6, 4, 40, table=table).double()
    initialize(layer, f"{law}_{kind}", seed=0)
    seen, seen_by = table.sum(1).tolist(), table.sum(0).tolist()
    assert (seen, seen_by) == ([3, 4, 5, 6], [4, 4, 4, 3, 2, 1])
    for kernel, (f, c) in zip(layer.weight.detach(), table.nonzero().tolist(), strict=True):
        assert kernel.square().mean().item() == pytest.approx(VARIANCES[law](1600 * seen[f], 1600 * seen_by[c]), rel=0.15)
    whole, plain = ConnectedConv2d(3, 2, 5, table=full(3, 2)), nn.Conv2d(3, 2, 5)
    for model in (whole, plain):
        initialize(model, f"{law}_{kind}", seed=0)
    assert torch.equal(whole.dense(), plain.weight)


def test_the_other_schemes_of_a_connection_table():
    table = striped(4, 6)
    layer = ConnectedConv2d(6, 4, 3, padding=1, table=table, bias=False).double()
    initialize(layer, "orthogonal", seed=0, gain=2.0)
    assert torch.allclose(layer.dense().flatten(1).norm(dim=1), torch.tensor(2.0).double(), rtol=1e-12)
    initialize(layer, "identity")
    maps = torch.randn(2, 6, 5, 5, generator=generator(), dtype=torch.float64)
    assert torch.equal(layer(maps), maps[:, :4])
    initialize(layer, "constant", value=0.5)
    assert torch.equal(layer.dense(), 0.5 * table.double()[:, :, None, None].expand(4, 6, 3, 3))


def forget_biases(layer):
    """The sums of the two biases: forget gate, others."""
    total = sum(values.detach() for name, values in layer.named_parameters() if name.startswith("bias"))
    gates = total.reshape(4, -1)
    return gates[1], gates[[0, 2, 3]]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.LSTMCell])
def test_the_forget_bias(kind):
    model = nn.Sequential(nn.Linear(3, 3), kind(3, 5))
    initialize(model, "glorot_uniform", bias=0.25, forget_bias=1.0)
    forget, others = forget_biases(model[1])
    assert forget.tolist() == [1.0] * 5
    assert (others == 0.25).all() and (model[0].bias == 0.25).all()


def test_the_forget_bias_of_construction_is_kept():
    layer = nn.LSTM(3, 5)
    layer.forget_bias = 2.0
    initialize(layer, "glorot_uniform")
    assert forget_biases(layer)[0].tolist() == [2.0] * 5
    initialize(layer, "glorot_uniform", forget_bias=0.5)
    assert forget_biases(layer)[0].tolist() == [0.5] * 5


def test_the_padding_row_stays_zero():
    layer = nn.Embedding(5, 3, padding_idx=2)
    initialize(layer, "normal", seed=0)
    assert layer.weight[2].tolist() == [0.0] * 3 and layer.weight.count_nonzero() == 12


SIZED = [name for name in INITIALIZERS if name not in ("uniform", "normal", "constant")]


@pytest.mark.parametrize("name", SIZED)
def test_the_rows_of_an_embedding_have_length_one_and_so_has_an_output_layer_that_shares_it(name):
    model = nn.Sequential(nn.Linear(100, 2000), nn.Embedding(2000, 100))
    model[0].weight = model[1].weight
    initialize(model, name, seed=0)
    assert model[1].weight.square().mean().item() == pytest.approx(1 / 100, rel=0.02)


def test_an_embedding_follows_a_scheme_that_looks_at_no_sizes():
    layer = nn.Embedding(50, 3)
    initialize(layer, "uniform", low=2.0, high=3.0)
    assert layer.weight.min() >= 2


def test_the_weights_from_state_to_state_may_have_a_scheme_of_their_own():
    layer = nn.LSTM(3, 5)
    initialize(layer, "normal", recurrent="identity", mean=7.0)
    assert torch.equal(layer.weight_hh_l0, torch.eye(5).repeat(4, 1)) and (layer.weight_ih_l0 > 6).all()


@pytest.mark.parametrize(("layer", "name"), [(nn.LayerNorm((3, 4)), "weight"), (nn.RMSNorm((3, 4)), "weight")])
def test_gains_of_several_axes_are_no_weights(layer, name):
    initialize(layer, "normal", bias=1.0)
    assert (layer.get_parameter(name) == 1).all() and (getattr(layer, "bias", None) is None or (layer.bias == 0).all())


def test_stacked_maps_of_other_layers():
    layer, attention = twofold.nn.MinGRU(6, 5).double(), nn.MultiheadAttention(6, 2).double()
    for model in (layer, attention):
        initialize(model, "orthogonal", seed=0)
    maps = (*layer.weight_ih.chunk(2), *attention.in_proj_weight.chunk(3))
    for rows in maps:
        assert torch.allclose(rows @ rows.t(), torch.eye(len(rows), dtype=torch.float64), rtol=0, atol=1e-12)


def test_biases_alone():
    model = nn.Sequential(nn.Linear(3, 2), twofold.nn.LSTM(2, 3, forget_bias=1.0))
    before = {name: values.clone() for name, values in model.state_dict().items()}
    initialize(model, None, None, forget_bias=2.0)
    forget, _ = forget_biases(model[1])
    changed = [name for name, values in model.state_dict().items() if not torch.equal(values, before[name])]
    assert forget.tolist() == [2.0] * 3 and changed == ["1.bias_ih_l0"]
    initialize(model, None, 0.01)
    changed = [name for name, values in model.state_dict().items() if not torch.equal(values, before[name])]
    assert (model[0].bias == 0.01).all() and all("bias" in name for name in changed)


def test_what_is_frozen_is_left_alone():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    before = [values.clone() for values in model[0].parameters()]
    initialize(model, "constant", bias=0.5, value=0.5)
    assert all(torch.equal(a, b) for a, b in zip(model[0].parameters(), before, strict=True))
    assert (model[1].weight == 0.5).all()


def test_shared_weights_are_filled_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    pair = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    initialize(model, "normal", seed=0)
    initialize(pair, "normal", seed=0)
    assert torch.equal(model[0].weight, pair[0].weight) and torch.equal(model[2].weight, pair[1].weight)


BAD = {
    "zeros": (lambda: initialize(nn.Linear(2, 2), "zeros"), "initialize: expected a weight of 2 or more axes to have a value other than 0"),
    "constant zero": (lambda: initialize(nn.Linear(2, 2), "constant", value=0), "all units would stay the same (symmetry)"),
    "constant zero alone": (lambda: page.constant(torch.ones(2, 2), value=0.0), "constant: expected a weight of 2 or more axes"),
    "no value": (lambda: initialize(nn.Linear(2, 2), "constant"), "initialize: constant needs its value, as in value=0.1."),
    "misspelt": (lambda: initialize(nn.Linear(2, 2), "glorot_unifrom"), "got 'glorot_unifrom'. Did you mean \"glorot_uniform\"?"),
    "unknown": (lambda: initialize(nn.Linear(2, 2), "best"), "initialize: expected a scheme of uniform, normal, lecun_uniform"),
    "option": (lambda: initialize(nn.Linear(2, 2), "normal", sdt=1.0), "initialize: normal has no option 'sdt'; it has mean, std."),
    "option of none": (lambda: initialize(nn.Linear(2, 2), "he_normal", gain=2), "he_normal has no option 'gain'; it has none."),
    "no LSTM": (lambda: initialize(nn.Linear(2, 2), "normal", forget_bias=1.0), "got forget_bias=1.0, but Linear has no LSTM with biases"),
    "LSTM without bias": (lambda: initialize(nn.LSTM(2, 2, bias=False), "normal", forget_bias=1.0), "but LSTM has no LSTM with biases"),
    "lazy": (lambda: initialize(nn.LazyLinear(2), "normal"), "LazyLinear does not know its sizes yet. Run the model on one batch first."),
    "a bias": (
        lambda: page.glorot_normal(torch.ones(3)),
        "fans: expected the shape of a weight with 2 or more axes, none of them empty, got (3,).",
    ),
    "empty": (lambda: page.he_normal(torch.ones(3, 0)), "got (3, 0)."),
    "range": (lambda: page.uniform(torch.ones(3, 3), low=1.0, high=1.0), "uniform: expected low below high, got low=1.0, high=1.0."),
    "deviation": (lambda: page.normal(torch.ones(3, 3), std=0.0), "normal: expected a standard deviation std above 0, got 0.0."),
    "gain": (lambda: page.orthogonal(torch.ones(3, 3), gain=0.0), "orthogonal: expected a gain above 0, got 0.0."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
