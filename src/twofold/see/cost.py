"""Cost: what training a model would take, known before it begins.     n items in a batch

    kept(n)     bytes that forward keeps for backward = fixed + each * n            measured on batches of 2 and of 3
    memory(n) = weights * TRAINING + kept(n) + 2 * (bytes of the largest output) * n
                TRAINING copies: weights, gradients, and AdamW's two moments; the rest: the gradients that two layers pass on meanwhile
    fits        memory(n) <= free memory + the weights, which are held already
    time        forward in use, and forward, loss, backward and AdamW in training: the median of as many as the bound allows

What is kept is what autograd holds when forward has ended, as `torch.autograd.graph.saved_tensors_hooks` shows it: every storage once,
weights and buffers left out. It is what this machine's routes keep; a fused layer keeps less than its parts would. A batch of one is never
tried: batch norm over one value has no variance. Where a batch of 3 could itself be too large, or the model has no content, it is measured
on torch's meta device, whose tensors have none, and by PyTorch's operators, which keep more. Scratch memory of single operators, averages
of the weights, data and the program itself come on top.
"""

import copy
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from statistics import median
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from twofold.data.free_memory import free_memory
from twofold.models.memory import TRAINING, memory
from twofold.see.summary import Line
from twofold.tasks.classify import Classification, Pictures
from twofold.tasks.language import Language, Window

FIRST, SECOND = 2, 3  # items of the batches that are tried
BOUND: Final = 1.0  # seconds for forward, and again for steps; one of each is always made
LONG_BOUND: Final = 30.0  # the same for a whole batch
ROUNDS: Final = 3  # repetitions that there should be room for
OUTPUTS: Final = 3  # what a step keeps is less than so many times the outputs of all layers


class Trial(NamedTuple):
    """What to try a model with: a batch of noise of so many items, on a device, as forward takes it; and the loss of a model on it."""

    batch: Callable[[int, str], Tensor]
    loss: Callable[[nn.Module, Tensor], Tensor]


class Times(NamedTuple):
    """Milliseconds of a batch of so many items: forward in use, a training step, and the part of it that does not grow with the batch."""

    items: int
    forward: float
    step: float
    moving: float


class Cost(NamedTuple):
    """Bytes of a training step, and times where they could be taken. largest: the batch that fits, 0 where not even one item does.

    activations: what is kept for backward; with `largest` None where it could not be measured. unknown: why, where that is known.
    """

    batch: int
    weights: int
    gradients: int
    optimizer: int
    activations: int | None
    passing: int
    free: int
    whole: int
    largest: int | None
    times: Times | None = None
    unknown: str = ""

    @property
    def total(self) -> int | None:
        """Bytes of a training step."""
        if self.activations is None:
            return None
        return self.weights + self.gradients + self.optimizer + self.activations + self.passing

    @property
    def suffices(self) -> bool:
        """Whether the memory that is free would do."""
        return self.largest is None or self.batch <= self.largest

    def as_dict(self) -> dict[str, Any]:
        """Plain values for --json."""
        plain = {f"{name}_bytes": getattr(self, name) for name in ("weights", "gradients", "optimizer", "activations", "passing", "total")}
        timed = self.times
        times = {
            "timed_batch": timed and timed.items,
            "forward_milliseconds": timed and timed.forward,
            "step_milliseconds": timed and timed.step,
            "optimizer_milliseconds": timed and timed.moving,
        }
        room = {"free_bytes": self.free, "memory_bytes": self.whole, "suffices": self.suffices, "largest_batch": self.largest}
        return {"batch": self.batch, **plain, **room, **times}

    def lines(self) -> list[str]:
        """Sentences for people."""
        said = []
        if self.total is not None and self.activations is not None:
            parts = (
                *(("weights", self.weights), ("gradients", self.gradients), ("AdamW", self.optimizer)),
                *(("kept for backward", self.activations), ("gradients of maps", self.passing)),
            )
            shown = ", ".join(f"{name} {spoken(size)}" for name, size in parts)
            said.append(f"memory of a training step, batch of {self.batch:,}: {spoken(self.total)} ({shown})")
            if not self.suffices:
                said.append(self._shortage(self.total))
        if self.unknown:
            said.append(f"memory of a training step: not known, for a batch of {FIRST} is refused. {self.unknown}")
        if self.times is not None:
            items, forward, step, moving = self.times
            said.append(
                f"measured here, batch of {items:,}: forward {forward:,.1f} ms, training step {step:,.1f} ms ({moving:,.1f} ms of it AdamW)"
            )
            if items < self.batch:
                scale = self.batch / items
                told = "; --time measures it" if self.suffices else ""
                said.append(
                    f"so about {scale * forward:,.0f} ms and {moving + scale * (step - moving):,.0f} ms for a batch of {self.batch:,}{told}"
                )
        return said

    def _shortage(self, total: int) -> str:
        have = f"{spoken(self.free + self.weights)} of {spoken(self.whole)} are to be had"
        begun = f"The memory will not suffice: a batch of {self.batch:,} needs {spoken(total)}, and {have}."
        if self.largest:
            return f"{begun} The largest batch that fits is {self.largest:,}: --batch-size {self.largest}, or --accumulate."
        return f"{begun} Not even one item fits: take smaller pictures, or a smaller model."


