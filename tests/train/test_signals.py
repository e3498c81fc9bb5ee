"""The first signal is a wish, Ctrl-C after it aborts, and the handlers are put back."""

import os
import signal
import threading

import pytest

from twofold.train.signals import SIGNALS, StoppedError, listening


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
    """Python's own handlers at the start; whatever a test leaves, they come back."""
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    before = {each: signal.getsignal(each) for each in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "name", "code"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)])
def test_the_first_signal_is_a_wish_with_a_name_and_an_exit_code(number, name, code):
    with listening() as wish:
        assert not wish.asked and wish.name == ""
        send(number)
        assert wish.asked and wish.name == name
    assert StoppedError("stopped", wish.number).exit_code == code
    assert issubclass(StoppedError, KeyboardInterrupt)


@pytest.mark.parametrize("first", SIGNALS)
def test_ctrl_c_after_a_wish_aborts(first):
    with pytest.raises(KeyboardInterrupt), listening() as wish:
        send(first)
        assert wish.number == first
        send(signal.SIGINT)


def test_sigterm_again_and_again_aborts_nothing():
    with listening() as wish:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            send(number)
    assert wish.number == signal.SIGINT


def test_under_elastic_torchrun_the_second_ctrl_c_is_the_first_passed_on(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with listening() as wish:
        send(signal.SIGINT)
        send(signal.SIGINT)
    assert wish.number == signal.SIGINT


@pytest.mark.parametrize("sent", [None, *SIGNALS])
def test_the_handlers_are_put_back(sent):
    handlers = [lambda *_: None, lambda *_: None]
    for each, handler in zip(SIGNALS, handlers, strict=True):
        signal.signal(each, handler)
    with listening():
        if sent:
            send(sent)
    assert [signal.getsignal(each) for each in SIGNALS] == handlers


def test_a_signal_that_is_ignored_stays_so_and_the_other_is_heard():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with listening() as wish:
        send(signal.SIGINT)
        assert not wish.asked
        send(signal.SIGTERM)
        assert wish.asked
        send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def untouched(monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("a handler was replaced"))
    with listening() as wish:
        assert not wish.asked


def test_a_handler_that_is_none_of_pythons_is_left_alone(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(signal, "getsignal", lambda number: None)
        untouched(patched)


def test_in_a_thread_nothing_is_changed(monkeypatch):
    ended = []
    with monkeypatch.context() as patched:
        thread = threading.Thread(target=lambda: (untouched(patched), ended.append(True)))
        thread.start()
        thread.join()
    assert ended == [True]
