"""Replicas: the weights of several processes are those of one, after 50 steps, whatever the shards."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from twofold.train.launching import launch
from twofold.train.processes import World

TOGETHER = Path(__file__).with_name("together.py")


def run(scenario, folder, processes):
    assert launch([sys.executable, str(TOGETHER), scenario, str(folder)], processes) == 0
    return [torch.load(folder / f"{scenario}-{process}.pt") for process in range(processes)]


@pytest.fixture(scope="module")
def alone():
    specification = importlib.util.spec_from_file_location("together", TOGETHER)
    together = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(together)
    return together.scenario_learn(World())


@pytest.fixture(scope="module", params=[2, 4])
def several(request, tmp_path_factory):
    return run("learn", tmp_path_factory.mktemp("several"), request.param)


def distance(weights, others):
    return max((weights[name].double() - others[name].double()).abs().max().item() for name in others)


@pytest.mark.parametrize("name", ["cnn", "cnn in parts", "cnn normalised", "language"])
def test_weights_and_losses_are_those_of_one_process(several, alone, name):
    """Shards of unequal size, several parts a step, synchronised normalisation under AdamW, and streams with carried state."""
    for found in several:
        assert distance(found[name]["weights"], alone[name]["weights"]) < 1e-6
        assert all(torch.equal(value, several[0][name]["weights"][key]) for key, value in found[name]["weights"].items())
        assert found[name]["losses"] == pytest.approx(alone[name]["losses"], abs=2e-6)


def test_without_synchronisation_all_share_the_weights_and_the_buffers_after_aligning(several, alone):
    apart = [found["cnn apart"] for found in several]
    assert all(torch.equal(value, apart[0]["weights"][key]) for other in apart for key, value in other["weights"].items())
    assert all(torch.equal(apart[0]["alone"][name], apart[0]["weights"][name]) for name in apart[0]["alone"])  # those of the first
    assert not torch.equal(apart[1]["alone"]["1.running_mean"], apart[1]["weights"]["1.running_mean"])
    assert distance(apart[0]["weights"], alone["cnn apart"]["weights"]) > 1e-3  # it normalised by smaller batches


def test_scores_are_those_of_one_process_and_count_nothing_twice(several, alone):
    for found in several:
        for split, scores in alone["judged"].items():
            assert found["judged"][split] == pytest.approx(scores, rel=1e-6)
        assert all(found["judged"][f"text {n}"]["tokens"] == alone["judged"][f"text {n}"]["tokens"] for n in (9000, 3000, 100))
