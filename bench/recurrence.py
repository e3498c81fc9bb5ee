"""Recurrent layers, ours against torch.nn at its best: whole training steps (forward, backward, all gradients) and inference.

    python bench/recurrence.py [--only WORDS] [--rounds 15] [--threads 2] [--expect ROUTE]

Ours runs as a user finds it: by `auto`, and with twofold.precision("bf16") where reduced precision is allowed. torch is tried in both
layouts, with and without oneDNN, padded and packed; the fastest of them is the peer. All contenders run in one process, in turn; medians.
Before anything is timed, all must agree in values and in all gradients. The route that ours took is printed in every row; another one than
--expect (native, where the kernels were built) is an error. JAX (lax.scan) and Keras (on JAX) are rows where they are installed.
"""

import argparse
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import nn as torch_nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import twofold
from recurrence_peers import ByCells, peers
from side_by_side import machine, seconds
from twofold import kernels, nn
from twofold.layers.routes import Routed

Way = Callable[[], list[Tensor]]  # one step: y and the gradients, or nothing of interest
KINDS = ("RNN", "GRU", "LSTM")
STEPS = 200  # of one round, where single steps are measured


class Size(NamedTuple):
    """B rows, T steps, D inputs, U units."""

    B: int
    T: int
    D: int
    U: int

    def __str__(self) -> str:
        return "x".join(map(str, self))


SMALL, MIDDLE, WIDE, LARGE, SINGLE = (
    Size(20, 30, 32, 32),
    Size(32, 100, 128, 128),
    Size(20, 35, 650, 650),
    Size(64, 128, 256, 256),
    Size(1, 200, 256, 256),
)
ASKED = {SMALL: (4.0, 8.0, 3.0), MIDDLE: (2.5, 3.5, 1.9), WIDE: (1.3, 1.6, 1.5), LARGE: (1.5, 2.0, 1.8), SINGLE: (5.0, 5.0, 1.8)}
LENGTHS = Size(64, 200, 128, 128)  # rows of 24 to 200 steps, 112 on average: 56 %
OPTIONS: dict[str, tuple[dict[str, Any], float]] = {
    "peephole": ({"peephole": True}, 1.15),
    "layer norm": ({"layer_norm": True}, 1.35),
    "recurrent dropout": ({"recurrent_dropout": 0.25}, 1.1),
}


class Verdict(NamedTuple):
    """A figure beside the one that was asked for; None: nothing was asked."""

    what: str
    value: float
    asked: float | None = None
    least: bool = True  # asked at least that; else at most
    unit: str = ""

    def __str__(self) -> str:
        text = f"{self.what} {self.value:.2f}{self.unit}"
        if self.asked is None:
            return text
        reached = self.value >= self.asked if self.least else self.value <= self.asked
        return f"{text} (asked {'>=' if self.least else '<='} {self.asked:g}{self.unit}: {'reached' if reached else 'MISSED'})"


def step_of(run: Callable[[Tensor], Tensor], x: Tensor, weights: Any, dy: Tensor, around: Callable[[], Any] = nullcontext) -> Way:
    """A training step: y, and the gradients of x and of all weights."""
    leaves = [x.detach().clone().requires_grad_(), *weights]

    def train() -> list[Tensor]:
        with around():
            y = run(leaves[0])
        return [y.detach(), *torch.autograd.grad(y, leaves, dy.to(y.dtype))]

    return train


def inference_of(run: Callable[[Tensor], Tensor], x: Tensor) -> Way:
    """The outputs alone."""

    def infer() -> list[Tensor]:
        with torch.no_grad():
            return [run(x)]

    return infer


@contextmanager
def without_onednn() -> Iterator[None]:
    """torch's own loop, where oneDNN would serve."""
    torch._C._set_mkldnn_enabled(False)  # torch.backends.mkldnn.flags says the same, with a warning about other flags
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(True)


def build(kind: str, size: Size, **options: Any) -> tuple[Any, Any]:
    """Our layer and torch's, with the same weights; torch's where it has the options."""
    torch.manual_seed(0)
    ours = getattr(nn, kind)(size.D, size.U, **options)
    assert isinstance(ours, Routed), f"twofold.nn.{kind} is torch.nn's own"
    theirs = getattr(torch_nn, kind)(size.D, size.U, bidirectional=options.get("bidirectional", False))
    if not set(options) - {"bidirectional"}:
        theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def first(layer: Any, **how: Any) -> Callable[[Tensor], Tensor]:
    """The outputs of a call."""
    return lambda x: layer(x, **how)[0]


