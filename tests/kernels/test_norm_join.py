"""Compiled normalisation with shortcut and ReLU beside the law in float64: layouts, precisions, sizes that fill no vector, derivatives."""

import pytest
import torch
import torch.nn.functional as F

from twofold import kernels
from twofold.kernels import norm_join
from twofold.space import joined_norm

pytestmark = pytest.mark.skipif(not kernels.available(), reason=kernels.reason())

LAYOUTS = {"first": torch.contiguous_format, "last": torch.channels_last}
SIZES = [(3, 5, 7, 6), (2, 70, 3, 3), (1, 3, 40, 33), (9, 33, 16, 17), (2, 1, 5, 5), (5, 2, 1, 1)]


def draw(*size, seed=0, dtype=torch.float32, layout="first"):
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return x.to(dtype).contiguous(memory_format=LAYOUTS[layout]) if len(size) == 4 else x.to(dtype)


def law(x, shortcut, scale, shift, mean, variance, eps, open_BCHW):
    """The law in float64; where the ReLU is open is told, so that no rounding decides it twice."""
    a = F.batch_norm(x, mean, variance, scale, shift, mean is None, 0.0, eps)
    a = a if shortcut is None else a + shortcut
    return a if open_BCHW is None else torch.where(open_BCHW, a, 0)


def gradients(y, leaves, dy):
    return [y, *torch.autograd.grad(y, [leaf for leaf in leaves if leaf is not None], dy.to(y.dtype))]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_the_laws(size, layout, dtype):
    C = size[1]
    x = (draw(*size) * 2 + 3).to(dtype).contiguous(memory_format=LAYOUTS[layout])
    shortcut, dy = (draw(*size, seed=seed, dtype=dtype, layout=layout) for seed in (1, 2))
    given = draw(C, seed=3), draw(C, seed=4).abs() + 0.5
    for joined, relu, affine, statistics in [(1, 1, 1, 0), (0, 1, 0, 0), (1, 0, 1, 1), (0, 0, 1, 0), (1, 1, 0, 1)]:
        chosen = (x, shortcut if joined else None, draw(C, seed=5) if affine else None, draw(C, seed=6) if affine else None)
        mean, variance = given if statistics else (None, None)
        ours = [None if t is None else t.clone(memory_format=torch.preserve_format).requires_grad_() for t in chosen]
        y, told_mean, told_variance = norm_join.join(*ours, mean, variance, 1e-5, bool(relu))
        assert y.stride() == x.stride() and y.dtype == dtype
        theirs = [None if t is None else t.double().requires_grad_() for t in chosen]
        exact = law(*theirs, *(None if t is None else t.double() for t in (mean, variance)), 1e-5, y > 0 if relu else None)
        tolerance = 2e-5 if dtype == torch.float32 else 1.2e-2
        for a, b in zip(gradients(y, ours, dy), gradients(exact, theirs, dy), strict=True):
            assert (a.double() - b).abs().max() <= tolerance * b.abs().max().clamp(min=1)
        wide = x.double()
        wanted = given if statistics else (wide.mean((0, 2, 3)), wide.var((0, 2, 3), unbiased=False))
        torch.testing.assert_close((told_mean.double(), told_variance.double()), tuple(t.double() for t in wanted), rtol=1e-5, atol=1e-5)


def joined_of(layout, joined=True):
    x, shortcut = (draw(2, 8, 6, 5, seed=seed, layout=layout).requires_grad_() for seed in (0, 1))
    return x, shortcut, norm_join.join(x, shortcut if joined else None, draw(8, seed=5), draw(8, seed=6), None, None, 1e-5, True)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("joined", [True, False])
