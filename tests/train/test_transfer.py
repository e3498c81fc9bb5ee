"""Frozen weights stay, frozen statistics too; what thaws, thaws in its epoch; rates fall with the depth; a run goes on bit for bit."""

import re

import pytest
import torch

import twofold
from twofold import nn
from twofold.layers.parts import stages
from twofold.models.catalogue import build
from twofold.train.optimizers import build_optimizer
from twofold.train.penalties import Penalties
from twofold.train.settings import Settings
from twofold.train.signals import StoppedError
from twofold.train.transfer import Thaw, Transfer, chosen, frozen_of


def net():
    torch.manual_seed(0)
    first, second = (nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8)), (nn.Linear(8, 8), nn.BatchNorm1d(8))
    return nn.Sequential(*first, nn.ReLU(), *second, nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))


def learning(model):
    return [name for name, weight in model.named_parameters() if weight.requires_grad]


def test_body_is_all_but_the_head_and_patterns_are_names():
    model = net()
    parts = stages(model)
    assert chosen(model, parts, "body") == [name for name, _ in model.named_parameters() if not name.startswith("7.")]
    assert chosen(model, parts, "0, 3.*") == ["0.weight", "3.weight", "3.bias"] and chosen(model, parts, "*.bias")[0] == "1.bias"
    assert chosen(model, parts, "0+1") == ["0.weight", "1.weight", "1.bias"] and chosen(model, parts, "") == []


def test_stages_thaw_from_the_head_down():
    model = net()
    thaw = Thaw(model, Transfer(freeze="body", unfreeze_every=2))
    seen = [(thaw.at(epoch), len(learning(model))) for epoch in range(8)]
    assert seen == [(True, 2), (False, 2), (True, 4), (False, 4), (True, 8), (False, 8), (True, 11), (False, 11)]
    assert thaw.at(2) and learning(model) == ["6.weight", "6.bias", "7.weight", "7.bias"]  # taken up again, or gone back


def test_a_weight_that_was_frozen_before_never_thaws():
    model = net()
    model[0].weight.requires_grad_(False)
    thaw = Thaw(model, Transfer(freeze="body", unfreeze_every=1))
    thaw.at(99)
    assert "0.weight" not in learning(model) and len(learning(model)) == 10


def test_frozen_norms_keep_their_statistics_and_normalise_by_them():
    model = net().train()
    thaw = Thaw(model, Transfer(freeze="0+1", unfreeze_every=1))
    thaw.at(0)
    thaw.hold()
    assert [model[1].training, model[4].training] == [False, True]
    before = model[1].running_mean.clone()
    model(torch.randn(16, 4) + 3)
    assert torch.equal(model[1].running_mean, before) and model[4].running_mean.abs().sum() > 0
    thaw.at(1)
    model.train()
    thaw.hold()
    assert model[1].training


def test_rates_fall_with_the_depth():
    model = net()
    thaw = Thaw(model, Transfer(depth_decay=0.5))
    optimizer = build_optimizer(model, Settings.of("own", weight_decay=0.1).optimisation, thaw.factors)
    factor = {id(weight): (group["factor"], group["weight_decay"]) for group in optimizer.param_groups for weight in group["params"]}
    named = {name: factor[id(weight)] for name, weight in model.named_parameters()}
    assert named["7.weight"] == (1, 0.1) and named["7.bias"] == (1, 0) and named["6.weight"] == (0.5, 0.1)
    assert named["3.weight"] == (0.25, 0.1) and named["4.bias"] == (0.25, 0) and named["0.weight"] == (0.125, 0.1)
    muon = build_optimizer(model, Settings.of("own", optimizer="muon").optimisation, thaw.factors)
    assert sorted({group["factor"] for group in muon.param_groups}) == [0.125, 0.25, 0.5, 1]


def test_penalties_leave_what_is_frozen():
    model = net()
    Thaw(model, Transfer(freeze="body"))
    before = model[3].weight.clone()
    penalties = Penalties(model, Settings.of("own", l2=1.0, max_norm=0.1).regularisation)
    penalties.add()
    penalties.constrain()
    assert torch.equal(model[3].weight, before) and model[3].weight.grad is None
    assert model[7].weight.norm(dim=1).max() <= 0.1001 and model[7].weight.grad is not None


