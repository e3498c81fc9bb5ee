"""twofold evaluate, predict, sample: what a trained model is for."""

import sys
from pathlib import Path
from typing import Literal

from twofold.cli.options import Flag, Whole
from twofold.cli.output import print_csv, print_json, print_table, visible


def evaluate(
    run: Path, source: str | None = None, *, split: Literal["train", "validation", "test"] | None = None, json: Flag = False
) -> None:
    """Score a trained model.

    Parameters
    ----------
    run
        A run folder.
    source
        Another source; all of it is used. Default: the run's own source.
    split
        Which part of the run's own source. Default: test.
    json
        Print JSON.
    """
    from twofold.run import load

    opened = load(run)
    judged = opened.evaluate(source, split)
    details = {name: value for name, value in judged.details.items() if name in ("confusion", "per_class", "tokens", "notes")}
    if json:
        print_json({"run": str(run), "source": source or opened.settings.source, **judged.scores, **details})
        return
    for note in details.get("notes", ()):
        print(visible(note), file=sys.stderr)
    print(*opened.task.explain(judged.scores))
    print_table(("score", "value"), list(judged.scores.items()))
    if "per_class" in details:
        names = ("class", "precision", "recall", "f1", "count")
        print_table(names, [[row[name] for name in names] for row in details["per_class"]])


def predict(
    run: Path,
    *pictures: Path,
    top: Whole = 3,
    resize: Flag = False,
    format: Literal["table", "json", "csv"] = "table",
    json: Flag = False,
) -> None:
    """Name the class of pictures.

    Parameters
    ----------
    run
        A run folder.
    pictures
        Picture files.
    top
        How many classes to list for each.
    resize
        Accept a size that the model has never seen, and scale it.
    format
        How to print.
    json
        The same as --format json.
    """
    from twofold.run import load

    if not pictures:
        raise ValueError("predict: name at least one picture: twofold predict RUN a.png b.png")
    if top < 1:
        raise ValueError(f"predict: expected --top of at least 1, got {top}.")
    said = load(run).predict(list(pictures), resize=resize)
    if json or format == "json":
        print_json([{"picture": p.name, "class": p.label, "probability": p.probability, "ranking": p.ranking[:top]} for p in said])
        return
    if format == "csv":
        print_csv(("picture", "class", "probability"), [(p.name, p.label, f"{p.probability:.6f}") for p in said])
        return
    others = [", ".join(f"{name} {share:.1%}" for name, share in p.ranking[1:top]) for p in said]
    rows = [(p.name, p.label, f"{p.probability:.1%}", other) for p, other in zip(said, others, strict=True)]
    print_table(("picture", "class", "probability", "then"), rows)


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
