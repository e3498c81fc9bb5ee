"""Synchronised batch normalisation: that of the whole batch, in the layers that it replaces."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from twofold import nn
from twofold.train.launching import launch
from twofold.train.processes import World
from twofold.train.synchronised import synchronise

TOGETHER = Path(__file__).with_name("together.py")


def test_outputs_gradients_and_running_values_are_those_of_the_whole_batch(tmp_path):
    """In float64, far from zero, with shards of unequal size."""
    specification = importlib.util.spec_from_file_location("together", TOGETHER)
    together = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(together)
    alone = together.scenario_normalise(World())
    assert launch([sys.executable, str(TOGETHER), "normalise", str(tmp_path)], 2) == 0
    for process in range(2):
        found = torch.load(tmp_path / f"normalise-{process}.pt")
        for case, values in alone.items():
            for mine, whole in zip(found[case], values, strict=True):
                assert torch.allclose(mine, whole, rtol=1e-10, atol=1e-10), case


def test_layers_keep_their_weights_names_and_what_they_do_alone():
    norm = nn.BatchNorm2d(2)
    model = nn.Sequential(nn.Sequential(norm, nn.ReLU()), norm, nn.BatchNorm1d(3), nn.BatchNorm3d(3))
    torch.nn.init.uniform_(norm.weight)
    x = torch.randn(3, 2, 4, 4)
    model[0](x)  # which remembers what it can fuse
    before, names = dict(model.named_parameters()), list(model.state_dict())
    model[0].eval()
    expected = model[0](x)
    assert synchronise(model) == ["1", "2", "3", "0.0"]
    assert [type(layer).__name__ for layer in model] == ["Sequential", *(f"SynchronisedBatchNorm{n}d" for n in (2, 1, 3))]
    assert list(model.state_dict()) == names and model[0][0] is model[1]
    assert all(value is before[name] for name, value in model.named_parameters())
    assert torch.allclose(model[0](x), expected, atol=1e-6)
    assert synchronise(model) == []


def test_a_layer_of_torch_is_refused():
    with pytest.raises(ValueError, match=r"layer '0\.1' is torch\.nn\.modules\.batchnorm\.BatchNorm1d, which cannot be synchronised here"):
        synchronise(torch.nn.Sequential(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.BatchNorm1d(2))))
