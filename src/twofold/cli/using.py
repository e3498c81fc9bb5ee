"""twofold evaluate, sample: what a trained model is for; predict has a file of its own."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from twofold.cli.options import Flag, MaybeWhole, Whole
from twofold.cli.output import print_json, print_line, print_table, visible


def evaluate(
    run: Path,
    source: str | None = None,
    *,
    split: Literal["train", "validation", "test"] | None = None,
    top: Annotated[list[Whole] | None, Parameter(consume_multiple=True, negative=())] = None,
    tta: str = "",
    confusion: Flag = False,
    mistakes: Whole = 0,
    csv: Path | None = None,
    baselines: Flag = False,
    weights: Path | None = None,
    image_size: MaybeWhole = None,
    normalise: str | None = None,
    config: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    out: Path | None = None,
    json: Flag = False,
) -> None:
    """Score a trained model, or published weights without training.

    Parameters
    ----------
    run
        A run folder; with --weights the name of an architecture.
    source
        Another source; all of it is used. Default: the run's own source. With --weights: the source, of which the test part is used.
    split
        Which part of the run's own source. Default: test.
    top
        Pictures: also how often the right class is among the most probable 1, 3, 5, ... of all: --top 1 3 5.
    tta
        Pictures: views of each whose probabilities are averaged: flip, "flip shift=1", "flip crops=0.875".
    confusion
        Pictures: also print which classes are taken for which.
    mistakes
        Pictures: also list so many of the worst mistakes, the highest loss first, with the names of the files.
    csv
        Pictures: also write the table of the classes, with the confusion matrix, into this CSV file.
    baselines
        Pictures: also fit a linear classifier on the pixels of the same pictures, and print its accuracy beside the majority class.
    weights
        A file of weights (.safetensors, .pth) that another training left.
    image_size
        With --weights: resize pictures to this side. Default: as train prepares them.
    normalise
        With --weights: own, imagenet, cifar10, or "m m m / s s s". Default: imagenet for pictures in colour; of a run folder, the run's.
    config
        With --weights: changes to the architecture, as shortcut=B.
    out
        With --weights: keep the model as a run folder, which `evaluate` and `predict` open.
    json
        Print JSON.
    """
    from twofold.cli.judging import listed, print_confusion, print_mistakes, write_classes
    from twofold.run import load

    if weights is not None:
        from twofold.adopting import of_weights
        from twofold.cli.training import read_changes
        from twofold.data.options import DataOptions

        if source is None:
            raise ValueError(f"evaluate: --weights needs a source: twofold evaluate {run} SOURCE --weights {weights}")
        given: dict[str, Any] = {"normalise": normalise, "config": read_changes(config or []), "out": out}
        opened, said = of_weights(str(run), source, weights, options=DataOptions(image_size=image_size), **given)
        print(visible(said), file=sys.stderr)
        run, source = opened.path if out else run, None  # which is its own
    else:
        _refuse_untrained(run, {"image-size": image_size, "normalise": normalise, "config": config, "out": out})
        opened = load(run)
    if opened.reading.vocabulary is not None and (confusion or mistakes or csv):
        raise ValueError("evaluate: --confusion, --mistakes and --csv are for pictures, and this model continues text. Leave them out.")
    judged = opened.evaluate(source, split, tta=tta, top=top or (), baselines=baselines)
    beside = judged.details.get("baselines")
    if out is not None:
        noted = {"majority": {"class": beside.majority_class, split or "test": beside.majority}} if beside else {}
        opened.folder.write_rows([{"final": True, "best_epoch": 0, "step": 0, "seconds": 0.0, split or "test": judged.scores, **noted}])
    worst = listed(judged, opened.reading.classes, mistakes)
    details = {
        name: value for name, value in judged.details.items() if name in ("confusion", "per_class", "tokens", "notes", "temperature")
    }
    if csv is not None:
        write_classes(csv, judged)
    if json:
        found: dict[str, Any] = {"views": tta} if tta else {}
        found |= {"mistakes": [mistake._asdict() for mistake in worst]} if mistakes else {}
        found |= {"baselines": asdict(beside)} if beside else {}
        print_json({"run": str(run), "source": source or opened.settings.source, **judged.scores, **details, **found})
        return
    for note in details.get("notes", ()):
        print(visible(note), file=sys.stderr)
    print(*opened.task.explain(judged.scores))
    for line in beside.told() if beside else ():
        print_line(line)
    if "temperature" in details:
        print(f"temperature {details['temperature']:.4g}, by which the outputs are divided (twofold calibrate)")
    print_table(("score", "value"), list(judged.scores.items()))
    if "per_class" in details:
        names = ("class", "precision", "recall", "f1", "count")
        print_table(names, [[row[name] for name in names] for row in details["per_class"]])
    if confusion:
        print_confusion(judged, opened.reading.classes)
    if mistakes:
        print_mistakes(worst)
    if csv is not None:
        print_line(f"classes: {csv}")


def _refuse_untrained(run: Path, given: dict[str, object]) -> None:
    """Raise ValueError for an architecture without weights, and for options that belong to --weights."""
    from twofold.models.catalogue import MODELS

    wrong = [name for name, value in given.items() if value is not None]
    if wrong:
        raise ValueError(f"evaluate: --{wrong[0]} belongs to --weights: a run has its own. Leave it out.")
    if str(run) in MODELS and not run.is_dir():
        raise ValueError(f"evaluate: {run} is an architecture, and has learnt nothing: give it --weights FILE, or name a run folder.")


def sample(
    run: Path,
    *,
    prompt: str = "",
    length: Whole = 400,
    temperature: float = 0.8,
    top_k: Whole = 0,
    top_p: float = 1.0,
    seed: Whole = 0,
    json: Flag = False,
) -> None:
    """Let a language model write.

    Parameters
    ----------
    run
        A run folder.
    prompt
        The text to go on from.
    length
        How many tokens to write.
    temperature
        Below 1 bolder choices are rarer; 0 always takes the most probable token.
    top_k
        Choose among the k most probable tokens only; 0: among all.
    top_p
        Choose among the most probable tokens that together reach this probability; 1: among all.
    seed
        The same seed writes the same text.
    json
        Print JSON.
    """
    from twofold.run import load
    from twofold.tasks.sampling import Sampling

    text = load(run).sample(prompt, length, Sampling(temperature, top_k, top_p, seed))
    if json:
        print_json({"prompt": prompt, "text": text, "seed": seed})
        return
    sys.stdout.write(prompt + text + "\n")
