"""What a run leaves on the disk while it goes on: the best weights, the log, and checkpoints.

    after an epoch      model.safetensors + model.json where it was the best; metrics.jsonl; a checkpoint
    within an epoch     a checkpoint every so many minutes
    at a stop           a checkpoint of that very step
    patience at an end  everything back to the best epoch, and a checkpoint of that
    after going back    a checkpoint of that, so that a crash does not forget how often it was

A disk that refuses stops nothing: it is said, what was good stays, and the next write tries again; best weights that could not be written
are written at the end, from their checkpoint. Of several processes the first writes.
"""

from collections.abc import Callable
from typing import Any

from twofold.train.checkpoints import Checkpoints, Keeping, Loaded
from twofold.train.folder import RunFolder
from twofold.train.learner import Learner

Check = Callable[[dict[str, Any], dict[str, Any]], None]


class LostError(ValueError):
    """The best epoch has no checkpoint that can be used."""


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
        if better:
            self._write_model(learner)
        if learner.world.first:
            self._try(lambda: self.folder.write_rows(learner.progress.history))
        self.save(learner, best=better)

    def save(self, learner: Learner, best: bool = False) -> None:
        """A checkpoint of now; written while training goes on."""
        states = {**learner.states(), "description": self.description, "settings": learner.settings.model_dump(mode="json")}
        states |= {name: part.state_dict() for name, part in self.beside.items()}
        if learner.world.first:
            for warning in self.checkpoints.save(learner.number, states, epoch=learner.progress.epoch, best=best):
                self.tell(warning)
        learner.clock.lap("keeping")

    def due(self, learner: Learner) -> bool:
        """Whether it is time for one within the epoch."""
        own = learner.world.first and self.checkpoints.due()
        return learner.world.agree(own) if learner.world.processes > 1 and self.checkpoints.keeping.save_every else own

    def take_up(self, learner: Learner, check: Check = lambda described, settings: None) -> None:
        """Put the learner where the newest good checkpoint was written. Raises ValueError where there is none.

        check: is given what model.json would have said then, and the settings of then, and may refuse.
        """
        self._ready(learner)
        loaded = self._load(learner)
        check(loaded.states.get("description", {}), loaded.states.get("settings", {}))
        learner.restore(loaded.states)
        for name, part in self.beside.items():
            part.load_state_dict(loaded.states.get(name, {}))

    def go_back(self, learner: Learner) -> None:
        """Back to the newest good checkpoint, but for the counts of what went wrong. Raises ValueError where there is none."""
        self._ready(learner)
        learner.restore(self._load(learner).states, guarded=True)
        self.save(learner)

    def end_early(self, learner: Learner) -> None:
        """Patience has ended: weights, optimiser, schedule, averages and random states return to the best epoch; the log stays whole.

        Where a disk refused the checkpoint of that epoch, they stay as they are.
        """
        history, stopped = learner.progress.history, learner.progress.epoch
        self._ready(learner)
        try:
            learner.restore(self._load_best(learner), guarded=True)
            told = f"weights, optimiser and random states are those of epoch {learner.progress.epoch} again."
        except LostError as error:
            told = f"{error} So optimiser and random states stay those of the last epoch."
        learner.progress.history, learner.progress.stopped_epoch = history, stopped
        self.save(learner)
        self.tell(f"Patience ended after epoch {stopped}: {told}")

    def stopped(self, learner: Learner) -> None:
        """Stopped within an epoch: the state of this step and, before the first epoch's end, the weights as they are."""
        if learner.world.first and not learner.progress.best_epoch:
            self._write_model(learner)
            self._try(lambda: self.folder.write_rows(learner.progress.history))
        self.save(learner)

    def wait(self) -> None:
        """Until the last checkpoint is on the disk, or was refused, which is told."""
        for warning in self.checkpoints.wait():
            self.tell(warning)

    def written(self) -> int | None:
        """The epoch whose weights model.safetensors has, 0 for those of a stop before the first one's end; None: nobody's."""
        try:
            epoch = self.folder.read_description().get("epoch")
        except ValueError:
            return None
        return epoch if isinstance(epoch, int) and (self.folder.path / "model.safetensors").exists() else None

    def finish(self, learner: Learner) -> None:
        """Training is over and everything else kept: see to it that model.safetensors has the weights of the best epoch.

        A disk may have refused them, in this session or in an earlier one; they are put into the model then and written.
        Raises ValueError where they cannot be. For the first process.
        """
        self.wait()
        if not self.unwritten and self.written() == learner.progress.best_epoch:
            return
        if learner.progress.epoch != learner.progress.best_epoch:  # else the model has them still
            try:
                states = self._load_best(learner)
            except LostError as error:
                raise ValueError(f"{error} {self.unwritten}".rstrip()) from None
            learner.model.load_state_dict(states["model"])
            if learner.average is not None:
                learner.average.load_state_dict(states["average"])
        self._write_model(learner)
        if self.unwritten:
            raise ValueError(f"The weights of epoch {learner.progress.best_epoch}, the best, are not kept: {self.unwritten}")

    def _ready(self, learner: Learner) -> None:
        """Nobody reads while the first process still writes."""
        if learner.world.first:
            self.wait()
        learner.world.any_of(False)

    def _load(self, learner: Learner, best: bool = False) -> Loaded:
        """The newest good checkpoint, or the best one; what was wrong with others is told."""
        loaded = self.checkpoints.load(best)
        if learner.world.first:
            for note in loaded.notes:
                self.tell(note)
        return loaded

    def _load_best(self, learner: Learner) -> dict[str, Any]:
        """The states of the best epoch. Raises LostError where that has no checkpoint, or a damaged one."""
        epoch = learner.progress.best_epoch
        try:
            loaded = self._load(learner, best=True)
        except ValueError as error:
            raise LostError(f"The checkpoint of epoch {epoch}, the best, is lost: {error}") from None
        if loaded.entry.epoch != epoch:
            raise LostError(f"The checkpoint of epoch {epoch}, the best, was not written.")
        return loaded.states

    def _write_model(self, learner: Learner) -> None:
        """The weights that are judged; of sharded ones all processes call it."""
        if not (learner.world.first or learner.sharded):
            return
        described = {"epoch": learner.progress.best_epoch, **self.description}
        with learner.judged():
            weights = learner.weights()
            if weights is not None:
                self.unwritten = self._try(lambda: self.folder.write_model(weights, described))

    def _try(self, write: Callable[[], None]) -> str:
        """'' or why it could not be written, which is told."""
        try:
            write()
        except ValueError as error:  # the folder's sentence about the disk
            self.tell(f"{error} Training goes on.")
            return str(error)
        return ""
