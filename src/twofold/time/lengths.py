"""Rows of unequal length, padded to a common T.     T steps, B rows, D features; n_b <= T steps belong to row b

    valid        v[t,b] = t < n_b
    reversed     y[t,b] = x[n_b - 1 - t, b] where t < n_b, 0 behind                 its own backward: dx = reversed dy
    last         y[b] = x[n_b - 1, b], 0 where n_b = 0                              dx[n_b - 1, b] = dy[b], 0 elsewhere
    packed       the steps one after the other, in each the rows that have it, the longest row first: n_1 + .. + n_B vectors in all

What stands behind a row's end is never multiplied, not even by 0, which NaN would survive: it is replaced.
The packed form is that of torch.nn.utils.rnn.
"""

from operator import index
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from twofold.layers.expect import sentence


def expect_lengths(who: str, lengths: Any, B: int, T: int, device: torch.device) -> Tensor:
    """The lengths as an int64 tensor (B,) on `device`.

    Raises ValueError unless they are B whole numbers from 0 to T: a list, a tuple, or a tensor on the CPU or on `device`.
    """
    who, wanted = f"{who} lengths", f"B={B} whole numbers from 0 to T={T}, one a row"
    if isinstance(lengths, Tensor):
        if lengths.dim() != 1 or len(lengths) != B:
            cause = "A mask? Count it: lengths = mask.sum(0), or sum(1) with batch_first." if lengths.dim() == 2 else ""
            raise ValueError(sentence(who, wanted, str(tuple(lengths.shape)), "", cause))
        if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
            raise ValueError(sentence(who, wanted, str(lengths.dtype).removeprefix("torch."), "", "Convert them with lengths.long()."))
        if lengths.device not in (device, torch.device("cpu")):
            cause = "Move them to one of both with .to(device)."
            raise ValueError(sentence(who, f"device {device}, where the input is, or cpu", str(lengths.device), "", cause))
        lengths_B = lengths.detach().long()
        if lengths.is_meta:
            return lengths_B
        numbers = lengths_B.tolist()
    else:
        numbers = _whole_numbers(who, wanted, lengths)
        if len(numbers) != B:
            raise ValueError(sentence(who, wanted, f"{len(numbers)} of them", "", "Batches along the other axis? See batch_first."))
    for row, number in enumerate(numbers):
        if not 0 <= number <= T:
            cause = "Lengths count steps." if number < 0 else "Cut to a window? Cut the lengths, too."
            raise ValueError(sentence(who, wanted, f"{number} for row {row}", "", cause))
    return lengths_B.to(device) if isinstance(lengths, Tensor) else torch.tensor(numbers, dtype=torch.int64, device=device)


def valid(lengths_B: Tensor, T: int) -> Tensor:
    """v_TB: whether the step belongs to the row."""
    return torch.arange(T, device=lengths_B.device)[:, None] < lengths_B


def clear(x_TBD: Tensor, valid_TB: Tensor) -> Tensor:
    """x with 0 behind the rows' ends, whatever stood there."""
    return torch.where(valid_TB[..., None], x_TBD, 0)


def reverse_by_length(x_TBD: Tensor, lengths_B: Tensor) -> Tensor:
    """Each row from its own last step to its first; 0 behind its end."""
    T = x_TBD.shape[0]
    if T == 0:
        return x_TBD
    from_TB = (lengths_B - 1 - torch.arange(T, device=x_TBD.device)[:, None]).clamp(min=0)
    flipped_TBD = x_TBD.gather(0, from_TB[..., None].expand(x_TBD.shape))
    return clear(flipped_TBD, valid(lengths_B, T))


def last_by_length(x_TBD: Tensor, lengths_B: Tensor) -> Tensor:
    """x_BD at each row's own last step; 0 for a row without one."""
    if x_TBD.shape[0] == 0:
        return x_TBD.new_zeros(x_TBD.shape[1:])
    last_1B1 = (lengths_B - 1).clamp(min=0)[None, :, None]
    return torch.where(lengths_B[:, None] > 0, x_TBD.gather(0, last_1B1.expand(1, *x_TBD.shape[1:]))[0], 0)


def from_packed(packed: PackedSequence) -> tuple[Tensor, Tensor]:
    """(x_TBD with 0 behind the ends, lengths_B on its device), the rows in the order that they had before they were packed."""
    x_TBD, lengths_B = pad_packed_sequence(packed)
    return x_TBD, lengths_B.to(x_TBD.device)


def to_packed(x_TBD: Tensor, like: PackedSequence) -> PackedSequence:
    """The rows packed as `like` is: the same steps, the same order, the same indices."""
    rows_B = torch.arange(x_TBD.shape[1], device=x_TBD.device)
    has_TB = rows_B < like.batch_sizes.to(x_TBD.device)[:, None]  # rows by length: step t has the first of them
    by_length = x_TBD if like.sorted_indices is None else x_TBD.index_select(1, like.sorted_indices)
    return PackedSequence(by_length[has_TB], like.batch_sizes, like.sorted_indices, like.unsorted_indices)


def _whole_numbers(who: str, wanted: str, lengths: Any) -> list[int]:
    """The numbers of a list or a tuple; operator.index takes whole numbers of every kind and no others."""
    if not isinstance(lengths, (list, tuple)):
        got = repr(lengths) if isinstance(lengths, (int, float, str)) else type(lengths).__name__
        raise ValueError(sentence(who, wanted, got, "", "Give a list, a tuple or a tensor."))
    numbers = []
    for number in lengths:
        try:
            if isinstance(number, bool):
                raise TypeError
            numbers.append(index(number))
        except TypeError:
            raise ValueError(sentence(who, wanted, f"{number!r} among them", "", "Lengths count steps.")) from None
    return numbers