def padded(layer: Any) -> dict[str, tuple[Callable[[Tensor], Tensor], Callable[[], Any]]]:
    """torch's layer in the ways that it offers for rows of one length; each takes and returns time first."""
    turned = type(layer)(layer.input_size, layer.hidden_size, bidirectional=layer.bidirectional, batch_first=True)
    for name, weight in layer.named_parameters():
        setattr(turned, name, weight)  # the very same weights
    lengths = None

    def packed(x: Tensor) -> Tensor:
        nonlocal lengths
        lengths = torch.full((x.shape[1],), x.shape[0]) if lengths is None else lengths
        return pad_packed_sequence(layer(pack_padded_sequence(x, lengths))[0])[0]

    return {
        "torch": (first(layer), nullcontext),
        "torch batch first": (lambda x: turned(x.transpose(0, 1).contiguous())[0].transpose(0, 1), nullcontext),
        "torch without oneDNN": (first(layer), without_onednn),
        "torch packed": (packed, nullcontext),
    }


def agree(ways: dict[str, Way], tolerance: float = 1e-3) -> None:
    """All give the same, in relation to the largest number."""
    (name, truth), *others = ((name, way()) for name, way in ways.items())
    for other, found in others:
        for place, (a, b) in enumerate(zip(found, truth, strict=True)):
            off = ((a.float() - b.float()).abs().max() / b.float().abs().max().clamp_min(1e-9)).item()
            assert off < tolerance, f"{other} and {name} differ by {off:.2g} in result {place}"


def patient(ways: dict[str, Way], rounds: int) -> dict[str, float]:
    """Medians; a way that takes ten times the fastest is measured twice and left out of the rest."""
    rough = seconds(ways, rounds=2, warm_up=2)
    quick = {name: way for name, way in ways.items() if rough[name] < 10 * min(rough.values())}
    return {**rough, **seconds(quick, rounds=rounds, warm_up=1)}


def best(times: dict[str, float], begins: str) -> float:
    """The shortest time of the ways whose name begins so."""
    return min(time for name, time in times.items() if name.startswith(begins))


def show(name: str, times: dict[str, float], verdicts: list[Verdict], layer: Any, scale: float = 1e3, unit: str = "ms") -> None:
    """A row: what was asked and reached, the route of ours; then all times."""
    assert layer.last_route.startswith(chosen.expect), f"{name}: route {layer.last_route}, not {chosen.expect}"
    print(f"{name:52s} {'   '.join(map(str, verdicts))}   route {layer.last_route}")
    print("    " + "   ".join(f"{way} {scale * time:.3f}" for way, time in times.items()) + f" {unit}", flush=True)
    gc.collect()


def wanted(name: str) -> bool:
    """Whether --only asks for this row."""
    return chosen.only in name


def five_shapes(rounds: int) -> None:
    """Training steps and inference, float32, against torch at its best."""
    for size, asked in ASKED.items():
        for kind, target in zip(KINDS, asked, strict=True):
            for part in ("training", "inference"):
                if wanted(name := f"{kind} {size}, {part}"):
                    whole_sequence(name, kind, size, target if part == "training" else None, rounds)


def whole_sequence(name: str, kind: str, size: Size, target: float | None, rounds: int) -> None:
    """A row: a training step where something is asked, else the outputs alone."""
    ours, theirs = build(kind, size)
    x, dy = torch.randn(size.T, size.B, size.D), torch.randn(size.T, size.B, size.U)
    if target is None:
        ways = {"ours": inference_of(first(ours), x)}
        ways |= {way: inference_of(run, x) for way, (run, around) in padded(theirs).items() if around is nullcontext}
    else:
        ways = {"ours": step_of(first(ours), x, ours.parameters(), dy)}
        ways |= {way: step_of(run, x, theirs.parameters(), dy, around) for way, (run, around) in padded(theirs).items()}
    agree(ways)
    times = patient(ways if target is None else {**ways, **peers(kind, size)}, rounds)
    show(name, times, [Verdict("ratio", best(times, "torch") / times["ours"], target)], ours)


