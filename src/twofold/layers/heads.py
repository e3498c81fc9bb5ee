"""Auxiliary heads: classifiers on the way, which a model has in training only.

    L = loss(logits) + 0.3 sum_k loss(logits of head k)

They pass gradient to the layers in the middle of a deep net, and are left out in use: then the model returns plain logits.

Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 5
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from torch import Tensor

SHARE: Final = 0.3


class WithHeads(NamedTuple):
    """What a model with auxiliary heads returns in training: its logits (B, N), and those of each head."""

    logits_BN: Tensor
    others: tuple[Tensor, ...]


def loss_of(output: Tensor | WithHeads, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The loss of all that a model returned; of plain logits their own.

    >>> import torch
    >>> one = torch.ones(1, 1)
    >>> loss_of(WithHeads(2 * one, (one, 3 * one)), torch.sum)
    tensor(3.2000)
    """
    if not isinstance(output, WithHeads):
        return loss(output)
    total = loss(output.logits_BN)
    for other_BN in output.others:
        total = total + SHARE * loss(other_BN)
    return total
