"""What evaluate prints of a classifier besides its scores, calibrate, see mistakes, and views on the command line."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from twofold.cli.judging import print_confusion
from twofold.cli.main import main
from twofold.run import load
from twofold.tasks.task import Evaluation

COLOURS = {"blue": (40, 40, 160), "green": (40, 160, 40), "red": (160, 40, 40)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of three classes of noise around a colour, and a run on it that is often wrong."""
    place, random = tmp_path_factory.mktemp("judging"), np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (place / "photos" / name).mkdir(parents=True)
        for number in range(50):
            noise = random.integers(-40, 40, (8, 8, 3)) + random.normal(0, 70, 3)
            Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(place / "photos" / name / f"{number:02}.png")
    words = ["--epochs", "3", "--image-size", "8", "--sampler", "balanced", "--choose-by", "balanced_accuracy", "--config"]
    assert main(["train", str(place / "photos"), *words, "stages=4 M", "--out", str(place / "run")]) == 0
    return place


def said(capsys, *words, code=0):
    capsys.readouterr()
    assert main([str(word) for word in words]) == code
    found = capsys.readouterr()
    return found.err if code else found.out


def test_further_tops_are_scores(capsys, place):
    found = json.loads(said(capsys, "evaluate", place / "run", "--top", 1, 2, 3, "--json"))
    assert found["top1"] == found["accuracy"] <= found["top2"] <= found["top3"] == 1
    assert {"balanced_accuracy", "macro_f1", "ece", "mce", "brier"} <= found.keys()
    table = said(capsys, "evaluate", place / "run", "--top", 2)
    assert f"top2               {found['top2']:.4f}" in table and f"ece                {found['ece']:.4f}" in table


def test_the_confusion_matrix_is_printed_and_written_with_the_classes(capsys, place, tmp_path):
    found = json.loads(said(capsys, "evaluate", place / "run", "--json"))
    out = said(capsys, "evaluate", place / "run", "--confusion", "--csv", tmp_path / "classes.csv")
    lines = out[out.index("What was said, in columns") :].splitlines()
    assert lines[1].split() == ["true", *COLOURS]
    assert [line.split() for line in lines[2:5]] == [[name, *map(str, row)] for name, row in zip(COLOURS, found["confusion"], strict=True)]
    rows = list(csv.DictReader((tmp_path / "classes.csv").read_text().splitlines()))
    for row, told, confused in zip(rows, found["per_class"], found["confusion"], strict=True):
        assert (row["class"], int(row["count"])) == (told["class"], told["count"])
        assert [float(row[name]) for name in ("precision", "recall", "f1")] == pytest.approx(
            [told[name] for name in ("precision", "recall", "f1")], abs=1e-6
        )
        assert [int(row[f"said {name}"]) for name in COLOURS] == confused


def test_of_many_classes_the_most_frequent_confusions_are_listed(capsys):
    matrix = (np.eye(21, dtype=int) * 8).tolist()
    matrix[3][5], matrix[7][1], matrix[2][9] = 2, 8, 2
    print_confusion(Evaluation({}, {"confusion": matrix}), [f"class {number}" for number in range(21)])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "The most frequent of 3 confusions; --csv writes all"
    assert [line.split() for line in lines[2:]] == [
        ["class", "7", "class", "1", "8", "50.0%"], ["class", "2", "class", "9", "2", "20.0%"], ["class", "3", "class", "5", "2", "20.0%"],
    ]  # fmt: skip


def test_mistakes_are_listed_by_their_files_and_drawn(capsys, place, tmp_path):
    found = json.loads(said(capsys, "evaluate", place / "run", "--mistakes", 3, "--json"))["mistakes"]
    losses = [mistake["loss"] for mistake in found]
    assert losses == sorted(losses, reverse=True) and all(mistake["said"] != mistake["truth"] for mistake in found)
    assert all(mistake["name"].split("/")[0] == mistake["truth"] for mistake in found)
    table = said(capsys, "evaluate", place / "run", "--mistakes", 3)
    assert all(mistake["name"] in table for mistake in found)
    drawn = json.loads(said(capsys, "see", "mistakes", place / "run", "--count", 3, "--out", tmp_path / "m.png", "--json"))
    assert drawn["mistakes"] == found and drawn["out"] == str(tmp_path / "m.png") and drawn["wrong"] >= 3
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.format == "PNG"
    out = said(capsys, "see", "mistakes", place / "run", place / "photos", "--count", 2, "--out", tmp_path / "m.png")
    assert out.startswith("2 mistakes of ") and out.endswith(f": {tmp_path / 'm.png'}\n")