def bfloat16(rounds: int) -> None:
    """With bf16 permitted: against our own float32, and against torch under autocast and in bf16 altogether."""
    for size in (MIDDLE, WIDE, LARGE):
        for kind in ("LSTM", "GRU"):
            if wanted(name := f"{kind} {size}, training, bf16"):
                ours, theirs = build(kind, size)
                x, dy = torch.randn(size.T, size.B, size.D), torch.randn(size.T, size.B, size.U)
                half = getattr(torch_nn, kind)(size.D, size.U).bfloat16()
                half.load_state_dict(theirs.state_dict())
                ways = {
                    "fp32 ours": step_of(first(ours), x, ours.parameters(), dy),
                    "torch autocast": step_of(first(theirs), x, theirs.parameters(), dy, lambda: torch.autocast("cpu", torch.bfloat16)),
                    "torch bf16": step_of(first(half), x.bfloat16(), half.parameters(), dy),
                    "ours": step_of(first(ours), x, ours.parameters(), dy, lambda: twofold.precision("bf16")),
                }
                ways = {way: step for way, step in ways.items() if runs(f"{name}: {way}", step)}
                exact, rounded = ways["fp32 ours"](), ways["ours"]()
                off = max(((a - b).norm() / a.norm()).item() for a, b in zip(exact, rounded, strict=True))
                times = patient(ways, rounds)
                verdicts = [Verdict("against our fp32", times["fp32 ours"] / times["ours"], 2.0)]
                if any(way.startswith("torch") for way in times):
                    verdicts.append(Verdict("against torch's bf16", best(times, "torch") / times["ours"], 1.0))
                ways["ours"]()  # its route is what the row says
                show(name, times, [*verdicts, Verdict("off by", 100 * off, unit=" %")], ours)


def runs(name: str, way: Way) -> bool:
    """Whether torch can do this at all; if not, one line says why."""
    try:
        way()
    except RuntimeError as error:
        print(f"    {name} does not run: {str(error).splitlines()[0][:100]}")
        return False
    return True


def variable_lengths(rounds: int) -> None:
    """Rows of 24 to 200 steps, in no order: against torch packed, and against torch over all the padding (which is wrong backwards)."""
    B, T, D, U = LENGTHS
    lengths = torch.linspace(24, T, B).round().long()
    lengths = lengths[torch.randperm(B, generator=torch.Generator().manual_seed(0))]
    assert abs(lengths.double().mean() / T - 0.56) < 0.001
    valid = torch.arange(T)[:, None] < lengths
    for kind, both in (("LSTM", False), ("GRU", False), ("LSTM", True)):
        if wanted(name := f"{'bi-' if both else ''}{kind} {LENGTHS}, lengths 56 %, training"):
            ours, theirs = build(kind, LENGTHS, bidirectional=both)
            x = torch.randn(T, B, D)
            dy = torch.randn(T, B, 2 * U if both else U) * valid[..., None]
            order = lengths.argsort(descending=True)

            def packed(x: Tensor, layer: Any = theirs) -> Tensor:
                return pad_packed_sequence(layer(pack_padded_sequence(x, lengths, enforce_sorted=False))[0])[0]

            def already_sorted(x: Tensor, layer: Any = theirs, lengths: Tensor = lengths[order]) -> Tensor:
                return pad_packed_sequence(layer(pack_padded_sequence(x, lengths))[0])[0]

            def two_passes(x: Tensor, layer: Any = theirs) -> Tensor:
                return reversed_by_length(layer, x, lengths)

            ways = {
                "ours": step_of(first(ours, lengths=lengths), x, ours.parameters(), dy),
                "torch packed": step_of(packed, x, theirs.parameters(), dy),
            }
            agree(ways)
            ways["torch packed, sorted rows"] = step_of(already_sorted, x[:, order].contiguous(), theirs.parameters(), dy[:, order])
            ways["padded torch"] = step_of(first(theirs), x, theirs.parameters(), dy)
            if both:
                ways["reversed by length, two passes"] = step_of(two_passes, x, theirs.parameters(), dy)
            times = patient(ways, rounds)
            verdicts = [
                Verdict("against packed", best(times, "torch packed") / times["ours"], 5.0),
                Verdict("against padded", times["padded torch"] / times["ours"], 1.0),
            ]
            show(name, times, verdicts, ours)


