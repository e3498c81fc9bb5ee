"""Tensors and plain values in one file that runs no code when it is read.

    8 bytes: n, little-endian      n bytes of JSON: the header      the bytes of the tensors, one after the other, without gaps

It is a safetensors file (https://github.com/huggingface/safetensors, "Format"), so any reader of that format shows its tensors by
their paths (model/conv1.weight). The header's __metadata__ holds the facts about the file and, as JSON, the structure that the tensors
stand in:

    value   null, true, 3, 0.5, "text", [value, ...]  as in JSON, with NaN and Infinity
            {"dict": [[key, value], ...]}             keys of any of these kinds
            {"tuple": [value, ...]}
            {"tensor": path, "order": [0, 2, 3, 1]}   the axes in the order in which they lie in memory (channels last stays so)
"""

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

FORMAT = "1"
_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2", torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint64: "U64",
    torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8", torch.bool: "BOOL", torch.complex64: "C64",
}  # fmt: skip


class Frozen(NamedTuple):
    """A copy of states that training no longer touches: the structure, and the tensors by their paths, dense, in memory order."""

    structure: Any
    tensors: dict[str, Tensor]


def freeze(states: Any) -> Frozen:
    """Copy states (tensors and plain values, nested) into the memory of the processor. One tensor under two names is kept once.

    Raises ValueError, naming the path, for what is neither a tensor nor a plain value.
    """
    tensors: dict[str, Tensor] = {}
    known: dict[tuple[Any, ...], dict[str, Any]] = {}

    def enter(value: Any, path: tuple[str, ...]) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Tensor):
            return enter_tensor(value.detach(), path)
        if isinstance(value, Mapping):
            return {"dict": [[enter(key, (*path, "key")), enter(inner, (*path, str(key)))] for key, inner in value.items()]}
        if type(value) in (list, tuple, torch.Size):
            entered = [enter(inner, (*path, str(index))) for index, inner in enumerate(value)]
            return entered if type(value) is list else {"tuple": entered}
        raise ValueError(
            f"checkpoint: {'/'.join(path)}: expected a tensor or a plain value (number, text, list, tuple, dict), "
            f"got {type(value).__name__}. Turn it into one in state_dict()."
        )

    def enter_tensor(value: Tensor, path: tuple[str, ...]) -> dict[str, Any]:
        if value.dtype not in _NAMES or value.layout is not torch.strided or value.is_meta:
            kind = "meta" if value.is_meta else f"{value.layout}, {value.dtype}".replace("torch.", "")
            raise ValueError(f"checkpoint: {'/'.join(path)}: expected a dense tensor of a usual type, got one that is {kind}.")
        key = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        if value.numel() and key in known:
            return known[key]
        copy = value.to("cpu", copy=True)
        order = sorted(range(copy.dim()), key=lambda axis: -copy.stride()[axis])
        name = "/".join(path)
        while name in tensors or name == "__metadata__":
            name += "'"
        tensors[name] = copy.permute(order).contiguous()
        known[key] = {"tensor": name, "order": order}
        return known[key]

    return Frozen(enter(states, ()), tensors)


def pieces(frozen: Frozen, facts: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The file, piece by piece, without another copy of the tensors."""
    metadata = {"twofold": FORMAT, **facts, "structure": json.dumps(frozen.structure)}
    header: dict[str, Any] = {"__metadata__": metadata}
    ordered = sorted(frozen.tensors.items(), key=lambda item: -item[1].itemsize)  # so that each begins at a multiple of its item's size
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    yield struct.pack("<Q", len(written)) + written
    for _, tensor in ordered:
        yield tensor.reshape(-1).view(torch.uint8).numpy().data


def read(content: bytes) -> tuple[dict[str, str], Any]:
    """The facts and the states of a file. Raises ValueError for anything but what `pieces` wrote; no code of the file is ever run."""
    try:
        (length,) = struct.unpack_from("<Q", content)
        stored = safetensors.torch.load(content)
        facts = json.loads(content[8 : 8 + length])["__metadata__"]
        if facts["twofold"] == FORMAT:
            # Cloned: torch aligns its own memory to 64 bytes, and the last bit of a matrix product may depend on that.
            tensors = {name: stored.pop(name).clone() for name in list(stored)}
            return facts, _thaw(json.loads(facts["structure"]), tensors)
    except Exception as error:  # whatever a file that is none of ours makes the readers raise
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(f"it is no archive of states ({type(error).__name__}: {first})") from None
    raise ValueError(f"expected an archive of format {FORMAT}, got {facts['twofold']!r}; was it written by a later version?")


def _thaw(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_thaw(inner, tensors) for inner in value]
    if not isinstance(value, dict):
        return value
    if "dict" in value:
        return {_thaw(key, tensors): _thaw(inner, tensors) for key, inner in value["dict"]}
    if "tuple" in value:
        return tuple(_thaw(inner, tensors) for inner in value["tuple"])
    stored, order = tensors[value["tensor"]], value["order"]
    return stored.permute([order.index(axis) for axis in range(stored.dim())])
