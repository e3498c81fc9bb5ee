"""Launching: several processes of one command on this machine, as `torchrun --standalone` does it, without its report.

    twofold train digits --processes 2     starts two of     python -m twofold train digits --processes 2     and waits for both

The launcher keeps the store in which they find each other, so its port is taken before anyone needs to know it. A signal that it gets goes
to all; each process is in a session of its own, so that Ctrl-C comes once. The first that fails ends all, and its exit code is the
launcher's. If the launcher is killed, its processes notice and stop as by SIGTERM.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

GRACE = 10.0  # seconds from SIGTERM to SIGKILL, for those that are left when one has failed
LIFELINE = "TWOFOLD_LIFELINE"  # the file descriptor that closes when the launcher ends
STOPPED = (130, 143)  # exit codes of a process that stopped because it was asked to
FORWARDED = (signal.SIGINT, signal.SIGTERM)


def launched() -> bool:
    """Whether this process is one of several already."""
    return "RANK" in os.environ


def launch(command: Sequence[str], processes: int) -> int:
    """Run the command in so many processes and return the exit code: 0, that of the first that failed, or 128 + its signal.

    Each gets its share of the cores, unless OMP_NUM_THREADS says otherwise. Raises ValueError for a number of processes that cannot be.
    """
    from torch.distributed import TCPStore  # heavy: only where processes are started

    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if processes < 1:
        raise ValueError(f"processes: expected 1 or more, got {processes}.")
    if launched():
        raise ValueError(f"processes: this process is one of {os.environ.get('WORLD_SIZE')} already, and starts no others.")
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    reading, writing = os.pipe()
    shared = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # no process keeps the store: the launcher does
        "TORCHELASTIC_RESTART_COUNT": "0",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // processes))),
        LIFELINE: str(reading),
    }
    children: list[subprocess.Popen[bytes]] = []
    try:
        with _forwarding(children) as asked:
            for number in range(processes):
                environment = {**os.environ, **shared, "RANK": str(number), "LOCAL_RANK": str(number)}
                source = None if number == 0 else subprocess.DEVNULL
                children.append(subprocess.Popen(command, env=environment, stdin=source, pass_fds=[reading], start_new_session=True))
                for late in asked:  # a signal that came while they were being started
                    children[-1].send_signal(late)
            return _await(children, asked)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()
        os.close(reading)
        os.close(writing)


def follow_launcher() -> None:
    """In a process that was launched: stop as by SIGTERM when the launcher has gone."""
    text = os.environ.pop(LIFELINE, None)  # not for this process's own children
    if text is None:
        return

    def wait() -> None:
        with suppress(OSError):
            os.read(int(text), 1)  # returns when the other end is closed, and not before
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="follow launcher").start()


def _await(children: list[subprocess.Popen[bytes]], asked: list[int]) -> int:
    """Wait for all. One that fails ends the others; those that were asked to stop are given the time that they need."""
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()

    def wait(number: int) -> None:
        children[number].wait()
        ended.put(number)

    for number in range(len(children)):
        threading.Thread(target=wait, args=(number,), daemon=True).start()
    outcome, left, deadline = 0, len(children), None
    while left:
        try:
            number = ended.get(timeout=deadline)
        except queue.Empty:
            for child in children:
                child.kill()
            deadline = None
            continue
        left -= 1
        code = children[number].returncode
        if code and not outcome:
            outcome = code if code > 0 else 128 - code
            if code < 0 and not (asked and -code in FORWARDED):
                _say(f"process {number} of {len(children)} was killed by {signal.Signals(-code).name}; the others are stopped.")
            if not (asked and outcome in STOPPED):
                deadline = GRACE
                for child in children:
                    child.terminate()
    return outcome


@contextmanager
def _forwarding(children: list[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Within the block the signals that ask for a stop go to all children; those that came are listed."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def forward(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for child in list(children):
            child.send_signal(number)  # one that has ended gets none

    before = {number: signal.getsignal(number) for number in FORWARDED}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, forward)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _say(sentence: str) -> None:
    print(f"twofold: {sentence}", file=sys.stderr)
