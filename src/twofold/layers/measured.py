"""`auto` where no rule knows: the contenders are measured once, on this machine, and the choice is remembered.

    question    operation, shape, dtype, layout and place of every tensor, the gradients wanted, options, precision permitted, threads
    trial       forward and, where gradients are wanted, backward: by the same autograd, on noise of the same shapes and layouts
    choice      the smallest median; the contender that runs without measuring is given up only for one that is 5 % faster, and for
                another layout only where it is 25 % faster: what comes after pays for the change

Each contender runs once to warm up, then all take turns. Measuring one question ends MARGIN of the bound after the warm-ups, and measuring
in a process at the bound (2 s): only the trial in progress is finished. Where the bound is spent before all have warmed up, the contender
that runs without measuring is the choice, and is remembered as such, so that the next run computes the same. The user's tensors, random
generators, hooks and modes are left alone.

    TWOFOLD_MEASURE=seconds     the bound for the process, 0: never measure
    with measuring(seconds)     the same for a block

Without measuring nothing remembered is used either: what runs then does not depend on any clock.

Frigo and Johnson, "The design and implementation of FFTW3", Proceedings of the IEEE 93, 2005, section III: plans by measurement
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import _disable_current_modes

from twofold.layers import choices
from twofold.layers.choices import Choice
from twofold.layers.forms import layout_of

BOUND = 2.0  # seconds in a process
MARGIN = 0.03  # of the bound, for one question after the warm-ups: 60 ms
ROUNDS = 25
SURE = 1.05  # so much faster is a contender that is chosen
DOUBTED = 1.25  # the same after warm-ups alone, and for a change of layout
NOISE = 1 << 16  # numbers that are drawn; larger tensors repeat them
MOST = 20_000  # choices that a process remembers

Contenders = Mapping[str, Callable[..., Any]]

_bound: ContextVar[float | None] = ContextVar("measuring", default=None)
_remembered: dict[Any, Choice] = {}
_spent = 0.0
_turn = threading.RLock()


@contextmanager
def measuring(seconds: float = BOUND) -> Iterator[None]:
    """Within the block, or the function that it decorates, this process may have spent so many seconds on measuring; 0 or False: none.

    >>> import torch, twofold
    >>> from twofold import nn
    >>> with twofold.measuring(False):
    ...     y = nn.Conv2d(32, 64, 3)(torch.ones(1, 32, 8, 8))  # by rule, whatever was measured before
    """
    if isinstance(seconds, bool):
        seconds = BOUND if seconds else 0.0
    if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise ValueError(f"measuring: expected a number of seconds (0 or False: never measure), got {seconds!r}.")
    token = _bound.set(float(seconds))
    try:
        yield
    finally:
        _bound.reset(token)


def allowed() -> float:
    """The seconds that this process may spend on measuring in all."""
    own = _bound.get()
    return _environment() if own is None else own


@cache
def _environment() -> float:
    """What TWOFOLD_MEASURE says. Raises ValueError for anything but a number of seconds."""
    text = os.environ.get("TWOFOLD_MEASURE", "").strip() or str(BOUND)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < math.inf:
        raise ValueError(f"TWOFOLD_MEASURE: expected a number of seconds, 0 for never, got {text!r}.")
    return seconds


def fastest(name: str, arguments: tuple[Any, ...], default: str, contenders: Callable[[], Contenders]) -> tuple[str, str]:
    """(route, why): the contender that is the fastest for these arguments, or `default` where nothing is to be measured."""
    seconds = allowed()
    if not seconds:
        return default, "measuring is switched off"
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        return default, "autocast settles the precision"
    question: Any = (name, _signature(arguments), torch.get_num_threads())
    try:
        known = _remembered.get(question)
    except TypeError:  # an option that cannot be a key
        question = (name, repr(question))
        known = _remembered.get(question)
    if known is not None and known.settles(seconds):
        return known.route, _why(known)
    if not measurable(arguments) or len(_remembered) >= MOST:
        return default, "not measurable"
    with _turn:
        choice = _remembered[question] = _settle(_in_words(name, arguments), arguments, default, contenders(), seconds)
    return choice.route, _why(choice)


def _settle(question: str, arguments: tuple[Any, ...], default: str, contenders: Contenders, seconds: float) -> Choice:
    """The choice on disk, or one that is made now and written there."""
    global _spent
    if len(contenders) == 1:
        return Choice(default, {})
    known = choices.look_up(question)
    if known is not None and known.route in contenders and known.settles(seconds):
        return known
    if known is None and choices.number() >= choices.MOST:
        return Choice(default, {}, math.inf)
    start = time.perf_counter()
    try:
        times, sure = clock({default: contenders[default], **contenders}, arguments, MARGIN * seconds, seconds - _spent)
    finally:
        _spent += time.perf_counter() - start
    if len(times) < len(contenders):
        return choices.keep(question, Choice(default, _rounded(times), seconds))
    if times[default] == math.inf:  # it will say what is wrong
        return Choice(default, {})
    handicap = {name: SURE if sure and "channels" not in name else DOUBTED for name in times} | {default: 1.0}
    best = min(times, key=lambda name: times[name] * handicap[name])
    kept = choices.keep(question, Choice(best, _rounded(times)))
    return kept if kept.route in contenders else kept._replace(route=default)


def clock(
    contenders: Contenders, arguments: tuple[Any, ...], seconds: float, left: float = math.inf, weights: Sequence[Tensor] = ()
) -> tuple[dict[str, float], bool]:
    """(milliseconds of each contender, whether they took turns): medians over rounds that take `seconds` after the warm-ups.

    Each gets noise shaped like the arguments, and gradients are computed for those that require one and for `weights`. A contender that
    fails has infinity. Where `left` seconds do not suffice to warm all up, those that did not run are missing.
    """
    end = time.perf_counter() + left
    times: dict[str, list[float]] = {}
    with ExitStack() as stack:
        # checkpoints and offloading count what is kept for backward: this is not theirs
        if torch._C._autograd._saved_tensors_hooks_is_enabled():  # type: ignore[attr-defined]
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_same, _same))
        stack.enter_context(_disable_current_modes())
        stack.enter_context(torch.random.fork_rng(devices=_cuda(arguments)))
        noise = _Noise(arguments, weights)
        trials = {name: _Trial(run, noise) for name, run in contenders.items()}
        expected = 0.0  # seconds: that the next contender takes as long as the last is all that can be known
        for name, trial in trials.items():
            if time.perf_counter() + expected > end:
                return {known: 1e3 * taken[0] for known, taken in times.items()}, False
            times[name] = [trial.take()]
            expected = times[name][0] if times[name][0] < math.inf else expected
        default = next(iter(times))
        if seconds < times[default][0] < math.inf and len(times) > 1 and time.perf_counter() < end:
            times[default] = [min(times[default][0], trials[default].take())]  # it went first: libraries were started at its expense
        running = _fitting(times, seconds)
        end = min(end, time.perf_counter() + seconds)
        turns: dict[str, list[float]] = {name: [] for name in running}
        for turn in range(ROUNDS):
            if len(running) < 2 or time.perf_counter() + sum(_last(turns[name], times[name]) for name in running) > end:
                break
            for name in running if turn % 2 else reversed(running):
                turns[name].append(trials[name].take())
    sure = any(turns.values())
    return {name: 1e3 * median(turns.get(name) or taken) for name, taken in times.items()}, sure


def _fitting(times: dict[str, list[float]], seconds: float) -> list[str]:
    """Those that take turns: the first and the fastest others of which one round fits into the time."""
    default, *others = times
    running = [default, *sorted((name for name in others if times[name][0] < math.inf), key=lambda name: times[name][0])]
    while len(running) > 1 and sum(times[name][0] for name in running) > seconds:
        running.pop()
    return running if times[default][0] < math.inf else []


def _last(turns: list[float], warm_up: list[float]) -> float:
    return turns[-1] if turns else warm_up[0]


class _Noise:
    """What all contenders compute with: arguments of the same shapes, dtypes and layouts, and gradients of what comes out."""

    def __init__(self, arguments: tuple[Any, ...], weights: Sequence[Tensor]) -> None:
        self.drawn = torch.randn(NOISE, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
        self.arguments = tuple(self.argument(a) if isinstance(a, Tensor) else a for a in arguments)
        self.leaves = [a for a in (*self.arguments, *weights) if isinstance(a, Tensor) and a.requires_grad]
        self.devices = _cuda(arguments)

    def argument(self, x: Tensor) -> Tensor:
        """A stand-in for x. Whole numbers, which may be places or classes, are copied."""
        if not x.is_floating_point():
            return x.detach().clone()
        return self.like(x).requires_grad_(torch.is_grad_enabled() and x.requires_grad)

    def like(self, x: Tensor) -> Tensor:
        """Noise shaped and laid out like x; what is large repeats itself, for drawing would take longer than computing."""
        stride = torch.empty_like(x, device="meta").stride()
        flat = self.drawn.to(x.device, x.dtype).repeat(-(-x.numel() // NOISE) or 1)
        return flat.as_strided(x.shape, stride)

    def wait(self) -> None:
        """Until what was started is done."""
        for device in self.devices:
            torch.cuda.synchronize(device)


class _Trial:
    """One contender at work on noise."""

    def __init__(self, run: Callable[..., Any], noise: _Noise) -> None:
        self.run, self.noise = run, noise
        self.dy: list[Tensor] | None = None

    def take(self) -> float:
        """Seconds of forward and, where a gradient is wanted, backward; infinity where it fails."""
        try:
            return self._take()
        except (RuntimeError, ValueError, MemoryError):
            return math.inf

    def _take(self) -> float:
        noise = self.noise
        noise.wait()
        start = time.perf_counter()
        y = self.run(*noise.arguments)
        outputs = [part for part in (y if isinstance(y, tuple) else (y,)) if isinstance(part, Tensor) and part.requires_grad]
        if outputs and noise.leaves:
            if self.dy is None:
                noise.wait()
                drawing = time.perf_counter()
                self.dy = [noise.like(part) for part in outputs]
                start += time.perf_counter() - drawing
            torch.autograd.grad(outputs, noise.leaves, self.dy, allow_unused=True)
        noise.wait()
        return time.perf_counter() - start


def measurable(arguments: tuple[Any, ...]) -> bool:
    """Whether these are plain tensors with numbers in them, and nothing records what is done."""
    tensors = [a for a in arguments if isinstance(a, Tensor)]
    if torch.jit.is_tracing() or not tensors:
        return False
    if not all(type(a) in (Tensor, Parameter) and a.device.type in ("cpu", "cuda") and a.layout == torch.strided for a in tensors):
        return False
    return all(a.numel() for a in tensors) and not (_cuda(arguments) and torch.cuda.is_current_stream_capturing())


def _signature(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    grad = torch.is_grad_enabled()
    return tuple((a.shape, a.dtype, layout_of(a), a.device, grad and a.requires_grad) if isinstance(a, Tensor) else a for a in arguments)


def _in_words(name: str, arguments: tuple[Any, ...]) -> str:
    """The question as the file has it."""
    return f"{name}({', '.join(_described(a) if isinstance(a, Tensor) else repr(a) for a in arguments)})"


def _described(x: Tensor) -> str:
    size, grad = "x".join(map(str, x.shape)), " grad" if torch.is_grad_enabled() and x.requires_grad else ""
    return f"{str(x.dtype).removeprefix('torch.')} {size} {layout_of(x)} {x.device.type}{grad}"


def _why(choice: Choice) -> str:
    if choice.within is not None:
        return "no time was left to measure"
    return "measured" if choice.milliseconds else "only one"


def _rounded(times: dict[str, float]) -> dict[str, float]:
    return {name: round(number, 4) for name, number in times.items() if number < math.inf}


def _cuda(arguments: tuple[Any, ...]) -> list[torch.device]:
    return list({a.device for a in arguments if isinstance(a, Tensor) and a.is_cuda})


def _same(x: Tensor) -> Tensor:
    return x
