"""airbench: as an independent expression says it, started from the data, and refused where it cannot be."""

import pytest
import torch
import torch.nn.functional as F

from twofold.data.digits import digits
from twofold.models.airbench import AirbenchConfig, build
from twofold.preparing import begin_weights, prepare
from twofold.train.processes import World
from twofold.train.settings import Settings


def restated(x, state, training):
    """The net in functional torch, from the paper's figure."""
    y = F.gelu(F.conv2d(x, state["whiten.weight"], state["whiten.bias"]))
    for block in range(3):
        for conv, norm in ((0, 2), (4, 5)):
            y = F.conv2d(y, state[f"blocks.{block}.{conv}.weight"], padding=1)
            y = F.max_pool2d(y, 2) if conv == 0 else y
            name = f"blocks.{block}.{norm}"
            mean, var = state[f"{name}.running_mean"].clone(), state[f"{name}.running_var"].clone()
            y = F.gelu(F.batch_norm(y, mean, var, None, state[f"{name}.bias"], training, eps=1e-12))
    return y.amax((2, 3)) @ state["head.weight"].t() / 9


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("config", [AirbenchConfig(), AirbenchConfig("8 12 16", 1, 28, 20, 4)])
def test_it_is_the_net_of_the_paper(config, training):
    torch.manual_seed(0)
    net = build(config).train(training)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    for norm in (module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        torch.nn.init.ones_(norm.weight)
    x = torch.randn(3, config.in_channels, config.height, config.width)
    expected = restated(x, {name: value.clone() for name, value in net.state_dict().items()}, training)
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)


def test_its_weights_are_those_of_the_paper():
    net = build(AirbenchConfig())
    convolutions = 24 * 12 + 24 + 9 * (24 * 64 + 64 * 64 + 64 * 256 + 256 * 256 + 256 * 256 + 256 * 256)
    assert sum(p.numel() for p in net.parameters()) == convolutions + 2 * 2 * (64 + 256 + 256) + 2560
    assert [name for name, p in net.named_parameters() if not p.requires_grad and "whiten" in name] == ["whiten.weight"]
    kernel = net.blocks[1][0].weight
    assert torch.equal(kernel[:64, :, 1, 1], torch.eye(64))
    assert not kernel[:64, :, 0].any()


def test_a_run_begins_with_filters_that_whiten_its_pictures():
    settings = Settings.of("digits", model="airbench")
    torch.manual_seed(0)
    job = prepare(settings, False, source=_larger())
    begin_weights(job, World())
    x = torch.cat([batch.x_BCHW for batch in job.data.training.epoch(0)])
    y = F.conv2d(x, job.model.whiten.weight)[:, :4]
    sizes = y.square().mean((0, 2, 3))
    assert ((sizes > 0.8) & (sizes < 1.01)).all(), sizes


def test_sizes_that_cannot_be_are_refused():
    assert build(AirbenchConfig(height=9, width=9)).eval()(torch.zeros(1, 3, 9, 9)).shape == (1, 10)
    with pytest.raises(ValueError, match="airbench: expected pictures of at least 9x9, got 8x9"):
        AirbenchConfig(height=8, width=9)
    with pytest.raises(ValueError, match="expected widths as three numbers like \"64 256 256\", got '64 256'"):
        AirbenchConfig("64 256")


def _larger():
    """The digits, each pixel twice: 16x16."""
    source = digits()
    parts = {
        name: part._replace(x_BCHW=part.x_BCHW.repeat_interleave(2, 2).repeat_interleave(2, 3))
        for name, part in (("train", source.train), ("validation", source.validation), ("test", source.test))
    }
    return source._replace(**parts, preparation=source.preparation._replace(height=16, width=16))
