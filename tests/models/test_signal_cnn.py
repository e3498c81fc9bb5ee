"""The net for signals: counts, names, values, every length, messages, and what it reaches on measured signals."""

import gzip
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

import twofold
from twofold.models.catalogue import build

HERE = Path(__file__)
restated = SimpleNamespace(**run_path(str(HERE.parent / "restated.py")))
SERIES = HERE.parents[2].parent / "shared" / "data" / "timeseries"


def restate(stages, classes):
    def forward(state, x):
        for number, (taps, filters) in enumerate(stages, 1):
            x = F.pad(x, ((taps - 1) // 2, taps // 2))
            x = F.relu(state.norm(state.conv(x, f"conv{number}", filters, taps), f"norm{number}"))
        return state.linear(x.mean(2), "head", classes)

    return forward


def test_weights_are_those_of_the_layers():
    convolutions, norms = 8 * 128 + 5 * 128 * 256 + 3 * 256 * 128, 2 * (128 + 256 + 128)
    assert sum(weight.numel() for weight in build("signal-cnn").parameters()) == convolutions + norms + 129 * 2


@pytest.mark.parametrize(("channels", "steps", "classes"), [(1, 50, 2), (9, 2, 6), (3, 1, 4)])
def test_names_shapes_and_values_are_those_of_the_paper(channels, steps, classes):
    torch.manual_seed(1)
    model = build("signal-cnn", in_channels=channels, steps=steps, classes=classes)
    restated.agree(model, restate([(8, 128), (5, 256), (3, 128)], classes), torch.randn(6, channels, steps))


def test_stages_are_data_and_any_length_is_read():
    torch.manual_seed(1)
    model = build("signal-cnn", stages="4x16 9x8", in_channels=2, steps=20)
    restated.agree(model, restate([(4, 16), (9, 8)], 2), torch.randn(6, 2, 20))
    assert model.float()(torch.randn(5, 2, 333)).shape == (5, 2)


def test_it_learns():
    torch.manual_seed(0)
    model, x, y = build("signal-cnn", classes=5, steps=32), torch.randn(4, 1, 32), torch.tensor([0, 1, 2, 3])
    restated.learns(model, lambda: F.cross_entropy(model(x), y), 1e-2)


def test_weights_start_as_glorots():
    torch.manual_seed(0)
    model = build("signal-cnn")
    bound = (6 / (5 * 128 + 5 * 256)) ** 0.5
    assert model.conv2.weight.abs().max() <= bound and model.conv2.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)
    assert not model.head.bias.any()


def read_series(name, part):
    """x_BCT as it was published, and the classes by their place in the file's header."""
    lines = gzip.decompress((SERIES / name / f"{name}_{part}.ts.gz").read_bytes()).decode().splitlines()
    labels = next(line for line in lines if line.lower().startswith("@classlabel")).split()[2:]
    rows = [line.split(":") for line in lines[lines.index("@data") + 1 :] if line]
    x_BCT = torch.tensor([[[float(value) for value in channel.split(",")] for channel in channels] for *channels, _ in rows])
    y_B = torch.tensor([labels.index(label.strip()) for *_, label in rows])
    return x_BCT, y_B


@pytest.mark.parametrize(("name", "classes", "margin"), [("BasicMotions", 4, 0.3), ("ItalyPowerDemand", 2, -0.02)])
def test_measured_signals_are_told_apart(name, classes, margin, tmp_path):
    """Six channels of a watch far better than by the nearest neighbour; a day's use of power, which that finds easy, as well as by it."""
    if not SERIES.is_dir():
        pytest.skip("the measured series (shared/data/timeseries) are not beside this repository")
    (x, y), (others, truth) = read_series(name, "TRAIN"), read_series(name, "TEST")
    torch.manual_seed(0)
    model = build("signal-cnn", stages="8x32 5x64 3x32", in_channels=x.shape[1], steps=x.shape[2], classes=classes)
    seen, new = TensorDataset(x, y), TensorDataset(others, truth)
    how = {"epochs": 30, "batch_size": 16, "learning_rate": 3e-3, "quiet": True}
    run = twofold.fit((seen, seen, new), model=model, task=F.cross_entropy, out=tmp_path / "run", **how)
    accuracy = run.metrics["test"]["accuracy"]
    neighbour = (y[torch.cdist(others.flatten(1), x.flatten(1)).argmin(1)] == truth).double().mean().item()
    majority = truth.bincount().max().item() / len(truth)
    assert accuracy > neighbour + margin and accuracy > 0.9 > majority, (accuracy, neighbour, majority)


BAD = {
    "stages": ({"stages": "8x128 5"}, "signal-cnn: expected stages like \"8x128 5x256 3x128\" (taps x filters), got '8x128 5'."),
    "none": ({"stages": ""}, "signal-cnn: expected stages like"),
    "filters": ({"stages": "3x99999999999"}, "signal-cnn: expected taps or filters to be at most 16,777,216, got 99,999,999,999."),
    "steps": ({"steps": 0}, "signal-cnn: expected steps to be at least 1, got 0."),
    "classes": ({"classes": 1}, "signal-cnn: expected classes to be at least 2, got 1."),
    "dropout": ({"dropout": 1.0}, "signal-cnn: expected dropout from 0 up to, not including, 1, got 1.0."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name):
    changes, message = BAD[name]
    with pytest.raises(ValueError) as error:
        build("signal-cnn", **changes)
    assert message in str(error.value)
