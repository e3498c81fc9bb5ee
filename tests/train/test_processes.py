"""Several processes: what they tell each other, and environments that cannot be."""

import sys
from pathlib import Path

import pytest
import torch

from twofold.train.launching import launch
from twofold.train.processes import World
from twofold.train.shards import Shard

TOGETHER = str(Path(__file__).with_name("together.py"))


@pytest.fixture
def environment(monkeypatch):
    """Set torchrun's variables, and no others."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)

    def set_all(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return set_all


def test_three_processes_meet(tmp_path):
    assert launch([sys.executable, TOGETHER, "meet", str(tmp_path)], 3) == 0
    found = [torch.load(tmp_path / f"meet-{process}.pt") for process in range(3)]
    rows = [torch.full((process, 2), process) for process in range(3)]
    for process, mine in enumerate(found):
        assert mine["add"] == {"a": pytest.approx(0.3, rel=1e-15), "b": 3.0}
        assert mine["any"] == [True, False]
        assert mine["agree"] == (0, "of the first", torch.tensor([0]))
        assert [(part["name"], part["rows"].tolist(), part["empty"]) for part in mine["collect"]] == [
            (f"process {other}", rows[other].tolist(), None) for other in range(3)
        ]
        assert mine["gather"].tolist() == torch.cat(rows).tolist()
        assert mine["world"] == (process, 3, process, process == 0, 1)
        assert len({tuple(drawn.tolist()) for drawn in mine["random"]}) == 3


def test_a_process_alone_needs_nobody(environment):
    world = World.of_environment()
    assert world == World() and world.first and world.shard == Shard(0, 1)
    assert world.add({"a": 0.1}) == {"a": 0.1} and world.collect("x") == ["x"] and world.agree("y") == "y"
    assert world.any_of(True) and not world.any_of(False) and world.gather(torch.ones(2)).tolist() == [1, 1]
    with pytest.raises(ValueError, match="no process has a row to evaluate: this split is empty"):
        world.gather(None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"WORLD_SIZE": 2}, "the environment has WORLD_SIZE=2, but no RANK. Start several processes with twofold train --processes or"),
        ({"RANK": 0}, "the environment has RANK=0, but no WORLD_SIZE"),
        ({"RANK": 2, "WORLD_SIZE": 2}, "expected RANK below WORLD_SIZE=2, got 2"),
        ({"RANK": "one", "WORLD_SIZE": 2}, "expected RANK in the environment to be a whole number, got 'one'. torchrun sets it"),
        ({"RANK": 0, "WORLD_SIZE": 2}, "WORLD_SIZE=2, but the environment has no MASTER_ADDR and no MASTER_PORT"),
    ],
)
def test_an_environment_that_cannot_be_is_refused(environment, values, message):
    environment(**values)
    with pytest.raises(ValueError, match=f"processes: {message}"):
        World.of_environment()


def test_more_processes_than_gpus_are_refused(environment):
    environment(RANK=0, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=1, LOCAL_RANK=torch.cuda.device_count())
    with pytest.raises(ValueError, match=r"needs a GPU of its own, but there are \d+\. Start at most one process for each GPU"):
        World.of_environment("cuda")
