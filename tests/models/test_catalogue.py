"""The catalogue: every preset by name, exact weight counts, configurations, and what is refused."""

import pytest
import torch

from twofold.models.catalogue import MODELS, build, configure, find

# Of the nets without a test file of their own for it, counted by hand from the layers' sizes: sum of (inputs x outputs + biases).
WEIGHTS = {
    "lenet5": (25 + 1) * 6 + (150 + 1) * 16 + (400 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10,
    "vgg-mini": 9 * (32 + 32 * 32 + 32 * 64 + 64 * 64) + 2 * (32 + 32 + 64 + 64) + (64 * 4 + 1) * 10,
    "vgg-small": 9 * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128 * 2)
    + 2 * (32 + 32 + 64 + 64 + 128 * 3)
    + (128 * 4 + 1) * 10,
    "char-lstm": 128 * 96 + 4 * 192 * (96 + 192 + 2) + 192 * 96 + 128,
    "word-lstm": 10_000 * 200 + 2 * 4 * 200 * (200 + 200 + 2) + 10_000,
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_exactly_those_of_the_layers(name):
    assert sum(p.numel() for p in build(name).parameters()) == WEIGHTS[name]


def input_of(name):
    config = configure(name)
    if find(name).task == "language":
        return torch.randint(1, 20, (5, 3))
    return torch.randn(3, config.in_channels, config.height, config.width)


@pytest.mark.parametrize("name", WEIGHTS)  # of the others: test_every_preset.py
def test_every_weight_gets_a_gradient_and_one_step_lowers_the_loss(name):
    torch.manual_seed(0)
    model, x = build(name), input_of(name)
    shape = (5, 3) if find(name).task == "language" else (3,)
    target = torch.randint(0, 10, shape)

    def loss():
        logits = model(x)
        logits = logits[0].flatten(0, 1) if isinstance(logits, tuple) else logits
        return torch.nn.functional.cross_entropy(logits, target.flatten())

    model.eval()  # no dropout: the same function before and after
    before = loss()
    before.backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []
    with torch.no_grad():
        for p in model.parameters():
            p -= 1e-3 * p.grad / p.grad.norm()
    assert loss() < before


BAD = {"classes": (1, "a"), "in_channels": (0,), "vocabulary": (1,), "height": (0, -1), "dropout": (1.0,), "stages": ("?", "7")}
BAD |= {"depth": (7,), "shortcut": ("Q",), "stem": ("?",), "version": ("?",), "columns": (3,), "window": (4,), "widths": ("?",)}
BAD |= {"layers": (1001,), "units": (0,)}


@pytest.mark.parametrize("name", MODELS)
def test_mistakes_name_the_preset_and_not_its_file(name):
    preset = find(name).preset
    tried = [(option, value) for option, values in BAD.items() if option in preset.as_dict() for value in values]
    for option, value in [*tried, ("clases", 3)]:
        with pytest.raises(ValueError, match=rf"^{name}: (?!{name.partition('-')[0]}).*(expected|no option)"):
            configure(name, **{option: value})


def test_mistakes_in_the_options_of_a_scheme_name_a_scheme():
    for option, value in (("classes", 1), ("in_channels", 0), ("height", "a"), ("clases", 3)):
        with pytest.raises(ValueError, match="^scheme: (expected|no option)"):
            configure("[conv8 relu pool]*2 fc", **{option: value})


def test_changes_reach_the_model():
    model = build("char-lstm", vocabulary=30, units=16, embedding=8, layers=2, tied=False)
    logits, (h, _) = model(torch.zeros(4, 2, dtype=torch.long))
    assert (logits.shape, h.shape) == ((4, 2, 30), (2, 2, 16))


BAD = {
    "name": (lambda: build("lenet"), "no model 'lenet': did you mean \"lenet5\"?"),
    "option": (lambda: build("lenet5", clases=3), "lenet5: no option 'clases'; it has in_channels, height, width, classes. Did you mean"),
    "kind": (lambda: build("lenet5", classes="ten"), "lenet5: expected classes to be a whole number, got 'ten'."),
    "truth": (lambda: build("char-lstm", tied=3), "expected tied to be true or false, got 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