def reversed_by_length(layer: Any, x: Tensor, lengths: Tensor) -> Tensor:
    """What a user of torch writes who knows how slow packing is: the second direction over rows that were reversed by hand."""
    at = torch.arange(x.shape[0])[:, None]
    index = torch.where(at < lengths, lengths - 1 - at, at)[..., None]
    weights = list(layer.parameters())
    zeros = x.new_zeros(1, x.shape[1], layer.hidden_size)

    def one(x: Tensor, weights: list[Tensor]) -> Tensor:
        y, _, _ = torch._VF.lstm(x, (zeros, zeros), weights, True, 1, 0.0, True, False, False)
        return y

    back = one(x.gather(0, index.expand_as(x)), weights[4:])
    return torch.cat((one(x, weights[:4]), back.gather(0, index.expand_as(back))), -1)


def options(rounds: int) -> None:
    """Peepholes, layer norm, recurrent dropout: against our plain LSTM, and against the same written with torch's cells."""
    for size in (SMALL, MIDDLE, LARGE):
        for option, (how, most) in OPTIONS.items():
            if wanted(name := f"LSTM with {option} {size}, training"):
                plain, _ = build("LSTM", size)
                ours, _ = build("LSTM", size, **how)
                by_cells = ByCells(ours, option)
                x, dy = torch.randn(size.T, size.B, size.D), torch.randn(size.T, size.B, size.U)

                def both(x: Tensor, dy: Tensor, ours: Any = ours, by_cells: ByCells = by_cells) -> dict[str, Way]:
                    mine = step_of(first(ours), x, by_cells.same_order(ours), dy)
                    return {"ours": mine, "torch cells": step_of(by_cells, x, by_cells.parameters(), dy)}

                if option != "recurrent dropout":  # whose masks are drawn anew
                    agree(both(x[:20], dy[:20]))  # layer norm is chaotic: what was rounded differently is 10,000 times that at step 128
                ways = both(x, dy)
                ways["our plain LSTM"] = step_of(first(plain), x, plain.parameters(), dy)
                times = patient(ways, rounds)
                verdicts = [
                    Verdict("of plain", times["ours"] / times["our plain LSTM"], most, least=False),
                    Verdict("against torch's cells", times["torch cells"] / times["ours"], 10.0),
                ]
                show(name, times, verdicts, ours)


def one_step_at_a_time(rounds: int) -> None:
    """Inference with one row, the state carried: microseconds a step."""
    size = Size(1, STEPS, 256, 256)
    name = "LSTM 1x1x256x256, step by step, inference"
    if not wanted(name):
        return
    ours, theirs = build("LSTM", size)
    cell = torch_nn.LSTMCell(size.D, size.U)
    cell.load_state_dict({key.removesuffix("_l0"): weight for key, weight in theirs.state_dict().items()})
    xs = list(torch.randn(STEPS, 1, 1, size.D).unbind())
    stream = ours.eval().stream(rows=1)

    def by(layer: Any) -> Way:
        def walk() -> list[Tensor]:
            state = None
            with torch.inference_mode():
                for x in xs:
                    y, state = layer(x, state)
            return [y[0]]

        return walk

    def by_cell() -> list[Tensor]:
        state = None
        with torch.inference_mode():
            for x in xs:
                state = cell(x[0], state)
        assert state is not None
        return [state[0]]

    def pushed() -> list[Tensor]:
        stream.reset()
        with torch.inference_mode():
            for x in xs:
                y = stream.push(x)
        return [y[0]]

    ways = {"ours": by(ours), "torch": by(theirs), "torch's cell": by_cell, "torch, one thread": alone(by(theirs)), "ours, stream": pushed}
    agree(ways)
    times = {way: time / STEPS for way, time in seconds(ways, rounds, 2).items()}
    mine, torchs = best(times, "ours"), min(times["torch"], times["torch, one thread"])
    verdicts = [Verdict("a step", 1e6 * mine, 25.0, least=False, unit=" us"), Verdict("ratio", torchs / mine, 3.0)]
    show(name, times, verdicts, ours, 1e6, "us")


