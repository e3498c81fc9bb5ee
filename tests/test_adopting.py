"""Weights of others: a run that begins with them, its exact resume without their file, and their judgement without training."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

import twofold
from twofold.adopting import of_weights
from twofold.cli.main import main
from twofold.models.catalogue import build
from twofold.train.signals import StoppedError

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
HOW = {"model": "cifar-resnet20", "epochs": 2, "quiet": True, "batch_size": 128}


@pytest.fixture
def file(tmp_path):
    """Weights of another training: for seven classes of grey pictures."""
    torch.manual_seed(5)
    state = build("cifar-resnet20", in_channels=1, classes=7).state_dict()
    safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.fixture
def photos(tmp_path):
    for name, colour in (("cats", 40), ("dogs", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (8, 8), (colour, number, 0)).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def test_fine_tuning_keeps_the_body_and_makes_a_new_head(tmp_path, file, capsys):
    run = twofold.fit("digits", weights=file, freeze="body", out=tmp_path / "run", **{**HOW, "quiet": False})
    given = safetensors.torch.load_file(file)
    changed = [name for name, value in run.model.state_dict().items() if not torch.equal(value, given[name])]
    assert changed == ["linear.weight", "linear.bias"]  # frozen statistics, too
    described = json.loads((tmp_path / "run" / "model.json").read_text())["weights"]
    assert described == {
        "file": "w.safetensors",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "names": "the model's own",
        "new": ["linear.weight", "linear.bias"],
    }
    said = capsys.readouterr().err
    assert "cifar-resnet20 begins with 114 tensors of w.safetensors, in the model's own names; new: linear.weight, linear.bias." in said
    assert "Frozen: 268,784 of 269,434 weights; batch norm there keeps its mean and variance." in said
    assert run.settings.transfer.weights == str(file) and run.settings.data.normalise is None  # grey pictures: their own
    assert twofold.load(tmp_path / "run").metrics == run.metrics


def test_a_head_that_fits_is_new_where_that_is_asked_for(tmp_path, interrupt):
    torch.manual_seed(5)
    given = build("cifar-resnet20", in_channels=1, classes=10).state_dict()
    torch.save(given, tmp_path / "ten.pth")
    how = {**HOW, "weights": tmp_path / "ten.pth", "freeze": "body", "out": tmp_path / "run", "learning_rate": 1e-9}

    def new(run):
        return [name for name, value in run.model.state_dict().items() if not torch.allclose(value, given[name], atol=1e-4)]

    assert new(twofold.fit("digits", **how)) == []
    interrupt(5)
    with pytest.raises(StoppedError):
        twofold.fit("digits", **how, new_head=True, overwrite=True)
    described = json.loads((tmp_path / "run" / "model.json").read_text())["weights"]
    assert described["new"] == ["linear.weight", "linear.bias"]
    assert "new_head: true" in (tmp_path / "run" / "settings.yaml").read_text()
    (tmp_path / "ten.pth").unlink()
    assert new(twofold.resume(tmp_path / "run", quiet=True)) == ["linear.weight", "linear.bias"]


def test_a_stopped_run_needs_the_file_no_more(tmp_path, file, interrupt):
    whole = twofold.fit("digits", weights=file, freeze="body", unfreeze_every=1, out=tmp_path / "whole", **HOW)
    interrupt(5)
    with pytest.raises(StoppedError):
        twofold.fit("digits", weights=file, freeze="body", unfreeze_every=1, out=tmp_path / "run", **HOW)
    file.unlink()
    again = twofold.resume(tmp_path / "run", quiet=True)
    assert all(torch.equal(again.model.state_dict()[name], value) for name, value in whole.model.state_dict().items())
    described = [json.loads((tmp_path / name / "model.json").read_text()) for name in ("whole", "run")]
    assert described[0] == described[1] and "sha256" in described[1]["weights"]


def test_pictures_in_colour_are_normalised_as_published_weights_expect(tmp_path, photos):
    state = build("cifar-resnet20").state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "w.pth")
    run = twofold.fit(photos, weights=tmp_path / "w.pth", out=tmp_path / "run", **{**HOW, "batch_size": 4})
    assert run.settings.data.normalise == "imagenet" and run.reading.preparation.mean == (0.485, 0.456, 0.406)
    assert twofold.load(run.path).open().preparation == run.reading.preparation
    own = twofold.fit(photos, weights=tmp_path / "w.pth", normalise="own", out=tmp_path / "own", **{**HOW, "batch_size": 4})
    assert own.reading.preparation.mean != run.reading.preparation.mean
    after = twofold.fit(photos, weights=own.path, out=tmp_path / "after", **{**HOW, "batch_size": 4})  # a run of ours: as it had them
    assert after.reading.preparation == own.reading.preparation
    tuned = {**HOW, "batch_size": 4, "epochs": 1, "recipe": "fine-tune", "image_size": 8}  # a recipe decides that no more than we do
    assert twofold.fit(photos, weights=own.path, out=tmp_path / "tuned", **tuned).reading.preparation == own.reading.preparation
    assert twofold.fit(photos, weights=tmp_path / "w.pth", out=tmp_path / "by", **tuned).settings.data.normalise == "imagenet"
    head = json.loads((tmp_path / "after" / "model.json").read_text())["weights"]
    assert head["new"] == [] and head["file"] == "model.safetensors"


def test_weights_that_do_not_fit_leave_nothing(tmp_path, file):
    for settings, words in (
        ({"model": "cifar-resnet32"}, "weights: they do not fit cifar-resnet32. Missing: layer1.3.conv1.weight"),
        ({"weights": tmp_path / "gone.pth"}, "weights: there is no file"),
        ({"freeze": "layer9"}, "freeze: expected body, or names of layers"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            twofold.fit("digits", **{**HOW, "weights": file, "out": tmp_path / "run", **settings})
        assert not (tmp_path / "run").exists()


def test_a_model_of_ones_own_begins_with_weights_too(tmp_path, file):
    model = build("cifar-resnet20", in_channels=1, height=8, width=8, classes=10)
    twofold.fit("digits", model=model, weights=file, freeze="body", out=tmp_path / "run", epochs=1, quiet=True, batch_size=128)
    assert torch.equal(model.conv1.weight, safetensors.torch.load_file(file)["conv1.weight"])


def test_weights_are_judged_without_training(tmp_path, capsys):
    trained = twofold.fit("digits", model="vgg-mini", config={"stages": "8 M 8 M"}, epochs=1, quiet=True, out=tmp_path / "trained")
    words = ["evaluate", "vgg-mini", "digits", "--config", "stages=8 M 8 M", "--weights", tmp_path / "trained", "--out", tmp_path / "kept"]
    assert main([str(word) for word in [*words, "--json"]]) == 0
    heard = capsys.readouterr()
    assert json.loads(heard.out)["accuracy"] == trained.metrics["test"]["accuracy"]
    said = "vgg-mini begins with 14 tensors of model.safetensors, in the model's own names; the head too. "
    said += (
        "Its outputs are taken for the classes of digits, in this order: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9. Pictures are normalised by 0.3055"
    )
    assert said in heard.err
    kept = twofold.load(tmp_path / "kept")
    assert kept.evaluate().scores == kept.metrics["test"] == trained.evaluate().scores
    assert kept.reading == trained.reading
    assert main(["predict", str(tmp_path / "kept"), str(picture(tmp_path))]) == 0
    assert main([str(word) for word in words]) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_published_weights_are_judged_on_pictures_of_any_size(tmp_path, photos, capsys):
    torch.save(build("cifar-resnet20", classes=2).state_dict(), tmp_path / "w.pth")
    words = ["evaluate", "cifar-resnet20", photos, "--weights", tmp_path / "w.pth", "--image-size", 12, "--out", tmp_path / "kept"]
    assert main([str(word) for word in words]) == 0
    assert "are taken for the classes of" in (heard := capsys.readouterr().err) and "in this order: cats, dogs." in heard
    kept = twofold.load(tmp_path / "kept")
    assert (kept.reading.preparation.height, kept.reading.preparation.width) == (12, 12)
    assert kept.evaluate().scores == kept.metrics["test"]


def test_the_weights_of_a_run_are_refused_where_its_classes_are_others(tmp_path, photos, capsys):
    run = tmp_path / "run"
    twofold.fit(photos, model="vgg-mini", config={"stages": "4 M"}, epochs=1, quiet=True, out=run)
    (photos / "dogs").rename(photos / "wolves")
    with pytest.raises(
        ValueError, match=r"the weights tell cats, dogs apart, and the classes of .* are cats, wolves. Name the folders alike"
    ):
        of_weights("vgg-mini", photos, run, config={"stages": "4 M"})
    with pytest.raises(ValueError, match=r"is a run folder, .* Leave --weights out, or name its architecture: vgg-mini"):
        of_weights(str(run), photos, run)


def picture(folder):
    Image.new("L", (8, 8), 9).save(folder / "nine.png")
    return folder / "nine.png"


def test_mistakes_without_training(tmp_path, file, capsys):
    for words, message in (
        (["lenet5"], "evaluate: lenet5 is an architecture, and has learnt nothing: give it --weights FILE, or name a run folder."),
        (["lenet5", "--weights", file], f"evaluate: --weights needs a source: twofold evaluate lenet5 SOURCE --weights {file}"),
        (["runs/a", "--normalise", "own"], "evaluate: --normalise belongs to --weights: a run has its own. Leave it out."),
        (["cifar-resnet20", "digits", "--weights", file], "They tell 7 classes apart, and here are 10."),
        (["char-lstm", "digits", "--weights", file], "evaluate: char-lstm is for language, and digits for classify: --weights is for"),
    ):
        assert main(["evaluate", *map(str, words)]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_the_published_resnet_20_is_right_9173_times(tmp_path):
    """The published error of github.com/akamaster/pytorch_resnet_cifar10 is 8.27 %, of 10,000 pictures."""
    weights, source = SHARED / "weights" / "cifar-resnet" / "resnet20-12fca82f.th", SHARED / "cifar10"
    if not weights.exists() or not source.is_dir():
        pytest.skip(f"{weights} or {source} is not on this machine")
    run, said = of_weights("cifar-resnet20", source, weights, out=tmp_path / "run")
    confusion_NN = torch.tensor(run.evaluate().details["confusion"])
    assert confusion_NN.trace() == 9173 and confusion_NN.sum() == 10_000
    assert "the head too. Its outputs are taken for the classes of " in said
    assert said.endswith("ship, truck. Pictures are normalised by imagenet (--normalise says otherwise).")
