"""What a run leaves on the disk while it goes on: the best weights, the log, and checkpoints.

    after an epoch      model.safetensors + model.json where it was the best; metrics.jsonl; a checkpoint
    within an epoch     a checkpoint every so many minutes
    at a stop           a checkpoint of that very step
    patience at an end  everything back to the best epoch, and a checkpoint of that

A disk that refuses stops nothing: it is said, what was good stays, and the next write tries again. Of several processes the first writes.
"""

from collections.abc import Callable
from typing import Any

from twofold.train.checkpoints import Checkpoints, Keeping
from twofold.train.folder import RunFolder
from twofold.train.learner import Learner


class Keeper:
    """Writes the files of one run. description: what model.json says; tell: takes sentences for people.

    beside: what has a state besides the learner's, by name.
    """

    def __init__(
        self,
        folder: RunFolder,
        keeping: Keeping,
        description: dict[str, Any],
        tell: Callable[[str], None],
        beside: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.description, self.tell, self.beside = folder, description, tell, beside or {}
        self.checkpoints = Checkpoints(folder.path / "state", keeping)
        self.unwritten: str = ""  # why the best weights are not in model.safetensors

    def begin(self, learner: Learner) -> None:
        """The state before the first step: what goes wrong in the first epoch must have something to go back to.

        Raises ValueError where it cannot be written: a run that begins so would leave nothing.
        """
        self.save(learner)
        if learner.world.first:
            warnings = self.checkpoints.wait()
            if not self.checkpoints.entries:
                raise ValueError(f"{' '.join(warnings)} Nothing was trained. Make room there, or name another folder with --out.")

    def epoch(self, learner: Learner, better: bool) -> None:
        """An epoch is done."""
        if learner.world.first:
            if better:
                self._write_model(learner)
            self._try(lambda: self.folder.write_rows(learner.progress.history))
        self.save(learner, best=better)

    def save(self, learner: Learner, best: bool = False) -> None:
        """A checkpoint of now; written while training goes on."""
        states = {**learner.states(), "description": self.description}
        states |= {name: part.state_dict() for name, part in self.beside.items()}
        if learner.world.first:
            for warning in self.checkpoints.save(learner.number, states, epoch=learner.progress.epoch, best=best):
                self.tell(warning)
        learner.clock.lap("keeping")

    def due(self, learner: Learner) -> bool:
        """Whether it is time for one within the epoch."""
        own = learner.world.first and self.checkpoints.due()
        return learner.world.agree(own) if learner.world.processes > 1 and self.checkpoints.keeping.save_every else own

    def take_up(
        self, learner: Learner, best: bool = False, guarded: bool = False, check: Callable[[dict[str, Any]], None] = lambda described: None
    ) -> None:
        """Put the learner where the newest good checkpoint was written, or the best one. Raises ValueError where there is none.

        check: is given what model.json would have said then, and may refuse.
        """
        learner.world.agree(self._ready(learner))  # nobody reads while the first still writes
        loaded = self.checkpoints.load(best)
        if learner.world.first:
            for note in loaded.notes:
                self.tell(note)
        check(loaded.states.get("description", {}))
        learner.restore(loaded.states, guarded)
        for name, part in self.beside.items() if not guarded else ():
            part.load_state_dict(loaded.states.get(name, {}))

    def end_early(self, learner: Learner) -> None:
        """Patience has ended: weights, optimiser, schedule, averages and random states return to the best epoch; the log stays whole."""
        history, stopped = learner.progress.history, learner.progress.epoch
        self.take_up(learner, best=True, guarded=True)
        learner.progress.history, learner.progress.stopped_epoch = history, stopped
        self.save(learner)
        self.tell(
            f"Patience ended after epoch {stopped}: weights, optimiser and random states are those of epoch {learner.progress.epoch} again."
        )

    def stopped(self, learner: Learner) -> None:
        """Stopped within an epoch: the state of this step and, before the first epoch's end, the weights as they are."""
        if learner.world.first and not learner.progress.best_epoch:
            self._write_model(learner)
            self._try(lambda: self.folder.write_rows(learner.progress.history))
        self.save(learner)

    def finish(self) -> None:
        """Wait for the last write. Raises ValueError where the best weights could not be written."""
        for warning in self.checkpoints.wait():
            self.tell(warning)
        if self.unwritten:
            raise ValueError(self.unwritten)

    def _ready(self, learner: Learner) -> bool:
        if learner.world.first:
            for warning in self.checkpoints.wait():
                self.tell(warning)
        return True

    def _write_model(self, learner: Learner) -> None:
        with learner.judged():
            self.unwritten = self._try(lambda: self.folder.write_model(learner.model, self.description))

    def _try(self, write: Callable[[], None]) -> str:
        """'' or why it could not be written, which is told."""
        try:
            write()
        except ValueError as error:  # the folder's sentence about the disk
            self.tell(f"{error} Training goes on.")
            return str(error)
        return ""
