"""Our loop against a loop written by hand: the same model, the same data, every feature of ours on but validation.

    LeNet-5, batch 64              asked: at least 0.97 of the steps per second
    ResNet-18 (32x32), batch 32    asked: at least 0.99
    LSTM language model            asked: at least 0.97
    digits, vgg-mini               ours, layers and loop, against torch.nn's layers in a loop by hand: at least 0.95
    LeNet-5, batch 64              what the loop costs beyond forward, backward and optimiser on a batch that is ready

By hand means: an epoch's order drawn, batches gathered and normalised, loss, backward, clipping, fused AdamW, cosine with warm-up, the loss
read at each step. Ours has all of this and judges every number, takes the moment before the step, measures its phases, shows its bar,
writes TensorBoard events and a checkpoint after every epoch.

Step by step in turn: one of ours, one of the other, so that whatever else the machine does meets both alike. Medians over epochs.

    python bench/training_loop.py [WORDS]        only the rows whose name contains the words
"""

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn as torch_nn

from side_by_side import machine
from twofold import nn
from twofold.data.preparation import Preparation
from twofold.data.sources import ImageSource, open_source
from twofold.data.values import Images, Text
from twofold.models.catalogue import build
from twofold.tasks.classify import Classification, Pictures
from twofold.tasks.language import Language
from twofold.tasks.task import Evaluation, Task
from twofold.train.batches import Batches, PictureBatches, TextBatches
from twofold.train.folder import RunFolder
from twofold.train.keeper import Keeper
from twofold.train.learner import Learner, Outcome
from twofold.train.loop import Data, learn
from twofold.train.settings import Settings
from twofold.train.signals import Wish
from twofold.train.trackers import Trackers
from twofold.train.watch import Lines, Watch

CLASSES = tuple(map(str, range(10)))


def plain_net() -> torch_nn.Module:
    """vgg-mini, stated in torch.nn alone."""

    def block(channels: int, filters: int) -> list[torch_nn.Module]:
        return [torch_nn.Conv2d(channels, filters, 3, padding=1, bias=False), torch_nn.BatchNorm2d(filters), torch_nn.ReLU()]

    first, second = [*block(1, 32), *block(32, 32)], [*block(32, 64), *block(64, 64)]
    pool = torch_nn.MaxPool2d(2)
    return torch_nn.Sequential(*first, pool, *second, pool, torch_nn.Flatten(), torch_nn.Dropout(0.3), torch_nn.Linear(256, 10))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: He et al., CVPR 2016, figure 2."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters)
        self.conv2, self.norm2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False), nn.BatchNorm2d(filters)
        same = stride == 1 and channels == filters
        self.short = nn.Identity() if same else nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))) + self.short(x))


def resnet18() -> nn.Module:
    """ResNet-18 for 32x32 pictures: no pooling and no stride before the first stage."""
    blocks = [Block(64 if n == 0 else 64 << (n - 1) // 2, 64 << n // 2, 2 if n in (2, 4, 6) else 1) for n in range(8)]
    first = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def descend(model: torch_nn.Module, settings: Settings, steps: int) -> Callable[[Tensor], None]:
    """What a hand-written step does with a loss."""
    how = settings.optimisation
    optimizer = torch.optim.AdamW(model.parameters(), how.learning_rate, weight_decay=how.weight_decay, fused=True)
    done, total = 0, 0.0

    def step(loss: Tensor) -> None:
        nonlocal done, total
        warm = min(1.0, (done + 1) / (0.05 * steps))
        for group in optimizer.param_groups:
            group["lr"] = how.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (done + 1) / steps)))
        optimizer.zero_grad()
        loss.backward()
        torch_nn.utils.clip_grad_norm_(model.parameters(), how.clip)
        optimizer.step()
        total += loss.item()
        done += 1

    return step


