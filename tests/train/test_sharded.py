"""Sharded weights: what is learnt is what one process learns, whole on the disk, exact to go on with, and said where it cannot be."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from twofold import nn
from twofold.train.checkpoints import Checkpoints
from twofold.train.launching import launch
from twofold.train.leaves import tensors
from twofold.train.processes import World
from twofold.train.settings import Settings
from twofold.train.sharded import cut, cut_alike, joined, own, refuse_unshardable, rows_of, whole

CUTTING = str(Path(__file__).with_name("cutting.py"))


def run(scenario, folder, how, processes, *cases):
    """The scenario in so many processes, or in this one; the exit code."""
    folder.mkdir(exist_ok=True)
    if processes > 1:
        return launch([sys.executable, CUTTING, scenario, str(folder), how, *cases], processes)
    specification = importlib.util.spec_from_file_location("cutting", CUTTING)
    cutting = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(cutting)
    getattr(cutting, scenario)(folder, how, cases)
    return 0


def states(folder):
    """The tensors of the newest checkpoint that the last session's weights depend on."""
    found = Checkpoints(folder / "state").load().states
    return tensors({part: found[part] for part in ("model", "optimizer", "average") if part in found})


def distance(folder, other):
    a, b = states(folder), states(other)
    assert a.keys() == b.keys()
    return max((value.double() - b[name].double()).abs().max().item() for name, value in a.items())


