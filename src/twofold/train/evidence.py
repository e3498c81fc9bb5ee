"""Evidence: the batch of a step that went wrong, kept for a person to look at.

    faults/step-00000123.safetensors     the tensors of the batch and of the state that it went on from, by name: as the model saw them
    faults/step-00000123.json            what each of them is, the samples' names, the plain values, the fault in words

Both are written whole or not at all. At most KEPT batches are kept, the first ones: what comes later is mostly their consequence. Of a
batch beyond LARGEST bytes only as many items are kept as fit, the broken ones first. A disk that refuses them stops nothing: it is said.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from twofold.data import files
from twofold.train.culprit import Fault
from twofold.train.leaves import item_axis, leaves, tensors

KEPT = 8  # batches
LARGEST = 64 << 20  # bytes a batch


class Kept(NamedTuple):
    """Where the batch is, None where it is not kept; and a sentence that says so."""

    path: Path | None
    said: str


def save_batch(folder: Path, step: int, batch: Any, fault: Fault, *, carried: Any = None, names: Sequence[Any] | None = None) -> Kept:
    """Write the batch of a step (a number that only grows) into folder. names: those of its items. Raises nothing."""
    path = folder / f"step-{step:08d}.safetensors"
    known = list(folder.glob("step-*.safetensors")) if folder.is_dir() else []
    if len(known) >= KEPT and path not in known:
        return Kept(None, f"{KEPT} batches are kept in {folder} already: this one is not.")
    content, chosen = _within(tensors(batch), list(fault.items))
    state = tensors(carried)
    room = LARGEST - sum(_bytes(x) for x in content.values())
    if chosen is None and sum(_bytes(x) for x in state.values()) <= room:
        content |= {f"carried.{name}": x for name, x in state.items()}
    described = {
        "step": step,
        "fault": fault._asdict(),
        "batch": type(batch).__name__,
        "tensors": {name: {"shape": list(x.shape), "dtype": str(x.dtype).removeprefix("torch.")} for name, x in content.items()},
        "values": {
            name: part if isinstance(part, (bool, int, float, str, type(None))) else repr(part)[:200] for name, part in _others(batch)
        },
        "items": chosen,  # the rows of the batch that these are; null: all of them, in order
        "samples": None if names is None else [_plain(names[item]) for item in (range(len(names)) if chosen is None else chosen)],
    }
    stored = {name: x.detach().cpu().contiguous().clone() for name, x in content.items()}
    text = json.dumps(described, indent=1, ensure_ascii=False)
    try:
        files.write_all({path: safetensors.torch.save(stored), path.with_suffix(".json"): text.encode()})
    except OSError as error:
        return Kept(None, f"The batch could not be kept in {folder}: {error.strerror or error}.")
    return Kept(path, f"The batch is kept in {path}.")


def _within(content: dict[str, Tensor], broken: list[int]) -> tuple[dict[str, Tensor], list[int] | None]:
    """The tensors, and None; or those of as many items as fit, the broken ones first, and which ones these are."""
    size = sum(_bytes(x) for x in content.values())
    if size <= LARGEST:
        return content, None
    axes = {name: item_axis(name, x) for name, x in content.items()}
    counts = {content[name].shape[axis] for name, axis in axes.items() if axis is not None}
    items = max(counts, default=0)
    order = [*broken, *(item for item in range(items) if item not in set(broken))]
    chosen = sorted(order[: LARGEST * items // max(size, 1)])
    rows = torch.tensor(chosen, dtype=torch.long)
    kept = {
        name: x.index_select(axis, rows.to(x.device))
        for name, x in content.items()
        if (axis := axes[name]) is not None and x.shape[axis] == items
    }
    return kept, chosen


def _others(batch: Any) -> list[tuple[str, Any]]:
    return [(name, part) for name, part in leaves(batch) if not isinstance(part, Tensor)]


def _plain(name: Any) -> Any:
    return name.item() if isinstance(name, Tensor) else name if isinstance(name, (int, str)) else str(name)


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()
