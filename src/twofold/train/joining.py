"""Joining: the processes of a world find each other, work, and end together.

    with join() as world: ...         alone: nothing happens        several: all enter, and all leave when the last is done

A process that fails tells why before it goes. Whoever then waits for it in vain learns that there and goes silently, with the same exit
code: a user reads one message, of the process that failed. What a process says counts on its own machine; on another the first one
repeats it.
"""

from __future__ import annotations  # a build of torch may lack what the signatures name

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist

from twofold.train.interface import gloo_interface
from twofold.train.launching import follow_launcher
from twofold.train.processes import World

JOINING = timedelta(minutes=5)  # for all to come
MEETING = timedelta(minutes=30)  # for all to meet: the first may be writing a report meanwhile
LEAVING = timedelta(seconds=60)  # for the first to write what a stop asks for
LOOKING = 0.02  # seconds between two looks for who has come


class LostProcessError(ConnectionError):
    """The connection to another process broke, and none has told why."""


@contextmanager
def join(kind: str = "cpu", joining: timedelta = JOINING, meeting: timedelta = MEETING) -> Iterator[World]:
    """The world within the block. All processes enter it, and leave it together.

    Raises ValueError where the processes cannot meet: wrong environment, no gloo or NCCL in this build of torch, one that does not come.
    Whatever a block raises ends all processes: see above. A stop (KeyboardInterrupt, SystemExit) is raised by the first process, when it is
    ready; the others await that and leave silently.
    """
    world = World.of_environment(kind)
    if world.processes == 1:
        yield world
        return
    follow_launcher()
    store = _meet(world, joining, meeting)
    try:
        yield world
        world.any_of(False)  # none leaves before all are done
    except (KeyboardInterrupt, SystemExit) as stop:
        _leave_after_first(world, store)
        if world.first:
            raise
        raise SystemExit(130 if isinstance(stop, KeyboardInterrupt) else stop.code) from None
    except Exception as error:
        cause = _told_by(error, world)
        told = _tell(store, world, cause)
        if told is None:
            _tell_torchrun(cause)
            if cause is error:
                raise
            raise cause from error
        kind_of_error = ValueError if told["code"] == 2 else RuntimeError
        _tell_torchrun(kind_of_error(f"process {told['process']}: {told['message']}"))  # of the two it may name either as the cause
        if world.local == 0 and told["machine"] != world.machine:
            raise kind_of_error(f"process {told['process']} on another machine: {told['message']}") from None
        raise SystemExit(told["code"]) from None
    finally:
        with suppress(RuntimeError):  # after a failure its connections are broken
            dist.destroy_process_group()


def _meet(world: World, joining: timedelta, meeting: timedelta) -> dist.Store:
    """Wait for all processes and connect them; the store in which a failing one leaves its message."""
    if not dist.is_available() or not dist.is_gloo_available():
        raise ValueError(
            f"processes: WORLD_SIZE={world.processes}, but this build of torch has no gloo, by which processes talk. Train with one."
        )
    import_module(
        "torch.distributed.nn"
    )  # before there is a group: it would keep that, and a group that is kept may end its process by SIGABRT
    backend = "gloo"
    if world.device.type == "cuda":
        if not dist.is_nccl_available():
            raise ValueError("processes: this build of torch has no NCCL, by which GPUs talk. Train on the CPU or with one process.")
        torch.cuda.set_device(world.device)
        backend = "cpu:gloo,cuda:nccl"
    if "GLOO_SOCKET_IFNAME" not in os.environ:
        interface = gloo_interface(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        if interface is not None:
            os.environ["GLOO_SOCKET_IFNAME"] = interface
    try:
        store, *_ = next(dist.rendezvous("env://", world.process, world.processes, timeout=joining))
        store.set_timeout(joining)
        store = _find_each_other(store, world, joining)
        group = dist.PrefixStore("group", store)
        dist.init_process_group(backend, store=group, rank=world.process, world_size=world.processes, timeout=meeting)
    except RuntimeError as error:  # torch's DistError, of the network and of the store
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"processes: process {world.process} of {world.processes} could not meet the others at {os.environ['MASTER_ADDR']} port "
            f"{os.environ['MASTER_PORT']} within {joining.total_seconds():g} seconds: {first} Do all of them run, and does no firewall "
            "stand between?"
        ) from error
    return store


def _find_each_other(store: dist.Store, world: World, joining: timedelta) -> dist.Store:
    """The store of these very processes. Raises RuntimeError, with who is missed, where not all come.

    torchrun keeps one store through all restarts, with the addresses of processes that live no more. So every process asks under a name
    that nobody had before, and the first, which may see what a dead one asked, answers whatever is new until all have its answer.
    """
    mine = secrets.token_hex(8)
    if not world.first:
        store.set(f"asks {world.process}", mine)
        try:
            answer = store.get(f"answer to {mine}").decode()
        except RuntimeError:
            raise RuntimeError("process 0 did not come.") from None
        store.add(f"came to {answer}", 1)
        return dist.PrefixStore(answer, store)
    answered, until = set[bytes](), time.monotonic() + joining.total_seconds()
    while (came := 1 + store.add(f"came to {mine}", 0)) < world.processes:
        if time.monotonic() > until:
            raise RuntimeError(f"only {came} of {world.processes} came.")
        for name in [f"asks {process}" for process in range(1, world.processes)]:
            if store.check([name]) and (asking := store.get(name)) not in answered:
                store.set(f"answer to {asking.decode()}", mine)
                answered.add(asking)
        time.sleep(LOOKING)
    return dist.PrefixStore(mine, store)


def _told_by(error: Exception, world: World) -> Exception:
    """What a user is told for it: a broken connection is not what a user did."""
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower()):
        reason = str(error).partition("] ")[2].partition(". ")[0] or str(error)  # without the place in gloo's own code, and its advice
        return LostProcessError(
            f"process {world.process} waits for another one in vain: it was killed, its machine has gone, or it does something else "
            f"({reason})"
        )
    return error


def _tell(store: dist.Store, world: World, error: Exception) -> dict[str, Any] | None:
    """Leave the message for the others, unless one was there before: then that one."""
    code = 2 if isinstance(error, ValueError | OSError) else 1  # as the command line counts them
    mine = {"process": world.process, "machine": world.machine, "code": code, "message": str(error)}
    try:
        store.set_timeout(LEAVING)
        told: dict[str, Any] = json.loads(store.compare_set("failure", "", json.dumps(mine)))
    except RuntimeError:  # the store has gone, with the process that kept it
        return None
    return None if told == mine else told


def _tell_torchrun(error: Exception) -> None:
    """Put the message where torchrun looks for the cause of a failure."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)


def _leave_after_first(world: World, store: dist.Store) -> None:
    """Stopped: the first process may still be writing, and whoever started us may end all when one has ended."""
    with suppress(RuntimeError):
        if world.first:
            store.set("stopped", "1")
        else:
            store.wait(["stopped"], LEAVING)