def test_a_gradient_that_nobody_else_holds_is_written_over(layout, joined):
    maps, gradients = [], []
    for held in (False, True):
        x, shortcut, y = joined_of(layout, joined)
        loss = (y * 2).square().sum()
        if held:
            y.retain_grad()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            loss.backward()
        maps.append(next(event.count for event in seen.key_averages() if event.key == "aten::empty_like"))
        gradients.append([x.grad, shortcut.grad] if joined else [x.grad])
    assert maps[0] == maps[1] - 1  # for dshortcut, or without one dx
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert torch.equal(y.grad, 8 * y.detach())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("holder", ["caller", "sum", "view", "hook", "retained"])
def test_a_gradient_that_another_holds_stays_as_it_is(layout, holder, joined):
    _, shortcut, y = joined_of(layout, joined)
    dy = draw(2, 8, 6, 5, seed=7, layout=layout)
    kept, wanted = [], dy * (y > 0)
    if holder == "sum":  # both terms are given one and the same gradient
        other = torch.zeros_like(y).requires_grad_()
        ((y + other) * dy).sum().backward()
        kept = [other.grad]
    elif holder == "view":  # it lies in a tensor of somebody else
        whole = torch.stack((dy, dy))
        torch.autograd.backward(y, whole[0])
        kept = [*whole]
    else:
        if holder == "hook":
            y.register_hook(kept.append)
        elif holder == "retained":
            y.retain_grad()
        (y * dy).sum().backward() if holder != "caller" else y.backward(dy)
        kept = [y.grad] if holder == "retained" else [*kept, dy]
    assert not joined or torch.equal(shortcut.grad, wanted)
    again = draw(2, 8, 6, 5, seed=7, layout=layout)
    assert kept and all(torch.equal(each, again) for each in kept)


