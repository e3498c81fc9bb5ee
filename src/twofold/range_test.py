"""The learning rate range test of a training that `fit` would begin: rate_finder.py, with a source or with parts of one's own."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import nn

from twofold.preparing import Loss, begin_weights, understand
from twofold.tasks.task import Task
from twofold.train.faults import NotFiniteError
from twofold.train.learner import Learner
from twofold.train.machine import device_of
from twofold.train.processes import World
from twofold.train.rate_finder import RateCurve, put_back
from twofold.train.rate_finder import find_rate as range_test
from twofold.train.sharded import refuse_unshardable


def find_rate(source: Any, *, model: str | nn.Module = "", task: Task | Loss | None = None, steps: int = 100, **settings: Any) -> RateCurve:
    """The curve of the range test, and a suggestion. The arguments are those of `fit`.

    A loss that is no number ends the test, whatever non_finite says. A model that is given is as before afterwards, bit for bit.
    Raises ValueError for what `fit` refuses, and for several processes.
    """
    wanted, prepared = understand(source, model, task, settings)
    if wanted.machine.processes > 1:
        raise ValueError("find_rate: the range test runs in one process, and its suggestion holds for several. Leave processes out.")
    with torch.random.fork_rng(), _options_kept(model):
        torch.manual_seed(wanted.learning.seed)
        world = World(device=device_of(wanted.machine))
        refuse_unshardable(wanted, world)
        job = prepared(world)
        job.model.to(world.device)
        learner = Learner(job.model, job.task, job.settings, job.data.training.steps(), world)
        batches = (batch for epoch in count() for batch in job.data.training.epoch(epoch))

        def loss_at(rate: float) -> float:
            try:
                return learner.step(next(batches), rate=rate).loss
            except NotFiniteError:
                return math.nan

        with put_back(job.model, learner.optimizer):
            begin_weights(job, world)
            learner.begin()
            return range_test(loss_at, steps=steps)


@contextmanager
def _options_kept(model: Any) -> Iterator[None]:
    """After the block a given module drops as much as before, and is where it was."""
    if not isinstance(model, nn.Module):
        yield
        return
    kept = [(layer, name, getattr(layer, name, None)) for layer in model.modules() for name in ("p", "dropout")]
    home = next((weight.device for weight in model.parameters()), None)
    try:
        yield
    finally:
        for layer, name, value in kept:
            if isinstance(value, float):
                setattr(layer, name, value)
        if home is not None:
            model.to(home)
