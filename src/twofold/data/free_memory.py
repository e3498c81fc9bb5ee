"""Free memory: how many bytes this process may still take without anything being killed for it.

free = min(what the system says is available, limit of the container - its use) / processes of this run on this machine
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

UNKNOWN = 8 << 30  # bytes, where the system tells nothing
SYSTEM = Path("/proc/meminfo")
CONTAINERS = (  # limit, and use: version 2 and version 1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def free_memory() -> int:
    """Bytes."""
    limits = [_of_system()]
    for limit, use in CONTAINERS:
        with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
            limits.append(max(0, int(limit.read_text()) - int(use.read_text())))
    return min(limits) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


def _of_system() -> int:
    with suppress(OSError, ValueError, IndexError):
        lines = [line.split() for line in SYSTEM.read_text().splitlines()]
        return next((int(words[1]) << 10 for words in lines if words[0] == "MemAvailable:"), UNKNOWN)
    with suppress(AttributeError, ValueError, OSError):  # another system: half of what is built in
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return UNKNOWN
