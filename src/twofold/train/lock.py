"""One writer for a run folder: a lock that dies with its process.

The lock is the system's, on the file .lock of the folder (flock; on Windows msvcrt). However a process ends, kill -9 included, the system
lets go of it, so a crash never bars the way and `--resume` works at once. What the file says (process, host, time) is only for the
message. Its holder removes the file when it is done, so whoever has locked a file looks whether that file still lies there.

A forked process inherits flock's lock and would hold it for seconds after its parent was killed (a worker of the data loader looks after
its parent now and then), so it closes its copy at once.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NAME = ".lock"
_handles: set[int] = set()  # of the locks that this process holds

if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # Windows bars others from reading the locked bytes, so one is locked where the file has none

    def _take(handle: int) -> None:
        os.lseek(handle, _FAR, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)

else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _forget() -> None:
        while _handles:
            os.close(_handles.pop())

    os.register_at_fork(after_in_child=_forget)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within the block this process alone writes the folder, which is made if it is missing.

    Raises ValueError, naming the holder, where another process, or another run of this one, writes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.absolute() / NAME
    handle = _acquire(path)
    _handles.add(handle)
    try:
        with suppress(OSError):  # a full disk: it is locked all the same
            os.truncate(handle, 0)
            os.write(handle, json.dumps(_ourselves() | {"since": time.strftime("%Y-%m-%d %H:%M:%S")}).encode())
        yield
    finally:
        if handle in _handles:  # not in a forked process that comes by here
            _handles.remove(handle)
            _let_go(path, handle)


def _acquire(path: Path) -> int:
    """The handle of the locked file that lies at the path."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(handle)
        except (BlockingIOError, PermissionError):
            os.close(handle)
            raise ValueError(
                f"{path.parent} is being written by {_holder(path)}. Wait until it ends, or stop it, or name another folder with --out."
            ) from None
        except BaseException:
            os.close(handle)
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)


def _let_go(path: Path, handle: int) -> None:
    if os.name == "nt":  # which removes no open file; one that another process has opened meanwhile stays
        os.close(handle)
        with suppress(OSError):
            path.unlink()
        return
    with suppress(OSError):
        path.unlink()
    os.close(handle)


def _ourselves() -> dict[str, Any]:
    return {"process": os.getpid(), "host": socket.gethostname()}


def _holder(path: Path) -> str:
    """Who holds the lock, as far as the file tells: a holder that has just begun has not written it yet."""
    try:
        said = json.loads(path.read_bytes()[:1000])
        ours = {name: said[name] for name in ("process", "host")} == _ourselves()
        who = "another run of this very process," if ours else "process"
        return f"{who} {int(said['process'])} on {str(said['host'])[:100]}, since {str(said['since'])[:30]}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"
