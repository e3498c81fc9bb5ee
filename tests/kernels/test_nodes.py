"""Compiled nodes of autograd: first and second derivatives beside the plain forms', frozen arguments, and what autograd guards."""

import pytest
import torch

import twofold
from twofold import kernels
from twofold.kernels import nodes
from twofold.space import fused, fused_norm
from twofold.space.correlation import correlate
from twofold.space.max_pooling import max_pool
from twofold.space.windows import Window

pytestmark = pytest.mark.skipif(not kernels.available(), reason=kernels.reason())


def draw(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


X, W, B, S = draw(2, 4, 7, 6), draw(6, 4, 3, 2, seed=1), draw(6, seed=2), draw(4, seed=3)
MEAN, VARIANCE = draw(4, seed=4), draw(4, seed=5).abs() + 0.1
POOL, PADDED = Window((2, 2), (2, 2)), Window((3, 2), (2, 1), (1, 1, 0, 1), (1, 2), True)
CONVOLVED = {
    "sides": (X, W, B, Window((3, 2), (1, 1), (2, 0, 1, 3)), 1),
    "sides and stride": (X, W, B, Window((3, 2), (2, 2), (3, 0, 0, 3)), 1),
    "no window without what is behind": (X[:, :, :2], W, B, Window((3, 2), (2, 1), (0, 1, 0, 0)), 1),
    "a window of padding alone": (X[:, :, :1, :1], W, B, Window((3, 2), (3, 2), (4, 2, 3, 0)), 1),
    "remainder": (X, W, None, Window((3, 2), (3, 2), (1, 1, 0, 0)), 1),
    "dilation": (X, W, B, Window((3, 2), (1, 1), (1, 2, 0, 0), (2, 3)), 1),
    "groups": (X, draw(6, 2, 3, 2, seed=1), B, Window((3, 2)), 2),
    "depthwise": (X, draw(8, 1, 3, 2, seed=1), draw(8), Window((3, 2), (2, 1), (1, 1, 0, 0)), 4),
    "signal": (X[..., 0], W[..., 0], B, Window((3,), (1,), (2, 0)), 1),
}
FUSED = {
    "pooled": (X, W, B, Window((3, 2)), POOL),
    "padded pool": (X, W, B, Window((3, 2), padding=(1, 1, 1, 1)), PADDED),
    "no pool": (X, W, None, Window((3, 2), padding=(1, 0, 0, 2)), None),
}
NORMALISED = {
    "batch, pooled": (X, S, S, None, None, 1e-3, POOL),
    "batch, no scale": (X, None, S, None, None, 1e-3, None),
    "given, padded pool": (X, S, None, MEAN, VARIANCE, 1e-3, PADDED),
}
POOLED = {
    "first": (X, PADDED),
    "last": (X.contiguous(memory_format=torch.channels_last), Window((2, 2), (2, 2), (0, 1, 1, 0))),
    "signal": (X[..., 0], Window((3,), (2,), (1, 1))),
}
CASES = (
    {f"convolve, {name}": (correlate, case) for name, case in CONVOLVED.items()}
    | {f"fused, {name}": (fused.convolve_relu_pool, case) for name, case in FUSED.items()}
    | {f"pool, {name}": (max_pool, case) for name, case in POOLED.items()}
    | {f"normalise, {name}": (fused_norm.norm_relu_pool, case) for name, case in NORMALISED.items()}
)
FIXED = (3, 4)  # given statistics have no gradient


def leaves(operation, arguments):
    """The arguments anew; those that have gradients ask for them."""
    ours = operation is fused_norm.norm_relu_pool
    anew = [a.clone().requires_grad_(not (ours and n in FIXED)) if isinstance(a, torch.Tensor) else a for n, a in enumerate(arguments)]
    return anew, [a for a in anew if isinstance(a, torch.Tensor) and a.requires_grad]


@pytest.mark.parametrize("name", CASES)
def test_first_and_second_derivatives_are_the_plain_forms(name):
    operation, arguments = CASES[name]
    found = {}
    for route in ("plain", "native"):
        given, asked = leaves(operation, arguments)
        with twofold.route(route):
            y = operation(*given)
        y = y[0] if isinstance(y, tuple) else y
        dy = draw(*y.shape, seed=9).requires_grad_()
        first = torch.autograd.grad(y, asked, dy, retain_graph=True)
        graph = torch.autograd.grad(y, asked, dy, create_graph=True)
        second = torch.autograd.grad(sum(g.pow(2).sum() for g in graph), [*asked, dy], allow_unused=True)
        found[route] = [y, *first, *graph, *(torch.zeros(()) if g is None else g for g in second)]
    for plain, native in zip(found["plain"], found["native"], strict=True):
        torch.testing.assert_close(native.expand_as(plain) if native.dim() == 0 else native, plain.expand_as(native), rtol=1e-4, atol=2e-4)


def test_a_value_that_changed_since_is_noticed():
    x, weight = X.clone(), W.clone().requires_grad_()
    y = nodes.convolve(x, weight, None, Window((3, 2)), relu=True)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient(frozen):
    given = {"x": X.clone(), "weight": W.clone(), "bias": B.clone()}
    for name, tensor in given.items():
        tensor.requires_grad_(name != frozen)
    nodes.convolve(*given.values(), Window((3, 2)), relu=True, pool=POOL).sum().backward()
    assert {name for name, tensor in given.items() if tensor.grad is None} == {frozen}
    with twofold.route("plain"):
        plain = {name: tensor.detach().clone().requires_grad_(name != frozen) for name, tensor in given.items()}
        fused.convolve_relu_pool(*plain.values(), Window((3, 2)), POOL).sum().backward()
    for name in given:
        if name != frozen:
            torch.testing.assert_close(given[name].grad, plain[name].grad, rtol=1e-4, atol=1e-4)


def test_without_gradients_nothing_is_kept():
    with torch.no_grad():
        y = nodes.convolve(X, W.clone().requires_grad_(), B, Window((3, 2)))
    assert y.grad_fn is None
    with torch.inference_mode():
        assert nodes.normalise(X, S, S, None, None, 1e-5)[0].is_inference()
