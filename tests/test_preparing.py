"""Preparing: what the user gave becomes a job, recipes lie under it, and what does not go together is refused before anything begins."""

import re

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import TensorDataset

from twofold import nn
from twofold.data.sources import open_source
from twofold.preparing import lasting, prepare, prepare_own, settle, understand
from twofold.tasks.classify import Classification
from twofold.tasks.language import Language
from twofold.train.own import OwnTask
from twofold.train.processes import World
from twofold.train.settings import OWN, Settings

SET = TensorDataset(torch.rand(20, 4), torch.arange(20) % 2)
BATCHES = [SET[:10], SET[10:]]
ALONE = World()


def net():
    return nn.Linear(4, 2)


@pytest.fixture
def text(tmp_path):
    """Two files, one after the other."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"{name} is the first word of this file.\n" * 40)
    return tmp_path


def test_a_source_brings_its_recipe_and_the_user_stays(text):
    digits = settle(Settings.of("digits", epochs=3), open_source("digits"))
    assert (digits.model, digits.learning.epochs) == ("vgg-mini", 3)
    prose = settle(Settings.of(str(text / "a.txt"), patience=0), open_source(text / "a.txt"))
    assert (prose.model, prose.learning.patience, prose.optimisation.learning_rate) == ("char-lstm", 0, 8e-3)
    with pytest.raises(ValueError, match="window=9 is for text only, but digits is for classify"):
        settle(Settings.of("digits", window=9), open_source("digits"))


def test_pictures_and_texts_have_their_task_their_batches_and_their_description(text):
    job = prepare(Settings.of("digits", batch_size=100, config={"stages": "8 M"}), False)
    assert isinstance(job.task, Classification) and job.task.smoothing == 0.1 and job.data.training.steps() == 11
    assert job.description["architecture"] == "vgg-mini" and job.description["config"]["classes"] == 10
    assert job.description["task"] == "classify" and len(job.description["classes"]) == 10 and job.description["fingerprint"]
    job = prepare(Settings.of(str(text / "a.txt"), batch_size=2, window=8, config={"units": 8, "embedding": 4}), False)
    assert isinstance(job.task, Language) and next(job.data.training.epoch(0)).x_TB.shape == (8, 2)


def test_augmentation_and_mixing_reach_the_training_pictures_alone():
    plain, varied, mixed = (
        prepare(Settings.of("digits", config={"stages": "8 M"}, **more), False) for more in ({}, {"augment": "shift=0.2"}, {"mixup": 0.4})
    )
    firsts = [next(job.data.training.epoch(0)) for job in (plain, varied, mixed)]
    assert not torch.equal(firsts[0].x_BCHW, firsts[1].x_BCHW) and torch.equal(firsts[0].y_B, firsts[1].y_B)
    assert firsts[0].goal_BN is None and firsts[2].goal_BN.sum(1) == pytest.approx(torch.ones(32))
    judged = [next(iter(job.data.validation())).x_BCHW for job in (plain, varied, mixed)]
    assert torch.equal(judged[0], judged[1]) and torch.equal(judged[0], judged[2])


def test_a_model_of_ones_own_learns_from_a_source():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, 10))
    job = prepare(Settings.of("digits", model=OWN, dropout=0.5), False, model)
    assert job.model is model and model[1].p == 0.5
    assert job.description["architecture"] == OWN and job.description["class"] == "twofold.space.sequential.Sequential"
    assert job.reading.classes == tuple("0123456789")


def test_parts_of_ones_own_make_a_job():
    model = net()
    job = prepare_own(Settings.of(OWN, batch_size=8), (SET, SET, BATCHES), model, F.cross_entropy)
    assert isinstance(job.task, OwnTask) and job.model is model and job.source is None and job.reading is None
    assert job.data.training.steps() == 3 and [len(x) for x, _ in job.data.validation()] == [8, 8, 4] and len(list(job.test())) == 2
    assert job.settings.regularisation.label_smoothing == 0  # the loss is the user's own
    assert prepare_own(Settings.of(OWN), (BATCHES, SET), net(), job.task).task is job.task
    assert prepare_own(Settings.of(OWN, accumulate=5), (BATCHES, BATCHES), net(), F.cross_entropy).data.training.steps() == 2


class HalfATask:
    def loss(self, model, batch, carried): ...

    def evaluate(self, model, batches): ...


OWN_BAD = {
    "alone": ({}, SET, F.mse_loss, "expected data of one's own as (training, validation) or (training, validation, test), got TensorData"),
    "four": ({}, [SET] * 4, F.mse_loss, "got 4 values"),
    "half a task": ({}, (SET, SET), HalfATask(), "HalfATask is no whole Task: it has no rank and no example and no explain"),
    "no task": ({}, (SET, SET), 3, "expected task to be a loss(output, target) or a Task, got int"),
    "foreign": ({"mixup": 0.2}, (SET, SET), F.mse_loss, "settings: mixup=0.2 is for sources with a name or a path"),
    "config": ({"config": {"a": 1}}, (SET, SET), F.mse_loss, "config: a cannot be set: the model is given as it is"),
    "dropout": ({"dropout": 0.5}, (SET, SET), F.mse_loss, "expected a model with dropout layers, got one without"),
    "size": ({"batch_size": 9}, (BATCHES, BATCHES), F.mse_loss, "batch_size=9 is for data sets: your data are batches already"),
    "parts": ({"batch_size": 9, "accumulate": 2}, (SET, SET), F.mse_loss, "batch_size=9 cannot be taken in accumulate=2 equal parts"),
    "empty": ({}, (SET, []), F.mse_loss, "got none: the data set is empty"),
}


@pytest.mark.parametrize("name", OWN_BAD)
def test_parts_that_do_not_go_together_are_refused(name):
    settings, data, task, message = OWN_BAD[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        prepare_own(Settings.of(OWN, **settings), data, net(), task)


class Extra(torch.nn.Linear):
    def get_extra_state(self):
        return {"words": 3}


def test_a_model_that_could_not_be_kept_is_refused():
    with pytest.raises(ValueError, match=r"0.weight of the model is not built yet \(a lazy layer\). Call the model with a batch first."):
        prepare_own(Settings.of(OWN), (SET, SET), torch.nn.Sequential(torch.nn.LazyLinear(2)), F.cross_entropy)
    with pytest.raises(ValueError, match="_extra_state in the state of the model is no tensor"):
        prepare_own(Settings.of(OWN), (SET, SET), Extra(4, 2), F.cross_entropy)


def test_what_is_given_decides_what_is_made_of_it(tmp_path):
    wanted, prepared = understand((BATCHES, BATCHES), net(), F.cross_entropy, {"epochs": 3})
    assert (wanted.source, wanted.model, wanted.learning.epochs) == (OWN, OWN, 3) and prepared(ALONE).source is None
    wanted, prepared = understand("digits", "lenet5", None, {})
    assert (wanted.source, wanted.model) == ("digits", "lenet5")
    opened = open_source("digits")
    wanted, prepared = understand(opened, "", None, {"config": {"stages": "8 M"}})
    assert prepared(ALONE).source is opened
    with pytest.raises(ValueError, match=r"data of your own need a model \(a module\) and a task"):
        understand((BATCHES, BATCHES), net(), None, {})
    with pytest.raises(ValueError, match="a task is for data of your own"):
        understand("digits", "", F.cross_entropy, {})


def test_a_path_holds_from_every_folder_and_a_name_stays_a_name(text, monkeypatch):
    monkeypatch.chdir(text)
    assert lasting("a.txt") == str(text / "a.txt") and lasting("digits") == "digits"
    with pytest.raises(ValueError, match='no source "c.txt"'):
        lasting("c.txt")


def test_documents_need_known_beginnings(text):
    one = {"batch_size": 2, "window": 8, "documents": True, "config": {"units": 8, "embedding": 4}}
    with pytest.raises(ValueError, match="documents=true, but of .* it is not known where a file begins"):
        prepare(Settings.of(str(text / "a.txt"), **one), False)
    assert any(window.starts_TB is not None for window in prepare(Settings.of(str(text), **one), False).data.training.epoch(0))


def test_what_is_odd_about_a_folder_is_told_before_it_is_learnt_from(tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        for number in range(8):
            generator = torch.Generator().manual_seed(number + 9 * (name == "dogs"))
            drawn = torch.randint(0, 256, (30, 70, 3), dtype=torch.uint8, generator=generator)
            Image.fromarray(drawn.numpy()).save(tmp_path / name / f"{name}-{number}.png")
    (tmp_path / "cats" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    job = prepare(Settings.of(str(tmp_path), config={"stages": "8 M"}), False)
    assert any(sentence.startswith("pictures are resized to 64 x 64") for sentence in job.said)
    assert job.said[-1] == f"1 file is left out; twofold data check {tmp_path} names them"
