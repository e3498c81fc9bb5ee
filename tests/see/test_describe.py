"""Descriptions: every number that is printed against a run, a count and the sum that is printed with it."""

import ast
import operator
import re
from fractions import Fraction
from math import ceil, floor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn as torch_nn
from torch.utils.flop_counter import FlopCounterMode

import twofold
from twofold import nn
from twofold.models.catalogue import build
from twofold.see.arithmetic import law_of
from twofold.see.describe import describe
from twofold.see.description import HEADER
from twofold.space.connection import LENET5_C3
from twofold.time.unrolled import Recurrent

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.USub: operator.neg}
FUNCTIONS = {"floor": floor, "ceil": ceil, "max": max}


def value(text):
    """What an expression of numbers, + - * /, floor, ceil and max comes to."""

    def of(node):
        if isinstance(node, ast.Call):
            return FUNCTIONS[node.func.id](*map(of, node.args))
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](of(node.left), of(node.right))
        return OPERATORS[type(node.op)](of(node.operand)) if isinstance(node, ast.UnaryOp) else Fraction(str(node.value))

    return of(ast.parse(re.sub(r"(?<=\d),(?=\d{3})", "", text).strip(), mode="eval").body)


def agree(text):
    """The common value of all the sides of a = b = c."""
    values = {value(side) for side in text.split(" = ")}
    assert len(values) == 1, text
    return int(values.pop())


def check(layer, shape):
    """Everything that is said of the layer, for an input with its batch."""
    assert law_of(layer, shape) is not None, f"no law for {layer}"
    said = describe(layer, shape, batched=True)
    real = first(layer.eval()(stand_in(layer, shape)))
    assert said.output == tuple(real.shape) and said.input == shape
    names = [axis for axis, _ in said.sizes if axis in ("steps", "planes", "rows", "columns")]
    for axis, derivation in said.sizes:
        if axis in names and " as asked" not in derivation:
            parts = derivation.split(", but only ")  # what rounding up must not do
            came = agree(re.sub(r" windows .*", "", parts[-1]))
            assert agree(parts[0]) >= came == real.shape[names.index(axis) - len(names)]
        elif axis.startswith("padding"):
            total, before, after = re.fullmatch(r"(.*): (\d+) before, (\d+) after", derivation).groups()
            assert agree(total) == int(before) + int(after)
    assert said.parameters.number == sum(p.numel() for p in layer.parameters())
    assert said.output_bytes.number == real.numel() * real.element_size()
    for counted in (said.parameters, said.multiply_adds, said.output_bytes):
        assert not counted.is_expression or value(counted.derivation) == counted.number
    return said


def first(output):
    return output if isinstance(output, torch.Tensor) else output[0]


def stand_in(layer, shape):
    return torch.zeros(shape, dtype=torch.long) if isinstance(layer, torch_nn.Embedding) else torch.zeros(shape)


