"""Our loop and layers against the same net in plain torch.nn with a loop written by hand; and what the loop itself costs.

    digits    our training against the hand-written one            target: ratio of pictures per second at least 0.95
    LeNet-5   batch 64: a step of our loop beyond the work of the model (forward, backward, optimiser)   target: under 5 %

Step by step in turn: one of ours, one of the other, so that whatever else the machine does meets both alike. Medians over epochs.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn as torch_nn

from side_by_side import machine
from twofold.data.preparation import Preparation
from twofold.data.sources import ImageSource, open_source
from twofold.data.values import Images
from twofold.models.catalogue import build
from twofold.tasks.classify import Classification, Pictures
from twofold.train.batches import PictureBatches, pictures_in_order
from twofold.train.folder import RunFolder
from twofold.train.loop import Data, learn
from twofold.train.optimizers import build_optimizer
from twofold.train.progress import Progress
from twofold.train.settings import Settings
from twofold.train.watch import Watch

CLASSES = tuple(map(str, range(10)))


def plain_net() -> torch_nn.Module:
    """vgg-mini, stated in torch.nn alone."""

    def block(channels: int, filters: int) -> list[torch_nn.Module]:
        return [torch_nn.Conv2d(channels, filters, 3, padding=1, bias=False), torch_nn.BatchNorm2d(filters), torch_nn.ReLU()]

    first, second = [*block(1, 32), *block(32, 32)], [*block(32, 64), *block(64, 64)]
    pool = torch_nn.MaxPool2d(2)
    return torch_nn.Sequential(*first, pool, *second, pool, torch_nn.Flatten(), torch_nn.Dropout(0.3), torch_nn.Linear(256, 10))


def by_hand(model: torch_nn.Module, images: Images, kind: Preparation, settings: Settings) -> Iterator[None]:
    """A loop as one writes it, a step at a time: shuffle, normalise, cosine with warm-up, clipping, AdamW at its fastest."""
    how, size, epochs = settings.optimisation, settings.learning.batch_size, settings.learning.epochs
    steps = math.ceil(len(images.y_B) / size) * epochs
    optimizer = torch.optim.AdamW(model.parameters(), how.learning_rate, weight_decay=how.weight_decay, fused=True)
    criterion = torch_nn.CrossEntropyLoss(label_smoothing=settings.regularisation.label_smoothing)
    mean, std = torch.tensor(kind.mean)[:, None, None], torch.tensor(kind.std)[:, None, None]
    done, total = 0, 0.0
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images.y_B)).split(size):
            x = (images.x_BCHW[chosen].float() / 255 - mean) / std
            warm = min(1.0, (done + 1) / (how.warmup * steps))
            for group in optimizer.param_groups:
                group["lr"] = how.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (done + 1) / steps)))
            loss = criterion(model(x), images.y_B[chosen])
            optimizer.zero_grad()
            loss.backward()
            torch_nn.utils.clip_grad_norm_(model.parameters(), how.clip)
            optimizer.step()
            total += loss.item()
            done += 1
            yield


def work_alone(name: str, images: Images, kind: Preparation, settings: Settings) -> Iterator[None]:
    """The model's own work, a step at a time: forward, backward, optimiser, on one batch that is ready."""
    model = build(name)
    task = Classification(CLASSES, settings.regularisation.label_smoothing)
    optimizer = build_optimizer(model, settings.optimisation)
    size = settings.learning.batch_size
    batch = Pictures(kind.normalise(images.x_BCHW[:size]), images.y_B[:size])
    while True:
        loss = task.loss(model, batch, None).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield


class InTurn(Watch):
    """Everything that a run writes and shows at a step; then a step of the other, and the durations of both."""

    def against(self, other: Iterator[None]) -> None:
        self.other = other
        self.epochs: list[tuple[float, float]] = []
        self.sums, self.last = [0.0, 0.0], 0.0

    def step(self, progress: Progress, loss: float, rate: float) -> None:
        super().step(progress, loss, rate)
        ours = time.perf_counter() - self.last
        began = time.perf_counter()
        if next(self.other, "ended") == "ended":
            return
        theirs = time.perf_counter() - began
        if progress.step > 1:  # the first step of an epoch has the validation before it
            self.sums[0] += ours
            self.sums[1] += theirs
        self.last = time.perf_counter()

    def epoch(self, progress: Progress, row: dict[str, Any], better: bool) -> None:
        """Writes nothing: steps are what is measured."""
        self.epochs.append((self.sums[0] / (self.steps - 1), self.sums[1] / (self.steps - 1)))
        self.sums = [0.0, 0.0]


def compare(name: str, images: Images, kind: Preparation, settings: Settings, other: Iterator[None]) -> tuple[float, float]:
    """Milliseconds of a step, ours with everything on and the other."""
    channels, height, width = images.x_BCHW.shape[1:]
    model = build(name, classes=10, in_channels=channels, height=height, width=width)
    task = Classification(CLASSES, settings.regularisation.label_smoothing)
    optimizer = build_optimizer(model, settings.optimisation)
    batches = PictureBatches(images, kind, settings.learning.batch_size, seed=0)
    one = Images(images.x_BCHW[:1], images.y_B[:1], images.names[:1])
    with tempfile.TemporaryDirectory() as folder:
        watch = InTurn(RunFolder(Path(folder)), task, settings, batches.steps(), model, optimizer, {}, quiet=True)
        watch.against(other)
        with watch.watching():
            learn(model, task, Data(batches, lambda: pictures_in_order(one, kind)), settings, optimizer, Progress(), watch)
    ours, theirs = (1e3 * statistics.median(column) for column in zip(*watch.epochs[1:], strict=True))
    return ours, theirs


def noise(count: int) -> tuple[Images, Preparation]:
    """Random pictures of 28x28: the cost of a step does not depend on what they show."""
    x = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8)
    return Images(x, torch.arange(count) % 10, ("",) * count), Preparation.of(x)


def main() -> None:
    print(machine())
    source = open_source("digits")
    assert isinstance(source, ImageSource)
    settings = Settings.of("digits", model="vgg-mini", epochs=40)
    other = by_hand(plain_net(), source.train, source.preparation, settings)
    ours, theirs = compare("vgg-mini", source.train, source.preparation, settings, other)
    print(f"digits, vgg-mini, batch 32   ours {ours:.2f} ms a step   torch.nn by hand {theirs:.2f}", end="   ")
    print(f"ratio of pictures per second {theirs / ours:.3f}")

    images, kind = noise(64 * 50)
    settings = Settings.of("noise", model="lenet5", epochs=30, batch_size=64)
    ours, theirs = compare("lenet5", images, kind, settings, work_alone("lenet5", images, kind, settings))
    print(f"LeNet-5, batch 64   our loop {ours:.2f} ms a step   the model's own work {theirs:.2f}", end="   ")
    print(f"overhead {100 * (ours / theirs - 1):.1f} %")


if __name__ == "__main__":
    main()
