"""For all tests: threads that wait without spinning, and nothing measured unless a test asks for it.

Most tests compute little at a time. Where other programs share the machine, a thread that spins until the next little piece keeps a core
from the thread that has to deliver it, and the suite takes three times as long. Results do not depend on it.
"""

import atexit
import os
import shutil
import signal
import tempfile

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, and for child processes too
os.environ["TWOFOLD_MEASURE"] = "0"  # what runs in a test depends on no clock
os.environ["TWOFOLD_CACHE"] = tempfile.mkdtemp(prefix="twofold-cache-")  # and not on what this user measured before
atexit.register(shutil.rmtree, os.environ["TWOFOLD_CACHE"], ignore_errors=True)

import pytest  # noqa: E402 (what is set above comes first)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell has it so for what it runs in the background, and tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(config, val, argname):
    """Bytes do not name a test: a gzip header holds the second it was made in, and all processes must find the same tests."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture
def interrupt(monkeypatch):
    """Ask for a stop after a number of steps, as Ctrl-C does."""
    from twofold.train.watch import Watch

    def at(number):
        step = Watch.step

        def counted(self, learner, outcome):
            step(self, learner, outcome)
            if learner.number == number:
                self.wish.ask(2)

        monkeypatch.setattr(Watch, "step", counted)

    yield at
    monkeypatch.undo()
