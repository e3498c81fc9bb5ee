"""The machine: devices that are not there, numbers that round only where they may, batches that move whole."""

from collections import namedtuple

import pytest
import torch

from twofold import nn
from twofold.layers.forms import bf16_permitted
from twofold.models.catalogue import build
from twofold.train.machine import Machine, device_of, moved, network_of, numbers, placed, scaler_of

CPU = torch.device("cpu")


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(Machine()) == CPU
    with pytest.raises(ValueError, match="device=cuda, but this PyTorch sees no CUDA device"):
        device_of(Machine(device="cuda"))
    with pytest.raises(ValueError, match="precision=fp16 is for CUDA"):
        device_of(Machine(precision="fp16"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(Machine(), 1) == torch.device("cuda", 1) and device_of(Machine(device="cpu")) == CPU
    assert device_of(Machine(precision="fp16")).type == "cuda"


@pytest.mark.parametrize(("ours", "faster"), [(True, True), (True, False), (False, True)])
def test_numbers_are_rounded_only_where_that_is_asked_for(ours, faster, monkeypatch):
    monkeypatch.setattr("twofold.train.machine.bf16_ours", lambda: ours)
    monkeypatch.setattr("twofold.train.machine.bf16_faster", lambda: faster)
    with numbers(Machine(), CPU):
        assert not bf16_permitted()
    with numbers(Machine(precision="bf16"), CPU):
        assert bf16_permitted() and not torch.is_autocast_enabled("cpu")
    with numbers(Machine(precision="bf16", channels_last=True), CPU):
        assert (bf16_permitted(), torch.is_autocast_enabled("cpu")) == ((False, True) if ours and faster else (True, False))
    assert scaler_of(Machine(precision="bf16"), CPU) is None


def test_a_batch_moves_whole():
    Batch = namedtuple("Batch", "x fresh more")
    batch = moved(Batch(torch.zeros(2), True, [torch.ones(1), (torch.ones(3), None)]), torch.device("meta"))
    assert isinstance(batch, Batch) and batch.fresh is True and batch.more[1][1] is None
    assert all(x.is_meta for x in (batch.x, batch.more[0], batch.more[1][0]))
    assert moved({"x": torch.zeros(2), "names": ["a"]}, torch.device("meta"))["x"].is_meta


def test_batches_are_placed_where_the_model_is():
    there, here = nn.Linear(2, 2, device="meta"), nn.ReLU()
    assert [x.is_meta for model in (there, here) for (x,) in placed([(torch.zeros(2),)], model)] == [True, False]


def test_the_layout_is_set_where_it_is_asked_for():
    model = nn.Conv2d(3, 4, 3)
    assert network_of(model, Machine()) is model and model.weight.is_contiguous()
    assert network_of(model, Machine(channels_last=True)).weight.is_contiguous(memory_format=torch.channels_last)
    group = build("p4-resnet", depth=8, in_channels=1, height=8, width=8)  # its weights have five axes
    assert max(weights.dim() for weights in network_of(group, Machine(channels_last=True)).parameters()) == 5
