"""What the tests of sharded weights start: `python cutting.py SCENARIO FOLDER HOW [CASE ...]`, HOW being alone, copies or shards.

What is learnt is in the run folders, and what else a process finds in SCENARIO-PROCESS.pt.
"""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

import twofold
from twofold import nn
from twofold.train import learner
from twofold.train.culprit import find_fault
from twofold.train.joining import join
from twofold.train.sharded import cut, own, put_together, whole
from twofold.train.signals import StoppedError

LEAST = 10  # weights of a unit: every layer of these small nets is one
PROCESS = int(os.environ.get("RANK", 0))
LEARN = {"epochs": 13, "batch_size": 26, "schedule": "constant", "warmup": 0, "graph": False}  # of 4 batches each: 52 steps


def pictures(count, seed):
    chance = torch.Generator().manual_seed(seed)
    x_BCHW = torch.randn(count, 1, 8, 8, generator=chance)
    return TensorDataset(x_BCHW, x_BCHW[:, 0, :5, 3].argmax(1))


class Tied(nn.Module):
    """Two layers of one matrix, in a list, the bias of one frozen."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 5)])
        self.layers[1].weight = self.layers[0].weight
        self.layers[0].bias.requires_grad_(False)

    def forward(self, x_BCHW):
        x = x_BCHW.flatten(1)
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        return self.layers[-1](x)


def cnn(norm=False, drop=0.0):
    after = [nn.BatchNorm2d(6)] if norm else []
    body = nn.Sequential(nn.Conv2d(1, 6, 3, bias=not norm), *after, nn.ReLU(), nn.MaxPool2d(2))
    head = [nn.Linear(96, 20), nn.ReLU(), *([nn.Dropout(drop)] if drop else []), nn.Linear(20, 5)]
    return nn.Sequential(body, nn.ConvTranspose2d(6, 6, 2, groups=2), nn.Flatten(), *head)


CASES = {
    "plain": (cnn, {"optimizer": "momentum", "learning_rate": 0.02, "clip": 0.5, "clip_value": 0.2, "ema": 0.9}),
    "bounded": (cnn, {"optimizer": "nesterov", "learning_rate": 0.02, "l1": 1e-3, "l2": 1e-2, "max_norm": 0.5, "accumulate": 2}),
    "normalised": (partial(cnn, True), {"optimizer": "adamw", "learning_rate": 3e-3, "sync_batchnorm": True}),
    "muon": (cnn, {"optimizer": "muon", "learning_rate": 3e-3, "ema": 0.5}),
    "tied": (Tied, {"optimizer": "rmsprop", "learning_rate": 2e-4, "init": "orthogonal"}),
    "thawed": (
        partial(cnn, True),
        {"optimizer": "adamw", "learning_rate": 3e-3, "freeze": "body", "unfreeze_every": 3, "depth_decay": 0.9, "sync_batchnorm": True},
    ),
    "harmed": (cnn, {"optimizer": "adam", "learning_rate": 3e-3, "ema": 0.9}),  # by a broken item, whose batches are left out
    "exploded": (cnn, {"optimizer": "sgd", "learning_rate": 0.05, "ema": 0.9}),  # once, so it goes back
    "dropped": (partial(cnn, True, 0.3), {"optimizer": "adamw", "learning_rate": 3e-3, "ema": 0.9}),
}
TEXT = {
    "optimizer": "adam",
    "learning_rate": 1e-2,
    "batch_size": 6,
    "window": 13,
    "epochs": 2,
    "items_per_epoch": 2000,
    "clip": 0.1,
    "reach": 40,
}


class Once:
    """A loss that is no number in the tenth step."""

    def __init__(self):
        self.steps = 0

    def __call__(self, y, goal):
        self.steps += torch.is_grad_enabled()
        loss = torch.nn.functional.cross_entropy(y, goal)
        return loss * torch.nan if torch.is_grad_enabled() and self.steps == 10 else loss


class Judged:
    """Data for validation: whoever looks at them for the fourth time is asked to stop, in the last process."""

    def __init__(self):
        x_BCHW, y_B = pictures(40, 2).tensors
        self.batches, self.times = [*zip(x_BCHW.split(20), y_B.split(20), strict=True)], 0

    def __iter__(self):
        self.times += 1
        yield self.batches[0]
        if self.times == 4 and int(os.environ.get("WORLD_SIZE", 1)) == PROCESS + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        yield self.batches[1]


def given(case, how):
    """The parts and the settings of a case."""
    build, settings = CASES[case]
    torch.manual_seed(0)
    settings = {**LEARN, **settings, "shard_weights": how == "shards"}
    settings |= {"sync_batchnorm": settings.get("sync_batchnorm", False) and how != "alone"}
    return {"model": build(), "task": Once() if case == "exploded" else torch.nn.functional.cross_entropy}, settings


def learn(folder, how, cases):
    """From the beginning to the end."""
    for case in cases or [*CASES, "text"]:
        if case == "text":
            (folder / "text.txt").write_text("".join(f"{i} times {i} is {i * i}.\n" for i in range(300)))
            config = {"units": 16, "embedding": 16}
            twofold.fit(
                folder / "text.txt", out=folder / case, quiet=True, graph=False, config=config, shard_weights=how == "shards", **TEXT
            )
            continue
        parts, settings = given(case, how)
        training = pictures(103, 1)
        if case == "harmed":
            training.tensors[0][50, 0, 2, 2] = torch.nan
        run = twofold.fit((training, pictures(40, 2)), **parts, out=folder / case, quiet=True, **settings)
        torch.save(run.model.state_dict(), folder / f"{case}-{PROCESS}.pt")


def stop(folder, how, cases):
    """Until the last process is asked to stop, while the fourth epoch is being judged."""
    for case in cases:
        parts, settings = given(case, how)
        try:
            twofold.fit((pictures(103, 1), Judged()), **parts, out=folder / case, quiet=True, **settings)
        except (StoppedError, SystemExit) as error:
            torch.save({"said": str(error), "weights": parts["model"].state_dict()}, folder / f"{case}-{PROCESS}.pt")


def resume(folder, how, cases):
    """What was stopped, to the end."""
    for case in cases:
        parts, _ = given(case, how)
        twofold.resume(folder / case, source=(pictures(103, 1), pictures(40, 2)), **parts, quiet=True)


class Root(nn.Module):
    """Finite forward, but no number backward where x is 0."""

    def forward(self, x):
        return x.square().sqrt()


def faults(folder, how, cases):
    """Parts, and what is found in them where only the last process knows it."""
    with join() as world:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6), Root(), nn.Linear(6, 3))
        before, found = {name: x.clone() for name, x in model.state_dict().items()}, {}
        copy = cut(model, world, LEAST)
        found["given up"], found["own"] = sum(p.numel() for p in model.parameters()), sum(own(p).numel() for p in copy.parameters())
        found["whole"] = whole(copy.state_dict(keep_vars=True))
        x_BD = torch.randn(5, 4)

        def fault(x_BD=x_BD):
            return find_fault(copy, lambda: copy(x_BD).square().mean(), x_BD, world=world)._asdict()

        found["sound"] = fault()
        last = world.process == world.processes - 1
        with torch.no_grad():
            own(copy[1].weight).zero_()
            own(copy[1].bias).fill_(0.0 if last else 1.0)  # rows of zeros, before the root
        found["backward"] = fault()
        with torch.no_grad():
            own(copy[1].bias).fill_(1.0)
        found["batch"] = fault(torch.full_like(x_BD, torch.inf if last else 1.0))
        with torch.no_grad():
            own(copy[3].weight).fill_(torch.nan if last else 1.0)
        found["weights"] = fault()
        found["gradients"] = [p.grad for p in copy.parameters()]
        copy.load_state_dict(dict(copy.state_dict()))
        put_together(model, copy)
        found["back"] = model.state_dict()
        torch.save({"before": before, **found}, folder / f"faults-{world.process}.pt")


class Bare(nn.Module):
    """Uses the weights of a layer that it does not call."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 5)

    def forward(self, x_BCHW):
        return torch.nn.functional.linear(x_BCHW.flatten(1), self.layer.weight, self.layer.bias)


def bare(folder, how, cases):
    """A model that cannot be sharded so."""
    try:
        parts, settings = given("plain", how)
        parts["model"] = Bare()
        twofold.fit((pictures(103, 1), pictures(40, 2)), **parts, out=folder / "bare", quiet=True, **settings)
    except ValueError as error:
        print(f"twofold: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    learner.cut = partial(cut, least=LEAST)
    scenario, folder, how, *cases = sys.argv[1:]
    {each.__name__: each for each in (learn, stop, resume, faults, bare)}[scenario](Path(folder), how, cases)
