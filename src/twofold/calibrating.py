"""Calibration of a trained run: a temperature is fitted on pictures that it did not learn from, and kept in its model.json.

    twofold calibrate RUN            the validation split; then report.html shows the reliability before and after
    twofold calibrate RUN SOURCE     other pictures
    twofold calibrate RUN --undo     no temperature, as it was trained

From then on probabilities and losses are those with the temperature; which class is the most probable stays. model.json is written whole or
not at all, and the weights are not touched. The scores that training left (metrics.jsonl) stay, too: they are those without.
"""

from pathlib import Path
from typing import NamedTuple

from twofold.data.sources import ImageSource
from twofold.data.values import Text
from twofold.run import Run, load
from twofold.see.story import tell
from twofold.tasks.calibration import Calibration, fit_temperature, measure
from twofold.train.folder import told
from twofold.train.lock import locked


class Calibrated(NamedTuple):
    """What came of it: the temperature, how well confidence and truth agree without and with it, and on what that was measured.

    report: whether the report tells it; a run whose training did not end, or whose source is gone, has none to be renewed.
    """

    temperature: float
    before: Calibration
    after: Calibration
    pictures: int
    on: str
    report: bool


def calibrate(run: str | Path | Run, source: str | Path | None = None) -> Calibrated:
    """Fit the temperature of a run (or of a run folder) on its validation split, or on all of another source, and keep it.

    Raises ValueError for a run that names no classes of pictures, for one that is being trained, and where no temperature can be fitted.
    """
    run = _opened(run)
    part = run.part("validation") if source is None else run.open_whole(source).part
    assert not isinstance(part, Text)
    logits_BN, truth_B = (each.cpu() for each in run.outputs(part))
    temperature = fit_temperature(logits_BN, truth_B)
    run.reading = run.reading._replace(temperature=temperature)
    _keep(run, temperature)
    before, after = measure(logits_BN, truth_B), measure(logits_BN, truth_B, temperature)
    return Calibrated(temperature, before, after, len(truth_B), "validation" if source is None else str(source), _report(run))


def undo(run: str | Path | Run) -> bool:
    """Take the temperature of a run away; whether it had one. Raises ValueError as `calibrate` does."""
    run = _opened(run)
    if run.reading.temperature == 1:
        return False
    run.reading = run.reading._replace(temperature=1.0)
    _keep(run, None)
    _report(run)
    return True


def _opened(given: str | Path | Run) -> Run:
    run = given if isinstance(given, Run) else load(given)
    if run.reading.preparation is None:
        raise ValueError(f"calibrate: expected a run that names the class of pictures, but {run.path} is one to {run.task.name}.")
    return run


def _keep(run: Run, temperature: float | None) -> None:
    """Write it into model.json, or take it out."""
    with told(run.path), locked(run.path):
        described = {name: value for name, value in run.folder.read_description().items() if name != "temperature"}
        run.folder.write_description(described if temperature is None else {**described, "temperature": temperature})


def _report(run: Run) -> bool:
    """Write the report anew, where the training ended and its source is still there."""
    try:
        rows, source = run.folder.read_rows(), run.open()
        judged = run.evaluate(split="validation" if source.test is None else "test")
    except ValueError:
        return False
    if not rows or "final" not in rows[-1] or not isinstance(source, ImageSource):
        return False
    with told(run.path):
        tell(run.path, run.model, run.task, source, judged, rows[:-1], rows[-1], run.settings.model_dump())
    return True
