"""Calibration of a run: kept in model.json and nowhere else, used wherever probabilities are said, and taken away again."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import twofold
from twofold import calibrating, fitting, nn
from twofold.tasks.calibration import fit_temperature
from twofold.train.lock import locked


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on noise that has two classes by its brightness, far from sure of it."""
    place, random = tmp_path_factory.mktemp("calibrating"), np.random.default_rng(0)
    for name, mean in (("dark", 110), ("light", 140)):
        (place / "photos" / name).mkdir(parents=True)
        for number in range(80):
            Image.new("L", (8, 8), int(np.clip(random.normal(mean, 20), 0, 255))).save(place / "photos" / name / f"{number:02}.png")
    how = {"epochs": 3, "image_size": 8, "config": {"stages": "4 M"}, "quiet": True}
    twofold.fit(place / "photos", out=place / "run", **how)
    return place


@pytest.fixture
def run(trained):
    """Its path; without a temperature before and afterwards."""
    kept = (trained / "run" / "model.json").read_bytes()
    yield trained / "run"
    (trained / "run" / "model.json").write_bytes(kept)


@pytest.fixture
def unreported(monkeypatch):
    """Nothing is drawn."""
    for module in (calibrating, fitting):
        monkeypatch.setattr(module, "tell", lambda *given: None)


def content(run):
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_it_is_fitted_on_the_validation_split_and_changes_probabilities_alone(run, trained):
    before, pictures = twofold.load(run), sorted((trained / "photos" / "dark").glob("*.png"))[:9]
    plain, judged = before.predict(pictures), before.evaluate()
    found = calibrating.calibrate(run)
    logits, truth = before.outputs(before.part("validation"))
    assert found.temperature == pytest.approx(fit_temperature(logits, truth)) and (found.on, found.pictures) == ("validation", len(truth))
    assert found.after.loss < found.before.loss and found.report
    after = twofold.load(run)
    warm, rejudged = after.predict(pictures), after.evaluate()
    assert after.reading.temperature == found.temperature
    assert [p.label for p in warm] == [p.label for p in plain] and rejudged.scores["accuracy"] == judged.scores["accuracy"]
    odds = [np.log(p.probability / (1 - p.probability)) for p in plain]
    assert [np.log(p.probability / (1 - p.probability)) for p in warm] == pytest.approx([o / found.temperature for o in odds], rel=1e-4)
    assert rejudged.details["calibration"].loss == pytest.approx(rejudged.scores["loss"], rel=1e-5)
    assert rejudged.details["uncalibrated"] == judged.details["calibration"]
    page = (run / "report.html").read_text()
    assert f"With temperature {found.temperature:.3g}" in page and (run / "pictures" / "reliability.png").exists()


def test_undone_the_folder_is_as_before(run, unreported):
    before = content(run)
    calibrating.calibrate(run)
    after = content(run)
    assert [name for name in after if before.get(name) != after[name]] == ["model.json"]
    assert calibrating.undo(run) and json.loads(content(run)["model.json"]) == json.loads(before["model.json"])
    assert not calibrating.undo(run)


def test_it_may_be_fitted_on_other_pictures(run, trained, unreported):
    found = calibrating.calibrate(twofold.load(run), trained / "photos")
    assert found.pictures == 160 and found.on == str(trained / "photos")


def test_a_run_that_is_written_meanwhile_is_left_alone(run, unreported):
    with locked(run), pytest.raises(ValueError, match=r"is being (written|trained)|writes"):
        calibrating.calibrate(run)
    assert "temperature" not in json.loads((run / "model.json").read_text())


def test_without_its_last_line_there_is_no_report_to_renew(run, unreported):
    rows = (run / "metrics.jsonl").read_bytes()
    try:
        (run / "metrics.jsonl").write_bytes(b"".join(rows.splitlines(keepends=True)[:-1]))
        assert not calibrating.calibrate(run).report
    finally:
        (run / "metrics.jsonl").write_bytes(rows)


@pytest.mark.parametrize("value", [0, -1, "warm", True, None, float("inf")])
def test_a_temperature_that_is_none_is_refused(run, value):
    (run / "model.json").write_text(json.dumps({**json.loads((run / "model.json").read_text()), "temperature": value}))
    with pytest.raises(ValueError, match=r"model\.json: expected temperature to be a number above 0, got"):
        twofold.load(run)


def test_views_are_averaged_and_refused_for_text(run, trained, tmp_path, unreported):
    opened, picture = twofold.load(run), trained / "photos" / "dark" / "00.png"
    x = opened.reading.preparation.normalise(opened.reading.preparation.picture(picture)[None])
    with torch.no_grad():
        wanted = (opened.model(x).softmax(1) + opened.model(x.flip(3)).softmax(1)) / 2
    said = dict(opened.predict(picture, tta="flip")[0].ranking)
    assert [said[name] for name in opened.reading.classes] == pytest.approx(wanted[0].tolist(), rel=1e-5)
    assert opened.evaluate(tta="flip").scores["accuracy"] == opened.evaluate().scores["accuracy"]  # every picture is its own mirror image
    (tmp_path / "notes.txt").write_text("one two three four five six seven.\n" * 60)
    writer = twofold.fit(tmp_path / "notes.txt", epochs=1, batch_size=4, config={"units": 8}, out=tmp_path / "writer", quiet=True)
    for refused, words in (
        (lambda: writer.evaluate(tta="flip"), r"evaluate: the views 'flip' \(tta\) are for pictures"),
        (lambda: writer.evaluate(top=[1]), r"evaluate --top: the model of .* continues text"),
        (lambda: calibrating.calibrate(writer), r"calibrate: expected a run that names the class of pictures, but .* is one to language"),
        (lambda: opened.evaluate(top=[3]), "evaluate: expected each top to be from 1 to 2, the number of classes, got 3"),
    ):
        with pytest.raises(ValueError, match=words):
            refused()


def test_a_module_of_ones_own_is_calibrated_through_its_run(trained, tmp_path, unreported):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    run = twofold.fit(trained / "photos", model=net, out=tmp_path / "run", epochs=2, image_size=8, quiet=True)
    assert calibrating.calibrate(run).temperature == twofold.load(run.path, model=net).reading.temperature != 1
