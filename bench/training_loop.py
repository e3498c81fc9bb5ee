"""Our loop and layers against the same net in plain torch.nn with a loop written by hand; and what the loop itself costs.

digits    our whole training against the hand-written one            target: ratio of samples per second at least 0.95
LeNet-5   batch 64: a step of our loop beyond the work of the model (forward, backward, optimiser)   target: under 5 %
"""

import math
import statistics
import tempfile
import time
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

EPOCHS = 2
ROUNDS = 25


def plain_net() -> torch_nn.Module:
    """vgg-mini, stated in torch.nn alone."""

    def block(channels: int, filters: int) -> list[torch_nn.Module]:
        return [torch_nn.Conv2d(channels, filters, 3, padding=1, bias=False), torch_nn.BatchNorm2d(filters), torch_nn.ReLU()]

    first, second = [*block(1, 32), *block(32, 32)], [*block(32, 64), *block(64, 64)]
    pool = torch_nn.MaxPool2d(2)
    return torch_nn.Sequential(*first, pool, *second, pool, torch_nn.Flatten(), torch_nn.Dropout(0.3), torch_nn.Linear(256, 10))


class Clock:
    """The durations of steps: from one call to the next."""

    def __init__(self) -> None:
        self.durations: list[float] = []
        self.last = 0.0

    def tick(self, first: bool = False) -> None:
        now = time.perf_counter()
        if not first:
            self.durations.append(now - self.last)
        self.last = now


def by_hand(model: torch_nn.Module, images: Images, kind: Preparation, settings: Settings) -> float:
    """Seconds a step (median) of a loop as one writes it: shuffle, normalise, cosine with warm-up, clipping, AdamW at its fastest."""
    how, size = settings.optimisation, settings.learning.batch_size
    steps = math.ceil(len(images.y_B) / size) * EPOCHS
    optimizer = torch.optim.AdamW(model.parameters(), how.learning_rate, weight_decay=how.weight_decay, fused=True)
    criterion = torch_nn.CrossEntropyLoss(label_smoothing=how.label_smoothing)
    mean, std = torch.tensor(kind.mean)[:, None, None], torch.tensor(kind.std)[:, None, None]
    done, total, clock = 0, 0.0, Clock()
    model.train()
    clock.tick(first=True)
    for _ in range(EPOCHS):
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
            clock.tick()
    return statistics.median(clock.durations)


def ours(name: str, images: Images, kind: Preparation, settings: Settings, folder: Path) -> float:
    """Seconds a step (median) of our loop with everything on; one picture is the whole validation, for steps are what is measured."""
    classes = tuple(map(str, range(10)))
    config = {"in_channels": images.x_BCHW.shape[1], "height": images.x_BCHW.shape[2], "width": images.x_BCHW.shape[3]}
    model = build(name, classes=10, **config)
    task = Classification(classes, settings.optimisation.label_smoothing)
    optimizer = build_optimizer(model, settings.optimisation)
    batches = PictureBatches(images, kind, settings.learning.batch_size, seed=0)
    watch = StepsOnly(RunFolder(folder), task, settings, batches.steps(), model, optimizer, {}, quiet=True)
    with watch.watching():
        one = Images(images.x_BCHW[:1], images.y_B[:1], images.names[:1])
        learn(model, task, Data(batches, lambda: pictures_in_order(one, kind)), settings, optimizer, Progress(), watch)
    return statistics.median(watch.clock.durations)


class StepsOnly(Watch):
    """Times the steps, and writes nothing at the end of an epoch."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.clock = Clock()

    def step(self, progress: Progress, loss: float, rate: float) -> None:
        super().step(progress, loss, rate)
        self.clock.tick(first=progress.step == 1)

    def epoch(self, progress: Progress, row: dict[str, Any], better: bool) -> None:
        pass


def work_alone(name: str, images: Images, kind: Preparation, settings: Settings) -> float:
    """Seconds a step (median) of the model's own work: forward, backward, optimiser, on one batch that is ready."""
    size = settings.learning.batch_size
    steps = math.ceil(len(images.y_B) / size) * EPOCHS
    model = build(name)
    task = Classification(tuple(map(str, range(10))), settings.optimisation.label_smoothing)
    optimizer = build_optimizer(model, settings.optimisation)
    batch = Pictures(kind.normalise(images.x_BCHW[:size]), images.y_B[:size])
    clock = Clock()
    clock.tick(first=True)
    for _ in range(steps):
        loss = task.loss(model, batch, None).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        clock.tick()
    return statistics.median(clock.durations)


def noise(count: int) -> tuple[Images, Preparation]:
    """Random pictures of 28x28: the cost of a step does not depend on what they show."""
    x = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8)
    return Images(x, torch.arange(count) % 10, ("",) * count), Preparation.of(x)


def main() -> None:
    print(machine())
    with tempfile.TemporaryDirectory() as place:
        source = open_source("digits")
        assert isinstance(source, ImageSource)
        images, kind = source.train, source.preparation
        settings = Settings.of("digits", model="vgg-mini", epochs=EPOCHS)
        pairs = [
            (by_hand(plain_net(), images, kind, settings), ours("vgg-mini", images, kind, settings, Path(place))) for _ in range(ROUNDS)
        ]
        hand, loop = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"digits, vgg-mini, batch 32   torch.nn by hand {1e3 * hand:.2f} ms a step   ours {1e3 * loop:.2f}", end="   ")
        print(f"ratio of pictures per second {statistics.median(a / b for a, b in pairs):.3f}")

        images, kind = noise(64 * 50)
        settings = Settings.of("noise", model="lenet5", epochs=EPOCHS, batch_size=64)
        pairs = [(work_alone("lenet5", images, kind, settings), ours("lenet5", images, kind, settings, Path(place))) for _ in range(ROUNDS)]
        work, loop = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"LeNet-5, batch 64   the model's own work {1e3 * work:.2f} ms a step   our loop {1e3 * loop:.2f}", end="   ")
        print(f"overhead {100 * (statistics.median(b / a for a, b in pairs) - 1):.1f} %")


if __name__ == "__main__":
    main()
