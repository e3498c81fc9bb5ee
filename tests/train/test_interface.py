"""The interface that leads to another machine. Where it leads to is tested between two machines in test_machines.py."""

import sys

import pytest

from twofold.train import interface
from twofold.train.interface import gloo_interface


@pytest.mark.skipif(sys.platform != "linux", reason="interfaces are asked of Linux")
def test_this_machine_is_reached_by_the_loopback():
    assert gloo_interface("127.0.0.1", 29500) == gloo_interface("localhost", 29500) == "lo"


def test_where_it_cannot_be_told_gloo_chooses(monkeypatch):
    assert gloo_interface("no.such.machine.invalid", 29500) is None
    monkeypatch.setattr(interface.sys, "platform", "darwin")
    assert gloo_interface("127.0.0.1", 29500) is None
