"""Free is what the system and the container leave, shared by the processes of a run."""

from pathlib import Path

import pytest

from twofold.data import free_memory as module
from twofold.data.free_memory import free_memory


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "SYSTEM", tmp_path / "meminfo")
    monkeypatch.setattr(module, "CONTAINERS", ((tmp_path / "max", tmp_path / "current"),))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemFree:  100 kB\nMemAvailable:   6000 kB\n")
    return tmp_path


@pytest.mark.parametrize(("limit", "free"), [(None, 6_144_000), ("max", 6_144_000), ("5000000", 4_000_000), ("900000", 0)])
def test_the_container_may_leave_less_than_the_system(machine: Path, limit: str | None, free: int) -> None:
    if limit is not None:
        (machine / "max").write_text(f"{limit}\n")
        (machine / "current").write_text("1000000\n")
    assert free_memory() == free


def test_processes_share_it(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory() == 6_144_000 // 4


def test_a_system_that_tells_less(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "meminfo").write_text("MemTotal:  9000 kB\n")
    assert free_memory() == module.UNKNOWN
    (machine / "meminfo").unlink()
    monkeypatch.setattr(module.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 100}.__getitem__, raising=False)
    assert free_memory() == 4096 * 50