def alone(way: Way) -> Way:
    """The same on one thread."""

    def run() -> list[Tensor]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return way()
        finally:
            torch.set_num_threads(threads)

    return run


def share_of_peak(rounds: int) -> None:
    """The LSTM's rate beside the best that torch.mm reaches here, on square matrices and on those of this very layer."""
    B, T, D, U = LARGE
    for dtype, asked in ((torch.float32, 0.75), (torch.bfloat16, None)):
        word = str(dtype).removeprefix("torch.")
        if wanted(name := f"LSTM {LARGE}, share of the GEMM rate, {word}"):
            ours, _ = build("LSTM", LARGE)
            permitted = (lambda: twofold.precision("bf16")) if dtype == torch.bfloat16 else nullcontext
            x, dy = torch.randn(T, B, D), torch.randn(T, B, U)
            ways: dict[str, Way] = {"ours": step_of(first(ours), x, ours.parameters(), dy, permitted)}
            work = {"ours": 3 * 2 * T * B * 4 * U * (D + U)}  # forward, dx and dh, dW and dU: each as many multiplications and additions
            for m, k, n in ((2048, 2048, 2048), (4096, 1024, 4096), (T * B, D, 4 * U), (4 * U, T * B, D), (T * B, 4 * U, D)):
                a, b = torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype)
                gemm = f"GEMM {m}x{k}x{n}"
                ways[gemm] = lambda a=a, b=b: [a @ b]  # type: ignore[misc]
                work[gemm] = 2 * m * k * n
            times = seconds(ways, rounds, 3)
            rates = {way: work[way] / time / 1e9 for way, time in times.items()}
            peak = max(rate for way, rate in rates.items() if way != "ours")
            verdicts = [Verdict("share", rates["ours"] / peak, asked), Verdict("LSTM", rates["ours"], unit=" GFLOP/s")]
            show(name, rates, [*verdicts, Verdict("peak", peak, unit=" GFLOP/s")], ours, 1.0, "GFLOP/s")


def memory_of_a_step() -> None:
    """Peak memory of training steps, each contender in a process of its own: how far the peak lies above what was there before."""
    for size in (MIDDLE, LARGE):
        for kind in KINDS:
            if wanted(name := f"{kind} {size}, memory of a training step"):
                mebibytes = {}
                for side in ("ours", "torch"):
                    command = [sys.executable, __file__, "--threads", str(chosen.threads), "--memory-of", side, kind, *map(str, size)]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    before, peak = map(int, done.stdout.split())
                    mebibytes[side] = (peak - before) / 1024
                print(f"{name:52s} {Verdict('of torch', mebibytes['ours'] / mebibytes['torch'], 1.0, least=False)}")
                print("    " + "   ".join(f"{side} {size:.1f}" for side, size in mebibytes.items()) + " MiB", flush=True)


def measure_memory(side: str, kind: str, *size: str) -> None:
    """In a process of its own: print the resident kibibytes before three training steps, and the peak."""
    asked = Size(*map(int, size))
    for each in (Size(2, 2, 16, 16), asked):  # the first loads the libraries
        layer = build(kind, each)[side == "torch"]
        train = step_of(first(layer), torch.randn(each.T, each.B, each.D), layer.parameters(), torch.randn(each.T, each.B, each.U))
        if each == asked:
            before = status("VmRSS")
        for _ in range(3):
            train()
    print(before, status("VmHWM"))


def status(field: str) -> int:
    """A line of what the system knows about this process, in kibibytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name contains these words")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    expected = "native" if kernels.available() else ""
    parser.add_argument("--expect", default=expected, help='how the route begins that ours must take in every row; "": any')
    parser.add_argument("--memory-of", nargs=6, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    torch.set_num_threads(chosen.threads)
    os.environ.setdefault("TWOFOLD_MEASURE", "60")  # read at the first choice
    if chosen.memory_of:
        measure_memory(*chosen.memory_of)
        return
    print(machine())
    for section in (five_shapes, bfloat16, variable_lengths, options, one_step_at_a_time, share_of_peak):
        section(chosen.rounds)
    memory_of_a_step()


if __name__ == "__main__":
    chosen = arguments()
    main()
