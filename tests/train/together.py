"""What the tests start in several processes: `python together.py SCENARIO FOLDER`. A process writes what it finds to the folder."""

import os
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path

import torch

from twofold import nn
from twofold.data.preparation import Preparation
from twofold.data.values import Images, Text
from twofold.models.catalogue import build
from twofold.tasks.classify import Classification, assess, predict
from twofold.tasks.language import Language
from twofold.train.batches import PictureBatches, TextBatches, pictures_in_order, text_in_order
from twofold.train.joining import join
from twofold.train.replicas import align, averaging, copy_to_all
from twofold.train.synchronised import synchronise

STEPS = 50
KIND = Preparation("L", 8, 8, (0.5,), (0.25,))


def pictures(count, seed=0):
    chance = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (count, 1, 8, 8), generator=chance, dtype=torch.uint8)
    return Images(x, torch.randint(0, 5, (count,), generator=chance), ("",) * count)


def text(count=1000):
    codes = torch.randint(0, 11, (count,), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    return Text(codes, count, ("a",))


def cnn(norm):
    torch.manual_seed(0)
    between = [nn.BatchNorm2d(6)] if norm else []
    return nn.Sequential(nn.Conv2d(1, 6, 3, bias=not norm), *between, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 5))


def learn(world, model, task, batches, parts=1, adam=False):
    """A training of 50 steps with the parts under test, as the loop puts them together; the mean loss of each step."""
    replica = copy_to_all(model, world)
    weights = model.parameters()
    optimizer = torch.optim.AdamW(weights, 3e-3, fused=True) if adam else torch.optim.SGD(weights, 0.05, 0.9, nesterov=True)
    losses, epoch, carried = [], 0, None
    while len(losses) < STEPS:
        for step, batch in enumerate(batches.epoch(epoch)):
            optimizer.zero_grad()
            sums = {"loss": 0.0, "items": 0.0}
            pieces = (
                [batch]
                if parts == 1
                else [type(batch)(*piece) for piece in zip(*(side.tensor_split(parts) for side in batch[:2]), strict=True)]
            )
            for number, piece in enumerate(pieces, 1):
                with averaging(replica, last=number == len(pieces)):
                    loss, items, carried = task.loss(replica, piece, carried)
                    (loss * batches.share(step) * len(piece[1]) / len(batch[1])).backward()
                sums = {"loss": sums["loss"] + loss.item() * items, "items": sums["items"] + items}
            optimizer.step()
            whole = world.add(sums)
            losses.append(whole["loss"] / whole["items"])
        epoch += 1
    return {"weights": model.state_dict(), "losses": losses[:STEPS]}


def scenario_learn(world):
    images, codes, found = pictures(203), text(), {}
    classify, language = Classification(tuple("abcde"), 0.1), Language()
    for name, norm, parts in (("cnn", False, 1), ("cnn in parts", False, 3), ("cnn normalised", True, 1)):
        model = cnn(norm)
        if norm and world.processes > 1:
            assert synchronise(model) == ["1"]
        found[name] = learn(world, model, classify, PictureBatches(images, KIND, 25, 0, world.shard), parts, adam=norm)
    model = cnn(True)
    found["cnn apart"] = learn(world, model, classify, PictureBatches(images, KIND, 25, 0, world.shard))
    found["cnn apart"]["alone"] = {name: value.clone() for name, value in model.named_buffers()}
    align(model, world)
    torch.manual_seed(0)
    model = build("char-lstm", vocabulary=11, units=8, embedding=6)
    found["language"] = learn(world, model, language, TextBatches(codes, 6, 13, shard=world.shard))
    found["judged"] = judge(world, cnn(True), model)
    return found


def judge(world, classifier, writer):
    """Scores of both tasks over all processes, as of one."""
    found, images = {}, pictures(1030, seed=2)
    for count in (1030, 3):  # with 4 processes one of them has no picture
        part = Images(images.x_BCHW[:count], images.y_B[:count], images.names[:count])
        own = list(pictures_in_order(part, KIND, world.shard))
        logits, truth = predict(classifier, own) if own else (None, None)
        found[count] = assess(world.gather(logits), world.gather(truth), tuple("abcde")).scores
    for count in (9000, 3000, 100):  # 8, 2 and 1 streams
        sums = {"nats": 0.0, "tokens": 0.0}
        own = list(text_in_order(text(count), world.shard))
        if own:
            judged = Language().evaluate(writer, own)
            sums = {"nats": judged.scores["loss"] * judged.details["tokens"], "tokens": float(judged.details["tokens"])}
        found[f"text {count}"] = world.add(sums)
    return found


