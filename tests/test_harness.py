"""One harness for every layer: all layers of layer_table.py by all checks. EXCEPTIONS says what cannot be asked of one, and why.

test_contract.py proves the rest: that each is torch's class, tells its route, and exports as it computes.
"""

import copy
import pickle
import re
from itertools import pairwise
from pathlib import Path
from runpy import run_path
from shutil import which

import pytest
import torch
from torch import nn as torch_nn

import twofold
from twofold import nn
from twofold.layers.check import check_drop_in
from twofold.layers.routes import ROUTES

TABLE = run_path(str(Path(__file__).parent / "layer_table.py"))
LAYERS, OURS_ALONE, RANDOM, SEQUENCES = (TABLE[name] for name in ("LAYERS", "OURS_ALONE", "RANDOM", "SEQUENCES"))
arguments, leaves = TABLE["arguments"], TABLE["leaves"]

SIGNALS = "takes maps with any number of axes: three axes are a batch of signals"
CELLS_STATE = "its state is the cell's, whose rows come first"
REFUSED = "the compiler refuses every child of torch's recurrent layers (torch._dynamo.config.allow_rnn)"
EXCEPTIONS = {
    ("one row", "GlobalAvgPool"): SIGNALS,
    ("one row", "GlobalMaxPool"): SIGNALS,
    ("one row", "LocalResponseNorm"): SIGNALS,
    ("one row", "Upsample"): SIGNALS,
    ("empty", "CrossEntropyLoss"): "the mean of no losses is not a number, as in torch",
    **{("one row", f"{kind}Attention"): "speaks of query and keys, not of input" for kind in ("Additive", "Dot", "General")},
    ("one row", "Recurrent"): CELLS_STATE,
    **{("empty", "Recurrent", route): CELLS_STATE for route in ("plain", "auto")},
    **{("compile", name): REFUSED for name in ("GRU", "LSTM", "LookAhead", "RNN")},
    ("rows", "CrossEntropyLoss"): "is a mean over the rows, no sum",
    ("rows", "LSTM", "auto"): "torch has no batching rule for its LSTM; ours is differentiated row by row on the route plain",
}


def every_layer(check, names=LAYERS, routes=()):
    """All layers, by each of the routes where some are named. The exceptions must fail, so that none outlives its reason."""

    def mark(*which):
        reason = EXCEPTIONS.get((check, *which), EXCEPTIONS.get((check, which[0])))
        return pytest.param(*which, marks=[pytest.mark.xfail(reason=reason, strict=True)] if reason else [])

    if routes:
        return pytest.mark.parametrize(("name", "route"), [mark(name, route) for name in sorted(names) for route in routes])
    return pytest.mark.parametrize("name", [mark(name) for name in sorted(names)])


def made(name, of=nn):
    """The layer with the same weights every time, in use rather than training where it draws random numbers, and its input."""
    build, x = LAYERS[name]
    torch.manual_seed(0)
    layer = build(of)
    return layer.eval() if name in RANDOM else layer, x


def outcome(layer, x, call=None):
    """The outputs and the gradients, of the input first, of a fixed random weighing of them."""
    x = x.detach().requires_grad_(x.is_floating_point())
    y = [part for part in leaves((layer if call is None else call)(*arguments(layer, x))) if part.is_floating_point()]
    wanted = [leaf for leaf in (x, *layer.parameters()) if leaf.requires_grad]
    weighing = torch.Generator().manual_seed(1)
    total = sum((torch.randn(part.shape, generator=weighing).to(part) * part).sum() for part in y)
    return [*(part.detach() for part in y), *torch.autograd.grad(total, wanted)]


def same(got, wanted, relative=1e-5):
    """Shapes, and values to that share of the largest."""
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape
        a, b = a.detach().double(), b.detach().double()
        assert torch.allclose(a, b, rtol=relative, atol=relative * max([1.0, *b.abs().flatten().tolist()]))


@every_layer("drop-in", set(LAYERS) - OURS_ALONE)
def test_it_does_what_torchs_does_and_loads_its_weights(name):
    ours, x = made(name)
    theirs, _ = made(name, torch_nn)
    given = arguments(ours, x)
    check_drop_in(ours, theirs, *given)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
    assert [y.dtype for y in leaves(ours(*given))] == [y.dtype for y in leaves(theirs(*given))]