def test_views_change_probabilities_and_say_so(capsys, place):
    plain, mirrored = (json.loads(said(capsys, "evaluate", place / "run", "--json", *more)) for more in ((), ("--tta", "flip shift=1")))
    assert mirrored["views"] == "flip shift=1" and mirrored["loss"] != plain["loss"]
    picture = place / "photos" / "red" / "00.png"
    one, other = (said(capsys, "predict", place / "run", picture, "--format", "csv", *more) for more in ((), ("--tta", "flip")))
    assert one.splitlines()[0] == other.splitlines()[0] and one != other


def test_calibrate_is_told_used_and_undone(capsys, place, monkeypatch):
    monkeypatch.setattr("twofold.calibrating.tell", lambda *given: None)  # test_calibrating.py looks at the report
    run, picture = place / "run", place / "photos" / "red" / "00.png"
    before = json.loads(said(capsys, "evaluate", run, "--json"))
    out = said(capsys, "calibrate", run)
    T = json.loads((run / "model.json").read_text())["temperature"]
    assert out.startswith(f"temperature {T:.4g}, fitted on ") and "(validation)" in out and "tells it, with the reliability" in out
    after = json.loads(said(capsys, "evaluate", run, "--json"))
    assert after["temperature"] == T and after["accuracy"] == before["accuracy"] and after["loss"] != before["loss"]
    assert f"temperature {T:.4g}, by which the outputs are divided (twofold calibrate)" in said(capsys, "evaluate", run)
    assert main(["predict", str(run), str(picture)]) == 0
    assert f"Probabilities with the temperature {T:.4g} (twofold calibrate)." in capsys.readouterr().err
    assert json.loads(said(capsys, "calibrate", run, "--json"))["temperature"] == pytest.approx(T)  # of the model as it was trained
    assert said(capsys, "calibrate", run, "--undo") == f"{run} has no temperature any more.\n"
    assert said(capsys, "calibrate", run, "--undo") == f"{run} has no temperature: nothing to undo.\n"
    assert json.loads(said(capsys, "evaluate", run, "--json")) == before


def test_the_majority_class_is_always_told_and_a_linear_classifier_where_asked(capsys, place, tmp_path):
    run, photos = place / "run", place / "photos"
    plain = json.loads(said(capsys, "evaluate", run, "--json"))
    share = plain["baselines"]["majority"]
    named = plain["baselines"]["majority_class"]
    assert plain["baselines"]["linear"] is None and 0 < share < 1
    assert share == next(row["count"] for row in plain["per_class"] if row["class"] == named) / sum(map(sum, plain["confusion"]))
    told = f"majority class {100 * share:.2f} % ({named}, the most frequent in training)"
    assert said(capsys, "evaluate", run).splitlines()[:2] == [f"accuracy {100 * plain['accuracy']:.2f} %", told]

    full = json.loads(said(capsys, "evaluate", run, "--baselines", "--json"))
    linear = full["baselines"].pop("linear")
    assert full["baselines"] == {"majority_class": named, "majority": share} and full["accuracy"] == plain["accuracy"]
    learnt = sum(len(each.y_B) for each in (load(run).part("train"), load(run).part("validation")))
    assert (linear["height"], linear["width"], linear["pictures"], linear["there"]) == (8, 8, learnt, learnt) and linear["accuracy"] > 0.5
    line = f"linear, pixels {100 * linear['accuracy']:.2f} % (ridge regression on 8x8 pixels of {learnt} pictures)"
    assert said(capsys, "evaluate", run, "--baselines").splitlines()[1:3] == [line, told]
    for split, parts in (("validation", ["train"]), ("train", ["train"])):  # it learns from no picture of a split that it is judged by
        found = json.loads(said(capsys, "evaluate", run, "--split", split, "--baselines", "--json"))["baselines"]["linear"]
        assert found["there"] == sum(len(load(run).part(each).y_B) for each in parts)

    (tmp_path / "other" / named).mkdir(parents=True)  # another source: the majority class is what the training noted
    for name in ("00.png", "01.png"):
        shutil.copy(photos / named / name, tmp_path / "other" / named / name)
    other = json.loads(said(capsys, "evaluate", run, tmp_path / "other", "--json"))
    assert other["baselines"] == {"majority_class": named, "majority": 1, "linear": None}
    assert json.loads(said(capsys, "evaluate", run, tmp_path / "other", "--baselines", "--json"))["baselines"]["linear"]["there"] == learnt


