"""The end of a residual block in one go: the four witnesses, layouts and precisions, and when the layers stay apart."""

import copy

import pytest
import torch
from torch import nn as torch_nn
from torch.nn import functional as F

import twofold
from twofold import kernels, nn
from twofold.layers.check import Case, check, check_expression, noise
from twofold.layers.differentiable import Native, differentiable
from twofold.space import joined_norm
from twofold.space.sequential import join

needs_library = pytest.mark.skipif(not kernels.available(), reason=kernels.reason() or "built")
GIVEN = noise(3, seed=3, grad=False), noise(3, seed=4, grad=False).abs()
CASES = {
    "batch": (noise(4, 2, 3, 2), noise(4, 2, 3, 2, seed=7), noise(2, seed=1), noise(2, seed=2), None, None, 1e-3, True),
    "batch, no ReLU": (noise(3, 2, 3, 4), noise(3, 2, 3, 4, seed=7), noise(2, seed=1), None, None, None, 1e-3, False),
    "batch, no shortcut": (noise(3, 2, 3, 5), None, None, noise(2, seed=2), None, None, 1e-3, True),
    "given": (noise(2, 3, 4, 4), noise(2, 3, 4, 4, seed=7), noise(3, seed=1), noise(3, seed=2), *GIVEN, 1e-5, True),
}


def by_torch(x, shortcut, scale, shift, mean, variance, eps, relu):
    y = F.batch_norm(x, mean, variance, scale, shift, mean is None, 0.0, eps)
    y = y if shortcut is None else y + shortcut
    return y.clamp(min=0) if relu else y


def without_statistics(forward, backward):
    """y alone: the statistics are told, not differentiated."""

    def only_y(*arguments):
        results, saved = forward(*arguments)
        return results[0], saved

    return only_y, lambda dy, saved: backward((dy, None, None), saved)


JOIN = differentiable(
    *without_statistics(joined_norm.forward, joined_norm.backward),
    vendor=lambda *a: joined_norm.vendor(*a)[0],
    native=Native(lambda *a: joined_norm.compiled(*a)[0], None, joined_norm.unfit),
)


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    check(Case(JOIN, CASES[name], by_torch, rows=False))


MUTANTS = {
    "no gradient of the shortcut": lambda dx, dshortcut, dscale, dshift: (dx, 0 * dshortcut, dscale, dshift),
    "the shortcut's gradient normalised too": lambda dx, dshortcut, dscale, dshift: (dx, dx, dscale, dshift),
    "scale and shift changed over": lambda dx, dshortcut, dscale, dshift: (dx, dshortcut, dshift, dscale),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_variant_is_caught(name):
    wrong = without_statistics(joined_norm.forward, lambda dy, saved: MUTANTS[name](*joined_norm.backward(dy, saved)))
    with pytest.raises(AssertionError):
        check_expression(Case(differentiable(*wrong), CASES["batch"], by_torch))


@pytest.mark.parametrize("name", CASES)
def test_the_statistics_are_told(name):
    x, given = CASES[name][0], CASES[name][4:6]
    for dtype in (torch.float64, torch.float32):
        arguments = [a.to(dtype) if isinstance(a, torch.Tensor) else a for a in CASES[name]]
        for route in joined_norm.norm_join.routes(*arguments):
            _, mean, variance = joined_norm.norm_join.by(route, *arguments)
            wanted = (x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)) if given[0] is None else given
            assert torch.allclose(mean.double(), wanted[0]) and torch.allclose(variance.double(), wanted[1])


