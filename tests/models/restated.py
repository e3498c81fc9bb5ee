"""What the tests of the architectures share: layers as functions of a state dict, and the questions that every net answers.

A net is written down a second time in these functions, from its paper. Each call names the weights it takes and states their shapes; at the
end none may be left over. So one restatement fixes the names, the shapes and the arithmetic. It computes in float64.
"""

import torch
import torch.nn.functional as F

CONV = {1: F.conv1d, 2: F.conv2d}


class State:
    """The weights of a net, each of which somebody must ask for."""

    def __init__(self, state, training):
        self.state = {name: value.double() if value.is_floating_point() else value for name, value in state.items()}
        self.training, self.left = training, set(state)

    def take(self, name, *shape):
        value = self.state[name]
        assert tuple(value.shape) == shape, f"{name}: {tuple(value.shape)}, not {shape}"
        self.left.discard(name)
        return value

    def conv(self, x, name, filters, size, stride=1, padding=0, groups=1, bias=False):
        axes = x.dim() - 2
        weight = self.take(f"{name}.weight", filters, x.shape[1] // groups, *(size,) * axes)
        shift = self.take(f"{name}.bias", filters) if bias else None
        return CONV[axes](x, weight, shift, stride, padding, groups=groups)

    def norm(self, x, name, eps=1e-5):
        scale, shift, mean, variance = (
            self.take(f"{name}.{what}", x.shape[1]) for what in ("weight", "bias", "running_mean", "running_var")
        )
        self.take(f"{name}.num_batches_tracked")
        return F.batch_norm(x, *(None, None) if self.training else (mean, variance), scale, shift, self.training, 0.0, eps)

    def linear(self, x, name, outputs):
        return F.linear(x, self.take(f"{name}.weight", outputs, x.shape[1]), self.take(f"{name}.bias", outputs))


def stir(model):
    """Numbers in norms and biases that hide nothing: fresh ones are 0 and 1."""
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0  # so that training, too, is a function
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            for value, low, high in (
                (part.weight, 0.5, 1.5),
                (part.bias, -0.3, 0.3),
                (part.running_mean, -0.3, 0.3),
                (part.running_var, 0.5, 1.5),
            ):
                torch.nn.init.uniform_(value, low, high)
        elif getattr(part, "bias", None) is not None:
            torch.nn.init.uniform_(part.bias, -0.1, 0.1)
    return model


def agree(model, restatement, x, tolerance=1e-5):
    """Whether model and restatement(state, x) are equal to `tolerance` of the largest number, in use and in training.

    In training the model computes in float64, too: batch norm over the few pixels of a deep map makes much of what float32 rounds off. How
    close it comes in float32 is asked nevertheless, as what it then calls are other, compiled forms.
    """
    stir(model)
    for training, dtype, within in ((False, torch.float32, tolerance), (True, torch.float64, tolerance), (True, torch.float32, 1e-2)):
        state = State(model.float().state_dict(), training)
        with torch.no_grad():
            expected = restatement(state, x.double())
            got = model.to(dtype).train(training)(x.to(dtype))
        assert state.left == set(), "weights that the restatement does not know"
        for ours, theirs in zip(flat(got), flat(expected), strict=True):
            assert ours.shape == theirs.shape
            error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
            assert error < within, f"training={training}, {dtype}: {error:.2e}"


def flat(output):
    return [tensor for part in output for tensor in flat(part)] if isinstance(output, tuple) else [output]


def learns(model, loss, rate):
    """Whether in training every weight gets a gradient, and a small step against it lowers the loss."""
    model.train()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    before = loss()
    before.backward()
    still = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0]
    assert still == [], f"no gradient: {still}"
    norm = torch.stack([weight.grad.norm() for weight in model.parameters()]).norm()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= rate * weight.grad / norm
    after = loss()
    assert after < before, (after.item(), before.item())
