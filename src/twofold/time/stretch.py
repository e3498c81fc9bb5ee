"""A stretch of a stream: a model over its next steps, where documents begin anew, and stretches may overlap.     T steps, B rows

    y, s_T = model(x_1 .. x_T, s_0)          s_0: what the stretch before left behind, a given number
    restart    starts[t, b]: a document begins with step t of row b; the state before it is the model's own start, whatever was before
    carry      the state after `carry` steps, from which the next stretch sets out: T where they follow each other, fewer where they overlap

The stretch is cut at the steps where a document begins, and at `carry`, and computed piece by piece: nothing before a document's first step
reaches its outputs, nor does their gradient reach back. Without such a step it is one call of the model. Masks that a layer draws for a
whole call (recurrent dropout) are drawn for each piece.

Williams and Peng, "An efficient gradient-based algorithm for on-line training of recurrent network trajectories", Neural Computation 2(4),
1990, section 3
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twofold.layers.expect import expect_shape
from twofold.time.truncated import detached


class Read(NamedTuple):
    """The outputs of all steps, the state after the last one, and the state to carry on, cut from the graph."""

    y_TB: Tensor
    state: Any
    carried: Any


def read_stretch(model: nn.Module, x_TB: Tensor, state: Any = None, starts_TB: Tensor | None = None, carry: int | None = None) -> Read:
    """The model over x (T, B, ...), time first: y, state = model(x, state), its states (B, U) or (L, B, U), in tuples or not.

    state: that before the first step; None: the model's own. starts_TB: bool, where documents begin; None: nowhere. carry: from 0 to T,
    which is the default.
    Raises ValueError for starts of another shape, for a carry outside, and for a model that, asked for its own start, does not answer a
    sequence of no steps with it, as the layers of twofold.nn do.

    >>> from twofold import nn
    >>> gru, x = nn.GRU(3, 4), torch.randn(5, 1, 3)
    >>> starts = torch.tensor([False, False, True, False, False])[:, None]
    >>> torch.allclose(read_stretch(gru, x, None, starts).y_TB[2:], gru(x[2:])[0], atol=1e-6)
    True
    """
    T, B = x_TB.shape[:2]
    carry = T if carry is None else carry
    if not 0 <= carry <= T:
        raise ValueError(f"read_stretch: expected carry from 0 to T={T}, got {carry}.")
    if starts_TB is not None:
        expect_shape("read_stretch starts", starts_TB, "T B", {"T": T, "B": B})
    places = [] if starts_TB is None else starts_TB.any(1).nonzero().flatten().tolist()
    if not places and carry in (0, T):
        y_TB, after = model(x_TB, state)
        return Read(y_TB, after, detached(after if carry == T else state))
    edges = sorted({0, carry, *places} - {T})
    outputs, carried = [], None
    for start, stop in zip(edges, [*edges[1:], T], strict=True):
        carried = detached(state) if start == carry else carried
        if starts_TB is not None and start in places:
            state = restarted(state, starts_TB[start], model, x_TB)
        y, state = model(x_TB[start:stop], state)
        outputs.append(y)
    return Read(torch.cat(outputs), state, detached(state) if carry == T else carried)


def restarted(state: Any, starts_B: Tensor, model: nn.Module, x_TB: Tensor) -> Any:
    """The state in which the rows of starts_B begin anew."""
    if state is None or bool(starts_B.all()):
        return None
    return _where(starts_B, own_start(model, x_TB), state)


def own_start(model: nn.Module, x_TB: Tensor) -> Any:
    """The state in which a model begins by itself: that after no steps."""
    try:
        start = model(x_TB[:0], None)[1]
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(
            f"read_stretch: expected {type(model).__name__} to answer no steps (T = 0) with its own state, as layers of twofold.nn do; "
            f"it says: {(str(error).splitlines() or [''])[0]}"
        ) from error
    return start


def _where(starts_B: Tensor, own: Any, state: Any) -> Any:
    if isinstance(state, Tensor):
        return torch.where(starts_B if state.dim() == 1 else starts_B[:, None], own, state)
    if not isinstance(state, (tuple, list)):
        return state
    parts = [_where(starts_B, *pair) for pair in zip(own, state, strict=True)]
    return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
