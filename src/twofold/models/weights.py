"""Files of weights, read as data: names and tensors, and nothing that runs.

    .safetensors                   a header in JSON, then the numbers
    .pth .pt .th .bin .tar         PyTorch's own format, the zip archive and the older one, through torch.load(weights_only=True)
    a run folder                   its model.safetensors

    judge the instructions (pickled.py) -> read shapes alone -> no more numbers than the file has bytes -> read

A dictionary that holds the weights beneath "state_dict", "model", "model_state_dict" or "net" is opened, and the prefixes that wrappers put
before every name ("module." of DataParallel, "model.", "_orig_mod." of torch.compile) are taken off.

Whatever a file claims, memory is asked for only what it can fill: a shape of a thousand billion numbers in a file of a kilobyte is refused.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from twofold.models.pickled import judge

PICKLED = (".pth", ".pt", ".th", ".bin", ".tar")
INSIDE = ("state_dict", "model", "model_state_dict", "net")  # where others put the weights, beside epoch and scores
PREFIXES = ("module.", "model.", "_orig_mod.")
LARGEST_HEADER = 1 << 24  # bytes; of a thousand tensors it has a hundred thousand
LARGEST_PICKLE = 1 << 26  # bytes of instructions
_PICKLES = 5  # of the older format: a number, a version, the machine, the weights, the names of the storages
CURE = 'Save the weights alone: torch.save(model.state_dict(), "weights.pth"), or as .safetensors'


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the processor.

    Raises ValueError: missing, of another format, cut off, damaged, with anything but tensors in it, with shapes that it cannot fill.
    """
    file = weights_file(path)
    found = _read_safetensors(file) if file.suffix.lower() == ".safetensors" else _read_pickled(file)
    weights = {str(name): value for name, value in _opened(found).items() if isinstance(value, Tensor)}
    if not weights:
        raise ValueError(f"weights: {file} holds no tensors by name; it holds {_spoken(found)}. {CURE}.")
    return _without_prefixes(weights)


def weights_file(path: str | Path) -> Path:
    """The file that is meant. Raises ValueError where there is none, or one of another kind."""
    file = Path(path).expanduser()
    if file.is_dir():
        if (file / "model.safetensors").is_file():
            return file / "model.safetensors"
        raise ValueError(f"weights: {file} is a folder without model.safetensors: expected a run folder, or a file of weights.")
    if not file.is_file():
        raise ValueError(f"weights: there is no file {file}.")
    if file.suffix.lower() not in (".safetensors", *PICKLED):
        raise ValueError(f"weights: {file}: expected a file that ends in .safetensors or {', '.join(PICKLED)}.")
    return file


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    size = file.stat().st_size
    with file.open("rb") as content:
        header = int.from_bytes(content.read(8), "little")
    if size < 8 or header > min(size - 8, LARGEST_HEADER):
        what = "cut off, or of another format" if header > size - 8 or size < 8 else f"more than {LARGEST_HEADER:,}"
        raise ValueError(f"weights: {file}: its header says {header:,} bytes, the file has {size:,}: {what}. Copy or download it again.")
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no dict)
    except (safetensors.SafetensorError, RuntimeError, ValueError) as error:
        raise ValueError(f"weights: {file} is damaged or cut off ({_first_line(error)}). Copy or download it again.") from None


def _read_pickled(file: Path) -> Any:
    """What torch.load gives, judged first."""
    _refuse_instructions(file)
    try:
        shapes = torch.load(file, map_location="meta", weights_only=True)
        _refuse_unfilled(file, shapes)
        return torch.load(file, map_location="cpu", weights_only=True)
    except ValueError:
        raise
    except Exception as error:  # whatever a file made to break a reader makes it raise
        raise ValueError(f"weights: {file} is damaged or cut off ({_first_line(error)}). Copy or download it again.") from None


def _refuse_instructions(file: Path) -> None:
    """Raise ValueError for a file whose pickles hold anything but weights, or whose archive is not as PyTorch writes it."""
    if not zipfile.is_zipfile(file):
        with file.open("rb") as content:
            start = content.read(2)
            if start == b"PK":
                raise ValueError(f"weights: {file} is cut off: it begins as an archive, and has no end. Copy or download it again.")
            if start[:1] != b"\x80":
                raise ValueError(f"weights: {file} is no file of weights: PyTorch has written none that begins so. Is it a web page?")
            content.seek(0)
            _refuse(file, next((reason for _ in range(_PICKLES) if (reason := judge(content))), ""))
        return
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
            if not stored or sum(part.file_size for part in parts) > file.stat().st_size:
                raise ValueError(f"weights: {file}: its parts are packed, or overlap, as PyTorch writes none. Save the weights anew.")
            instructions = [part for part in parts if part.filename.rpartition("/")[2] == "data.pkl"]
            if len(instructions) != 1 or instructions[0].file_size > LARGEST_PICKLE:
                raise ValueError(f"weights: {file} is an archive, but holds no weights as PyTorch writes them (data.pkl).")
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"weights: {file} is damaged: the checksum of {damaged} inside is wrong. Copy or download it again.")
            with archive.open(instructions[0]) as content:
                _refuse(file, judge(content))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"weights: {file} is damaged or cut off ({_first_line(error)}). Copy or download it again.") from None


def _refuse(file: Path, reason: str) -> None:
    if reason.startswith("it is cut"):
        raise ValueError(f"weights: {file}: {reason}. Copy or download it again.")
    if reason:
        raise ValueError(f"weights: {file}: {reason}. Such a file can run code, so it is not read. {CURE}.")


def _refuse_unfilled(file: Path, found: Any) -> None:
    """Raise ValueError for tensors that are larger than what is stored of them. found: on torch's meta device, shapes without content."""
    tensors = list(_tensors(found))
    stored = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    size = file.stat().st_size
    largest = max(tensors, key=lambda tensor: tensor.nbytes, default=torch.empty(0))
    needed = max(sum(stored.values()), largest.nbytes)
    if needed > size:
        raise ValueError(
            f"weights: {file}: its shapes, such as {tuple(largest.shape)}, need {needed:,} bytes, and the file has {size:,}. It is "
            "damaged, or made to harm."
        )


def _tensors(found: Any, depth: int = 4) -> Any:
    """All tensors in nested dictionaries, lists and tuples."""
    if isinstance(found, Tensor):
        yield found
    elif depth and isinstance(found, Mapping | list | tuple):
        for value in found.values() if isinstance(found, Mapping) else found:
            yield from _tensors(value, depth - 1)


def _opened(found: Any) -> Mapping[Any, Any]:
    """The dictionary of the weights within the one that holds it."""
    while isinstance(found, Mapping) and not any(isinstance(value, Tensor) for value in found.values()):
        inner = next((found[name] for name in INSIDE if isinstance(found.get(name), Mapping) and found[name] is not found), None)
        if inner is None:
            return {}
        found = inner
    return found if isinstance(found, Mapping) else {}


def _without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    while (prefix := next((each for each in PREFIXES if all(name.startswith(each) for name in weights)), "")) != "":
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _spoken(found: Any) -> str:
    if isinstance(found, Mapping):
        return f"the names {', '.join(str(name)[:40] for name in list(found)[:5])}" if found else "nothing"
    return f"a {type(found).__name__}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