def test_what_is_said():
    assert frozen_of(net(), Transfer()) == ""
    body = "Frozen: 208 of 226 weights; batch norm there keeps its mean and variance."
    assert frozen_of(net(), Transfer(freeze="body")) == body
    thaws = " After every 2 epochs one of 3 stages thaws, from the head down."
    assert frozen_of(net(), Transfer(freeze="body", unfreeze_every=2)) == body + thaws
    assert "After every epoch" in frozen_of(net(), Transfer(freeze="body", unfreeze_every=1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"freeze": "body,3.wight"},
            "freeze: expected body, or names of layers or weights, got '3.wight', which fits none. Near: 3.weight",
        ),
        ({"freeze": "body,3.wight"}, "The stages are 0+1, 3+4, 6, 7."),
        ({"freeze": "*"}, "freeze=*: every weight of the model is frozen, so there is nothing to learn. Leave some out."),
    ],
)
def test_what_cannot_be_frozen(settings, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        frozen_of(net(), Transfer(**settings))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"unfreeze_every": 2}, "unfreeze_every=2 thaws what is frozen, and nothing is. Add freeze=body, or leave it out."),
        ({"new_head": True}, "new_head=true leaves the head out of what is taken from a file of weights, and none is given"),
        ({"depth_decay": 0}, "settings: transfer.depth_decay: expected more than 0.0, got 0."),
        ({"depth_decay": 2}, "settings: transfer.depth_decay: expected 1.0 or less, got 2."),
    ],
)
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Settings.of("digits", **settings)


HOW = {"model": "vgg-mini", "config": {"stages": "8 M 8 M 8"}, "epochs": 3, "quiet": True, "ema": 0.9, "batch_size": 128}
HOW |= {"freeze": "body", "unfreeze_every": 1, "depth_decay": 0.5}


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """Weights in the place of those that another training left."""
    torch.manual_seed(3)
    file = tmp_path_factory.mktemp("learnt") / "w.pth"
    torch.save(build("vgg-mini", in_channels=1, height=8, width=8, classes=10, **HOW["config"]).state_dict(), file)
    return file


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, learnt):
    return twofold.fit("digits", out=tmp_path_factory.mktemp("whole") / "run", weights=learnt, **HOW)


@pytest.mark.parametrize("stop", [9, 13])  # at the end of the first epoch, and within the second
def test_a_run_with_gradual_unfreezing_goes_on_bit_for_bit(tmp_path, interrupt, undisturbed, learnt, stop):
    interrupt(stop)
    with pytest.raises(StoppedError):
        twofold.fit("digits", out=tmp_path / "run", weights=learnt, **HOW)
    again = twofold.resume(tmp_path / "run", quiet=True)
    assert again.metrics["best_epoch"] == undisturbed.metrics["best_epoch"]
    for name, value in undisturbed.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    rows = [[row["train"]["loss"] for row in run.folder.read_rows()[:-1]] for run in (again, undisturbed)]
    assert rows[0] == rows[1] and len(rows[0]) == 3


def test_random_weights_are_not_frozen(tmp_path):
    """A model that is built anew has learnt nothing; one that is given may have."""
    with pytest.raises(ValueError, match=r"freeze=body: vgg-mini is built anew, so its weights are random, .*\(--weights FILE or RUN\)"):
        twofold.fit("digits", out=tmp_path / "run", **HOW)
    assert not (tmp_path / "run").exists()
    model = build("vgg-mini", in_channels=1, height=8, width=8, classes=10, **HOW["config"])
    first = model.features[0].weight.clone()
    own = {name: value for name, value in HOW.items() if name not in ("model", "config", "unfreeze_every")}
    twofold.fit("digits", model=model, out=tmp_path / "run", **{**own, "epochs": 1})
    assert torch.equal(model.features[0].weight, first)
