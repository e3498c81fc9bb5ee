"""Group convolution: its equation, equivariance to every element, invariance after pooling, and wrong variants that must be caught."""

import math

import numpy as np
import pytest
import torch
from torch import nn as torch_nn
from torch.nn import functional as F

import twofold
from twofold.layers.check import Case, check, check_message, noise
from twofold.space import group as groups
from twofold.space.group import GROUPS, Element, act, move
from twofold.space.symmetric import GroupConv2d, GroupPool2d, LiftingConv2d, SymmetricConv2d, max_forms, mean_forms

# A pixel at (row, column), counted from the middle of the map, goes to matrix @ (row, column).
QUARTER_TURN, MIRROR = np.array([[0, -1], [1, 0]]), np.array([[1, 0], [0, -1]])


def matrix(g):
    return np.linalg.matrix_power(QUARTER_TURN, g.turns) @ np.linalg.matrix_power(MIRROR, int(g.mirrored))


def turned(g, maps):
    """T_g by NumPy: mirrored, then turned."""
    values = maps.detach().numpy()
    return torch.from_numpy(np.rot90(values[..., ::-1] if g.mirrored else values, g.turns, (-2, -1)).copy())


def acted(group, u, maps):
    """(u f)[g] = T_u f[u^-1 g], written out: the plane for g comes from where the matrices say."""
    found = torch.empty(0)
    for place, g in enumerate(GROUPS[group]):
        wanted = matrix(u).T @ matrix(g)
        source = next(i for i, h in enumerate(GROUPS[group]) if (matrix(h) == wanted).all())
        plane = turned(u, maps[:, :, source])
        found = plane.new_empty(*maps.shape[:3], *plane.shape[-2:]) if place == 0 else found
        found[:, :, place] = plane
    return found


def lifting(group, *sizes, **options):
    return fill(LiftingConv2d(*sizes, group=group, dtype=torch.float64, **options))


def grouped(group, *sizes, **options):
    return fill(GroupConv2d(*sizes, group=group, dtype=torch.float64, **options))


def fill(layer):
    """Weights that all differ, and a bias that counts."""
    for seed, parameter in enumerate(layer.parameters()):
        parameter.data = noise(*parameter.shape, seed=seed + 5, grad=False)
    return layer


def nets(group):
    """(net, size of picture) for each way of stacking that keeps the symmetry."""
    one, relu = (lambda *s, **o: lifting(group, *s, **o)), torch_nn.ReLU()
    more = lambda *s, **o: grouped(group, *s, **o)  # noqa: E731
    return {
        "lifting": (one(2, 3, 3), (7, 9)),
        "even kernel": (one(2, 3, 2, padding=1), (5, 8)),
        "padding": (one(2, 3, 5, padding="same"), (7, 4)),
        "more padding than kernel": (one(2, 3, 1, padding=2), (3, 5)),
        "stride": (one(2, 3, 3, stride=2, padding=1), (7, 9)),
        "no bias": (one(2, 3, 3, bias=False), (5, 6)),
        "group": (torch_nn.Sequential(one(2, 3, 3), more(3, 2, 3, padding=1)), (7, 9)),
        "group 1x1": (torch_nn.Sequential(one(2, 3, 1), more(3, 2, 1)), (3, 2)),
        "group even, no bias": (torch_nn.Sequential(one(2, 3, 3), more(3, 2, 2, bias=False)), (6, 5)),
        "deep": (
            torch_nn.Sequential(one(2, 3, 3, padding=1), relu, more(3, 4, 3, stride=2, padding=1), relu, more(4, 2, 3, padding="same")),
            (9, 13),
        ),
    }


def equivariant(group, net, picture):
    """Whether moving the picture moves the maps, for every element."""
    y = net(picture)
    moved = [(net(turned(u, picture)), acted(group, u, y)) for u in GROUPS[group]]
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in moved)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", nets("p4"))
def test_a_moved_picture_moves_the_maps(group, name):
    net, size = nets(group)[name]
    assert equivariant(group, net, noise(2, 2, *size, grad=False))
    picture, y = noise(2, 2, *size, grad=False), net(noise(2, 2, *size, grad=False))
    for u in GROUPS[group]:
        assert torch.allclose(net(move(u, picture)), act(group, u, y), rtol=0, atol=1e-10)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("kind", ["max", "mean"])
def test_pooling_over_the_group_and_the_pixels_forgets_the_move(group, kind):
    net, size = nets(group)["deep"]
    pool, picture = GroupPool2d(kind), noise(2, 2, *size, grad=False)
    y = pool(net(picture))
    for u in GROUPS[group]:
        moved = pool(net(turned(u, picture)))
        assert torch.allclose(moved, turned(u, y), rtol=0, atol=1e-10)
        assert torch.allclose(moved.amax((2, 3)), y.amax((2, 3)), rtol=0, atol=1e-10)
        assert torch.allclose(moved.mean((2, 3)), y.mean((2, 3)), rtol=0, atol=1e-10)