def pictures_by_hand(model: torch_nn.Module, images: Images, kind: Preparation, settings: Settings) -> Iterator[None]:
    """A loop over pictures as one writes it, a step at a time."""
    size, epochs = settings.learning.batch_size, settings.learning.epochs
    step = descend(model, settings, math.ceil(len(images.y_B) / size) * epochs)
    criterion = torch_nn.CrossEntropyLoss(label_smoothing=settings.regularisation.label_smoothing)
    mean, std = torch.tensor(kind.mean)[:, None, None], torch.tensor(kind.std)[:, None, None]
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images.y_B)).split(size):
            x = (images.x_BCHW[chosen].float() / 255 - mean) / std
            step(criterion(model(x), images.y_B[chosen]))
            yield


def text_by_hand(model: torch_nn.Module, text: Text, settings: Settings) -> Iterator[None]:
    """A loop over the windows of a text, its state carried, a step at a time."""
    streams, window, epochs = settings.learning.batch_size, settings.streams.window, settings.learning.epochs
    length = (len(text.codes_T) - 1) // streams
    x = text.codes_T[: length * streams].view(streams, length).t().contiguous().long()
    y = text.codes_T[1 : length * streams + 1].view(streams, length).t().contiguous().long()
    step = descend(model, settings, math.ceil(length / window) * epochs)
    model.train()
    for _ in range(epochs):
        state = None
        for first in range(0, length, window):
            logits, state = model(x[first : first + window], state)
            state = tuple(part.detach() for part in state)
            step(F.cross_entropy(logits.flatten(0, 1), y[first : first + window].flatten()))
            yield


def work_alone(model: torch_nn.Module, images: Images, kind: Preparation, settings: Settings) -> Iterator[None]:
    """The model's own work, a step at a time: forward, backward, optimiser, on one batch that is ready."""
    task = Classification(CLASSES, settings.regularisation.label_smoothing)
    optimizer = torch.optim.AdamW(model.parameters(), settings.optimisation.learning_rate, fused=True)
    size = settings.learning.batch_size
    batch = Pictures(kind.normalise(images.x_BCHW[:size]), images.y_B[:size])
    while True:
        loss = task.loss(model, batch, None).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield


