"""TensorBoard: event files in the run folder, under tensorboard/. Look at them with: tensorboard --logdir runs

loss/train, accuracy/validation, step/loss, step/rate   scalars over the steps
weights/*, gradients/*                                  histograms
filters, ...                                            pictures
the graph                                               the layers, traced once in evaluation mode, where tracing can follow the model
hparams                                                 settings beside the final scores (final/accuracy/test)
"""

import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from twofold.layers.routes import route
from twofold.train.tracker import Scalars, Start

BINS = 64


class TensorBoard:
    """Writes event files. `say` is told when the graph cannot be drawn."""

    name = "tensorboard"
    known_as = ""

    def __init__(self, say: Callable[[str], None], graph: bool = True) -> None:
        self.say, self.graph = say, graph
        self.events: _Events | None = None

    def begin(self, start: Start) -> None:
        from torch.utils.tensorboard import summary  # heavy: only where a run is on

        self.make = summary
        self.settings = dict(start.settings)
        self.events = _Events(start.folder / "tensorboard")
        if start.number:
            self.events.strike(start.number + 1)  # what an interrupted session wrote beyond the step from which this one goes on
        elif self.graph and start.example:
            self._draw(start.model, start.example)

    def step(self, number: int, scalars: Scalars) -> None:
        for name, value in scalars.items():
            self._add(number, self.make.scalar(name, value))

    def epoch(self, number: int, scalars: Scalars) -> None:
        self.step(number, scalars)
        self._open().flush()

    def picture(self, number: int, name: str, pixels_HWC: NDArray[np.uint8]) -> None:
        self._add(number, self.make.image(name, pixels_HWC, dataformats="HWC"))

    def histogram(self, number: int, name: str, values: Tensor) -> None:
        self._add(number, self.make.histogram(name, values.numpy(), bins=BINS))

    def end(self, scores: Scalars | None) -> None:
        if self.events is None:
            return
        try:
            if scores is not None:
                for part in self.make.hparams(self.settings, dict(scores)):
                    self._add(0, part)
                self.step(0, scores)
        finally:
            events, self.events = self.events, None
            events.close()

    def _open(self) -> "_Events":
        assert self.events is not None
        return self.events

    def _add(self, number: int, summary: Any) -> None:
        self._open().write(step=number, summary=summary)

    def _draw(self, model: nn.Module, example: tuple[Any, ...]) -> None:
        try:
            from torch.utils.tensorboard._pytorch_graph import graph

            with _still(model), route("vendor"):
                drawn, _ = graph(torch.jit.trace(model, example, check_trace=False), example)
        except Exception as error:  # whatever a model that cannot be traced makes torch raise
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.say(f"tensorboard: no graph, for the model cannot be traced ({first}). Everything else is kept.")
            return
        self._open().write(graph_def=drawn.SerializeToString())


class _Events:
    """One event file, written where it is called. (SummaryWriter writes in a thread of its own, in which a full disk raises unheard.)"""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        stem = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"  # TensorBoard reads them by name
        free = next(place for number in count() if not (place := folder / f"{stem}.{number}").exists())
        self.file = open(free, "xb")  # noqa: SIM115 (closed in close)
        self.record, self.event = RecordWriter(self.file), Event
        self.write(file_version="brain.Event:2")

    def write(self, **content: Any) -> None:
        self.record.write(self.event(wall_time=time.time(), **content).SerializeToString())

    def strike(self, number: int) -> None:
        """Let TensorBoard forget what earlier files say of step `number` and later."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self.write(step=number, session_log=SessionLog(status=SessionLog.START))

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """A block in evaluation mode, without gradients, and without a trace of it: modes and random numbers are then as before.

    The vendor's operators are what a tracer can follow. Its warnings (that it is deprecated, that Python's branches are followed one way
    only) are for those who mean to run the trace.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for module, training in modes:
            module.training = training