def test_a_stride_that_leaves_pixels_over_breaks_the_symmetry_as_the_page_says():
    assert not equivariant("p4", lifting("p4", 2, 3, 3, stride=2, padding=1), noise(2, 2, 8, 8, grad=False))


@pytest.mark.parametrize("group", GROUPS)
def test_a_shifted_picture_shifts_the_maps(group):
    net = torch_nn.Sequential(lifting(group, 2, 3, 3), torch_nn.ReLU(), grouped(group, 3, 2, 3))
    picture = noise(1, 2, 12, 11, grad=False)
    assert torch.allclose(net(picture[..., 2:, 3:]), net(picture)[..., 2:, 3:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("group", GROUPS)
def test_group_convolution_is_the_sum_of_its_equation(group):
    """Cohen and Welling, equation 11, one number at a time: psi at g^-1 (h, offset)."""
    elements, layer = GROUPS[group], grouped(group, 2, 2, 3, padding=1)
    x, weight, bias = noise(1, 2, len(elements), 3, 4, grad=False), layer.weight.detach().numpy(), layer.bias.detach().numpy()
    framed = np.pad(x.numpy(), ((0, 0),) * 3 + ((1, 1),) * 2)
    expected = np.zeros((1, 2, len(elements), 3, 4))
    for f, (a, g), p, q in ((f, a, p, q) for f in range(2) for a in enumerate(elements) for p in range(3) for q in range(4)):
        back = matrix(g).T
        expected[0, f, a, p, q] = bias[f]
        for c, (b, h), i, j in ((c, b, i, j) for c in range(2) for b in enumerate(elements) for i in range(3) for j in range(3)):
            plane = next(n for n, e in enumerate(elements) if (matrix(e) == back @ matrix(h)).all())
            row, column = back @ (i - 1, j - 1) + 1
            expected[0, f, a, p, q] += weight[f, c, plane, row, column] * framed[0, c, b, p + i, q + j]
    assert np.allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-10)


def wrong(kind):
    """A variant of act with one mistake."""

    def act(group, u, maps):
        elements = GROUPS[group]
        back = groups.inverse(u) if kind != "axis permuted the wrong way" else u
        places = [elements.index(groups.product(back, g)) for g in elements]
        planes = maps if kind == "axis not permuted" else maps[..., places, :, :]
        return groups.move(groups.inverse(u) if kind == "turned the wrong way" else u, planes)

    return act


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("kind", ["right", "axis not permuted", "axis permuted the wrong way", "turned the wrong way"])
def test_wrong_variants_are_caught(kind, group, monkeypatch):
    monkeypatch.setattr(groups, "act", wrong(kind))
    net, size = nets(group)["group"]
    assert equivariant(group, net, noise(1, 2, *size, grad=False)) == (kind == "right")


def test_a_lifting_that_turns_the_wrong_way_is_caught(monkeypatch):
    monkeypatch.setattr(groups, "move", lambda g, maps: move(groups.inverse(g), maps))
    net, size = nets("p4")["lifting"]
    assert not equivariant("p4", net, noise(1, 2, *size, grad=False))


def test_a_bias_for_every_form_is_caught():
    layer = lifting("p4", 2, 3, 3)
    layer.respond = lambda x, copies, window: F.conv2d(x, copies.flatten(0, 1), noise(12, grad=False)).unflatten(1, (3, 4))
    assert not equivariant("p4", layer, noise(1, 2, 5, 6, grad=False))


FORMS = {
    "rotations": ({}, [Element(t) for t in range(4)]),
    "reflections": ({"rotations": False, "reflections": True}, [Element(), Element(0, True)]),
    "all": ({"reflections": True, "scales": (1, 3)}, list(GROUPS["p4m"]) * 2),
    "scales": ({"rotations": False, "scales": (2, 1)}, [Element()] * 2),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_form_answers_as_a_convolution_with_that_form(name, stride):
    options, elements = FORMS[name]
    layer = fill(SymmetricConv2d(2, 3, 3, stride, "same", dtype=torch.float64, **options))
    x = noise(2, 2, 8, 7, grad=False)
    scales = [s for s in options.get("scales", (1,)) for _ in range(len(elements) // len(options.get("scales", (1,))))]
    wanted = [
        F.conv2d(x, turned(g, layer.weight), layer.bias, stride, s, s) for g, s in zip(elements, scales, strict=True)
    ]  # fmt: skip
    assert torch.allclose(layer(x), torch.stack(wanted, 2), rtol=0, atol=1e-12)


def enlarged(maps, factor):
    return maps.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_an_enlarged_picture_gives_the_enlarged_response_at_the_larger_scale(kernel):
    layer = fill(SymmetricConv2d(2, 3, kernel, padding="same", scales=(1, 2, 3, 6), dtype=torch.float64))
    picture = noise(1, 2, 7, 6, grad=False)
    small = layer(picture).unflatten(2, (4, 4))  # scales, turns
    for factor, pairs in ((2, ((0, 1), (2, 3))), (3, ((0, 2), (1, 3)))):
        large = layer(enlarged(picture, factor)).unflatten(2, (4, 4))
        for before, after in pairs:
            assert torch.allclose(large[:, :, after], enlarged(small[:, :, before], factor), rtol=0, atol=1e-10)
        assert not torch.allclose(large[:, :, 0], enlarged(small[:, :, 0], factor), atol=1e-3) or kernel == 1


@pytest.mark.parametrize(
    "layer",
    [
        lifting("p4m", 2, 1, 2),
        grouped("p4", 1, 1, 3, stride=2, padding=1),
        fill(SymmetricConv2d(2, 1, 3, padding="same", rotations=False, scales=(1, 2), dtype=torch.float64)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_gradients_equal_finite_differences(layer):
    x = noise(2, 1, 4, 3, 2) if isinstance(layer, GroupConv2d) else noise(2, 2, 4, 3)
    names, values = zip(*layer.named_parameters(), strict=True)

    def run(x, *values):
        with twofold.route("plain"):
            return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *values)) and torch.autograd.gradgradcheck(run, (x, *values), fast_mode=True)


@pytest.mark.parametrize("group", GROUPS)
def test_every_route_gives_the_same_and_the_layer_tells_which(group):
    x, found = noise(2, 2, 7, 9, grad=False), {}
    for route in ("plain", "vendor", "auto"):
        net, _ = nets(group)["deep"]
        with twofold.route(route):
            y = net(x)
        y.square().sum().backward()
        found[route] = (y, *(p.grad for p in net.parameters()))
        assert all(layer.last_route == route or route == "auto" for layer in net if hasattr(layer, "last_route"))
    for route in ("vendor", "auto"):
        for a, b in zip(found[route], found["plain"], strict=True):
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("operation", [max_forms, mean_forms])
def test_witnesses_of_pooling(operation):
    def expression(x):
        return F.max_pool3d(x, (x.shape[2], 1, 1))[:, :, 0] if operation is max_forms else torch.einsum("bfgpq->bfpq", x) / x.shape[2]

    check(Case(operation, (noise(2, 3, 4, 3, 2),), expression, linear=operation is mean_forms))


def test_equal_responses_share_the_gradient_and_nan_is_seen():
    x = torch.tensor([2.0, 1.0, 2.0, 0.0], requires_grad=True)
    for route in ("plain", "vendor"):
        with twofold.route(route):
            (grad,) = torch.autograd.grad(GroupPool2d()(x.reshape(1, 1, 4, 1, 1)).sum(), x)
        assert grad.tolist() == [0.5, 0, 0.5, 0]
    assert GroupPool2d()(torch.tensor([1.0, math.nan]).reshape(1, 1, 2, 1, 1)).isnan().all()


def test_edge_input():
    layer, x = lifting("p4m", 2, 3, 3, padding=1), noise(3, 2, 5, 4, grad=False)
    y = layer(x)
    for same in (x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3), x.repeat(1, 1, 1, 2)[..., :4]):
        assert torch.allclose(layer(same), y, rtol=0, atol=1e-12)
    assert layer(x[:0]).shape == (0, 3, 8, 5, 4) and layer(x[:, :, :1, :1]).shape == (3, 3, 8, 1, 1)
    layer(x[:0]).sum().backward()
    assert (layer.weight.grad == 0).all()


def test_exported_and_saved_it_stays_the_same():
    net, size = nets("p4")["deep"]
    x = noise(2, 2, *size, grad=False)
    exported = torch.export.export(net, (x,), strict=False).module()
    assert torch.allclose(exported(x), net(x), rtol=0, atol=1e-10)
    other = grouped("p4", 3, 4, 3, stride=2, padding=1)
    other.load_state_dict(net[2].state_dict())
    assert torch.equal(other.weight, net[2].weight) and net[2].weight.shape == (4, 3, 4, 3, 3) and net[2].bias.shape == (4,)
    assert repr(other) == 'GroupConv2d(3, 4, kernel_size=3, stride=2, padding=1, group="p4")'
    assert repr(lifting("p4m", 1, 2, 3, bias=False)) == 'LiftingConv2d(1, 2, kernel_size=3, stride=1, padding=0, bias=False, group="p4m")'
    layer = SymmetricConv2d(1, 2, 3, padding="same", rotations=False, reflections=True, scales=(1, 2))
    assert (
        repr(layer).endswith("padding=1, rotations=False, reflections=True, scales=(1, 2))")
        and repr(GroupPool2d()) == 'GroupPool2d(kind="max")'
    )


def picture(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


BAD = {
    "group": (lambda: LiftingConv2d(1, 1, 3, group="p8"), ("LiftingConv2d", '"p4" (4 rotations)', "'p8'")),
    "group of group": (lambda: GroupConv2d(1, 1, 3, group=4), ("GroupConv2d", '"p4m"', "got 4")),
    "kernel": (lambda: LiftingConv2d(1, 1, (3, 5)), ("LiftingConv2d", "kernel_size", "same along both axes", "quarter turn", "(3, 5)")),
    "zero kernel": (lambda: GroupConv2d(1, 1, 0), ("GroupConv2d", "kernel_size", "from 1", "got 0")),
    "stride": (lambda: GroupConv2d(1, 1, 3, stride=(1, 2)), ("GroupConv2d", "stride", "(1, 2)")),
    "padding": (lambda: LiftingConv2d(1, 1, 3, padding=-1), ("LiftingConv2d", "padding", "-1")),
    "even same": (lambda: LiftingConv2d(1, 1, 4, padding="same"), ("LiftingConv2d", "same", "odd kernel_size", "got 4")),
    "channels": (lambda: GroupConv2d(0, 1, 3), ("GroupConv2d", "in_channels", "at least 1", "got 0")),
    "scales": (lambda: SymmetricConv2d(1, 1, 3, scales=(1, 1)), ("SymmetricConv2d", "different whole numbers", "(1, 1)")),
    "scale below 1": (lambda: SymmetricConv2d(1, 1, 3, scales=(0, 1)), ("SymmetricConv2d", "scales", "(0, 1)")),
    "even with scales": (lambda: SymmetricConv2d(1, 1, 2, scales=(1, 2)), ("SymmetricConv2d", "odd kernel_size", "got 2")),
    "kind": (lambda: GroupPool2d("sum"), ("GroupPool2d", '"max" or "mean"', "'sum'")),
    "one picture": (lambda: LiftingConv2d(3, 1, 3)(picture(3, 8, 8)), ("LiftingConv2d input", "(B, C=3, H, W)", "x.unsqueeze(0)")),
    "grey": (lambda: LiftingConv2d(3, 1, 3)(picture(2, 1, 8, 8)), ("LiftingConv2d input", "C is 1, not 3", "in_channels=1")),
    "lifted twice": (lambda: LiftingConv2d(3, 1, 3)(picture(2, 3, 4, 8, 8)), ("LiftingConv2d input", "5 axes", "GroupConv2d")),
    "not lifted": (lambda: GroupConv2d(3, 1, 3)(picture(2, 3, 8, 8)), ("GroupConv2d input", "(B, C=3, G=4, H, W)", "LiftingConv2d")),
    "other group": (lambda: GroupConv2d(3, 1, 3)(picture(2, 3, 8, 8, 8)), ("GroupConv2d input", "G is 8, not 4", 'group="p4"')),
    "bytes": (lambda: LiftingConv2d(1, 1, 3)(picture(2, 1, 8, 8, dtype=torch.uint8)), ("LiftingConv2d input", "uint8", "/ 255")),
    "precision": (lambda: GroupConv2d(1, 1, 3)(picture(2, 1, 4, 8, 8).double()), ("GroupConv2d input", "float32", "float64")),
    "too small": (lambda: GroupConv2d(1, 1, 3)(picture(2, 1, 4, 2, 8)), ("GroupConv2d input", "3x3", "does not fit", "2x8")),
    "pool rank": (lambda: GroupPool2d()(picture(2, 1, 8, 8)), ("GroupPool2d input", "(B, F, G, H, W)", "4 axes")),
    "pool of nothing": (lambda: GroupPool2d()(picture(2, 1, 0, 8, 8)), ("GroupPool2d input", "G of at least 1", "(2, 1, 0, 8, 8)")),
    "pool of whole numbers": (lambda: GroupPool2d()(picture(2, 1, 4, 8, 8).long()), ("GroupPool2d input", "int64")),
    "no tensor": (lambda: GroupPool2d()([1.0]), ("GroupPool2d input", "torch tensor", "list")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_a_sentence(name):
    call, words = BAD[name]
    check_message(call, *words)
