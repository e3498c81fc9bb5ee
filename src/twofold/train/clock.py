"""Where the time of a run goes: every moment belongs to the phase that it ends.

    lap(phase)     t[phase] += now - last;  last = now

On a device that works on its own (CUDA) a phase shows when the next thing waited for it; the loss, which is read at each step, does.
"""

import time

PHASES = ("data", "forward", "backward", "optimiser", "validation", "keeping")


class Clock:
    """`lap` at the end of every phase; `start` after what is nobody's. `seconds`: by phase, from earlier sessions too."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._last = time.perf_counter()

    def start(self) -> None:
        """What has passed since the last lap is not counted."""
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """The phase ends now.

        >>> clock = Clock()
        >>> clock.lap("forward")
        >>> 0 < clock.seconds["forward"] < 1
        True
        """
        now = time.perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now

    def shares(self) -> dict[str, float]:
        """The part of the whole that each phase took; all 0 before anything was measured."""
        whole = sum(self.seconds.values())
        return {phase: seconds / whole if whole else 0.0 for phase, seconds in self.seconds.items()}

    def state_dict(self) -> dict[str, float]:
        return dict(self.seconds)

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.seconds.update(state)
        self.start()
