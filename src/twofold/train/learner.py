"""The learner: everything that a step changes, and the step.

    rate ->  for each part of the batch: loss, gradient  -> penalties -> judge -> clip -> descend -> bound the norms -> average

What a step changes is in `states`, so a run that is taken up again from them goes on bit for bit. A step whose loss or gradient is no
number reaches none of it (faults).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from twofold.tasks.task import Step, Task
from twofold.train.averages import Average
from twofold.train.checkpoints import random_states, restore_random
from twofold.train.clock import Clock
from twofold.train.compiling import compiled
from twofold.train.culprit import Fault, find_fault, find_unsound
from twofold.train.evidence import save_batch
from twofold.train.faults import Guard, NotFiniteError, judge
from twofold.train.leaves import finite, leaves
from twofold.train.machine import moved, network_of, numbers, scaler_of
from twofold.train.memory import Portion, Room, handed_out, item_count, split
from twofold.train.moment import Moment
from twofold.train.optimizers import build_optimizer, clip_gradient, give_rate
from twofold.train.penalties import Penalties
from twofold.train.processes import World
from twofold.train.progress import Progress
from twofold.train.reach import ReachRecord
from twofold.train.replicas import averaging, copy_to_all
from twofold.train.schedules import Schedule
from twofold.train.settings import Settings
from twofold.train.sharded import cut, cut_moments, cut_weights, put_together, whole
from twofold.train.transfer import Thaw

ALONE = World()


class Outcome(NamedTuple):
    """What a step came to. `action`: "" where it went well, "skip" or "rollback"; `stop`: whether any process wants to."""

    loss: float
    rate: float
    norm: float
    action: str
    stop: bool


class Learner:
    """A model that learns a task: `steps` of them in an epoch. Batches that break it are kept in the folder `faults`, where one is given.

    tell: takes sentences for people.
    """

    def __init__(
        self, model: nn.Module, task: Task, settings: Settings, steps: int, world: World = ALONE, faults: Path | None = None,
        tell: Callable[[str], None] = lambda sentence: None,
    ) -> None:  # fmt: skip
        how = settings.optimisation
        self.sharded, self.whole = settings.machine.shard_weights and world.processes > 1, model
        model = cut(model, world) if self.sharded else model
        self.model, self.task, self.settings, self.steps, self.world = model, task, settings, steps, world
        self.faults, self.tell = faults, tell
        self.thaw = Thaw(model, settings.transfer)
        self.penalties = Penalties(model, settings.regularisation)
        self.optimizer = build_optimizer(model, how, self.thaw.factors)
        self.schedule = Schedule(settings.scheduling, how.learning_rate, settings.learning.epochs, steps, how.momentum)
        self.average = Average(model, how.ema) if how.ema else None
        self.guard = Guard(settings.safety)
        self.room = Room(settings.learning.accumulate, settings.safety.memory if world.processes == 1 else "stop")
        self.scaler = scaler_of(settings.machine, world.device)
        self.clock, self.progress = Clock(), Progress()
        self.reach = ReachRecord(settings.streams.reach) if settings.streams.reach else None
        self.names: Callable[[int, int], Sequence[Any] | None] | None = None  # of the items of a batch, by epoch and step
        self._moment = Moment(model)
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.thaw.at(0)
        self.network = self._network()

    def unfinished(self) -> bool:
        """Whether there are epochs left, and patience."""
        learning = self.settings.learning
        return self.progress.epoch < learning.epochs and not self.progress.tired(learning.patience)

    def begin(self) -> None:
        """An epoch begins, or goes on."""
        if self.thaw.at(self.progress.epoch):
            self.network = self._network()  # processes share the gradients of the weights that learnt when it was made
        self.network.train()
        self.clock.start()

    def step(self, batch: Any, share: float = 1.0, stop: bool = False, rate: float | None = None) -> Outcome:
        """Learn from a batch; share: see Batches.share; rate: another than the schedule's.

        Raises NotFiniteError where the run has to end.
        """
        progress, clock, world = self.progress, self.clock, self.world
        rate = self.schedule.rate(self.number) * self.guard.rate if rate is None else rate
        give_rate(self.optimizer, rate, self.schedule.momentum(self.number))
        batch = batch if world.device.type == "cpu" else moved(batch, world.device)
        clock.lap("data")
        if self.reach is not None and (row := self.reach.row(self.number, self.model, batch, progress.carried)):
            progress.reach.append(row)
        if self.sharded and self.room.accumulate > 1:  # all call the model equally often
            self.room.most = min(world.collect(item_count(batch)))
        self.thaw.hold()
        self._moment.take()
        self.optimizer.zero_grad()
        found = self.room.step(batch, progress.carried, partial(self._learn, share), self._undo, self.tell)
        value, items = found.loss.item(), found.items
        if world.processes > 1:
            sums = world.add({"loss": value * items, "items": items, "stop": stop})
            value, items, stop = sums["loss"] / sums["items"], int(sums["items"]), sums["stop"] > 0
        norm = self._descend(value)
        action = ""
        if judge(value, norm):
            self.guard.passed()
            progress.advance(value, items, found.carried)
        elif self.scaler is not None and math.isfinite(value) and self.scaler.get_scale() >= 1:
            progress.leave_out(found.carried)  # too large a scale, which was lowered
        else:
            action = self._mend(batch, found, value, norm, rate)
        clock.lap("optimiser")
        return Outcome(value, rate, norm, action, stop)

    def unsound(self) -> bool:
        """Whether the model is broken though no step was, so that the run has to go back: a running mean that is NaN, for example.

        Raises NotFiniteError where the run has to end.
        """
        fault = self._agreed(find_unsound(self.model) or Fault("nowhere"))
        if fault.place == "nowhere":
            return False
        decision = self.guard.decide(fault, f"epoch {self.progress.epoch + 1}, after its last step")
        if decision.action != "rollback":
            raise NotFiniteError(decision.said)
        self.tell(decision.said)
        return True

    @property
    def number(self) -> int:
        """How many steps were made since the beginning of the training."""
        return self.progress.epoch * self.steps + self.progress.step

    @contextmanager
    def judged(self) -> Iterator[None]:
        """A block in which the model has the weights that are judged and kept: the averaged ones, where there are any."""
        with self.average.applied() if self.average else nullcontext():
            yield

    def weights(self) -> dict[str, torch.Tensor] | None:
        """The model's state_dict, whole; of sharded weights all processes call it, and the first gets it."""
        state = whole(self.model.state_dict(keep_vars=True), keep=self.world.first)
        return state if self.world.first else None

    def put_together(self) -> None:
        """Training is over: the model is whole again, on the processor, in every process. All call it."""
        if not self.sharded:
            return
        put_together(self.whole, self.model)
        if self.average is not None:
            averages = whole(self.average.state_dict())
            self.average = Average(self.whole, self.average.decay)
            self.average.load_state_dict(averages)
        self.model = self.network = self.whole
        self.sharded = False

    def states(self) -> dict[str, Any]:
        """All of it, for a checkpoint. What differs between processes is in lists, in their order.

        What is sharded is whole, in the first process; the others have None in its place.
        """
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        parts = whole({**parts, "model": self.model.state_dict(keep_vars=self.sharded)}, keep=self.world.first)
        progress = self.progress.state_dict()
        own = {"random": self.world.collect(random_states()), "carried": self.world.collect(progress.pop("carried"))}
        return {**parts, **own, "progress": progress}

    def restore(self, states: dict[str, Any], guarded: bool = False) -> None:
        """Take over `states`. guarded: but for what is learnt of this run and this machine: the counts of what went wrong, which bound the
        going back, the parts that fit into memory, and the time that was spent.

        Raises ValueError for the states of another model or of other settings; nothing can be said of this learner then.
        """
        parts = {name: part for name, part in self._parts().items() if not (guarded and name in ("guard", "room", "clock"))}
        missing = parts.keys() - states.keys()
        if missing:
            raise ValueError(f"resume: the checkpoint has no {', '.join(sorted(missing))}: it was written with other settings.")
        try:
            cut_here = {"model": cut_weights(states["model"], self.model), "optimizer": cut_moments(states["optimizer"], self.optimizer)}
            states = {**states, **cut_here}
            for name, part in parts.items():
                part.load_state_dict(states[name])
            carried = handed_out(states["carried"], self.world.shard)
            self.progress.load_state_dict({**states["progress"], "carried": moved(carried, self.world.device)})
            self._restore_random(states["random"])
        except (RuntimeError, KeyError, TypeError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"resume: the checkpoint belongs to another model or to other settings: {first}") from error

    def _restore_random(self, states: list[Any]) -> None:
        """Each process goes on with its own random numbers; where there were others, all but the first with new ones."""
        if len(states) == self.world.processes:
            restore_random(states[self.world.process])
        else:
            restore_random(states[0])
            self.world.reseed(self.settings.learning.seed + self.number)

    def _network(self) -> nn.Module:
        """What is called in training."""
        return self.model if self.sharded else copy_to_all(network_of(self.model, self.settings.machine), self.world)

    def _parts(self) -> dict[str, Any]:
        """Everything with a state of its own."""
        every = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule, "average": self.average, "guard": self.guard}
        every |= {"room": self.room, "scaler": self.scaler, "clock": self.clock}
        return {name: part for name, part in every.items() if part is not None}

    def _learn(self, share: float, portion: Portion) -> Step:
        """Loss and gradient of a part of the batch."""
        machine = self.settings.machine
        with compiled(machine.compile), averaging(self.network, portion.last), numbers(machine, self.world.device):
            found = self.task.loss(self.network, portion.batch, portion.carried)
            self.clock.lap("forward")
            weight = portion.share * share
            loss = found.loss if weight == 1 else found.loss * weight
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            self.clock.lap("backward")
        return found._replace(loss=found.loss.detach())

    def _undo(self) -> None:
        self.optimizer.zero_grad()
        self._moment.put_back()

    def _descend(self, loss: float) -> float:
        """Move the weights, unless a number is none; the gradient's norm."""
        how = self.settings.optimisation
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        self.penalties.add()
        norm = clip_gradient(self._weights, how.clip, how.clip_value, self._norm_of_all if self.sharded else float)
        if self.scaler is not None:
            self.scaler.step(self.optimizer)  # which sees by itself what is not finite
            self.scaler.update()
        elif judge(loss, norm):
            self.optimizer.step()
        if judge(loss, norm):
            self.penalties.constrain()
            if self.average is not None:
                self.average.update()
        return norm

    def _norm_of_all(self, norm: float) -> float:
        return math.sqrt(self.world.add({"squares": norm * norm})["squares"])

    def _mend(self, batch: Any, found: Step, loss: float, norm: float, rate: float) -> str:
        """After a step that did not reach the weights: find the culprit, keep the batch, and say what is to be done."""
        progress = self.progress
        self._undo()

        names = None if self.names is None else self.names(progress.epoch, progress.step)
        fault = self._agreed(self._culprit(batch, names))
        decision = self.guard.decide(fault, f"epoch {progress.epoch + 1}, step {progress.step + 1} (rate {rate:.2g})", loss, norm)
        kept = save_batch(self.faults, self.number, batch, fault, carried=progress.carried, names=names).said if self.faults else ""
        said = f"{decision.said} {kept}".rstrip()
        if decision.action == "stop":
            raise NotFiniteError(said)
        self.tell(said)
        if decision.action == "skip":
            progress.leave_out(found.carried if all(finite(part) for _, part in leaves(found.carried)) else None)
        return decision.action

    def _culprit(self, batch: Any, names: Sequence[Any] | None) -> Fault:
        """Where the step went wrong; in the parts in which it was taken, for as a whole it may not fit into memory."""
        done, first = 0, Fault("nowhere")
        portions = split(batch, self.room.portions, self.progress.carried)
        for portion in portions:

            def again(portion: Portion = portion) -> torch.Tensor:
                with numbers(self.settings.machine, self.world.device):
                    return self.task.loss(self.model, portion.batch, portion.carried).loss

            count = item_count(portion.batch) if len(portions) > 1 else 0  # a batch that is not parted may be of any form
            own = names if names is None or len(portions) == 1 else names[done : done + count]
            together = self.world if self.sharded or self.settings.machine.sync_batchnorm else ALONE
            fault = find_fault(self.model, again, portion.batch, portion.carried, own, together)
            if first.place == "nowhere":
                first = fault._replace(items=tuple(done + item for item in fault.items))
            if first.place != "nowhere" and self.world.processes == 1:
                break  # several processes look through all parts: their layers may wait for each other
            done += count
        return first

    def _agreed(self, fault: Fault) -> Fault:
        """The first process's that found one, in all."""
        found = [Fault(**{**each, "items": tuple(each["items"])}) for each in self.world.collect(fault._asdict())]
        return next((each for each in found if each.place != "nowhere"), found[0])
