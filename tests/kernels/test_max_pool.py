"""The compiled max pooling: the plain form bit for bit, on every instruction set, in several threads, and what it refuses."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import twofold
from twofold import kernels
from twofold.kernels import max_pool
from twofold.layers.check import check_message
from twofold.space import max_pooling
from twofold.space.max_pooling import max_pool as operation
from twofold.space.windows import Window

needs_library = pytest.mark.skipif(not kernels.available(), reason=kernels.reason())


@st.composite
def cases(draw):
    """A window, and maps of which it fits: narrow and wide, so that every width of lanes and every edge comes up."""
    common = st.sampled_from([((2, 2), (2, 2)), ((3, 3), (2, 2)), ((3, 3), (1, 1))])
    free = st.tuples(st.tuples(st.integers(1, 5), st.integers(1, 5)), st.tuples(st.integers(1, 4), st.integers(1, 4)))
    kernel, stride = draw(st.one_of(common, free))
    rows, columns = draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2))
    dilation = draw(st.tuples(st.sampled_from([1, 1, 2, 3]), st.sampled_from([1, 1, 2, 3])))
    window = Window(kernel, stride, (rows, rows, columns, columns), dilation, draw(st.booleans()))
    least = [max(d * (k - 1) + 1 - 2 * p, d) for k, d, p in zip(kernel, dilation, (rows, columns), strict=True)]
    size = draw(st.integers(least[0], least[0] + 8)), draw(st.integers(least[1], least[1] + 50))
    return window, (draw(st.integers(0, 3)), draw(st.sampled_from([1, 2, 3, 5, 9, 21])), *size), draw(st.integers(0, 10**6))


def agree(window, shape, seed):
    """The plain form and the compiled one: y, winners and dx without any difference."""
    numbers = torch.Generator().manual_seed(seed)
    x = torch.randint(-4, 5, shape, generator=numbers).float()  # many ties
    if seed % 3 == 0:
        x = torch.randn(shape, generator=numbers)
    if seed % 4 == 0:
        x[torch.rand(shape, generator=numbers) < 0.2] = float("nan")
        x[torch.rand(shape, generator=numbers) < 0.2] = -float("inf")
    y, saved = max_pooling.max_forward(x, window)
    dy = torch.randn(y.shape, generator=numbers)
    dx = max_pooling.max_backward(dy, saved)
    for winner_type in (None, torch.int32, *([torch.uint8] if window.taps <= 255 else [])):
        compiled, winner = max_pool.forward(x, window, winner_type)
        assert torch.equal(compiled.nan_to_num(99), y.nan_to_num(99)) and compiled.isnan().equal(y.isnan()), (window, shape, seed)
        if winner_type is None:
            assert winner.numel() == 0
            continue
        assert winner.dtype == winner_type and torch.equal(winner.int(), saved.winner_BCP.int()), (window, shape, seed)
        assert torch.equal(max_pool.backward(dy, winner, window, (shape[2], shape[3])), dx), (window, shape, seed)
        last, where = max_pool.forward(x.contiguous(memory_format=torch.channels_last), window, winner_type)
        assert where.equal(winner) and last.nan_to_num(99).equal(y.nan_to_num(99)), (window, shape, seed)
        assert torch.equal(max_pool.backward(dy, where, window, (shape[2], shape[3])), dx), (window, shape, seed)


@needs_library
@given(case=cases())
@settings(max_examples=200, deadline=None)
def test_the_compiled_form_is_the_plain_form(case):
    agree(*case)


FIXED = [
    (Window(kernel, stride, (pad, pad, pad, pad), dilation, ceil), (2, 3, height, width), seed)
    for kernel, stride, pad, dilation, ceil in (
        ((2, 2), (2, 2), 0, (1, 1), False),
        ((2, 2), (2, 2), 1, (1, 1), True),
        ((3, 3), (2, 2), 1, (1, 1), False),
        ((3, 3), (1, 1), 1, (1, 1), False),
        ((4, 5), (3, 3), 2, (1, 2), True),
        ((17, 16), (2, 1), 8, (1, 1), False),
    )
    for height, width in ((17, 16), (20, 23), (28, 28), (18, 67))
    for seed in (1, 3, 4)
]
# Channels in every width of lanes, for maps that lie channels last.
FIXED += [(Window((3, 2), (2, 1), (1, 1, 0, 0)), (2, channels, 6, 7), 3) for channels in (1, 4, 9, 16, 33)]
# Narrow even maps, where the lanes run on into the next rows and maps.
FIXED += [(Window((2, 2), (2, 2)), (5, 3, height, width), seed) for width in (2, 4, 8, 16, 32) for height in (2, 6) for seed in (1, 3, 4)]


@needs_library
@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_every_instruction_set_is_the_plain_form(capability):
    here = torch.backends.cpu.get_cpu_capability()
    order = ("DEFAULT", "AVX2", "AVX512")
    if here not in order or order.index(capability.upper()) > order.index(here):
        pytest.skip(f"this machine has {here}, not {capability.upper()}")
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_max_pool; test_max_pool.in_a_process_of_its_own()"
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "ATEN_CPU_CAPABILITY": capability}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [{"default": "base"}.get(capability, capability), str(len(FIXED))]


def in_a_process_of_its_own():
    for case in FIXED:
        agree(*case)
    print(kernels.instruction_set(), len(FIXED))


@needs_library
def test_several_threads_of_python_at_once():
    window, x = Window((3, 3), (2, 2), (1, 1, 1, 1)), torch.randn(8, 16, 57, 59)
    y, saved = max_pooling.max_forward(x, window)
    dx = max_pooling.max_backward(y, saved)
    wrong = []

    def work():
        for _ in range(10):
            compiled, winner = max_pool.forward(x, window, torch.uint8)
            if not (torch.equal(compiled, y) and torch.equal(max_pool.backward(y, winner, window, (57, 59)), dx)):
                wrong.append(threading.current_thread().name)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@needs_library
def test_without_a_gradient_no_winners_are_kept():
    x, window = torch.randn(1, 2, 4, 6), Window((2, 2), (2, 2))
    y, winner = max_pool.forward(x, window, None)
    assert winner.numel() == 0 and torch.equal(y, max_pooling.max_forward(x, window)[0])


@needs_library
def test_gradients_that_lie_strangely_in_memory():
    x = torch.randn(2, 3, 6, 8, requires_grad=True)
    window = Window((2, 2), (2, 2))
    (dx,) = torch.autograd.grad(operation.by("native", x, window).sum(), x)  # dy is one number, expanded
    assert torch.equal(dx, torch.autograd.grad(operation.by("plain", x, window).sum(), x)[0])


class Labelled(torch.Tensor):
    """A tensor of a user's own class."""


