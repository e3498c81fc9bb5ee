"""The symmetries of the square grid: p4, its quarter turns, and p4m, these with mirror images.     F filters, C channels, G elements

    element   g = (turns t, mirrored m) moves a map:   T_g x = R^t M^m x       M reverses the columns, R turns counter-clockwise
    product   T_g T_h = T_gh       gh = (t_g + t_h or, where g is mirrored, t_g - t_h, modulo 4;   m_g xor m_h)
    inverse   g^-1 = (-t, 0) or, mirrored, g itself
    act       on maps with an axis g:     (u f)[g] = T_u f[u^-1 g]             the planes move, and change their places

    forms     of filters   copy[g] = T_g W, or g W where W has an axis g         dW = sum_g g^-1 dcopy[g]

Cohen and Welling, "Group equivariant convolutional networks", ICML 2016, sections 4.2, 4.3 and 5, equations 3 to 12
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import torch
from torch import Tensor

from twofold.layers.differentiable import differentiable


class Element(NamedTuple):
    """First mirrored (its columns reversed) or not, then so many quarter turns counter-clockwise."""

    turns: int = 0
    mirrored: bool = False


# The elements in the order of the axis G: the turns, then the turns of the mirror image.
GROUPS: Final[Mapping[str, tuple[Element, ...]]] = MappingProxyType(
    {
        "p4": tuple(Element(turns) for turns in range(4)),
        "p4m": tuple(Element(turns, mirrored) for mirrored in (False, True) for turns in range(4)),
    }
)


def product(g: Element, h: Element) -> Element:
    """First h, then g."""
    return Element((g.turns - h.turns if g.mirrored else g.turns + h.turns) % 4, g.mirrored != h.mirrored)


def inverse(g: Element) -> Element:
    """What undoes g."""
    return g if g.mirrored else Element(-g.turns % 4)


def move(g: Element, maps_XHW: Tensor) -> Tensor:
    """T_g of every map (..., H, W); an odd number of turns makes it (..., W, H).

    >>> move(Element(turns=1), torch.tensor([[1, 2], [3, 4]])).tolist()
    [[2, 4], [1, 3]]
    """
    return torch.rot90(maps_XHW.flip(-1) if g.mirrored else maps_XHW, g.turns, (-2, -1))


def act(group: str, u: Element, maps_XGHW: Tensor) -> Tensor:
    """What maps (..., G, H, W) made by group convolutions become when the picture under them is moved by u."""
    elements = group_elements("act", group)
    places = [elements.index(product(inverse(u), g)) for g in elements]
    return move(u, maps_XGHW[..., places, :, :])


def group_elements(who: str, group: str) -> tuple[Element, ...]:
    """The elements of the group in the order of the axis G. Raises ValueError for another name."""
    if group not in GROUPS:
        raise ValueError(f'{who}: expected group to be "p4" (4 rotations) or "p4m" (8 rotations and reflections), got {group!r}.')
    return GROUPS[group]


class FormsSaved(NamedTuple):
    """What backward needs."""

    elements: tuple[Element, ...]


def forms_forward(weight_FCij: Tensor, elements: tuple[Element, ...]) -> tuple[Tensor, FormsSaved]:
    """copies_FGCij: copy[g] = T_g W"""
    return torch.stack([move(g, weight_FCij) for g in elements], 1), FormsSaved(elements)


def forms_backward(dcopies_FGCij: Tensor, saved: FormsSaved) -> Tensor:
    """dweight_FCij = sum_g T_g^-1 dcopy[g]"""
    return torch.stack([move(inverse(g), dcopies_FGCij[:, place]) for place, g in enumerate(saved.elements)]).sum(0)


forms = differentiable(forms_forward, forms_backward)


class GroupFormsSaved(NamedTuple):
    """What backward needs."""

    group: str


def group_forms_forward(weight_FCGij: Tensor, group: str) -> tuple[Tensor, GroupFormsSaved]:
    """copies_FGCGij: copy[g] = g W, its planes moved and put in their new places"""
    return torch.stack([act(group, g, weight_FCGij) for g in GROUPS[group]], 1), GroupFormsSaved(group)


def group_forms_backward(dcopies_FGCGij: Tensor, saved: GroupFormsSaved) -> Tensor:
    """dweight_FCGij = sum_g g^-1 dcopy[g]"""
    group = saved.group
    return torch.stack([act(group, inverse(g), dcopies_FGCGij[:, place]) for place, g in enumerate(GROUPS[group])]).sum(0)


group_forms = differentiable(group_forms_forward, group_forms_backward)
