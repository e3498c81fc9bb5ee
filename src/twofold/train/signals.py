"""SIGINT and SIGTERM as a wish: stop after the step in progress, and keep a checkpoint first.

    first signal     the wish: the loop sees it after the step           exit code 128 + its number: 130 for SIGINT, 143 for SIGTERM
    then SIGINT      aborts at once, as without us
    then SIGTERM     nothing more: whoever sends it repeats it, and the checkpoint is on its way

Under elastic torchrun a Ctrl-C comes twice, from the terminal and from torchrun, which kills the process itself after 30 s; there a second
SIGINT aborts nothing.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Wish:
    """Whether a stop is asked for, and by which signal."""

    number: int | None = None

    @property
    def asked(self) -> bool:
        return self.number is not None

    @property
    def name(self) -> str:
        """What a person calls it: Ctrl-C, SIGTERM; empty where nothing is asked."""
        return "" if self.number is None else "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name

    def ask(self, number: int) -> None:
        """Take the first signal. Nothing more happens here: it may come in the middle of anything, printing included."""
        if self.number is None:
            self.number = number


class StoppedError(KeyboardInterrupt):
    """A run was stopped by a signal, and its folder is valid. `exit_code` is what a shell expects of such a process."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


@contextmanager
def listening() -> Iterator[Wish]:
    """Within the block the first SIGINT or SIGTERM is a wish. Afterwards the handlers are what they were.

    Nothing is changed in a thread, where a signal is ignored (as under nohup), and where its handler is none of Python's: it could not be
    put back.
    """
    wish = Wish()
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.getsignal(each) for each in SIGNALS}
        before = {each: handler for each, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    repeated = "TORCHELASTIC_RUN_ID" in os.environ

    def handle(number: int, frame: FrameType | None) -> None:
        wish.ask(number)
        if signal.SIGINT in before and not repeated:
            signal.signal(signal.SIGINT, before[signal.SIGINT])

    try:
        for each in before:
            signal.signal(each, handle)
        yield wish
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
