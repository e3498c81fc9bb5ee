"""Convolution and normalisation as one: the same outputs by every way, the model untouched, and what cannot be folded."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn as torch_nn

import twofold
from twofold import kernels, nn
from twofold.layers.forms import bf16_ours
from twofold.space.folded import FoldedConv2d, folded

RULED = kernels.instruction_set() in ("avx2", "avx512")
WAYS = ["channels first", "channels last", "apart"]


class Residual(torch_nn.Module):
    """A convolution, a block with a projected shortcut, a block with none, and a sum that is no shortcut."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, padding=(0, 1, 1, 2)), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.body = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8, affine=False), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.norm = nn.BatchNorm2d(8, bias=False)
        self.beside = nn.Sequential(nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.late = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        x = self.relu(self.norm(self.body(x)) + self.beside(x))
        y = self.deep(x)
        x = x + self.late(y) + y.mean((2, 3), keepdim=True)  # y is read twice: its normalisation stays where it is
        return self.head(self.relu(x).mean((2, 3)))


def drawn(model):
    """The model in evaluation mode, with statistics and parameters drawn at random."""
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, torch_nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            for values in layer.parameters():
                torch_nn.init.normal_(values)
    return model.eval()


X = torch.randn(3, 3, 21, 18, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("way", WAYS)
def test_the_outputs_are_the_models(way):
    model = drawn(Residual())
    kept = copy.deepcopy(model.state_dict())
    quick = folded(model)
    with torch.no_grad():
        assert torch.allclose(quick.run(way, X), model(X), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    kinds = [type(layer) for layer in quick.modules()]
    assert kinds.count(nn.BatchNorm2d) == 1 and kinds.count(FoldedConv2d) == 5


def test_in_float64_nothing_is_lost():
    model = drawn(Residual().double())
    with torch.no_grad():
        assert torch.allclose(folded(model)(X.double()), model(X.double()), rtol=1e-12, atol=1e-12)


def test_sums_and_rectifiers_go_with_their_convolution():
    quick = folded(drawn(Residual()))
    with torch.no_grad():
        quick.run("channels last", X)
    stem, first, second, beside, deep = (layer for layer in quick.modules() if type(layer) is FoldedConv2d)
    assert [layer.relu for layer in (stem, first, second, beside, deep)] == [True, True, True, False, False]
    assert stem.pool is not None and first.last_route == second.last_route == beside.last_route == "vendor fused"
    assert [layer.stays for layer in (stem, first, second, beside, deep)] == [True, True, False, True, False]


@pytest.fixture
def bf16_is(monkeypatch):
    return lambda faster: monkeypatch.setattr("twofold.space.folded.bf16_faster", lambda: faster)


def test_bf16_only_where_it_is_permitted_and_faster(bf16_is):
    model = drawn(Residual())
    quick, truth = folded(model), model(X)
    for faster in (True, False):
        bf16_is(faster)
        with torch.no_grad(), twofold.precision("bf16"):
            y = quick.run("channels last", X)
        error = (y - truth).abs().max() / truth.abs().max()
        assert y.dtype == torch.float32 and (1e-5 < error < 3e-2 if faster else error < 1e-5)
        routes = [getattr(layer, "last_route", None) for layer in quick.modules()]
        assert ("vendor fused bf16" in routes, "vendor fused" in routes) == (faster, not faster)


class Wide(torch_nn.Module):
    """Two 3x3 convolutions of many channels, the second with a shortcut."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 40, 3, padding=1), nn.BatchNorm2d(40), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(40, 40, 3, padding=1, bias=False), nn.BatchNorm2d(40))
        self.relu = nn.ReLU()

    def forward(self, x):
        x = self.first(x)
        return self.relu(self.second(x) + x)


@pytest.mark.parametrize(
    ("precision", "vendor", "error"),
    [
        pytest.param("full", "vendor fused", 1e-5, marks=pytest.mark.skipif(not RULED, reason="needs AVX2")),
        pytest.param("bf16", "vendor fused bf16", 2e-2, marks=pytest.mark.skipif(not bf16_ours(), reason="needs AVX512_BF16, no AMX")),
    ],
)
def test_wide_convolutions_go_by_winograds_algorithm(precision, vendor, error, bf16_is):
    bf16_is(True)
    model = drawn(Wide())
    quick = folded(model)
    for _ in range(2):
        with torch.no_grad(), twofold.precision(precision):
            y, truth = quick.run("channels last", X), model.double()(X.double())
        assert (y - truth).norm() < error * truth.norm()
        taken = [layer.last_route for layer in quick.modules() if type(layer) is FoldedConv2d]
        assert taken == [vendor, "native channels last", "native channels last"]
        with torch.no_grad():  # a weight that changes is packed anew
            model.float().second[0].weight.mul_(-1)
            [layer for layer in quick.modules() if type(layer) is FoldedConv2d][2].conv.weight.mul_(-1)


@pytest.mark.parametrize("kind", ["auto", "measured", "gradient", "autocast", "plain", "other size"])
def test_whatever_is_asked_for_the_law_holds(kind):
    model = drawn(Residual())
    quick = folded(model)
    x = X[:, :, :-3].clone() if kind == "other size" else X.clone().requires_grad_(kind == "gradient")
    block = {"measured": twofold.measuring(1.0), "autocast": torch.autocast("cpu", torch.bfloat16), "plain": twofold.route("plain")}
    wanted = "apart" if kind in ("gradient", "autocast", "plain") else "channels last"
    with twofold.measuring(0), block.get(kind, nullcontext()), torch.set_grad_enabled(kind == "gradient"):
        y = quick(x)
        assert quick.last_way in WAYS if kind == "measured" else quick.last_way == wanted
        assert torch.allclose(y.float(), model(x).float(), atol=3e-2 if kind == "autocast" else 1e-5)
    if kind == "gradient":
        assert torch.allclose(torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(model(x).sum(), x)[0], atol=1e-4)


def test_a_weight_that_changes_is_packed_anew():
    quick = folded(drawn(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())))
    with torch.no_grad(), twofold.measuring(0):
        before = quick(X)
        quick.get_parameter("net.0.conv.weight").mul_(2)
        quick.get_parameter("net.0.conv.bias").mul_(2)
        assert torch.allclose(quick(X), 2 * before)


def test_copies_and_an_empty_batch():
    model = drawn(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    quick = folded(model)
    with torch.no_grad(), twofold.measuring(0):
        y = quick(X)
        assert torch.equal(copy.deepcopy(quick)(X), y)
        assert quick(X[:0]).shape == (0, 4, 19, 16)
        nan = quick(torch.full_like(X, torch.nan))
        assert nan.isnan().all()


def test_it_is_for_use_alone():
    with pytest.raises(ValueError, match="folded: expected evaluation mode"):
        folded(drawn(Residual())).train()


class Fickle(torch_nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_way_that_depends_on_numbers_is_refused():
    with pytest.raises(ValueError, match="folded: Fickle cannot be followed from input to output"):
        folded(Fickle())


def test_bad_input_is_named_by_the_convolution():
    quick = folded(drawn(Residual()))
    with torch.no_grad(), twofold.measuring(0), pytest.raises(ValueError, match="Conv2d input: expected"):
        quick(X[:, :2])
