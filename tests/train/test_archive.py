"""What goes into an archive comes out: every kind of value, every type of tensor, in the same order in memory."""

import math
from collections import OrderedDict, namedtuple

import pytest
import torch

from twofold.train import archive


def there_and_back(states):
    return archive.read(b"".join(archive.pieces(archive.freeze(states), {"step": "3"})))


def test_plain_values_come_back_with_their_types_and_every_bit():
    value = {
        "whole": [0, -1, 2**70, True], "numbers": (0.1, 1e-320, -0.0, math.inf), "nothing": None, "text": "Köln\n\0\"", 7: {"deep": ()},
        "keys": {None: 1, 2.5: 2, (1, "a"): 3}, "tensor": {"tensor": "x", "dict": 1, "tuple": 2},
    }  # fmt: skip
    facts, back = there_and_back(value)
    assert back == value and repr(back) == repr(value) and facts["step"] == "3"
    assert math.isnan(there_and_back([math.nan])[1][0])
    assert there_and_back(OrderedDict(a=torch.Size([1])))[1] == {"a": (1,)}


@pytest.mark.parametrize("dtype", archive._NAMES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 4), (2, 3, 5)])
def test_tensors_of_every_type_come_back_bit_for_bit(dtype, shape):
    count = math.prod(shape)
    x = torch.randint(0, 2 if dtype is torch.bool else 256, (count * dtype.itemsize,), dtype=torch.uint8).view(dtype).reshape(shape)
    _, (back, one) = there_and_back([x, torch.ones(1, dtype=torch.uint8)])
    assert (back.dtype, back.shape, one.item()) == (dtype, x.shape, 1)
    assert torch.equal(back.reshape(-1).view(torch.uint8), x.reshape(-1).view(torch.uint8))


@pytest.mark.parametrize(
    "x",
    [
        torch.arange(120.0).view(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.arange(12.0).view(3, 4).t(),
        torch.arange(24.0).view(2, 3, 4).permute(2, 0, 1),
    ],
    ids=["channels last", "transposed", "permuted"],
)
def test_the_order_in_memory_is_kept(x):
    back = there_and_back(x)[1]
    assert torch.equal(back, x) and back.stride() == x.stride()


def test_parts_of_larger_tensors_come_back_alone():
    whole = torch.arange(100.0).view(10, 10)
    for part in (whole[2:4, ::3], whole[0].expand(3, 10), torch.nn.Parameter(whole)[1]):
        back = there_and_back(part)[1]
        assert torch.equal(back, part) and back.untyped_storage().nbytes() == part.nbytes and not back.requires_grad


def test_a_tensor_with_two_names_is_stored_once_and_stays_one():
    tied, other = torch.ones(1000), torch.ones(1000)
    frozen = archive.freeze({"head": tied, "embedding": tied.detach(), "other": other, "part": tied[:500]})
    assert [len(x) for x in frozen.tensors.values()] == [1000, 1000, 500]
    back = archive.read(b"".join(archive.pieces(frozen, {})))[1]
    assert back["head"] is back["embedding"] or back["head"].data_ptr() == back["embedding"].data_ptr() != back["other"].data_ptr()


def test_paths_that_read_alike_are_kept_apart():
    states = {
        "a": {"b": torch.zeros(1)},
        "a/b": torch.ones(1),
        1: torch.full((1,), 2.0),
        "1": torch.full((1,), 3.0),
        "__metadata__": torch.ones(2),
    }
    back = there_and_back(states)[1]
    assert [back["a"]["b"].item(), back["a/b"].item(), back[1].item(), back["1"].item(), len(back["__metadata__"])] == [0, 1, 2, 3, 2]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1, 2}, "states/3: expected a tensor or a plain value .*, got set"),
        (namedtuple("State", "h")(torch.ones(1)), "got State. Turn it into one in state_dict"),
        (torch.ones(2).to_sparse(), "expected a dense tensor of a usual type, got one that is sparse_coo, float32"),
        (torch.ones(2, dtype=torch.complex128), "got one that is strided, complex128"),
        (torch.ones(2, device="meta"), "got one that is meta"),
    ],
    ids=["set", "named tuple", "sparse", "complex128", "meta"],
)
def test_what_cannot_be_kept_is_named_with_its_path(value, words):
    with pytest.raises(ValueError, match=f"checkpoint: states/3: .*{words.removeprefix('states/3: ')}"):
        archive.freeze({"states": [0, 0, 0, value]})
