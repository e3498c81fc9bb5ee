"""Fitting on parts of one's own: the same steps as a loop written by hand, resume, what is refused, and early stopping."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import twofold
from twofold import nn
from twofold.tasks.task import Evaluation
from twofold.train.checkpoints import Checkpoints
from twofold.train.clock import PHASES
from twofold.train.own import OwnTask
from twofold.train.signals import StoppedError

X = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
Y = (X @ torch.randn(6, 3, generator=torch.Generator().manual_seed(1))).argmax(1)
LEARN, JUDGE = TensorDataset(X[:80], Y[:80]), TensorDataset(X[80:], Y[80:])
PLAIN = {"schedule": "constant", "warmup": 0.0, "clip": 0.0, "weight_decay": 0.0, "learning_rate": 0.05, "epochs": 3, "quiet": True}


def net(outputs=3):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, outputs))


def same(ours, theirs):
    return all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))


@pytest.mark.parametrize("form", ["list", "loader"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_ones_own_data_are_learnt_as_in_a_loop_written_by_hand_bit_for_bit(tmp_path, form, optimizer):
    """Whatever else a run does draws nothing of what the loader shuffles by and dropout drops by."""
    data = DataLoader(LEARN, 16, shuffle=True) if form == "loader" else list(DataLoader(LEARN, 16))
    ours, theirs = net(), net()
    twofold.fit((data, list(DataLoader(JUDGE, 9))), model=ours, task=F.cross_entropy, out=tmp_path, optimizer=optimizer, seed=7, **PLAIN)
    fastest = {"fused": True} if optimizer == "adam" else {}
    step = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](theirs.parameters(), 0.05, **fastest)
    torch.manual_seed(7)
    for _ in range(3):
        for x, y in data:
            step.zero_grad()
            F.cross_entropy(theirs(x), y).backward()
            step.step()
    assert twofold.load(tmp_path, model=net()).metrics["best_epoch"] == 3  # so the weights that are kept are the last
    assert same(ours, theirs)


def test_ones_own_run_says_what_it_is_and_what_it_cannot(tmp_path):
    run = twofold.fit((LEARN, JUDGE, JUDGE), model=net(), task=F.cross_entropy, out=tmp_path / "run", **PLAIN)
    assert run.metrics["test"] == pytest.approx(run.metrics["validation"]) and "accuracy" in run.metrics["test"]
    assert repr(run).endswith("own, own>") and "own on own data" in run.report.read_text()
    loaded = twofold.load(run.path, model=net())
    assert same(loaded.model, run.model) and repr(loaded) == repr(run)
    assert run.task.evaluate(loaded.model, DataLoader(JUDGE, 5)).scores["loss"] == pytest.approx(run.metrics["test"]["loss"])
    for who, ask in (("evaluate", run.evaluate), ("open", loaded.open), ("sample", run.sample), ("predict", lambda: run.predict("a.png"))):
        with pytest.raises(ValueError, match=rf"{who}: the model of .* was trained on data of your own, which it cannot read: call run"):
            ask()
    with pytest.raises(ValueError, match="evaluate: a run folder holds no loss of one's own"):
        loaded.task.evaluate(loaded.model, [LEARN[:3]])
    with pytest.raises(ValueError, match=r"its model is your own, twofold.*Sequential: load\(folder, model=...\)"):
        twofold.load(run.path)
    with pytest.raises(ValueError, match="does not belong to the architecture"):
        twofold.load(run.path, model=net(4))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(LEARN[place] for place in range(70))


def test_a_regression_a_stream_and_inputs_by_name_are_learnt(tmp_path):
    pairs = TensorDataset(X[:80], X[:80, :1]), TensorDataset(X[80:], X[80:, :1])
    settings = {"quiet": True, "epochs": 30, "learning_rate": 0.03, "patience": 0}
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
    run = twofold.fit(pairs, model=model, task=F.mse_loss, out=tmp_path / "line", **settings)
    assert run.metrics["validation"].keys() == {"loss"} and run.metrics["validation"]["loss"] < 0.1

    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()

        def forward(self, given):
            return self.inner(given["x"])

    named = [({"x": x}, y) for x, y in DataLoader(LEARN, 16)]
    run = twofold.fit((named, named), model=ByName(), task=F.cross_entropy, out=tmp_path / "named", **{**PLAIN, "epochs": 10})
    assert run.metrics["validation"]["accuracy"] > 0.8
    run = twofold.fit((DataLoader(Stream(), 10), JUDGE), model=net(), task=F.cross_entropy, out=tmp_path / "stream", **PLAIN)
    assert run.metrics["step"] == 21


@pytest.mark.parametrize(("form", "step"), [("set", 4), ("set", 5), ("list", 7), ("loader", 10), ("loader", 8)])
def test_an_interrupted_run_on_ones_own_data_resumes_bit_for_bit(tmp_path, interrupt, monkeypatch, form, step):

    def data():
        return {"set": LEARN, "list": list(DataLoader(LEARN, 16)), "loader": DataLoader(LEARN, 16, shuffle=True)}[form], JUDGE

    settings = {**PLAIN, "ema": 0.9, "optimizer": "nesterov"}
    whole = twofold.fit(data(), model=net(), task=F.cross_entropy, out=tmp_path / "whole", **settings)
    interrupt(step)
    with pytest.raises(StoppedError, match=r'Go on with: twofold.resume\(".*cut", source=..., model=..., task=...\)'):
        twofold.fit(data(), model=net(), task=F.cross_entropy, out=tmp_path / "cut", **settings)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"was trained on data of one's own: give all as before, twofold.resume\("):
        twofold.resume(tmp_path / "cut", model=net())
    resumed = twofold.resume(tmp_path / "cut", source=data(), model=net(), task=F.cross_entropy, quiet=True)
    assert same(resumed.model, whole.model)


def test_a_model_of_ones_own_on_a_source_resumes_and_what_does_not_belong_is_refused(tmp_path, interrupt, monkeypatch):
    def flat(outputs=10):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, outputs))

    settings = {"epochs": 2, "quiet": True}
    whole = twofold.fit("digits", model=flat(), out=tmp_path / "whole", **settings)
    interrupt(40)
    with pytest.raises(StoppedError, match=r'twofold.resume\(".*cut", model=...\)'):
        twofold.fit("digits", model=flat(), out=tmp_path / "cut", **settings)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has a model of one's own: give it, as it was built"):
        twofold.resume(tmp_path / "cut")
    with pytest.raises(ValueError, match="knows its source, digits, and what is learnt from it"):
        twofold.resume(tmp_path / "cut", model=flat(), task=F.cross_entropy)
    resumed = twofold.resume(tmp_path / "cut", model=flat(), quiet=True)
    assert same(resumed.model, whole.model) and resumed.predict(torch.zeros(1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"expected outputs \(B=32, N=10\), a number for each class, got \(32, 5\)"):
        twofold.fit("digits", model=flat(5), out=tmp_path / "five", **settings)


def test_a_call_that_failed_before_its_first_step_may_come_again_mended(tmp_path):
    with pytest.raises(IndexError):
        twofold.fit((LEARN, JUDGE), model=net(2), task=F.cross_entropy, out=tmp_path / "run", **PLAIN)
    assert twofold.fit((LEARN, JUDGE), model=net(), task=F.cross_entropy, out=tmp_path / "run", **PLAIN).metrics

    def later(epoch, score, scores):
        raise KeyError("mine")

    with pytest.raises(KeyError):
        twofold.fit((LEARN, JUDGE), model=net(), task=F.cross_entropy, out=tmp_path / "later", after_epoch=later, **PLAIN)
    with pytest.raises(ValueError, match="already holds a run"):
        twofold.fit((LEARN, JUDGE), model=net(), task=F.cross_entropy, out=tmp_path / "later", **PLAIN)


def test_after_every_epoch_whoever_asked_is_told(tmp_path):
    told = []
    run = twofold.fit((LEARN, JUDGE), model=net(), task=F.cross_entropy, out=tmp_path, after_epoch=lambda *said: told.append(said), **PLAIN)
    rows = run.folder.read_rows()[:-1]
    assert told == [(row["epoch"], -row["validation"]["loss"], row["validation"]) for row in rows]


class Scripted:
    """Fits anything, and says of each epoch what the script says."""

    name = "scripted"

    def __init__(self, losses):
        self.losses, self.said = losses, -1

    def loss(self, model, batch, carried):
        return OwnTask(F.cross_entropy).loss(model, batch)

    def evaluate(self, model, batches):
        self.said += 1
        return Evaluation({"loss": self.losses[min(self.said, len(self.losses) - 1)]}, {})

    def rank(self, scores):
        return (-scores["loss"],)

    def example(self, batch):
        return (batch[0][:1],)

    def explain(self, scores):
        return "loss", f"{scores['loss']:.3f}"


def test_early_stopping_rolls_everything_back_and_the_report_says_where_they_part(tmp_path):
    """Best after epoch 2 of 5: weights, optimiser, average, schedule and random state are then those of a run of two epochs."""
    settings = {**PLAIN, "optimizer": "nesterov", "ema": 0.9, "epochs": 40, "patience": 3}
    stopped = twofold.fit((LEARN, JUDGE), model=net(), task=Scripted([3.0, 1.0, 2.0, 3.0, 4.0, 1.0]), out=tmp_path / "stopped", **settings)
    two = twofold.fit((LEARN, JUDGE), model=net(), task=Scripted([3.0, 1.0]), out=tmp_path / "two", **{**settings, "epochs": 2})
    assert same(stopped.model, two.model)
    states, theirs = (Checkpoints(run.path / "state").load().states for run in (stopped, two))
    assert flattened({name: states[name] for name in WHOLE}) == flattened({name: theirs[name] for name in WHOLE})
    assert len(states["progress"]["history"]) == 5 and states["progress"]["stopped_epoch"] == 5
    assert stopped.metrics["stopped_epoch"] == 5 and stopped.metrics["best_epoch"] == 2
    page = stopped.report.read_text()
    assert "After epoch 2 training and validation part" in page and "after epoch 5; everything went back to epoch 2" in page
    assert sum(stopped.metrics["time"].values()) == pytest.approx(1, abs=1e-3)
    seconds = [row["seconds"] for row in stopped.folder.read_rows()]
    assert seconds == sorted(seconds)  # what was rolled back took its time, too
    assert "Where the time went" in page and all(f"<td>{phase}" in page or phase in page for phase in PHASES)
    with pytest.raises(ValueError, match="is complete"):
        twofold.resume(stopped.path, source=(LEARN, JUDGE), model=net(), task=Scripted([1.0]))


WHOLE = ("model", "optimizer", "schedule", "average", "random")


def flattened(value):
    """Tensors as lists, so that whole states can be compared."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {str(name): flattened(part) for name, part in value.items()}
    return [flattened(part) for part in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("losses", [[math.nan, 2.0, 1.5], [3.0, math.nan, 2.0]])
def test_an_epoch_whose_score_is_no_number_is_never_the_best(tmp_path, losses):
    run = twofold.fit((LEARN, JUDGE), model=net(), task=Scripted(losses), out=tmp_path, **PLAIN)
    assert run.metrics["best_epoch"] == 3
