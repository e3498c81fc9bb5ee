"""Weights by other people's names fill a model whole, or leave it as it was and say what does not fit, and whose they are."""

import re

import pytest
import torch

from twofold.models import adopt
from twofold.models.adopt import classes_of, load_weights, nearest, to_torchvision
from twofold.models.catalogue import build
from twofold.models.dialects import fit

SMALL = {"height": 64, "width": 64, "classes": 7}


def drawn(state, seed=1):
    """Other numbers under the same names."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=draw) if value.is_floating_point() else torch.full_like(value, 5)
        for name, value in state.items()
    }


def timm_vgg(state):
    """timm's vgg: features alike; the three linear layers as convolutions over 7x7, 1x1, and a linear head."""
    renamed = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        new = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}.get(layer, layer)
        shaped = {"classifier.0": (4096, -1, 7, 7), "classifier.3": (4096, 4096, 1, 1)}.get(layer) if kind == "weight" else None
        renamed[f"{new}.{kind}"] = value if shaped is None else value.view(shaped)
    return renamed


def timm_mobilenet(state):
    """timm's mobilenetv2_100: seven stages of 1, 2, 3, 4, 3, 3, 1 blocks between conv_stem and conv_head."""
    names = {"features.0.0": "conv_stem", "features.0.1": "bn1", "features.18.0": "conv_head", "features.18.1": "bn2"}
    names |= {"classifier.1": "classifier", "features.1.conv.0.0": "blocks.0.0.conv_dw", "features.1.conv.0.1": "blocks.0.0.bn1"}
    names |= {"features.1.conv.1": "blocks.0.0.conv_pw", "features.1.conv.2": "blocks.0.0.bn2"}
    blocks = [(stage, block) for stage, count in enumerate((1, 2, 3, 4, 3, 3, 1)) for block in range(count)]
    for number, (stage, block) in list(enumerate(blocks, 1))[1:]:
        for ours, theirs in (("0.0", "conv_pw"), ("0.1", "bn1"), ("1.0", "conv_dw"), ("1.1", "bn2"), ("2", "conv_pwl"), ("3", "bn3")):
            names[f"features.{number}.conv.{ours}"] = f"blocks.{stage}.{block}.{theirs}"
    return {f"{names[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value for name, value in state.items()}


def replaced(*rules):
    def rename(state):
        for pattern, new in rules:
            state = {re.sub(pattern, new, name): value for name, value in state.items()}
        return state

    return rename


def without_counts(state):
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


DIALECTS = {
    "torchvision's resnet18": ("resnet18", {}, dict, "the model's own"),
    "of before 2018, without counts": ("resnet18", {}, without_counts, "the model's own"),
    "torchvision's old densenet121": (
        "densenet121",
        {},
        lambda state: without_counts(replaced((r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2"))(state)),
        "torchvision's of before 2019",
    ),
    "timm's vgg11": ("vgg11", {}, timm_vgg, "timm's"),
    "timm's mobilenetv2": ("mobilenet-v2", {}, timm_mobilenet, "timm's"),
    "kuangliu's resnet18": (
        "resnet18-cifar",
        {},
        replaced((r"^fc\.", "linear."), (r"\.downsample\.", ".shortcut.")),
        "shortcut and linear",
    ),
    "option B, its author's": ("cifar-resnet20", {"shortcut": "B"}, dict, "the model's own"),
    "option B, torchvision's form": (
        "cifar-resnet32",
        {"shortcut": "B"},
        replaced((r"^linear\.", "fc."), (r"\.shortcut\.", ".downsample.")),
        "downsample and fc",
    ),
    "squeezenet's": ("squeezenet1-1", {}, dict, "the model's own"),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_fills_the_model(name):
    architecture, config, translated, dialect = DIALECTS[name]
    model = build(architecture, **SMALL, **config)
    wanted = drawn(model.state_dict())
    given = translated(wanted)
    assert dialect == "the model's own" or given.keys() != wanted.keys()
    loaded = load_weights(model, given, architecture)
    assert (loaded.dialect, loaded.new, loaded.unused) == (dialect, (), ()) and loaded.taken == len(given)
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in without_counts(wanted).items())
    assert to_torchvision(model).keys() == wanted.keys() and classes_of(model, given) == 7


@pytest.mark.parametrize(("architecture", "head"), [("resnet18", "fc"), ("squeezenet1-1", "classifier.1"), ("densenet121", "classifier")])
def test_a_head_for_other_classes_stays_as_it_is(architecture, head):
    model, other = build(architecture, **SMALL), build(architecture, **{**SMALL, "classes": 5})
    given, before = drawn(other.state_dict()), {name: value.clone() for name, value in model.state_dict().items()}
    loaded = load_weights(model, given, architecture, heads="fitting")
    assert loaded.new == (f"{head}.weight", f"{head}.bias")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name.startswith(f"{head}.") else given[name])
    with pytest.raises(ValueError, match=f"Of another shape: {head}.weight .*They tell 5 classes apart, and here are 7"):
        load_weights(build(architecture, **SMALL), given, architecture)


def test_a_head_that_fits_can_stay_as_it_is_too():
    model = build("googlenet", **SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = drawn(model.state_dict())
    loaded = load_weights(model, given, "googlenet", heads="new")
    assert set(loaded.new) == {f"{head}.{kind}" for head in ("fc", "aux1.fc2", "aux2.fc2") for kind in ("weight", "bias")}
    assert all(torch.equal(value, (before if name in loaded.new else given)[name]) for name, value in model.state_dict().items())


def test_a_head_that_shares_its_weights_is_not_new_alone():
    model = build("char-lstm", vocabulary=9, units=4, embedding=4)
    said = refusal(model, drawn(model.state_dict()), "char-lstm", heads="new")
    assert said == "new_head: head.weight is embedding.weight, which is taken: a head cannot be new alone. Leave new_head out."


def test_the_auxiliary_heads_of_googlenet_belong_to_the_head():
    model, full = build("googlenet", **SMALL), build("googlenet", **{**SMALL, "classes": 1000})
    loaded = load_weights(model, drawn(full.state_dict()), "googlenet", heads="fitting")
    assert set(loaded.new) == {f"{head}.{kind}" for head in ("fc", "aux1.fc2", "aux2.fc2") for kind in ("weight", "bias")}
    without = build("googlenet", **SMALL, heads=False)
    given = drawn(model.state_dict())
    assert all(name.startswith("aux") for name in load_weights(without, given, "googlenet").unused)
    alone = {name: value for name, value in given.items() if not name.startswith("aux")}
    assert all(name.startswith("aux") for name in load_weights(build("googlenet", **SMALL), alone, "googlenet", heads="fitting").new)


def refusal(model, given, architecture, **how):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        load_weights(model, given, architecture, **how)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())  # nothing half-loaded
    return str(caught.value)


def test_weights_of_another_architecture(monkeypatch):
    some = ("lenet5", "cifar-resnet20", "cifar-resnet32", "resnet18", "resnet34")
    monkeypatch.setattr(adopt.catalogue, "MODELS", {name: adopt.catalogue.MODELS[name] for name in some})
    model, given = build("cifar-resnet20"), build("cifar-resnet32").state_dict()
    said = refusal(model, given, "cifar-resnet20", heads="fitting")
    assert "weights: they do not fit cifar-resnet20. Left over: layer1.3.conv1.weight, layer1.3.bn1.weight" in said
    assert " and 50 more. Their names and shapes are those of cifar-resnet32: --model cifar-resnet32." in said
    assert said.partition(" and 50 more")[0].count("layer") == 10
    assert nearest(build("resnet34", classes=3).state_dict()) == "resnet34"
    strange = {"w": torch.zeros(3)}
    assert refusal(model, strange, "cifar-resnet20").endswith("left over: w. They are of no architecture that is known here.")
    with_b = build("cifar-resnet20", shortcut="B").state_dict()
    assert "They are of cifar-resnet20 with another configuration (--config)." in refusal(model, with_b, "cifar-resnet20")
    colour = build("cifar-resnet20").state_dict()
    assert refusal(build("cifar-resnet20", in_channels=1), colour, "cifar-resnet20").endswith(
        "Of another shape: conv1.weight (16, 3, 3, 3), not (16, 1, 3, 3). They are for pictures of 3 channels, and these have 1. "
        "Grey pictures? Save them in colour (RGB)."
    )
    large = build("lenet5", height=32, width=32).state_dict()
    assert refusal(build("lenet5"), large, "lenet5").endswith(
        "They are of lenet5 for pictures of another size (--image-size), or with another configuration (--config)."
    )
    assert refusal(build("cifar-resnet20", in_channels=5, classes=3), colour, "cifar-resnet20").endswith(
        "They are for pictures of 3 channels, and these have 5. They tell 10 classes apart, and here are 3."
    )
    # the channels are as they should be: it is the filters, and much else, that differs
    assert refusal(build("conv32 relu pool fc"), colour, "conv32 relu pool fc").endswith(
        "Their names and shapes are those of cifar-resnet20: --model cifar-resnet20."
    )


def test_numbers_that_are_none():
    model = build("lenet5")
    given = drawn(model.state_dict())
    given["conv2.bias"][3] = float("nan")
    said = refusal(model, given, "lenet5")
    assert said == "weights: conv2.bias holds values that are no numbers (NaN or infinite). Nothing was loaded."
    given["conv2.bias"] = torch.zeros(16, dtype=torch.int32)
    assert refusal(model, given, "lenet5") == "weights: conv2.bias is of int32 values, and the model's of float32."


def test_half_precision_is_taken_as_it_is():
    model = build("lenet5")
    given = {name: value.half() for name, value in drawn(model.state_dict()).items()}
    load_weights(model, given, "lenet5")
    assert model.conv1.weight.dtype == torch.float32 and torch.equal(model.conv1.weight, given["conv1.weight"].float())


def test_of_equal_dialects_the_first_is_taken():
    state = {"fc.weight": torch.zeros(2, 2)}
    assert fit(state, state).dialect == "the model's own" and fit(state, {}).missing == ("fc.weight",)