def block(last=False, dtype=torch.float32):
    """(norm, relu, x, shortcut): all that a block ends with."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    nn.init.normal_(norm.weight)
    layout = torch.channels_last if last else torch.contiguous_format
    x, shortcut = (torch.randn(3, 6, 5, 7).to(dtype).contiguous(memory_format=layout).requires_grad_() for _ in range(2))
    return norm, nn.ReLU(), x, shortcut


@needs_library
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_joined_block_learns_what_its_layers_learn(training, last, dtype):
    norm, relu, x, shortcut = block(last, dtype)
    apart = copy.deepcopy(norm).train(training)
    norm.train(training)
    y = join(norm, x, shortcut, relu)
    assert (norm.last_route, relu.last_route, y.dtype, y.stride()) == ("fused", "fused", dtype, x.stride())
    with twofold.route("vendor"):
        wanted = join(apart, x, shortcut, nn.ReLU())
    assert apart.last_route == "vendor"
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    # where a rounded sum is nearly 0, the two may differ about the ReLU: such places get no gradient
    dy = torch.where((y > 0) == (wanted > 0), dy, 0)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 3e-2, "atol": 3e-2}
    ours = [y, *torch.autograd.grad(y, [x, shortcut, norm.weight, norm.bias], dy)]
    theirs = [wanted, *torch.autograd.grad(wanted, [x, shortcut, apart.weight, apart.bias], dy)]
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a.float(), b.float(), **tolerance)
    for a, b in zip(norm.buffers(), apart.buffers(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5)


@needs_library
def test_a_shortcut_in_another_layout_is_laid_out_anew():
    norm, relu, x, shortcut = block()
    y = join(norm, x, shortcut, relu)
    other = join(norm, x, shortcut.contiguous(memory_format=torch.channels_last), relu)
    assert relu.last_route == "fused" and torch.equal(y, other)


@needs_library
def test_autocast_keeps_the_precision_of_the_maps():
    norm, relu, x, shortcut = block(dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = join(norm, x, shortcut, relu)
    assert y.dtype == torch.bfloat16 and relu.last_route == "fused"


def test_hooks_see_what_goes_in_and_out():
    norm, relu, x, shortcut = block()
    seen = []
    norm.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    y = join(norm, x, shortcut, relu)
    assert torch.equal(y, (seen[0] + shortcut).relu()) and relu.last_route != "fused"


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_another_route_keeps_the_layers_apart(route):
    norm, relu, x, shortcut = block()
    with twofold.route(route):
        join(norm, x, shortcut, relu)
    assert norm.last_route == relu.last_route == route


def test_what_the_compiled_form_lacks_runs_layer_by_layer():
    norm, relu, x, shortcut = block()
    for given, beside, normal in [
        (x.double(), shortcut.double(), copy.deepcopy(norm).double()),
        (x, shortcut[:, :1], norm),  # one map for all channels
        (x[:, :, ::2], shortcut[:, :, ::2], norm),
        (x[:, :, :3, :3].contiguous(), shortcut[:, :, :3, :3].contiguous(), norm),
        (x, shortcut, torch_nn.BatchNorm2d(6)),
    ]:
        y = join(normal, given, beside, relu)
        assert relu.last_route != "fused"
        normal.eval()
        assert torch.allclose(join(normal, given, beside, relu), (normal(given) + beside).relu(), atol=1e-6) and y.shape == given.shape
        normal.train()


def test_an_empty_batch_passes():
    norm, relu, x, shortcut = block()
    norm.eval()
    assert join(norm, x[:0], shortcut[:0], relu).shape == (0, 6, 5, 7)


def test_bad_input_is_named_by_the_layer():
    norm, relu, x, shortcut = block()
    with pytest.raises(ValueError, match="BatchNorm2d input: expected"):
        join(norm, x[:, :4], shortcut, relu)
    with pytest.raises(ValueError, match="more than one value a channel"):
        join(norm, x[:1, :, :1, :1], shortcut[:1, :, :1, :1], relu)


class Block(torch_nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.relu = nn.BatchNorm2d(6), nn.ReLU()

    def forward(self, x, shortcut):
        return join(self.norm, x, shortcut, self.relu)


def test_an_export_sees_torchs_operators():
    _, _, x, shortcut = block()
    exported = torch.export.export(Block().eval(), (x.detach(), shortcut.detach()))
    assert not [node for node in exported.graph.nodes if "twofold" in str(node.target)]
    assert torch.allclose(exported.module()(x, shortcut), Block().eval()(x, shortcut), atol=1e-6)