ALONE = {  # what torch lacks: parameters, shape of the (first) output
    "AdditiveAttention": (4 * 3 + 4 * 3 + 4, (2, 3)),
    "ConnectedConv2d": (7 * 9 + 4, (2, 4, 4, 3)),
    "DepthwiseConv2d": (4 * 9 + 4, (2, 4, 4, 3)),
    "DotAttention": (0, (2, 3)),
    "GaussianPool1d": (0, (2, 4, 4)),
    "GaussianPool2d": (0, (2, 4, 3, 2)),
    "GaussianPool3d": (0, (2, 4, 2, 2, 3)),
    "GeneralAttention": (3 * 3, (2, 3)),
    "GlobalAvgPool": (0, (2, 4, 1, 1)),
    "GlobalMaxPool": (0, (2, 4, 1, 1)),
    "GroupConv2d": (2 * 4 * 9 + 2, (2, 2, 4, 4, 3)),
    "GroupPool2d": (0, (2, 1, 6, 5)),
    "LiftingConv2d": (2 * 4 * 9 + 2, (2, 2, 4, 4, 3)),
    "LookAhead": (2 * 12 * (3 + 4 + 2), (5, 2, 8)),
    "Maxout": (0, (2, 2)),
    "MinGRU": (8 * (3 + 1), (5, 2, 4)),
    "MinLSTM": (12 * (3 + 1), (5, 2, 4)),
    "Recurrent": (12 * (3 + 4 + 2), (5, 2, 4)),
    "SpatialPyramidPool2d": (0, (2, 4 * 5)),
    "StochasticPool1d": (0, (2, 4, 4)),
    "StochasticPool2d": (0, (2, 4, 3, 2)),
    "StochasticPool3d": (0, (2, 4, 2, 2, 3)),
    "SymmetricConv2d": (2 * 4 * 9 + 2, (2, 2, 4, 4, 3)),
}


@every_layer("alone", OURS_ALONE)
def test_layers_that_torch_lacks_have_their_size_and_keep_their_state(name):
    layer, x = made(name)
    y = leaves(layer(*arguments(layer, x)))[0]
    assert (sum(p.numel() for p in layer.parameters()), y.shape) == ALONE[name] and y.dtype == x.dtype
    torch.manual_seed(1)
    other = LAYERS[name][0](nn)
    other.load_state_dict(layer.state_dict())
    same(outcome(other.train(layer.training), x), outcome(layer, x), 0)


@every_layer("step")
def test_a_step_changes_every_parameter_and_the_loss_falls(name):
    layer, x = made(name)
    x = x.clone().requires_grad_(x.is_floating_point())
    learnt = [leaf for leaf in (x, *layer.parameters()) if leaf.requires_grad]
    optimizer = torch.optim.SGD(learnt, lr=0.02)
    losses, before = [], [leaf.detach().clone() for leaf in learnt]
    for _ in range(10):
        wanted = torch.Generator().manual_seed(2)
        outputs = leaves(layer(*arguments(layer, x)))
        loss = sum((y - torch.randn(y.shape, generator=wanted)).square().mean() for y in outputs)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(later < earlier for earlier, later in pairwise(losses)), losses
    assert all((leaf != start).any() for leaf, start in zip(learnt, before, strict=True))


@every_layer("use")
def test_use_is_deterministic_and_changes_nothing(name):
    layer, x = made(name)
    layer.eval()
    state = copy.deepcopy(layer.state_dict())
    first, again = outcome(layer, x), outcome(layer, x)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(value, layer.state_dict()[key]) for key, value in state.items())


@every_layer("bf16", routes=("plain", "vendor", "auto"))
def test_bf16_is_near_fp32(name, route):
    layer, x = made(name)
    layer.bfloat16()
    x = x.bfloat16() if x.is_floating_point() else x
    exact = copy.deepcopy(layer).float()
    with twofold.route(route):
        got = outcome(layer, x)
    assert all(part.dtype == torch.bfloat16 for part in got)
    same(got, outcome(exact, x.float() if x.is_floating_point() else x), 2e-2)


@every_layer("autocast", routes=("plain", "vendor", "auto"))
def test_autocast_is_near_fp32(name, route):
    layer, x = made(name)

    def call(*given):
        with torch.autocast("cpu", torch.bfloat16), twofold.route(route):
            return layer(*given)

    got = outcome(layer, x, call)
    same(got, outcome(layer, x), 2e-2)


@every_layer("float64")
def test_float64_is_kept(name):
    layer, x = made(name)
    wanted = outcome(layer, x)
    layer.double()
    got = outcome(layer, x.double() if x.is_floating_point() else x)
    assert all(part.dtype == torch.float64 for part in got)
    same(got, wanted)


COMPILER_WARNS = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")


@COMPILER_WARNS
@every_layer("compile")
def test_the_compiled_layer_computes_the_same(name):
    layer, x = made(name)
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    same(outcome(layer, x, compiled), outcome(layer, x))


@COMPILER_WARNS
def test_a_kernel_that_goes_by_fourier_in_eager_mode_compiles():
    torch.manual_seed(0)
    layer, x = nn.Conv2d(1, 2, 31, padding=15), torch.randn(2, 1, 40, 40)
    torch._dynamo.reset()
    wanted = outcome(layer, x)
    same(outcome(layer, x, torch.compile(layer, backend="aot_eager", fullgraph=True)), wanted)


@every_layer("channels last", [name for name, (_, x) in LAYERS.items() if x.dim() in (4, 5)])
def test_channels_last_gives_the_same_numbers(name):
    layer, x = made(name)
    last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    wanted = outcome(layer, x)
    same(outcome(layer, x.contiguous(memory_format=last)), wanted)
    told = [module.last_route for module in layer.modules() if getattr(module, "last_route", None)]
    assert told and set(told) <= {*ROUTES, "fused"} - {"auto"}


