"""The story of a run: which pictures, tables and samples its report holds, for each kind of task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from twofold.data.sources import ImageSource, Source, TextSource
from twofold.see.confusion import confusion
from twofold.see.curves import curves
from twofold.see.filters import filters
from twofold.see.gates import gates
from twofold.see.gradient_flow import gradient_flow
from twofold.see.parting import parting
from twofold.see.predictions import mistakes, predictions
from twofold.see.reliability import reliability, told
from twofold.see.report import Picture, Report, Sample, Table, report
from twofold.tasks.sampling import Sampling, continue_text
from twofold.tasks.task import Evaluation, Task

TEMPERATURES = (0.5, 0.8, 1.1)
SAMPLE_LENGTH = 600  # tokens
GATES_TEXT = "def forward(self, x):\n    return self.layer(x)\n"
PREDICTIONS_SHOWN = 32
MISTAKES_SHOWN = 18
GATES_TOLD = {  # the maps of a recurrent layer, what they show, and what the picture is of
    "LSTM": (
        ("input", "forget", "output", "cell"),
        "when each unit writes (input), keeps (forget) and shows (output) its cell, and the cell",
        "Input, forget and output gates and cells",
    ),
    "GRU": (
        ("reset", "update", "hidden"),
        "when each unit looks at the state for what it would write (reset), when it keeps what it has (update), and the state",
        "Reset and update gates and states",
    ),
    "RNN": (("hidden",), "the state of each unit", "States"),
}


def tell(
    folder: Path, model: nn.Module, task: Task, source: Source | None, judged: Evaluation, history: Sequence[Mapping[str, Any]],
    final: Mapping[str, Any], settings: Mapping[str, Any],
) -> Path:  # fmt: skip
    """Write the report of a finished run and return the path of its page.

    judged: the evaluation of the test split, or of the validation split where the source has no test. source: None for data of one's own.
    """
    pictures = [_curves(history)] if history else []
    pictures += _reach(history)
    tables: list[Table] = []
    samples: list[Sample] = []
    if isinstance(source, TextSource):
        samples = _samples(model, source)
        pictures += _gates(model, source)
    elif source is not None:
        pictures += _classified(source, judged)
        tables += [_scores(final), _per_class(judged)]
    pictures += [] if isinstance(source, TextSource) else _filters(model)
    tables.append(_time(final))
    notes = [] if source is None else [*source.notes, *(f"left out: {path}: {reason}" for path, reason in source.skipped[:20])]
    summary = [*_headlines(task, final), ("training", f"{final['seconds']:.1f} s"), ("weights", f"{_weights(model):,}")]
    title = f"{settings['model']} on {'own data' if source is None else source.name}"
    routes = ", ".join(f"{count} {name}" for name, count in sorted(final["routes"].items()))
    told = {**settings, "routes of the layers": routes}
    return report(folder, Report(title, summary, told, pictures, tables, samples, notes))


def _reach(history: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """How far the gradient reached back, where that was recorded."""
    rows = [row for epoch in history for row in epoch.get("reach", ())]
    if not rows:
        return []
    caption = "How much of the gradient of the last output arrives how many steps before it, as a share of that one step before."
    return [
        Picture("gradient-flow", gradient_flow(rows), caption, f"Gradient norm against time lag, at {len(rows)} steps of the training.")
    ]


def _time(final: Mapping[str, Any]) -> Table:
    """Where the time of the training went."""
    rows = [(phase, f"{100 * share:.1f} %", f"{share * final['seconds']:.1f} s") for phase, share in final["time"].items()]
    return Table("Where the time went", ("phase", "share", "seconds"), rows)


def _headlines(task: Task, final: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines, majority = [], final.get("majority", {})
    for split in ("test", "validation"):
        if split in final:
            what, value = task.explain(final[split])
            lines.append((f"{split} {what}", value))
        if split in majority:
            lines.append((f"majority class, {split}", f"{100 * majority[split]:.2f} % ({majority['class']})"))
    stopped = final.get("stopped_epoch")
    early = [("patience ended", f"after epoch {stopped}; everything went back to epoch {final['best_epoch']}")] if stopped else []
    return [*lines, ("best epoch", str(final["best_epoch"])), *early]


def _weights(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _curves(history: Sequence[Mapping[str, Any]]) -> Picture:
    last = history[-1]
    train, validation = last["train"]["loss"], last["validation"]["loss"]
    caption = "How training went: the loss that was descended (with label smoothing, weights of classes and auxiliary heads, where there "
    caption += "are any), and the loss and the score on the validation split, which chose the best epoch."
    alt = f"Loss and score by epoch. After epoch {last['epoch']}: training loss {train:.3f}, validation loss {validation:.3f}."
    found = parting(history)
    if found is not None:
        caption, alt = f"{caption} {found.told()}", f"{alt} {found.told()}"
    return Picture("curves", curves(history), caption, alt)


def _classified(source: ImageSource, judged: Evaluation) -> list[Picture]:
    images = source.test if source.test is not None else source.validation
    details, scores = judged.details, judged.scores
    probabilities_BN, truth_B = details["probabilities"], details["truth"]
    predicted_B = details["predicted"]
    confidence_B = probabilities_BN.gather(1, predicted_B[:, None])[:, 0]
    right_B = probabilities_BN.gather(1, truth_B[:, None])[:, 0]
    chosen = torch.randperm(len(truth_B), generator=torch.Generator().manual_seed(0))[:PREDICTIONS_SHOWN]
    wrong_B = (predicted_B != truth_B).nonzero()[:, 0]
    worst = wrong_B[confidence_B[wrong_B].argsort(descending=True, stable=True)][:MISTAKES_SHOWN]
    wrong = len(wrong_B)
    return [
        Picture(
            "confusion",
            confusion(details["confusion"], source.classes),
            "Rows are the truth, columns what the model said; on the right the part of each class that was found (recall).",
            f"Confusion matrix of {len(truth_B)} pictures; {100 * scores['accuracy']:.1f} % lie on the diagonal.",
        ),
        Picture(
            "mistakes",
            mistakes(
                images.pictures(worst),
                truth_B[worst],
                predicted_B[worst],
                confidence_B[worst],
                right_B[worst],
                source.classes,
                most=MISTAKES_SHOWN,
                among=(wrong, len(truth_B)),
            ),
            "The mistakes in which the model was most confident, the worst first.",
            f"The worst of {wrong} wrong predictions among {len(truth_B)}.",
        ),
        Picture(
            "predictions",
            predictions(images.pictures(chosen), truth_B[chosen], predicted_B[chosen], confidence_B[chosen], source.classes),
            "A random choice of pictures, with the class and the confidence of the model.",
            f"{len(chosen)} pictures with predictions.",
        ),
        _reliable(judged),
    ]


def _reliable(judged: Evaluation) -> Picture:
    """How far confidence can be trusted: as the model is, and with its temperature, where it has one."""
    found, temperature = judged.details["calibration"], judged.details.get("temperature")
    panels = [("Reliability", found)]
    if temperature is not None:
        panels = [("Before", judged.details["uncalibrated"]), (f"With temperature {temperature:.3g}", found)]
    caption = (
        "Of the answers with so much confidence, the part that is right; bars that end below the line of confidence are overconfident. "
    )
    caption += "ECE is the mean gap between both, each bin counted by its pictures."
    alt = "; ".join(f"{title}: {told(each)}" for title, each in panels)
    return Picture("reliability", reliability(panels), caption, f"{alt}.")


def _scores(final: Mapping[str, Any]) -> Table:
    """Every score of the splits that were judged at the end of the training."""
    splits = [split for split in ("test", "validation") if split in final]
    names = list(dict.fromkeys(name for split in splits for name in final[split]))
    rows = [(name, *(f"{final[split][name]:.4f}" if name in final[split] else "-" for split in splits)) for name in names]
    return Table("Scores", ("score", *splits), rows)


def _per_class(judged: Evaluation) -> Table:
    rows = [
        (row["class"], f"{100 * row['precision']:.1f} %", f"{100 * row['recall']:.1f} %", f"{100 * row['f1']:.1f} %", row["count"])
        for row in judged.details["per_class"]
    ]
    return Table("Each class", ("class", "precision", "recall", "F1", "pictures"), rows)


def _filters(model: nn.Module) -> list[Picture]:
    """The filters of the first convolution, where there is one."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        return []
    weight = first.weight.detach()
    caption = "What the first layer looks for: it answers most where the picture is bright under positive weights and dark under negative."
    alt = f"{weight.shape[0]} filters of {weight.shape[2]}x{weight.shape[3]} weights."
    return [Picture("filters", filters(weight, "First-layer filters"), caption, alt)]