def test_a_graph_that_is_kept_gives_the_same_twice():
    x, shortcut, y = joined_of("first")
    loss = (y * draw(2, 8, 6, 5, seed=7)).sum()
    first, second = (torch.autograd.grad(loss, (x, shortcut), retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def in_a_process_of_its_own():
    """The fixed cases, for a test that lowers the instruction set of a whole process."""
    for dtype in (torch.float32, torch.bfloat16):
        for layout in LAYOUTS:
            test_nan_passes_through(layout, dtype)
            for size in SIZES:
                test_values_and_gradients_are_the_laws(size, layout, dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_large_mean_does_not_drown_the_variance(layout):
    x = draw(8, 4, 30, 31, layout=layout) + 1000
    _, mean, variance = norm_join.join(x, None, None, None, None, None, 1e-5, False)
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), x.double().var((0, 2, 3), unbiased=False), rtol=1e-3, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_passes_through(layout, dtype):
    x = draw(2, 3, 5, 7, dtype=dtype, layout=layout)
    shortcut = draw(2, 3, 5, 7, seed=1, dtype=dtype, layout=layout)
    shortcut[1, 2, 3, 4] = torch.nan
    x.requires_grad_()
    y = norm_join.join(x, shortcut.requires_grad_(), None, None, None, None, 1e-5, True)[0]
    assert y.isnan().sum() == 1 and y[1, 2, 3, 4].isnan()
    assert torch.autograd.grad(y, shortcut, torch.ones_like(y))[0][1, 2, 3, 4] == 1
    x.data[0, 1, 2, 3] = torch.nan
    y = norm_join.join(x, None, None, None, None, None, 1e-5, True)[0]
    assert y[:, 1].isnan().all() and not y[:, (0, 2)].isnan().any()


def test_threads_change_no_number():
    x, shortcut = (draw(6, 20, 33, 31, seed=seed, layout="last").requires_grad_() for seed in (0, 1))
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = norm_join.join(x, shortcut, None, None, None, None, 1e-5, True)[0]
            found.append(gradients(y, [x, shortcut], torch.ones_like(y)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_second_derivatives_are_the_plain_forms(relu, given, layout):
    statistics = (draw(4, seed=4), draw(4, seed=5).abs() + 0.1) if given else (None, None)
    found = {}
    for route in ("plain", "native"):
        x, shortcut = (draw(2, 4, 7, 6, seed=seed, layout=layout).requires_grad_() for seed in (0, 1))
        scale, shift = (draw(4, seed=seed).requires_grad_() for seed in (2, 3))
        leaves = [x, shortcut, scale, shift]
        y = joined_norm.norm_join.by(route, *leaves, *statistics, 1e-3, relu)[0]
        dy = draw(2, 4, 7, 6, seed=9, layout=layout).requires_grad_()
        graph = torch.autograd.grad(y, leaves, dy, create_graph=True)
        second = torch.autograd.grad(sum(g.pow(2).sum() for g in graph), [*leaves, dy], allow_unused=True)
        found[route] = [y, *graph, *(torch.zeros(()) if g is None else g for g in second)]
    for plain, native in zip(found["plain"], found["native"], strict=True):
        torch.testing.assert_close(native + 0 * plain, plain + 0 * native, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("frozen", range(4))
def test_what_is_frozen_gets_no_gradient(frozen):
    given = [draw(2, 4, 5, 5), draw(2, 4, 5, 5, seed=1), draw(4, seed=2), draw(4, seed=3)]
    for place, tensor in enumerate(given):
        tensor.requires_grad_(place != frozen)
    norm_join.join(*given, None, None, 1e-5, True)[0].square().sum().backward()
    assert [place for place, tensor in enumerate(given) if tensor.grad is None] == [frozen]


def test_a_value_that_changed_since_is_noticed():
    x = draw(2, 4, 5, 5).requires_grad_()
    y = norm_join.join(x, None, None, None, None, None, 1e-5, True)[0]
    y.data_ptr()
    with torch.no_grad():
        y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


X, S = draw(2, 4, 5, 5), torch.ones(4)


def test_what_does_not_fit_is_told():
    assert norm_join.unfit(X, X, S, None) == ""
    assert norm_join.unfit(X[0], None) == "needs maps of two axes"
    assert norm_join.unfit(X.double(), None) == "needs float32 or bfloat16 on the CPU, not float64 on cpu"
    assert norm_join.unfit(X, X.bfloat16()) == norm_join.unfit(X, X[:1]) == "needs a shortcut of the size and precision of x"
    assert norm_join.unfit(X[..., 1:], None).startswith("needs a contiguous map")
    assert norm_join.unfit(X, None, S.bfloat16()) == "needs float32 on the CPU, not bfloat16 on cpu"
    assert norm_join.unfit(X, None, torch.ones(8)[::2]) == "needs contiguous parameters"


FORWARD, BACKWARD = "norm_join", "norm_join_backward"
BROKEN = {
    "rank": (FORWARD, (X[0], None, None, None, None, None, 1e-5, True), "expected maps of float32 or bfloat16"),
    "layout": (FORWARD, (X[..., 1:], None, None, None, None, None, 1e-5, True), "expected contiguous maps"),
    "shortcut": (FORWARD, (X, X[:1], None, None, None, None, 1e-5, True), "of the size, precision and layout of x"),
    "scale": (FORWARD, (X, None, torch.ones(3), None, None, None, 1e-5, True), "expected one float32 a channel"),
    "statistics": (FORWARD, (X, None, None, None, S, None, 1e-5, True), "expected mean and variance, or neither"),
    "empty": (FORWARD, (X[:0], None, None, None, None, None, 1e-5, True), "an empty batch has no statistics"),
    "gradient": (BACKWARD, (X[:1], X, None, None, S, S, True, 1e-5, True), "of the size, precision and layout of x"),
    "y": (BACKWARD, (X, X, X.bfloat16(), None, S, S, True, 1e-5, True), "of the size, precision and layout of x"),
    "mean": (BACKWARD, (X, X, None, None, S[:2], S, True, 1e-5, True), "expected one float32 a channel"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_operator_guards_its_memory(name):
    operator, arguments, words = BROKEN[name]
    with pytest.raises(ValueError, match=words):
        getattr(torch.ops.twofold, operator)(*arguments)