def batch_axis(name):
    return 1 if name in SEQUENCES else 0


@every_layer("one row")
def test_one_row_alone_is_right_or_refused(name):
    layer, x = made(name)
    layer.eval()
    axis = batch_axis(name)
    one = x.select(axis, 0)
    try:
        got = leaves(layer(*arguments(layer, one)))
    except ValueError as error:
        assert re.fullmatch(r"(\w+) input: expected .+", str(error)) and str(error).split()[0] in LAYERS  # noqa: PT017 (either will do)
        return
    wanted = leaves(layer(*arguments(layer, one.unsqueeze(axis))))
    same(got, [y.squeeze(axis) if y.dim() else y for y in wanted])


@every_layer("empty", routes=("plain", "auto"))
def test_an_empty_batch_gives_an_empty_output_and_zero_gradients(name, route):
    layer, x = made(name)
    whole = leaves(layer(*arguments(layer, x)))
    axis = batch_axis(name)
    with twofold.route(route):
        got = outcome(layer, x.narrow(axis, 0, 0))
    for empty, full in zip(got, whole, strict=False):
        wanted = [*full.shape]
        wanted[axis] = 0
        assert [*empty.shape] == wanted
    gradients = got[len(whole) :]
    assert all(not g.any() for g in gradients) and len(gradients) == len([*layer.parameters()]) + x.is_floating_point()


STRANGE = {
    "transposed": lambda x: x.mT.contiguous().mT if x.dim() > 1 else x,
    "sliced": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "every second row": lambda x: x.repeat_interleave(2, 0)[::2],
    "expanded": lambda x: x[:1].expand(x.shape),
}


@every_layer("layout", routes=("plain", "auto"))
@pytest.mark.parametrize("layout", STRANGE)
def test_how_the_input_lies_in_memory_does_not_matter(name, layout, route):
    layer, x = made(name)
    strange = STRANGE[layout](x)
    with twofold.route(route):
        same(outcome(layer, strange), outcome(layer, strange.contiguous()), 1e-6)


@every_layer("copies")
def test_copies_and_pickles_are_the_layer_again(name):
    layer, x = made(name)
    layer.eval()
    wanted = outcome(layer, x)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301 (our own bytes)
        assert repr(again) == repr(layer)
        assert all(a is not b for a, b in zip(again.parameters(), layer.parameters(), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(outcome(again, x), wanted, strict=True))


@every_layer("rows", routes=("plain", "auto"))
def test_gradients_of_single_rows_add_up_to_that_of_the_batch(name, route):
    layer, x = made(name)
    layer.eval()
    axis = batch_axis(name)
    state = {key: parameter.detach() for key, parameter in layer.named_parameters()}

    def total(parameters, row):
        outputs = torch.func.functional_call(layer, parameters, arguments(layer, row.unsqueeze(axis)))
        return sum(y.square().sum() for y in leaves(outputs))

    with twofold.route(route):
        parts, values = torch.func.vmap(torch.func.grad_and_value(total), (None, axis))(state, x)
        whole = sum(y.square().sum() for y in leaves(layer(*arguments(layer, x))))
    gradients = torch.autograd.grad(whole, [*layer.parameters()]) if state else ()
    same([values.sum(), *(parts[key].sum(0) for key in state)], [whole.detach(), *gradients])


class Residual(nn.Module):
    """A block as in torchvision's ResNet, and what stands around it."""

    def __init__(self, of):
        super().__init__()
        self.stem, self.pool = of.Conv2d(3, 8, 3, padding=1), of.MaxPool2d(2)
        self.first, self.first_norm = of.Conv2d(8, 8, 3, padding=1, bias=False), of.BatchNorm2d(8)
        self.second, self.second_norm = of.Conv2d(8, 8, 3, padding=1, bias=False), of.BatchNorm2d(8)
        self.relu, self.mean, self.classes = of.ReLU(inplace=True), of.AdaptiveAvgPool2d((1, 1)), of.Linear(8, 5)

    def forward(self, x):
        x = self.pool(self.relu(self.stem(x)))
        y = self.relu(self.first_norm(self.first(x)))
        y = self.relu(self.second_norm(self.second(y)) + x)
        return self.classes(torch.flatten(self.mean(y), 1))


@COMPILER_WARNS
@pytest.mark.parametrize(("training", "backend"), [(True, "inductor" if which("c++") else "aot_eager"), (False, "aot_eager")])
def test_a_residual_module_is_torchs_exported_and_compiled(training, backend):
    torch.manual_seed(0)
    ours, theirs = Residual(nn).train(training), Residual(torch_nn).train(training)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 3, 12, 12)
    wanted = outcome(theirs, x)
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(ours), fullgraph=True, backend=backend)
    exported = torch.export.export(copy.deepcopy(ours), (x,), strict=False).module()
    same(outcome(copy.deepcopy(ours), x), wanted)
    same(outcome(compiled, x), wanted)
    same(outcome(exported, x), wanted)