def edit(folder, shard, processes=1):
    file = folder / "settings.yaml"
    text = file.read_text().replace(f"shard_weights: {str(not shard).lower()}", f"shard_weights: {str(shard).lower()}")
    file.write_text(text.replace("processes: 1", f"processes: {processes}"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "alone"
    assert run("learn", folder, "alone", 1) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_weights_optimiser_and_averages_are_those_of_one_process(alone, tmp_path, processes):
    """After 52 steps of every optimiser, with all that stands beside it; and the model in Python is whole again, in every process."""
    assert run("learn", tmp_path, "shards", processes) == 0
    names = sorted(place.name for place in alone.iterdir() if place.is_dir() and place.name != "dropped")  # no two drop the same
    assert names == ["bounded", "exploded", "harmed", "muon", "normalised", "plain", "text", "thawed", "tied"]
    for name in names:
        assert distance(alone / name, tmp_path / name) < 1e-6, name
        one, other = (
            [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()] for folder in (alone, tmp_path)
        )
        for a, b in zip(one, other, strict=True):
            assert b["validation"] == pytest.approx(a["validation"], abs=1e-5) and ("train" in a) == ("train" in b)
            assert "train" not in a or b["train"] == pytest.approx(a["train"], abs=2e-6)
        if name in ("exploded", "harmed"):
            guards = [Checkpoints(folder / name / "state").load().states["guard"] for folder in (alone, tmp_path)]
            assert guards[0] == guards[1] and (guards[0]["rolled_back"], guards[0]["left_out"]) == (
                (1, 0) if name == "exploded" else (0, 13)
            )
        if name == "text":
            continue
        for process in range(processes):
            weights = torch.load(tmp_path / f"{name}-{process}.pt")
            assert {name: value.shape for name, value in weights.items()} == {
                n: x.shape for n, x in torch.load(alone / f"{name}-0.pt").items()
            }


def test_two_processes_learn_what_one_does_and_a_stop_is_exact_for_any_number(tmp_path):
    """The last process is asked to stop while all of them judge the fourth epoch; what is left can be gone on with by one process."""
    stopped, gone_on = tmp_path / "shards", tmp_path / "alone"
    assert run("stop", stopped, "shards", 2, "plain") == 0
    first, last = (torch.load(stopped / f"plain-{process}.pt") for process in range(2))
    assert "Stopped in epoch 3 after 4 of 4 steps" in first["said"] and last["said"] == "130"
    assert first["weights"].keys() == last["weights"].keys() and all(
        torch.equal(x, last["weights"][n]) for n, x in first["weights"].items()
    )
    edit(stopped / "plain", shard=False)
    assert run("resume", stopped, "alone", 1, "plain") == 0
    assert run("learn", gone_on, "alone", 1, "plain") == 0
    assert distance(stopped / "plain", gone_on / "plain") < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("how", "processes", "bits"), [("shards", 2, True), ("shards", 4, False), ("copies", 2, False)])
def test_a_run_goes_on_bit_for_bit_and_nearly_so_with_others(tmp_path, how, processes, bits):
    case = "dropped" if bits else "normalised"
    assert run("stop", tmp_path / "stopped", "shards", 2, case) == 0
    edit(tmp_path / "stopped" / case, shard=how == "shards")
    assert run("resume", tmp_path / "stopped", how, processes, case) == 0
    assert run("learn", tmp_path / "whole", "shards", 2, case) == 0
    assert distance(tmp_path / "stopped" / case, tmp_path / "whole" / case) <= (0 if bits else 1e-6)


@pytest.mark.slow
def test_every_process_has_its_rows_and_the_layer_to_blame_is_found_wherever_it_is(tmp_path):
    assert run("faults", tmp_path, "shards", 2) == 0
    first, last = (torch.load(tmp_path / f"faults-{process}.pt") for process in range(2))
    assert first["given up"] == last["given up"] == 0 and first["own"] + last["own"] == 93 and last["own"] == 43  # of 4*6+6 + 6*6+6 + 3*6+3
    for found in (first, last):
        assert all(torch.equal(found["whole"][name], value) for name, value in found["before"].items())
        assert found["back"]["0.weight"].equal(found["before"]["0.weight"]) and not found["back"]["1.weight"].any()
        assert found["gradients"] == [None] * 6
        assert (found["sound"]["place"], found["backward"]["place"], found["backward"]["layer"]) == ("nowhere", "backward", "2")
        assert found["weights"]["said"].startswith("The model was broken before the step: weight 3.weight (Linear) is not finite.")
    assert first["batch"]["place"] == "nowhere" and last["batch"]["items"] == (0, 1, 2, 3, 4)


@pytest.mark.slow
def test_weights_that_are_used_without_their_layer_are_refused(tmp_path, capfd):
    assert run("bare", tmp_path, "shards", 2) == 2
    assert capfd.readouterr().err.startswith(
        "twofold: shard_weights: weights were used that had not been put together, for that is done when"
    )
    assert not list((tmp_path / "bare").iterdir())


@pytest.mark.slow
def test_the_command_line_cuts_the_weights_by_itself_and_under_torchrun(tmp_path):
    settings = ["train", "digits", "--shard-weights", "--config", "stages=8 M 8 M", "--epochs", "1", "--sync-batchnorm", "--no-graph"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "twofold"]
    for name, command in (("ours", ["-m", "twofold", *settings, "--processes", "2"]), ("torchrun", [*torchrun, *settings])):
        ended = subprocess.run([sys.executable, *command, "--out", str(tmp_path / name)], capture_output=True, text=True, timeout=200)
        assert ended.returncode == 0, ended.stderr
    assert distance(tmp_path / "ours", tmp_path / "torchrun") == 0
    model = (tmp_path / "ours" / "model.safetensors").read_bytes()
    assert model == (tmp_path / "torchrun" / "model.safetensors").read_bytes() and (tmp_path / "ours" / "report.html").exists()


TWO = World(0, 2)


@pytest.mark.parametrize(
    ("given", "world", "message"),
    [
        (
            {},
            World(),
            "shard_weights cuts the weights over several processes, and this one is alone: it would hold all of them. Take --proc",
        ),
        (
            {"compile": True},
            TWO,
            "settings: compile does not go with shard_weights: its graphs hold the weights that are put together. Leave",
        ),
        (
            {"precision": "fp16"},
            TWO,
            r"settings: precision=fp16 does not go with shard_weights: its scale is that of one process. Take bf16",
        ),
        (
            {"channels_last": True},
            TWO,
            "settings: channels_last does not go with shard_weights: weights are cut by rows that lie one after",
        ),
        ({"histograms": 5}, TWO, "settings: histograms does not go with shard_weights: no process has all weights"),
        ({"pictures": 5}, TWO, "settings: pictures does not go with shard_weights: no process has all weights"),
        (
            {"documents": True},
            TWO,
            "settings: documents does not go with shard_weights: processes would call the model at the beginnings of",
        ),
    ],
)
def test_what_cannot_be_together_is_refused(given, world, message):
    with pytest.raises(ValueError, match=message):
        refuse_unshardable(Settings.of("digits", shard_weights=True, **given), world)
    refuse_unshardable(Settings.of("digits", **given), world)


class Single(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Single(), r"shard_weights: weight scale is a single number without an axis, which cannot be cut. Give it the shape \(1,\)."),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()), "shard_weights: expected weights of one type, got float32 and float64."),
    ],
)
def test_models_that_cannot_be_cut_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        cut(model, TWO)


def test_a_tensor_that_is_not_cut_is_its_own_whole():
    x = torch.ones(3, 2)
    assert own(x) is x and rows_of(x, x) is x and joined(x, x) is x and cut_alike(x, x) is x
    tree = {"a": (x, [x, "text"]), "b": None}
    assert whole(tree) == tree