class NoValidation:
    """The task without its validation, which is no part of what is compared."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def evaluate(self, model: torch_nn.Module, batches: Any) -> Any:
        """No scores."""
        return Evaluation({"loss": 0.0, "accuracy": 0.0, "bits_per_character": 0.0, "unknown": 0.0}, {})


class InTurn(Watch):
    """Everything that a run writes and shows at a step; then a step of the other, and the durations of both."""

    other: Iterator[None]

    def against(self, other: Iterator[None]) -> None:
        self.other = other
        self.epochs: list[tuple[float, float]] = []
        self.sums, self.last = [0.0, 0.0], 0.0

    def step(self, learner: Learner, outcome: Outcome) -> None:
        super().step(learner, outcome)
        ours = time.perf_counter() - self.last
        began = time.perf_counter()
        if next(self.other, "ended") == "ended":
            return
        theirs = time.perf_counter() - began
        if learner.progress.step > 1:  # the first step of an epoch has the end of the one before in it
            self.sums[0] += ours
            self.sums[1] += theirs
        self.last = time.perf_counter()
        learner.clock.start()

    def epoch(self, learner: Learner, row: dict[str, Any], better: bool) -> None:
        super().epoch(learner, row, better)
        count = learner.steps - 1
        self.epochs.append((self.sums[0] / count, self.sums[1] / count))
        self.sums = [0.0, 0.0]


def compare(model: torch_nn.Module, task: Task, batches: Batches, settings: Settings, other: Iterator[None]) -> tuple[float, float]:
    """Milliseconds of a step, ours with everything on and the other."""
    judged: Any = NoValidation(task)
    with tempfile.TemporaryDirectory() as place:
        folder, lines = RunFolder(Path(place)), Lines(quiet=True)
        learner = Learner(model, judged, settings, batches.steps(), tell=lines.say)
        trackers = Trackers(settings.watching, lines.say)
        keeper = Keeper(folder, settings.keeping, {}, lines.say, {"trackers": trackers})
        trackers.begin(folder.path, settings.model_dump(mode="json"), model)
        watch = InTurn(learner, keeper, trackers, Wish(), lines)
        watch.against(other)
        with watch.watching():
            learn(learner, Data(batches, list), watch)
        keeper.wait()
        trackers.end(None)
    ours, theirs = (1e3 * statistics.median(column) for column in zip(*watch.epochs[1:], strict=True))
    return ours, theirs


def noise(count: int, channels: int, side: int) -> tuple[Images, Preparation]:
    """Random pictures: the cost of a step does not depend on what they show."""
    x = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8)
    return Images(x, torch.arange(count) % 10, ("",) * count), Preparation.of(x)


def pictures(name: str, make: Callable[[], torch_nn.Module], size: int, batches: int, epochs: int, channels: int, side: int) -> None:
    """A row: the model in our loop and in one by hand."""
    images, kind = noise(size * batches, channels, side)
    settings = Settings.of("noise", model="own", epochs=epochs, batch_size=size)
    other = pictures_by_hand(make(), images, kind, settings)
    ours, theirs = compare(make(), Classification(CLASSES, 0.1), PictureBatches(images, kind, size, 0), settings, other)
    print(f"{name:<34} ours {ours:8.2f} ms a step   by hand {theirs:8.2f}   ratio of steps per second {theirs / ours:.3f}")


def language() -> None:
    """A row: the LSTM language model in our loop and in one by hand."""
    text = Text(torch.randint(0, 65, (32 * 64 * 30 + 1,), dtype=torch.int32), 32 * 64 * 30 + 1, ())
    settings = Settings.of("noise", model="own", epochs=8, batch_size=32, window=64)

    def make() -> torch_nn.Module:
        return build("char-lstm", vocabulary=65, units=256, embedding=128)

    ours, theirs = compare(make(), Language(), TextBatches(text, 32, 64), settings, text_by_hand(make(), text, settings))
    print(f"{'LSTM language model, 32 x 64':<34} ours {ours:8.2f} ms a step   by hand {theirs:8.2f}", end="   ")
    print(f"ratio of steps per second {theirs / ours:.3f}")


def digits() -> None:
    """A row: ours, layers and loop, against torch.nn's layers by hand."""
    source = open_source("digits")
    assert isinstance(source, ImageSource) and isinstance(source.train, Images)
    settings = Settings.of("digits", model="vgg-mini", epochs=40)
    batches = PictureBatches(source.train, source.preparation, 32, 0)
    other = pictures_by_hand(plain_net(), source.train, source.preparation, settings)
    ours, theirs = compare(build("vgg-mini"), Classification(CLASSES, 0.1), batches, settings, other)
    print(f"{'digits, vgg-mini, batch 32':<34} ours {ours:8.2f} ms a step   torch.nn {theirs:8.2f}", end="   ")
    print(f"ratio of steps per second {theirs / ours:.3f}")


def overhead() -> None:
    """A row: what the loop costs beyond the model's own work."""
    images, kind = noise(64 * 50, 1, 28)
    settings = Settings.of("noise", model="lenet5", epochs=30, batch_size=64)
    other = work_alone(build("lenet5"), images, kind, settings)
    ours, theirs = compare(build("lenet5"), Classification(CLASSES, 0.1), PictureBatches(images, kind, 64, 0), settings, other)
    print(f"{'LeNet-5, batch 64, bare':<34} ours {ours:8.2f} ms a step   the model's own work {theirs:8.2f}", end="   ")
    print(f"overhead {100 * (ours / theirs - 1):.1f} %")


ROWS: dict[str, Callable[[], None]] = {
    "LeNet-5": lambda: pictures("LeNet-5, batch 64", lambda: build("lenet5"), 64, 50, 30, 1, 28),
    "ResNet-18": lambda: pictures("ResNet-18 32x32, batch 32", resnet18, 32, 6, 5, 3, 32),
    "language": language,
    "digits": digits,
    "bare": overhead,
}


def main() -> None:
    print(machine())
    for name, row in ROWS.items():
        if not sys.argv[1:] or sys.argv[1] in name:
            row()


if __name__ == "__main__":
    main()