def test_the_end_of_a_training_has_the_majority_class(capsys, place):
    told = json.loads(said(capsys, "evaluate", place / "run", "--json"))["baselines"]
    final = load(place / "run").metrics["majority"]
    assert (final["class"], final["test"]) == (told["majority_class"], told["majority"]) and 0 < final["validation"] < 1
    report = load(place / "run").report.read_text()
    for split in ("test", "validation"):
        assert f"majority class, {split}" in report and f"{100 * final[split]:.2f} % ({final['class']})" in report


def test_a_run_whose_source_is_gone_is_told_what_baselines_learn_from(capsys, place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    settings = (tmp_path / "run" / "settings.yaml").read_text()
    (tmp_path / "run" / "settings.yaml").write_text(settings.replace(str(place / "photos"), str(place / "gone")))
    assert said(capsys, "evaluate", tmp_path / "run", place / "photos")
    complaint = said(capsys, "evaluate", tmp_path / "run", place / "photos", "--baselines", code=2)
    assert "evaluate: baselines learn from the run's own source, which cannot be opened: no source" in complaint
    (tmp_path / "run" / "metrics.jsonl").unlink()  # nothing is known of the training's classes: nothing is told
    assert "baselines" not in json.loads(said(capsys, "evaluate", tmp_path / "run", place / "photos", "--json"))


BAD = {
    "calibrate RUN photos --undo": "calibrate: --undo takes the temperature away, so there is nothing to fit. Leave the source out.",
    "evaluate RUN --top 0": "evaluate: expected each top to be from 1 to 3, the number of classes, got 0.",
    "evaluate RUN --top 1.5": "expected --top to be a whole number, got '1.5'",
    "evaluate RUN --mistakes -2": "mistakes: expected a number of 1 or more, got -2.",
    "evaluate RUN --tta flop": "views: expected flip, shift=PIXELS (1 or more) or crops=PART (of each side, below 1), got 'flop'.",
    "evaluate RUN --csv RUN": "expected a file's path, got a folder",
    "see mistakes RUN --out a.jpg": "see mistakes: expected --out as the name of a PNG file, for example a.png, got a.jpg.",
    "see mistakes RUN photos --split test": "see mistakes: photos is used whole, so the test split does not apply. Leave --split out.",
    "see mistakes RUN --count 65": "mistakes most: expected 1..64 pictures, got 65",
}


@pytest.mark.parametrize("line", BAD)
def test_mistakes_of_the_user(capsys, place, line):
    assert BAD[line] in said(capsys, *line.replace("RUN", str(place / "run")).split(), code=2)


def test_a_language_model_has_no_classes(capsys, tmp_path):
    (tmp_path / "notes.txt").write_text("one two three four five six seven.\n" * 60)
    words = ["--epochs", "1", "--batch-size", "4", "--config", "units=8", "--out", str(tmp_path / "run")]
    assert main(["train", str(tmp_path / "notes.txt"), *words]) == 0
    for flag in ("--confusion", "--mistakes=3", f"--csv={tmp_path / 'x.csv'}"):
        assert "--confusion, --mistakes and --csv are for pictures" in said(capsys, "evaluate", tmp_path / "run", flag, code=2)
    assert "evaluate --baselines: the model of" in said(capsys, "evaluate", tmp_path / "run", "--baselines", code=2)
    assert "see mistakes: expected a run that names the class of pictures" in said(capsys, "see", "mistakes", tmp_path / "run", code=2)