def products(layer, shape):
    """Multiplications, counted by torch while the layer runs on shapes alone."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer.to("meta")(stand_in(layer, shape).to("meta"))
    return counter.get_total_flops() // 2


# (layer, input with its batch): all that multiply weights with inputs.
WEIGHTED = [
    (nn.Conv1d(4, 6, 3, 2, 1, groups=2), (2, 4, 11)),
    (nn.Conv2d(3, 8, (3, 5), (2, 1), "same_upper", bias=False), (2, 3, 9, 7)),
    (nn.Conv2d(3, 8, 2, padding=((0, 1), (2, 0)), dilation=3), (1, 3, 9, 7)),
    (nn.Conv2d(3, 8, 4, 3, padding="same_lower"), (1, 3, 9, 7)),
    (nn.Conv3d(2, 3, 2, padding="full"), (1, 2, 4, 5, 6)),
    (nn.DepthwiseConv2d(3, 3, multiplier=2, padding="same"), (1, 3, 8, 8)),
    (nn.ConnectedConv2d(6, 16, 5, table=LENET5_C3), (1, 6, 14, 14)),
    (nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, groups=2), (2, 4, 11)),
    (nn.ConvTranspose2d(3, 4, (4, 3), (2, 3), padding=((0, 1), (2, 0)), bias=False), (2, 3, 5, 6)),
    (nn.ConvTranspose2d(3, 4, 4, 2, padding="same_upper"), (1, 3, 5, 6)),
    (nn.ConvTranspose3d(2, 2, 2, 2, dilation=2), (1, 2, 3, 3, 3)),
    (nn.SymmetricConv2d(1, 3, 3, reflections=True, scales=(1, 2), padding="same"), (2, 1, 9, 7)),
    (nn.LiftingConv2d(3, 4, 3), (2, 3, 8, 8)),
    (nn.GroupConv2d(4, 2, 3, bias=False), (2, 4, 4, 8, 8)),
    (nn.GaussianPool2d(3, 2, 1), (2, 3, 9, 9)),
    (nn.Linear(5, 7), (3, 5)),
    (nn.Linear(5, 7, bias=False), (2, 3, 5)),
    (nn.LSTM(5, 7, 2, bidirectional=True), (4, 2, 5)),
    (nn.LSTM(5, 7, proj_size=3, bias=False, batch_first=True), (4, 2, 5)),
    (nn.GRU(5, 7, 2), (4, 2, 5)),
    (nn.RNN(5, 7, bidirectional=True), (4, 2, 5)),
    (nn.RNN(5, 7, 2, bidirectional=True, layer_norm=True, learn_state=True), (4, 2, 5)),
    (nn.GRU(5, 7, reset="before", layer_norm=True, zoneout=0.5), (4, 2, 5)),
    (nn.LSTM(5, 7, 2, bidirectional=True, proj_size=3, layer_norm=True, learn_state=True), (4, 2, 5)),
    (nn.LSTM(5, 7, coupled=True, bias=False), (4, 2, 5)),
    (nn.LSTMCell(5, 7), (4, 5)),
    (nn.LSTMCell(5, 7, coupled=True, layer_norm=True), (4, 5)),
    (nn.RNNCell(5, 7, layer_norm=True), (4, 5)),
    (nn.GRUCell(5, 7, bias=False), (4, 5)),
]
OTHERS = [
    (nn.MaxPool1d(3, 2, 1), (2, 3, 10)),
    (nn.MaxPool2d(3, 3, ceil_mode=True), (1, 2, 98, 97)),
    (nn.MaxPool2d(2, 3, 1, ceil_mode=True), (1, 2, 7, 9)),
    (nn.AvgPool2d(3, 2, padding="same_upper"), (1, 2, 8, 9)),
    (nn.AvgPool3d(2), (1, 2, 4, 5, 6)),
    (nn.LPPool2d(3, 2, padding=1), (1, 2, 6, 6)),
    (nn.StochasticPool2d(2), (1, 2, 6, 6)),
    (nn.AdaptiveAvgPool2d((None, 3)), (1, 2, 6, 7)),
    (nn.AdaptiveMaxPool3d(2), (1, 2, 4, 5, 6)),
    (nn.GlobalAvgPool(), (2, 3, 4, 5)),
    (nn.GlobalMaxPool(flatten=True), (2, 3, 4)),
    (nn.SpatialPyramidPool2d(), (2, 3, 9, 9)),
    (nn.GroupPool2d(), (2, 3, 4, 5, 5)),
    (nn.Upsample(scale_factor=1.5), (1, 2, 5, 4)),
    (nn.Upsample((7, 3), mode="bilinear"), (1, 2, 5, 4)),
    (nn.Embedding(9, 4), (3, 2)),
    (nn.BatchNorm1d(3), (2, 3)),
    (nn.BatchNorm2d(3, affine=False), (2, 3, 4, 4)),
    (nn.LayerNorm((3, 4)), (2, 3, 4)),
    (nn.GroupNorm(2, 4), (2, 4, 3)),
    (nn.InstanceNorm2d(3), (2, 3, 4, 4)),
    (nn.LocalResponseNorm(3), (2, 3, 4, 4)),
    (nn.Maxout(2), (2, 6, 3)),
    (nn.Flatten(), (2, 3, 4)),
    (nn.PReLU(3), (2, 3, 4)),
    (nn.Softmax(1), (2, 3)),
    *((kind(), (2, 3, 4)) for kind in (nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Dropout, nn.Identity, nn.Hardswish, nn.Softplus)),
]


def named(cases):
    return [pytest.param(*case, id=f"{type(case[0]).__name__}-{number}") for number, case in enumerate(cases)]


@pytest.mark.parametrize(("layer", "shape"), named(WEIGHTED))
def test_a_layer_with_weights_is_described_as_it_runs_and_its_products_are_as_many_as_torch_counts(layer, shape):
    assert check(layer, shape).multiply_adds.number == products(layer, shape)


PEEPHOLES = [  # and the products of peepholes with cells, which torch does not count
    (nn.LSTM(5, 7, 2, bidirectional=True, proj_size=3, peephole=True, layer_norm=True), (4, 2, 5), 4 * 4 * 2 * 3 * 7),
    (nn.LSTM(5, 7, peephole=True, coupled=True, learn_state=True), (4, 2, 5), 4 * 2 * 2 * 7),
    (nn.LSTMCell(5, 7, peephole=True), (4, 5), 4 * 3 * 7),
]


@pytest.mark.parametrize(("layer", "shape", "looks"), PEEPHOLES)
def test_peepholes_are_counted(layer, shape, looks):
    assert check(layer, shape).multiply_adds.number == products(layer, shape) + looks


@pytest.mark.parametrize(("layer", "shape"), named(OTHERS))
def test_a_layer_without_products_is_described_as_it_runs(layer, shape):
    check(layer, shape)


sizes = st.integers(1, 4)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["Conv1d", "ConvTranspose1d", "MaxPool1d", "AvgPool1d", "LPPool1d"]),
    st.booleans(),
    sizes,
    sizes,
    st.integers(0, 2),
    sizes,
)
def test_drawn_settings_of_ours_and_torchs(name, ours, kernel, stride, padding, dilation):
    module, shape = (nn if ours else torch_nn), (2, 4, 17)
    if name.startswith("Conv"):
        layer = getattr(module, name)(4, 6, kernel, stride, padding, groups=2, dilation=dilation)
        assert check(layer, shape).multiply_adds.number == products(layer, shape)
    elif name == "LPPool1d":
        check(module.LPPool1d(2, kernel, stride, ceil_mode=bool(padding)), shape)
    else:
        options = {"dilation": dilation} if name == "MaxPool1d" else {}
        check(getattr(module, name)(kernel, stride, min(padding, kernel // 2), ceil_mode=stride > 1, **options), shape)


def test_torchs_own_layers_are_described_as_ours():
    shape = (3, 20, 30)
    for ours, theirs in ((nn.Conv2d(3, 8, 5, 2, 1), torch_nn.Conv2d(3, 8, 5, 2, 1)), (nn.AvgPool2d(3, 2, 1), torch_nn.AvgPool2d(3, 2, 1))):
        assert describe(ours, shape).sizes == describe(theirs, shape).sizes


def test_a_page_is_as_people_write_it():
    page = str(twofold.describe(nn.Conv2d(3, 64, 7, stride=2, padding=3), (3, 224, 224)))
    for line in (
        "input                (1, 3, 224, 224)   given without a batch: B = 1",
        "  rows               floor((224 + 3 + 3 - 1*(7-1) - 1) / 2) + 1 = floor(223/2) + 1 = 112",
        "parameters           ((7*7*3)+1)*64 = 9,472",
        "multiply-adds        (1*64*112*112)*(7*7*3) = 118,013,952",
        "memory               output: (1*64*112*112)*4 = 3,211,264 bytes (3.1 MiB)",
        "                     kept for backward: 602,112 bytes (588.0 KiB): the input",
        "receptive field      7 x 7: rows 1*(7-1) + 1 = 7, columns 1*(7-1) + 1 = 7",
        "effective stride     2 x 2 from one output's field to the next",
        "first output         its field begins at (-3, -3) and has its centre at (0, 0), counted from the input's first pixel, 0",
    ):
        assert line in page.splitlines()


def test_plain_numbers_for_programs():
    told = describe(nn.MaxPool2d(3, 3, ceil_mode=True), (8, 98, 98)).to_dict()
    assert told["output"] == [1, 8, 33, 33] and told["parameters"] == 0 and told["layers"] == []
    assert told["field"] == {"extent": (3, 3), "stride": (3.0, 3.0), "first": (0, 0), "centre": (1.0, 1.0)}
    assert told["derivations"]["multiply_adds"] == "comparisons, (1*8*33*33)*(3*3 - 1) = 69,696 of them"


def test_what_backward_keeps_is_what_it_keeps_on_this_route():
    pool, shape = nn.MaxPool2d(2), (2, 3, 8, 8)
    with twofold.route("plain"):
        assert describe(pool, shape).kept_bytes == (2 * 3 * 4 * 4, "(2, 3, 4, 4) of uint8")
    kept = describe(torch_nn.MaxPool2d(2), shape).kept_bytes  # torch keeps the input, too, and places of eight bytes
    assert kept.number == 4 * 2 * 3 * 8 * 8 + 8 * 2 * 3 * 4 * 4
    assert describe(nn.Linear(5, 7).double(), (3, 5)).kept_bytes == (8 * 3 * 5, "the input")
    large = describe(nn.ReLU(), (1, 64, 1024, 1024)).kept_bytes
    assert large == (4 * 64 * 1024**2, "the output (PyTorch's own operators)")


def test_the_batch_is_read_and_told():
    def read(layer, shape, **settled):
        said = describe(layer, shape, **settled)
        return said.input, said.batch

    without, given_with = "given without a batch: B = 1", "given with its batch"
    assert read(nn.Conv1d(3, 2, 1), (3, 9)) == ((1, 3, 9), without) and read(nn.Conv1d(3, 2, 1), (4, 3, 9)) == ((4, 3, 9), given_with)
    assert read(nn.LSTM(4, 2), (9, 4)) == ((9, 1, 4), without)
    assert read(nn.LSTM(4, 2, batch_first=True), (9, 4)) == ((1, 9, 4), without)
    assert read(nn.MinGRU(4, 2), (9, 4)) == ((9, 1, 4), without)
    assert read(nn.LookAhead(nn.GRU(4, 2, bidirectional=True), 1), (9, 4)) == ((9, 1, 4), without)
    assert read(Recurrent(nn.GRUCell(4, 2), batch_first=True), (9, 4)) == ((1, 9, 4), without)
    assert read(nn.BatchNorm1d(3), (5, 3)) == ((5, 3), given_with) and read(nn.BatchNorm1d(3), (3, 5)) == ((1, 3, 5), without)
    assert read(nn.ReLU(), (3, 8, 8)) == ((1, 3, 8, 8), without) and read(nn.ReLU(), (3, 8, 8), batched=True) == ((3, 8, 8), given_with)
    assert read(nn.TransformerEncoderLayer(8, 2), (5, 2, 8)) == ((5, 2, 8), given_with)  # the other reading is refused
    assert read(build("char-lstm"), (5, 2)) == ((5, 2), "every axis as given")


def test_a_model_is_a_table_with_totals():
    model = build("lenet5")
    said = describe(model, (1, 28, 28))
    assert (said.output, said.parameters.number) == ((1, 10), 61_706)
    assert said.multiply_adds.number == products(build("lenet5"), (1, 1, 28, 28)) == sum(line.multiply_adds for line in said.layers)
    table = [line.split() for line in str(said).splitlines()]
    assert list(HEADER) in table
    assert ["conv2", "Conv2d", "1x16x10x10", "2,416", "240,000", "6,400", "14x14", "2x2"] in table
    assert ["fc1", "Linear", "1x120", "48,120", "48,000", "480", "all", "-"] in table


def test_what_has_no_law_is_measured():
    class Doubled(torch_nn.Conv2d):
        def forward(self, x):
            return torch.cat([super().forward(x)] * 2, 1)

    for layer, output in ((Doubled(3, 4, 3), (1, 8, 6, 6)), (nn.Unflatten(1, (3, 1)), (1, 3, 1, 8, 8))):
        said = describe(layer, (3, 8, 8))
        assert said.output == output and said.sizes == (("shape", "measured on a run"),) and "measured" in said.multiply_adds.derivation
    assert describe(Doubled(3, 4, 3), (3, 8, 8)).multiply_adds.number == 4 * 36 * 27
    attending = describe(nn.TransformerEncoderLayer(8, 2), (5, 2, 8))
    assert "288 of them outside the layers" in attending.parameters.derivation and "measured" in attending.multiply_adds.derivation


def test_the_layer_is_left_alone():
    layer = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout())
    before, random = {name: t.clone() for name, t in layer.state_dict().items()}, torch.get_rng_state()
    describe(layer, (1, 8, 8))
    assert layer.training and all(torch.equal(t, before[name]) for name, t in layer.state_dict().items())
    assert torch.equal(random, torch.get_rng_state()) and layer[0].last_route is None


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Conv2d(3, 4, 3), (3, 8), "describe: expected 3 numbers (C, H, W) for one sample of Conv2d, or 4 with a batch, got (3, 8)."),
        (nn.Conv2d(3, 4, 3), (1, 8, 8), "Conv2d input: expected (B, C=3, H, W), got (1, 1, 8, 8): C is 1, not 3. Grey images?"),
        (nn.Conv2d(3, 4, 9), (3, 8, 8), "Conv2d input: the kernel 9x9 does not fit into the padded map 8x8"),
        (torch_nn.Conv2d(3, 4, 3), (2, 8, 8), "Conv2d input: (1, 2, 8, 8) is refused: Given groups=1, weight of size [4, 3, 3, 3]"),
        (nn.ReLU(), (3, 0), "describe: expected input_shape as whole numbers of at least 1, such as (3, 224, 224), got (3, 0)."),
        (nn.ReLU(), 3, "describe: expected input_shape as whole numbers of at least 1, such as (3, 224, 224), got 3."),
        ("conv", (3, 8, 8), "describe: expected a layer or a model, got str."),
    ],
)
def test_bad_input_is_answered_in_a_sentence(layer, shape, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        describe(layer, shape)
