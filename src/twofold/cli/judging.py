"""What `twofold evaluate` prints of a classifier besides its scores: confusions, worst mistakes, a table of the classes; `calibrate`."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from twofold.cli.options import Flag
from twofold.cli.output import print_json, print_line, print_table

if TYPE_CHECKING:
    from twofold.tasks.task import Evaluation
    from twofold.tasks.worst import Mistake

MATRIX_UP_TO = 20  # classes; above, a list of the most frequent confusions
LISTED = 20


def listed(judged: "Evaluation", classes: tuple[str, ...], count: int) -> "list[Mistake]":
    """The worst mistakes; none for 0. Raises ValueError for fewer."""
    from twofold.tasks.worst import worst

    return [] if count == 0 else worst(judged, classes, count)


def print_mistakes(worst: "Sequence[Mistake]") -> None:
    """Which file was taken for what."""
    if not worst:
        print_line("No mistakes.")
        return
    rows = [(m.name, m.truth, m.said, f"{m.probability:.1%}", f"{m.true_probability:.1%}", m.loss) for m in worst]
    print_line("Worst mistakes, the highest loss first")
    print_table(("picture", "true", "said", "probability", "of the truth", "loss"), rows)


def print_confusion(judged: "Evaluation", classes: Sequence[str]) -> None:
    """The matrix, the truth in rows; of more than 20 classes the most frequent confusions."""
    matrix_NN = judged.details["confusion"]
    if len(classes) <= MATRIX_UP_TO:
        print_line("What was said, in columns")
        print_table(("true", *classes), [(name, *row) for name, row in zip(classes, matrix_NN, strict=True)])
        return
    found = [(count, i, j) for i, row in enumerate(matrix_NN) for j, count in enumerate(row) if count and i != j]
    rows = [
        (classes[i], classes[j], count, f"{count / sum(matrix_NN[i]):.1%}")
        for count, i, j in sorted(found, key=lambda each: (-each[0], each[1:]))[:LISTED]
    ]
    print_line(f"The most frequent of {len(found)} confusions; --csv writes all")
    print_table(("true", "said", "count", "of the class"), rows)


def write_classes(target: Path, judged: "Evaluation") -> None:
    """A line for each class: precision, recall, f1, how many there are, and as which each class was said. Whole, or not at all.

    Raises ValueError where the file cannot be written.
    """
    from twofold.data import files

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = judged.details["per_class"]
    writer.writerow(("class", "precision", "recall", "f1", "count", *(f"said {row['class']}" for row in rows)))
    for row, confused in zip(rows, judged.details["confusion"], strict=True):
        writer.writerow((row["class"], *(f"{row[name]:.6f}" for name in ("precision", "recall", "f1")), row["count"], *confused))
    try:
        files.write(target, text.getvalue().encode())
    except OSError as error:
        raise ValueError(f"evaluate: cannot write {target}: {files.refusal(error)}.") from None


def calibrate(run: Path, source: str | None = None, *, undo: Flag = False, json: Flag = False) -> None:
    """Fit a temperature, so that confidence says how often the model is right. Which class it names does not change.

    Parameters
    ----------
    run
        A run folder of a classifier.
    source
        Pictures to fit it on, which the model has not learnt from; all of them are used. Default: the run's validation split.
    undo
        Take the temperature away again.
    json
        Print JSON.
    """
    from twofold import calibrating

    if undo:
        if source is not None:
            raise ValueError("calibrate: --undo takes the temperature away, so there is nothing to fit. Leave the source out.")
        had = calibrating.undo(run)
        if json:
            print_json({"run": str(run), "temperature": None, "undone": had})
            return
        print_line(f"{run} has no temperature any more." if had else f"{run} has no temperature: nothing to undo.")
        return
    found = calibrating.calibrate(run, source)
    scores = ("ece", "mce", "brier", "loss")
    if json:
        both = {when: {name: getattr(part, name) for name in scores} for when, part in (("before", found.before), ("after", found.after))}
        print_json({"run": str(run), "temperature": found.temperature, "pictures": found.pictures, "on": found.on, **both})
        return
    print_line(f"temperature {found.temperature:.4g}, fitted on {found.pictures:,} pictures ({found.on})")
    print_table(("score", "before", "after"), [(name, getattr(found.before, name), getattr(found.after, name)) for name in scores])
    told = (
        "tells it, with the reliability before and after"
        if found.report
        else "is not renewed: the training did not end, or its source is gone"
    )
    print_line(f"report: {run / 'report.html'} {told}.")
