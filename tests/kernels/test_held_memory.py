"""Large maps that compiled layers return come from memory that is kept: it is used again, can be given back, and is like any other."""

import copy
import io
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from twofold import kernels
from twofold.kernels import norm_join

pytestmark = pytest.mark.skipif(not kernels.available(), reason=kernels.reason() or "built")
MEGABYTE = 1 << 20


def normalised(x):
    channels = torch.ones(x.shape[1])
    return norm_join.join(x, None, channels, channels, None, None, 1e-5, False)[0]


@pytest.fixture
def x():
    kernels.release_memory()
    yield torch.randn(8, 16, 64, 64)
    kernels.release_memory()


def test_what_is_freed_is_used_again_and_can_be_given_back(x):
    y = normalised(x)
    place = y.data_ptr()
    assert y.nbytes == 2 * MEGABYTE and kernels.release_memory() == 0  # it is in use
    del y
    y = normalised(x)
    assert y.data_ptr() == place
    del y
    assert kernels.release_memory() == 2 * MEGABYTE
    assert kernels.release_memory() == 0


@pytest.mark.parametrize("rows", [16, 17, 64, 65, 83, 84, 85, 127, 128, 129])
def test_blocks_of_every_size_are_used_again(rows):
    """A megabyte and a little more, too: what a size is rounded up to must not be too large for it."""
    kernels.release_memory()
    x = torch.randn(1, 64, 64, rows)
    places = {normalised(x).data_ptr() for _ in range(3)}
    assert len(places) == 1 and x.nbytes <= kernels.release_memory() < x.nbytes + MEGABYTE // 8


def test_nothing_in_use_is_handed_out_twice(x):
    ys = [normalised(x + n) for n in range(5)]
    assert len({y.data_ptr() for y in ys}) == 5
    first = ys[0].clone()
    del ys[1:]
    normalised(2 * x)
    assert torch.equal(ys[0], first)


def test_small_maps_and_those_of_another_size_take_no_kept_block(x):
    place = normalised(x).data_ptr()
    assert normalised(x[:4]).data_ptr() != place  # a block of twice the size would be wasted on it
    assert kernels.release_memory() == 3 * MEGABYTE
    normalised(torch.randn(2, 16, 16, 16))
    assert kernels.release_memory() == 0


def test_such_a_map_is_a_tensor_like_any_other(x):
    y = normalised(x)
    wanted = y.clone()
    file = io.BytesIO()
    torch.save(y, file)
    file.seek(0)
    assert torch.equal(copy.deepcopy(y), wanted) and torch.equal(torch.load(file), wanted)
    y.resize_(16, 16, 64, 64)
    assert torch.equal(y[:8], wanted)
    del y
    y = normalised(x)
    assert torch.equal(y.share_memory_(), wanted) and y.is_shared()


def test_a_view_keeps_the_block(x):
    y = normalised(x)
    part, wanted = y[2], y[2].clone()
    del y
    assert kernels.release_memory() == 0
    normalised(x + 1)
    assert torch.equal(part, wanted)


def test_threads_share_it(x):
    wanted = normalised(x)
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda n: torch.equal(normalised(x), wanted), range(80)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_of_fork_can_use_it(x):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        wanted = normalised(x)
        child = os.fork()
        if not child:
            os._exit(0 if torch.equal(normalised(x), wanted) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(before)