def of_pictures(size: tuple[int, ...], classes: int) -> Trial:
    """For a classifier of pictures (C, H, W), or of signals (C, T)."""
    task = Classification(tuple(map(str, range(classes))))

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return task.loss(model, Pictures(x, torch.zeros(len(x), dtype=torch.long, device=x.device))).loss

    return Trial(lambda items, device: torch.randn(items, *size, device=device), loss)


def of_text(steps: int, vocabulary: int) -> Trial:
    """For a language model: streams of so many steps."""

    def loss(model: nn.Module, x_TB: Tensor) -> Tensor:
        return Language().loss(model, Window(x_TB, x_TB, True)).loss

    return Trial(lambda items, device: torch.randint(vocabulary, (steps, items), device=device), loss)


def cost(model: nn.Module, trial: Trial, lines: Iterable[Line], batch: int = 32, long: bool = False) -> Cost:
    """What a training step of that batch would take. lines: the summary of one item. long: time a whole batch, for up to LONG_BOUND.

    Weights and buffers of the model are as before, its gradients are gone. Of a model on the meta device nothing is timed.
    Raises ValueError for a batch below 1.
    """
    if batch < 1:
        raise ValueError(f"summary: expected --batch of at least 1, got {batch}.")
    outputs = [line.bytes for line in lines]
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    bare = any(p.is_meta for p in model.parameters())
    free, whole = free_memory() - (weights if bare else 0), memory()
    room = free - (TRAINING - 1) * weights  # the weights are held already
    passing = 2 * max(outputs, default=0)
    light = OUTPUTS * SECOND * sum(outputs) + SECOND * passing <= room and not bare
    known: tuple[int, int] | None = None
    unknown = ""
    with _as_before(model), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clock = _Clock(model, trial) if light else None
        with suppress(RuntimeError):  # an operator that the meta device lacks
            known, unknown = _known(model, trial, clock)
        largest = None if known is None else max(0, (room - known[0]) // max(1, known[1] + passing))
        times = None
        if long and clock is None and not bare and largest is not None and largest >= SECOND:
            clock = _Clock(model, trial)  # the guess was too careful
            clock.first()
        if clock is not None and (largest is None or largest >= FIRST):
            times = clock.times(batch if largest is None else min(batch, largest), LONG_BOUND if long else BOUND)
    activations = None if known is None else known[0] + known[1] * batch
    state = (TRAINING - 2) * weights
    return Cost(batch, weights, weights, state, activations, passing * batch, free, whole, largest, times, unknown)


def spoken(count: int) -> str:
    """A number of bytes in the unit that suits it.

    >>> spoken(5 << 30), spoken(3 << 19), spoken(100)
    ('5.0 GiB', '1.5 MiB', '0.1 KiB')
    """
    unit = next((unit for unit in (3, 2) if count >= 1 << 10 * unit), 1)
    return f"{count / (1 << 10 * unit):.1f} {' KMG'[unit]}iB"


def _known(model: nn.Module, trial: Trial, clock: "_Clock | None") -> tuple[tuple[int, int] | None, str]:
    """What is kept, or why a batch without content, which may be larger than an operator can take, was refused."""
    try:
        return _kept(model, trial, clock), ""
    except ValueError as error:
        if clock is not None:
            raise
        return None, str(error)


def _kept(model: nn.Module, trial: Trial, clock: "_Clock | None") -> tuple[int, int]:
    """(fixed, each). Without a clock, which has room for a real step, on the meta device."""
    if clock is not None:
        first, second = clock.first(), kept(model, trial, SECOND)
    else:
        places = [*model.parameters(), *model.buffers()]
        twins: dict[int, Any] = {id(t): _without_content(t) for t in places}
        bare = copy.deepcopy(model, twins)
        first, second = kept(bare, trial, FIRST, "meta"), kept(bare, trial, SECOND, "meta")
    each = (second - first) // (SECOND - FIRST)
    return max(0, first - FIRST * each), each


def _without_content(tensor: Tensor) -> Tensor:
    bare = torch.empty_like(tensor, device="meta")
    return nn.Parameter(bare, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else bare


def kept(
    model: nn.Module, trial: Trial, items: int, device: str = "cpu", then: Callable[[Tensor], None] = lambda loss: None
) -> int:  # fmt: skip
    """Bytes that the forward pass of a batch keeps for backward. then: what comes of the loss, while they are kept."""
    held = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    storages: dict[int, Any] = {}  # which keeps them from being made anew at the same place

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in held:
            storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = trial.loss(model, trial.batch(items, device))
    size = sum(storage.nbytes() for storage in storages.values())
    storages.clear()
    then(loss)
    return size


class _Clock:
    """Times forward passes and training steps of one model; the rate is 0, so that no weight moves."""

    def __init__(self, model: nn.Module, trial: Trial) -> None:
        self.model, self.trial = model, trial
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0, fused=True)
        self.taken, self.moving = 0.0, float("inf")  # seconds of the first step; of the fastest call of the optimiser

    def first(self) -> int:
        """The first step, and what it kept."""
        begun = time.perf_counter()
        size = kept(self.model, self.trial, FIRST, then=self._learn)
        self.taken = time.perf_counter() - begun
        return size

    def times(self, batch: int, bound: float) -> Times:
        """Of the largest batch up to `batch` that the bound has room for."""
        probe = self.taken if self.taken > bound else min(self.taken, _seconds(lambda: self._step(FIRST)))
        each = max(probe - self.moving, probe / 10) / FIRST
        items = max(FIRST, min(batch, int((bound / ROUNDS - self.moving) / each)))
        step = probe if probe > bound else _median(lambda: self._step(items), bound)
        self.model.eval()
        x = self.trial.batch(items, "cpu")
        with torch.no_grad():
            forward = _median(lambda: self.model(x), bound)
        return Times(items, 1000 * forward, 1000 * step, 1000 * min(self.moving, step))

    def _step(self, items: int) -> None:
        self._learn(self.trial.loss(self.model, self.trial.batch(items, "cpu")))

    def _learn(self, loss: Tensor) -> None:
        loss.backward()
        self.moving = min(self.moving, _seconds(self.optimizer.step))
        self.optimizer.zero_grad()


def _median(run: Callable[[], Any], bound: float) -> float:
    """Seconds of a call: the first one warms up, unless it takes more than half of the bound."""
    begun, times = time.perf_counter(), [_seconds(run)]
    while (spent := time.perf_counter() - begun) + times[-1] < bound and (spent < BOUND or len(times) <= ROUNDS):
        times.append(_seconds(run))
    return median(times[1:] or times)


def _seconds(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


class _as_before:
    """A block in training mode, after which mode, weights and buffers are those of before, and gradients are gone."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.training = {module: module.training for module in self.model.modules()}
        self.buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        self.model.train()

    def __exit__(self, *_: object) -> None:
        for module, training in self.training.items():
            module.training = training
        for buffer, value in self.buffers:
            buffer.copy_(value)
        self.model.zero_grad()
