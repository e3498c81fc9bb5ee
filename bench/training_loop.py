"""Our loop and layers against the same net in plain torch.nn with a loop written by hand; and what the loop itself costs.

digits    our whole training against the hand-written one            target: ratio of samples per second at least 0.95
LeNet-5   batch 64: a step of our loop beyond the work of the model (forward, backward, optimiser)   target: under 5 %
"""

import math
import tempfile
from pathlib import Path

import torch
from torch import nn as torch_nn

from side_by_side import machine, seconds
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


def plain_net() -> torch_nn.Module:
    """vgg-mini, stated in torch.nn alone."""

    def block(channels: int, filters: int) -> list[torch_nn.Module]:
        return [torch_nn.Conv2d(channels, filters, 3, padding=1, bias=False), torch_nn.BatchNorm2d(filters), torch_nn.ReLU()]

    first, second = [*block(1, 32), *block(32, 32)], [*block(32, 64), *block(64, 64)]
    pool = torch_nn.MaxPool2d(2)
    return torch_nn.Sequential(*first, pool, *second, pool, torch_nn.Flatten(), torch_nn.Dropout(0.3), torch_nn.Linear(256, 10))


def by_hand(model: torch_nn.Module, images: Images, kind: Preparation, settings: Settings) -> None:
    """What a practitioner writes: shuffle, normalise, cosine schedule with warm-up, clipping, AdamW at its fastest."""
    how, size = settings.optimisation, settings.learning.batch_size
    steps = math.ceil(len(images.y_B) / size) * EPOCHS
    optimizer = torch.optim.AdamW(model.parameters(), how.learning_rate, weight_decay=how.weight_decay, fused=True)
    criterion = torch_nn.CrossEntropyLoss(label_smoothing=how.label_smoothing)
    mean, std = torch.tensor(kind.mean)[:, None, None], torch.tensor(kind.std)[:, None, None]
    done, total = 0, 0.0
    model.train()
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


def ours(name: str, images: Images, kind: Preparation, settings: Settings, folder: Path) -> None:
    """Our loop with everything on; one picture is the whole validation, for steps are what is measured."""
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


class StepsOnly(Watch):
    """Writes nothing at the end of an epoch."""

    def epoch(self, progress: Progress, row: dict[str, object], better: bool) -> None:
        pass


def work_alone(name: str, images: Images, kind: Preparation, settings: Settings) -> None:
    """The work of the model and nothing else: forward, backward, optimiser, on one batch that is ready."""
    size = settings.learning.batch_size
    steps = math.ceil(len(images.y_B) / size) * EPOCHS
    model = build(name)
    task = Classification(tuple(map(str, range(10))), settings.optimisation.label_smoothing)
    optimizer = build_optimizer(model, settings.optimisation)
    batch = Pictures(kind.normalise(images.x_BCHW[:size]), images.y_B[:size])
    for _ in range(steps):
        loss = task.loss(model, batch, None).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


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
        times = seconds(
            {
                "ours": lambda: ours("vgg-mini", images, kind, settings, Path(place)),
                "torch": lambda: by_hand(plain_net(), images, kind, settings),
            }
        )
        rates = {name: EPOCHS * len(images.y_B) / taken for name, taken in times.items()}
        print(f"digits, vgg-mini, batch 32   ours {rates['ours']:,.0f} pictures/s   torch.nn by hand {rates['torch']:,.0f}", end="   ")
        print(f"ratio {rates['ours'] / rates['torch']:.2f}")

        images, kind = noise(64 * 50)
        settings = Settings.of("noise", model="lenet5", epochs=EPOCHS, batch_size=64)
        times = seconds(
            {
                "loop": lambda: ours("lenet5", images, kind, settings, Path(place)),
                "work": lambda: work_alone("lenet5", images, kind, settings),
            }
        )
        step = {name: 1e3 * taken / (50 * EPOCHS) for name, taken in times.items()}
        print(f"LeNet-5, batch 64   a step of the loop {step['loop']:.3f} ms   the model's own work {step['work']:.3f} ms", end="   ")
        print(f"overhead {100 * (step['loop'] / step['work'] - 1):.1f} %")


if __name__ == "__main__":
    main()
