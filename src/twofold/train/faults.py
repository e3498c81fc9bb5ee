"""Numbers gone wrong: what follows where the loss or the gradient is NaN or infinite. The weights never see it.

    judged       before clipping: g * min(1, clip / |g|) with |g| = NaN makes every gradient NaN
    stop         the run ends with a sentence
    skip         the step is left out. The place in the epoch moves on, and with it the schedule, which goes by the place; weights,
                 optimiser, averages, penalties, buffers and random states do not see it, and the loss of the epoch does not count it.
                 Recurrent state: the new one where it is finite, else the streams begin anew
    roll back    everything returns to the last good state (a checkpoint), and from there all rates are multiplied by rate_cut

Bounds: `rollbacks` in a run, and IN_A_ROW steps left out one after the other; what goes on beyond is no accident, and the run stops.
A batch that is itself broken is left out where the setting says roll back, too: no state of the model makes it whole. A model that was
broken before the step is not mended by leaving out the step: where the setting says skip, the run stops.
"""

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from twofold.train.culprit import Fault
from twofold.train.part import Part

IN_A_ROW = 10  # steps left out
CURES = {
    "batch": "Mend the data.",
    "weights": "Go back to a checkpoint of before: twofold train --resume.",
    "buffers": "Go back to a checkpoint of before: twofold train --resume.",
}


class Safety(Part):
    """What follows where a number is none any more, or memory ends."""

    non_finite: Literal["stop", "skip", "rollback"] = "rollback"
    """Where the loss or the gradient is NaN or infinite: end the run, leave out the step, or go back to the last good state."""
    rollbacks: Annotated[int, Field(ge=1, le=1000)] = 3
    """How often a run may go back at most."""
    rate_cut: Annotated[float, Field(gt=0, le=1)] = 0.5
    """What the learning rate is multiplied by after going back."""
    memory: Literal["halve", "stop"] = "halve"
    """Where memory ends: take the batch in halves, whose gradients add up to the same, or end the run."""


class NotFiniteError(ValueError):
    """The loss or the gradient is no number any more. The weights are those of before the step."""


class Decision(NamedTuple):
    """What the loop does next, and a sentence for people."""

    action: Literal["stop", "skip", "rollback"]
    said: str


def judge(loss: float, norm: float) -> bool:
    """Whether the step may reach the weights. norm: that of the whole gradient, before anything is clipped."""
    return math.isfinite(loss) and math.isfinite(norm)


@dataclass
class Guard:
    """Counts what went wrong and says what to do about it. `rate`: the factor of all learning rates.

    The loop must not set its counts back when it rolls back: they bound the rolling back.
    """

    safety: Safety
    rate: float = 1.0
    rolled_back: int = 0
    left_out: int = 0
    in_a_row: int = 0

    def passed(self) -> None:
        """A step went well."""
        self.in_a_row = 0

    def decide(self, fault: Fault, where: str, loss: float | None = None, norm: float = math.nan) -> Decision:
        """What to do about a fault. where: the place of the step, "epoch 2, step 7"; loss: None where it was no step that failed."""
        values = "" if loss is None else f"the loss is {loss:.4g} and the gradient's norm {norm:.4g}. "
        told = f"{where}: {values}{fault.said}"
        wanted, why = self._wanted(fault)
        if wanted == "stop":
            return Decision("stop", f"Training stopped in {told} {why}".rstrip())
        if wanted == "skip":
            self.left_out += 1
            self.in_a_row += 1
            return Decision("skip", f"The step is left out in {told} {why}".rstrip())
        self.rolled_back += 1
        self.in_a_row = 0
        self.rate *= self.safety.rate_cut
        often = f"{self.rolled_back} of at most {self.safety.rollbacks} times"
        return Decision(
            "rollback", f"Back to the last good state ({often}), with {self.rate:.3g} of the learning rate, from {told}".rstrip()
        )

    def state_dict(self) -> dict[str, Any]:
        """The counts, as plain values."""
        return {name: value for name, value in asdict(self).items() if name != "safety"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The counts of an earlier session."""
        for name in self.state_dict():
            setattr(self, name, state[name])

    def _wanted(self, fault: Fault) -> tuple[str, str]:
        """The action, and why it is not the one of the settings, or what would help."""
        cure = CURES.get(fault.place, "Likely the learning rate is too high: try a tenth of it.")
        wanted = self.safety.non_finite
        if wanted == "stop":
            return wanted, f"{cure} Or go on by non_finite=skip or non_finite=rollback."
        if wanted == "skip" and fault.in_model:
            return "stop", f"To leave out the step would not mend the model. {cure}"
        if wanted == "rollback" and fault.place != "batch":
            if self.rolled_back < self.safety.rollbacks:
                return wanted, ""
            return "stop", f"The run went back {self.rolled_back} times already, as often as rollbacks allows. {cure}"
        if self.in_a_row >= IN_A_ROW:
            return "stop", f"The {IN_A_ROW} steps before it were left out, too. {cure}"
        return "skip", "To go back would not make the batch whole." if wanted == "rollback" else ""
