"""Every preset of a picture classifier learns: a gradient for every weight, a step that lowers the loss, sixteen pictures learnt by heart.

On small pictures and for few classes, so that the largest can be tried, too; what takes long is marked slow.
"""

import inspect

import pytest
import torch

from twofold.models.catalogue import MODELS, build, configure
from twofold.tasks.classify import Classification, Pictures

CLASSES, PICTURES = 8, 16
SIDES = (8, 16, 28, 32, 48, 64, 96, 128)
QUICK = ("lenet5", "vgg-mini", "cifar-resnet20", "airbench")
LARGE = 12_000_000  # weights: above it, learning by heart takes long
NAMES = [name for name, entry in MODELS.items() if entry.task == "classify"]
FIRST = {MODELS[name].build: name for name in reversed(NAMES)}.values()  # of each file: tried every day, the others by `make test-all`
PRESETS = [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
SLOW = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


def small(name):
    """The changes that make the preset as small as it can be: for few classes, and the least of some usual sides from 16 on, if any."""
    preset = MODELS[name].preset
    least = min(16, preset.height)
    for side in SIDES:
        if side < least:
            continue
        try:
            return configure(name, classes=CLASSES, height=side, width=side).as_dict()
        except ValueError:
            continue
    return configure(name, classes=CLASSES).as_dict()


def drawn(values, count=PICTURES):
    generator = torch.Generator().manual_seed(1)
    x_BCHW = torch.randn(count, values["in_channels"], values["height"], values["width"], generator=generator)
    return Pictures(x_BCHW, torch.arange(count) % CLASSES)


@pytest.fixture
def task():
    return Classification(tuple("abcdefgh"))


def made(name):
    torch.manual_seed(0)
    values = small(name)
    return build(name, **values), drawn(values)


def without_dropout(net):
    for layer in net.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    return net.train()


@pytest.mark.parametrize("name", PRESETS)
def test_the_gradient_reaches_every_weight_and_a_step_lowers_the_loss(name, task):
    net, batch = made(name)
    without_dropout(net)
    loss = task.loss(net, batch).loss
    loss.backward()
    trained = {each: weight for each, weight in net.named_parameters() if weight.requires_grad}
    idle = [each for each, weight in trained.items() if weight.grad is None or not weight.grad.any()]
    assert not idle, f"{name}: no gradient for {idle}"
    before = loss.item()
    square = sum(float(weight.grad.square().sum()) for weight in trained.values())
    kept = {each: weight.detach().clone() for each, weight in trained.items()}
    for rate in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7):  # along the gradient, the length of the step halved until it is small enough
        with torch.no_grad():
            for each, weight in trained.items():
                weight.copy_(kept[each] - rate / max(square, 1e-30) * weight.grad)
            after = task.loss(net, batch).loss.item()
        if after < before:
            break
    assert after < before, f"{name}: {before} became {after}"


@pytest.mark.parametrize("name", SLOW)
def test_sixteen_pictures_are_learnt_by_heart(name, task):
    net, batch = made(name)
    without_dropout(net)
    gentle = sum(weight.numel() for weight in net.parameters()) > LARGE or name.startswith(("squeezenet", "googlenet"))
    rate = 2e-4 if gentle else 1e-3
    optimizer = torch.optim.AdamW([weight for weight in net.parameters() if weight.requires_grad], rate, weight_decay=0.0)
    for step in range(300):
        optimizer.zero_grad()
        task.loss(net, batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 9 and right(net, batch) == PICTURES:
            return
    pytest.fail(f"{name}: {right(net, batch)} of {PICTURES} after 300 steps")


def right(net, batch):
    """How many pictures the net names rightly, in the mode it is trained in: its running statistics have seen few batches."""
    with torch.no_grad():
        logits_BN = net(batch.x_BCHW)
    logits_BN = logits_BN if isinstance(logits_BN, torch.Tensor) else logits_BN[0]
    return int((logits_BN.argmax(1) == batch.y_B).sum())


@pytest.mark.parametrize("name", PRESETS)
def test_in_evaluation_a_picture_is_judged_by_itself(name):
    net, batch = made(name)
    net.eval()
    with torch.no_grad():
        whole_BN = net(batch.x_BCHW[:3])
        alone_BN = torch.cat([net(x_CHW[None]) for x_CHW in batch.x_BCHW[:3]])
    assert whole_BN.shape == (3, CLASSES)
    torch.testing.assert_close(whole_BN, alone_BN, rtol=1e-4, atol=1e-4 * float(whole_BN.abs().max()))


@pytest.mark.parametrize("name", PRESETS)
def test_every_file_says_where_its_architecture_is_from(name):
    told = inspect.getmodule(MODELS[name].build).__doc__
    assert any(f"{year}" in told for year in range(1986, 2027)), f"{name}: no source with its year"
