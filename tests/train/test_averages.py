"""The running average: its law by hand and by torch's AveragedModel, what is averaged, and weights that come back bit for bit."""

import io
import re

import pytest
import torch

from twofold import nn
from twofold.train.averages import Average


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(2, 3), nn.BatchNorm1d(3)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def forward(self, x):
        return self.norm(self.linear(x))


def change(model, seed):
    """Other weights and statistics, as a step leaves them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for w in model.parameters():
            w.copy_(torch.randn(w.shape, generator=generator))
    model.train()(torch.randn(8, 2, generator=generator).to(model.linear.weight.dtype))


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_average_is_the_weighted_sum_of_its_law():
    model = Net()
    average, seen = Average(model, 0.5), [bits(model)]
    for step in range(12):
        change(model, step)
        average.update()
        seen.append(bits(model))
    decays = [min(0.5, (1 + t) / (10 + t)) for t in range(12)]
    assert decays[0] == 0.1 and decays[-1] == 0.5
    with average.applied():
        for name, value in model.state_dict().items():
            if name in ("mask", "norm.num_batches_tracked"):  # these stay the model's own
                assert torch.equal(value, seen[-1][name])
                continue
            expected = seen[0][name].double()
            for decay, w in zip(decays, seen[1:], strict=True):
                expected = decay * expected + (1 - decay) * w[name].double()
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
            assert not torch.equal(value, seen[-1][name])


def test_the_average_is_torchs():
    model = Net()
    average = Average(model, 0.7)
    theirs = torch.optim.swa_utils.AveragedModel(model.linear, avg_fn=lambda a, w, n: torch.lerp(a, w, 1 - min(0.7, n / (9 + n))))
    theirs.update_parameters(model.linear)  # the first call copies
    for step in range(30):
        change(model, step)
        average.update()
        theirs.update_parameters(model.linear)
    with average.applied():
        torch.testing.assert_close(model.linear.weight, theirs.module.weight)


def test_the_weights_come_back_bit_for_bit_whatever_happens():
    model = Net()
    average = Average(model, 0.9)
    change(model, 1)
    average.update()
    change(model, 2)
    with torch.no_grad():
        model.linear.bias[0] = -0.0
    before, places = bits(model), [w.data_ptr() for w in model.parameters()]
    with pytest.raises(RuntimeError, match="evaluation failed"), average.applied():
        assert not same(bits(model), before)
        raise RuntimeError("evaluation failed")
    assert same(bits(model), before) and torch.signbit(model.linear.bias[0])
    assert [w.data_ptr() for w in model.parameters()] == places


def test_the_state_goes_on_as_if_never_stopped():
    model, other = Net(), Net()
    average = Average(model, 0.99)
    for step in range(5):
        change(model, step)
        average.update()
    buffer = io.BytesIO()
    torch.save(average.state_dict(), buffer)
    buffer.seek(0)
    resumed = Average(other, 0.99)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    for net, each in ((model, average), (other, resumed)):
        for step in range(5, 9):
            change(net, step)
            each.update()
    one, two = average.state_dict(), resumed.state_dict()
    assert one["updates"] == two["updates"] == 9
    assert same(
        {k: v for k, v in one["average"].items() if "running" not in k}, {k: v for k, v in two["average"].items() if "running" not in k}
    )


def test_halves_are_averaged_in_float32():
    model = Net().to(torch.bfloat16)
    average = Average(model, 0.9999)
    average.updates = 10**6
    with torch.no_grad():
        model.linear.weight.fill_(1.0)
    average.load_state_dict({"updates": 10**6, "average": {k: torch.zeros_like(v) for k, v in average.state_dict()["average"].items()}})
    for _ in range(100):
        average.update()
    with average.applied():
        torch.testing.assert_close(model.linear.weight.float(), torch.full((3, 2), 1 - 0.9999**100), rtol=0.01, atol=0)
    assert model.linear.weight.unique().tolist() == [1.0]


@pytest.mark.parametrize("decay", [0, 1, -0.5, float("nan")])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(ValueError, match=re.escape(f"ema: expected a decay between 0 and 1, got {decay}. Usual: 0.999")):
        Average(nn.Linear(1, 1), decay)


@pytest.mark.parametrize(("other", "which"), [(nn.Linear(2, 2), "weight, bias differ"), (nn.Linear(2, 1, bias=False), "bias differ")])
def test_averages_of_another_model_are_refused(other, which):
    average = Average(nn.Linear(2, 1), 0.9)
    before = average.state_dict()["average"]["weight"].clone()
    with pytest.raises(ValueError, match=f"ema: expected averages of this model's 2 tensors, got .*{which}"):
        average.load_state_dict(Average(other, 0.5).state_dict())
    assert torch.equal(average.state_dict()["average"]["weight"], before)
