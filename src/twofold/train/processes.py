"""Several processes, on one machine or many, that make one training.     P processes, r = 0 .. P-1

    add       sum over r of x_r, in float64           a mean over all items is add(sums) / add(counts), never a mean of means
    any_of    x_0 or x_1 or ...                       a stop, a number gone wrong: what one meets, all act upon
    agree     x_0                                     a decision of the first process, which alone writes files
    collect   x_0, x_1, ...                           every process's value, for every process

Each of the four is a meeting: all processes call it, in the same order. The world is what torchrun's environment says (RANK, WORLD_SIZE,
...); without it a process is alone, and nothing is sent anywhere.

`join` in joining.py brings the processes together.
"""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from twofold.train.shards import Shard

CPU = torch.device("cpu")
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "TORCHELASTIC_RESTART_COUNT")


@dataclass(frozen=True)
class World:
    """This process among all. `local` is its number on its own machine; `restarts`: how often torchrun has started all of them anew."""

    process: int = 0
    processes: int = 1
    local: int = 0
    machine: int = 0
    restarts: int = 0
    device: torch.device = CPU

    @classmethod
    def of_environment(cls, kind: str = "cpu") -> Self:
        """The world that torchrun describes, or that of a process alone; `kind` of device: cpu, or cuda, one for each process.

        Raises ValueError for an environment that is incomplete or cannot be.
        """
        given = {name: _number(name, os.environ[name]) for name in NAMES if name in os.environ}
        alone = "Start several processes with twofold train --processes or with torchrun, or unset it to train alone."
        for name, other in (("WORLD_SIZE", "RANK"), ("RANK", "WORLD_SIZE")):
            if name in given and other not in given:
                raise ValueError(f"processes: the environment has {name}={given[name]}, but no {other}. {alone}")
        process, processes = given.get("RANK", 0), given.get("WORLD_SIZE", 1)
        if not process < processes:
            raise ValueError(f"processes: expected RANK below WORLD_SIZE={processes}, got {process}. {alone}")
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if processes > 1 and name not in os.environ]
        if missing:
            raise ValueError(f"processes: WORLD_SIZE={processes}, but the environment has no {' and no '.join(missing)}. {alone}")
        local = given.get("LOCAL_RANK", 0)
        return cls(process, processes, local, given.get("GROUP_RANK", 0), given.get("TORCHELASTIC_RESTART_COUNT", 0), _device(kind, local))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.process == 0

    @property
    def shard(self) -> Shard:
        """This process's part of every batch."""
        return Shard(self.process, self.processes)

    def add(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The sums over all processes, name by name, in float64. A number that is none on one process is none for all."""
        if self.processes == 1:
            return dict(numbers)
        sums = torch.tensor(list(numbers.values()), dtype=torch.float64)
        dist.all_reduce(sums)
        return dict(zip(numbers, sums.tolist(), strict=True))

    def any_of(self, flag: bool) -> bool:
        """Whether the flag is true in any process."""
        return self.add({"flag": float(flag)})["flag"] > 0

    def agree(self, value: Any) -> Any:
        """The first process's value, in all of them: tensors and plain values, or tuples, lists and dicts of these."""
        if self.processes == 1:
            return value
        content = _written(value) if self.first else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor([len(content)])
        dist.broadcast(size, 0)
        content = content if self.first else torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(content, 0)
        return _read(content)

    def collect(self, value: Any) -> list[Any]:
        """Every process's value, in their order, in all of them: tensors and plain values, or tuples, lists and dicts of these."""
        if self.processes == 1:
            return [value]
        content = _written(value)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.processes)]
        dist.all_gather(sizes, torch.tensor([len(content)]))
        longest = int(max(sizes))
        padded = [torch.empty(longest, dtype=torch.uint8) for _ in sizes]
        dist.all_gather(padded, torch.nn.functional.pad(content, (0, longest - len(content))))
        return [_read(there[: int(size)]) for there, size in zip(padded, sizes, strict=True)]

    def gather(self, rows: Tensor | None) -> Tensor:
        """The rows of all processes, one below the other in their order; None from one that has none. Raises ValueError without any."""
        found = [part for part in self.collect(rows) if part is not None]
        if not found:
            raise ValueError("processes: no process has a row to evaluate: this split is empty.")
        return torch.cat(found)

    def expect_same(self, what: str, values: Mapping[str, Any]) -> None:
        """Raise ValueError in every process where one has other values than the first; they are compared as JSON."""
        texts = {name: json.dumps(value, sort_keys=True, default=str) for name, value in values.items()}
        first, *others = self.collect(texts)
        for process, theirs in enumerate(others, 1):
            differing = [
                f"{name} is {theirs.get(name, 'missing')}, not {first.get(name, 'missing')}"
                for name in {**first, **theirs}
                if theirs.get(name) != first.get(name)
            ]
            if differing:
                more = f", and {len(differing) - 5} more" if len(differing) > 5 else ""
                raise ValueError(
                    f"{what} of process {process} differ from those of process 0: {'; '.join(differing[:5])}{more}. "
                    "Start all processes with the same command and the same files."
                )

    def reseed(self, seed: int) -> None:
        """Give all but the first process other random numbers: no two draw the same dropout masks. Call it when the model is built."""
        if not self.first:
            torch.manual_seed(seed + 1_000_003 * self.process)


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"processes: expected {name} in the environment to be a whole number, got {text!r}. torchrun sets it.")
    return int(text)


def _device(kind: str, local: int) -> torch.device:
    if kind == "cpu":
        return CPU
    if not local < torch.cuda.device_count():
        raise ValueError(
            f"processes: process {local} of this machine needs a GPU of its own, but there are {torch.cuda.device_count()}. "
            "Start at most one process for each GPU."
        )
    return torch.device("cuda", local)


def _written(value: Any) -> Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _read(content: Tensor) -> Any:
    return torch.load(io.BytesIO(content.numpy().tobytes()), weights_only=True)