def _samples(model: nn.Module, source: TextSource) -> list[Sample]:
    return [
        Sample(f"temperature {temperature}", continue_text(model, source.vocabulary, "", SAMPLE_LENGTH, Sampling(temperature)))
        for temperature in TEMPERATURES
    ]


def _gates(model: nn.Module, source: TextSource) -> list[Picture]:
    """The gates of the first recurrent layer while it reads two lines of Python. Nothing for words.

    Where the model does not know all their characters it reads the beginning of the validation text.
    """
    layer: Any = next((module for module in model.modules() if isinstance(module, nn.RNNBase) and hasattr(module, "gates")), None)
    if source.vocabulary.unit != "character" or layer is None:
        return []
    text = GATES_TEXT if not source.vocabulary.unknown(GATES_TEXT) else source.vocabulary.decode(source.validation.codes_T[:48])
    codes_TB = source.vocabulary.encode(text).long()[:, None]
    with torch.no_grad():
        saved = layer.gates(model.embedding(codes_TB))  # type: ignore[operator]
    names, meaning, what = GATES_TOLD[layer.mode.split("_")[0]]
    shown = {name: saved[name][0, :, 0] for name in names}
    caption = f"The first {type(layer).__name__} layer while it reads: {meaning}."
    return [Picture("gates", gates(shown, text), caption, f"{what} over {len(text)} characters.")]
