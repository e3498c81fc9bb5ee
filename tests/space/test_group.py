"""The symmetries of the square grid against 2x2 matrices: products, inverses, where pixels go, and the forms of filters."""

from itertools import product as pairs

import numpy as np
import pytest
import torch

from twofold.layers.check import Case, check, check_message, noise
from twofold.space import group as groups
from twofold.space.group import GROUPS, Element, act, forms, group_forms, inverse, move, product

# A pixel at (row, column), counted from the middle of the map, goes to matrix @ (row, column).
QUARTER_TURN, MIRROR = np.array([[0, -1], [1, 0]]), np.array([[1, 0], [0, -1]])


def matrix(g):
    return np.linalg.matrix_power(QUARTER_TURN, g.turns) @ np.linalg.matrix_power(MIRROR, int(g.mirrored))


def element_of(wanted):
    return next(g for g in GROUPS["p4m"] if (matrix(g) == wanted).all())


def moved(g, maps):
    """Every pixel put where the matrix says."""
    H, W = maps.shape[-2:]
    rows, columns = (H, W) if g.turns % 2 == 0 else (W, H)
    r, c = np.indices((rows, columns))
    places = np.stack([2 * r - rows + 1, 2 * c - columns + 1]).reshape(2, -1)  # twice as far from the middle: whole numbers
    came = matrix(g).T @ places
    source = torch.from_numpy((came[0] + H - 1) // 2 * W + (came[1] + W - 1) // 2)
    return maps.flatten(-2)[..., source].unflatten(-1, (rows, columns))


def acted(group, u, maps):
    """(u f)[g] = T_u f[u^-1 g], the product of the elements found by their matrices."""
    places = [GROUPS[group].index(element_of(matrix(u).T @ matrix(g))) for g in GROUPS[group]]
    return moved(u, torch.stack([maps[..., place, :, :] for place in places], -3))


def test_products_and_inverses_are_those_of_the_matrices():
    for elements in GROUPS.values():
        assert len({matrix(g).tobytes() for g in elements}) == len(elements)
        for g, h in pairs(elements, elements):
            assert (matrix(product(g, h)) == matrix(g) @ matrix(h)).all() and product(g, h) in elements
        for g in elements:
            assert product(g, inverse(g)) == product(inverse(g), g) == Element() and inverse(g) in elements


@pytest.mark.parametrize("size", [(3, 3), (4, 4), (3, 5), (4, 1)])
def test_move_puts_every_pixel_where_the_matrix_says(size):
    maps = noise(2, *size, grad=False)
    for g, h in pairs(GROUPS["p4m"], GROUPS["p4m"]):
        assert torch.equal(move(g, maps), moved(g, maps))
        assert torch.equal(move(g, move(h, maps)), move(product(g, h), maps))


@pytest.mark.parametrize("group", GROUPS)
def test_act_is_an_action(group):
    maps = noise(2, 3, len(GROUPS[group]), 3, 4, grad=False)
    for u, v in pairs(GROUPS[group], GROUPS[group]):
        assert torch.equal(act(group, u, maps), acted(group, u, maps))
        assert torch.equal(act(group, u, act(group, v, maps)), act(group, product(u, v), maps))


@pytest.mark.parametrize("elements", [GROUPS["p4"], GROUPS["p4m"], (Element(), Element(0, True)), (Element(3, True),)])
def test_witnesses_of_forms(elements):
    def expression(weight, elements):
        return torch.stack([moved(g, weight) for g in elements], 1)

    check(Case(forms, (noise(3, 2, 3, 3), elements), expression, linear=True))


@pytest.mark.parametrize("group", GROUPS)
def test_witnesses_of_group_forms(group):
    def expression(weight, group):
        return torch.stack([acted(group, g, weight) for g in GROUPS[group]], 1)

    check(Case(group_forms, (noise(2, 2, len(GROUPS[group]), 2, 2), group), expression, linear=True))


def test_a_group_that_is_none_is_refused():
    check_message(lambda: act("p8", Element(), torch.zeros(1, 1, 8, 2, 2)), "act", '"p4" (4 rotations)', '"p4m"', "'p8'")
    check_message(lambda: groups.group_elements("LiftingConv2d", "P4"), "LiftingConv2d", "'P4'")