def scenario_normalise(world):
    """Output, gradients and running values of synchronised layers, in float64: of all rows in a process that is alone, else of its own."""
    found = {}
    for kind, shape in (
        (nn.BatchNorm1d, (7, 3)),
        (nn.BatchNorm1d, (7, 3, 4)),
        (nn.BatchNorm2d, (7, 3, 2, 5)),
        (nn.BatchNorm3d, (7, 3, 2, 2, 3)),
    ):
        for affine, momentum in ((True, 0.1), (False, None)):
            chance = torch.Generator().manual_seed(5)
            x, dy = (100 + torch.randn(shape, generator=chance, dtype=torch.float64) for _ in range(2))
            model = nn.Sequential(kind(3, affine=affine, momentum=momentum).double())
            if affine:
                model[0].weight.data = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
            if world.processes > 1:
                synchronise(model)
            own = world.shard.part(7)
            x = x[own].requires_grad_()
            y = model(x)
            y.backward(dy[own])
            sums = [torch.stack(world.collect(p.grad)).sum(0) for p in model.parameters()]
            found[f"{kind.__name__} {shape} {affine}"] = [
                world.gather(y.detach()),
                world.gather(x.grad),
                *sums,
                *model.state_dict().values(),
            ]
    return found


def scenario_meet(world):
    mine = {"rows": torch.full((world.process, 2), world.process), "name": f"process {world.process}", "empty": None}
    torch.manual_seed(3)
    world.reseed(3)
    return {
        "add": world.add({"a": 0.1, "b": float(world.process)}),
        "any": [world.any_of(world.process == 1), world.any_of(False)],
        "agree": world.agree((world.process, "of the first", torch.tensor([world.process]))),
        "collect": world.collect(mine),
        "gather": world.gather(mine["rows"] if world.process else None),
        "random": world.collect(torch.rand(3)),
        "world": (world.process, world.processes, world.local, world.first, torch.get_num_threads()),
    }


def scenario_mistake(world):
    if world.process == 1:
        raise ValueError("the picture 'cat.png' is cut short.")
    world.any_of(False)


def scenario_bug(world):
    if world.process == 1:
        raise KeyError("layer")
    torch.ones(3, requires_grad=True).sum().backward()
    world.collect("what is never answered")


def scenario_both(world):
    raise ValueError("no source 'digitz'.")


def scenario_differ(world):
    world.expect_same("settings", {"seed": 0, "learning_rate": 0.1 * (1 + world.process), "epochs": 3})


def scenario_idle(world):
    model = torch.nn.ModuleDict({"used": torch.nn.Linear(2, 2), "idle": torch.nn.Linear(2, 2)})
    model.forward = lambda x: model["used"](x)
    replica = copy_to_all(model, world)
    with averaging(replica):
        replica(torch.ones(1, 2)).sum().backward()


def scenario_killed(world):
    if world.process == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    world.any_of(False)


def scenario_stopped(world):
    """Works until it is asked to stop; all stop after the same step, and only the first tells it."""
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    steps = 0
    os.write(1, b"ready\n")  # in one piece
    while not world.any_of(asked.is_set()):
        steps += 1
    if len({*world.collect(steps)}) > 1:
        raise AssertionError("they stopped at different steps")
    if world.first:
        threading.Event().wait(0.5)  # it still writes when the others are ready
        Path(sys.argv[2], "stopped").write_text(str(steps))
    raise KeyboardInterrupt(f"stopped by process {world.process}")


def scenario_machines(world):
    language = TextBatches(text(), 6, 13, shard=world.shard)
    torch.manual_seed(0)
    return learn(world, build("char-lstm", vocabulary=11, units=8, embedding=6), Language(), language) | {"machine": world.machine}


def scenario_start(world):
    return world.add({"one": 1.0})["one"]


def main():
    scenario, folder = sys.argv[1:3]
    try:
        with join(joining=timedelta(seconds=60), meeting=timedelta(seconds=60)) as world:
            found = globals()[f"scenario_{scenario}"](world)
            torch.save(found, Path(folder, f"{scenario}-{world.process}.pt"))
    except ValueError as error:
        print(f"twofold: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"twofold: {error}", file=sys.stderr)
        return 130
    except Exception as error:
        print(f"twofold: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