X = torch.zeros(1, 2, 4, 4)
UNFIT = {
    "double": (X.double(), "needs float32 on the CPU, not float64 on cpu"),
    "meta": (X.to("meta"), "needs float32 on the CPU, not float32 on meta"),
    "transposed": (X.transpose(2, 3), "needs a contiguous map in the order (B, C, H, W), or channels last"),
    "subclass": (X.as_subclass(Labelled), "needs a plain tensor, not Labelled"),
}


@needs_library
@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_refused_with_the_reason_and_served_otherwise(name):
    x, reason = UNFIT[name]
    window = Window((2, 2), (2, 2))
    assert max_pool.unfit(x, window) == reason
    assert operation.choose(x, window) == "vendor"
    with twofold.route("native"):
        check_message(lambda: operation(x, window), f'route "native": {reason}.')


@needs_library
def test_forward_mode_goes_through_torch():
    x, window = torch.randn(1, 2, 4, 4), Window((2, 2), (2, 2))
    assert operation.choose(x, window) == "native"
    with torch.autograd.forward_ad.dual_level():
        assert "forward-mode" in max_pool.unfit(x, window)


GEOMETRY = [2, 2, 2, 2, 2, 2, 0, 0, 1, 1]
BROKEN = {
    "number": (GEOMETRY[:9], "expected 10 numbers of geometry, got 9"),
    "windows beyond the map": ([3, *GEOMETRY[1:]], "holds no pixel"),
    "padding alone": ([*GEOMETRY[:6], 2, *GEOMETRY[7:]], "holds no pixel"),
    "taps that miss": ([1, 2, 2, 2, 2, 2, 1, 0, 6, 1], "holds no pixel"),
    "overflow": ([*GEOMETRY[:8], 2**62, 1], "out of range"),
    "negative": ([*GEOMETRY[:4], -2, *GEOMETRY[5:]], "out of range"),
}


@needs_library
@pytest.mark.parametrize("name", BROKEN)
def test_the_operator_guards_its_memory(name):
    geometry, words = BROKEN[name]
    with pytest.raises(ValueError, match=words):
        torch.ops.twofold.max_pool2d(X, geometry, 1)


@needs_library
def test_backward_guards_its_memory():
    _, winner = torch.ops.twofold.max_pool2d(X, GEOMETRY, 1)
    dy = torch.ones(1, 2, 2, 2)
    with pytest.raises(ValueError, match="do not belong together"):
        torch.ops.twofold.max_pool2d_backward(dy, winner[:, :1], GEOMETRY, 4, 4)
    overlapping = [2, 2, 3, 3, 1, 1, 0, 0, 1, 1]
    dx = torch.ops.twofold.max_pool2d_backward(dy, torch.full_like(winner, 200), overlapping, 4, 4)
    assert dx.count_nonzero() == 0, "a tap that does not exist received a gradient"


@needs_library
def test_results_lie_as_the_maps_do():
    x = torch.randn(2, 5, 6, 8).to(memory_format=torch.channels_last).requires_grad_()
    y = operation.by("native", x, Window((2, 2), (2, 2)))
    (dx,) = torch.autograd.grad(y, x, torch.randn(2, 5, 3, 4))  # a gradient that lies otherwise
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (y, dx))
