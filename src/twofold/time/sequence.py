"""What a recurrent layer expects of its sequence and of its state, and the sentences that say so.

T steps, B rows, D input features; the state's tensors are (L, B, U), one entry a layer, (2L, B, U) with two directions.
"""

from typing import Any, NamedTuple

from torch import Tensor

from twofold.layers.expect import expect_floating, expect_shape, expect_tensor


def expect_switches(who: str, **values: Any) -> None:
    """Raise ValueError unless every value is True or False: a number in their place is another argument that slipped."""
    for name, value in values.items():
        if not isinstance(value, bool):
            cause = f" Dropout? Name it: dropout={value}." if isinstance(value, float) else " Name the arguments after hidden_size."
            raise ValueError(f"{who}: expected {name} to be True or False, got {value!r}.{cause}")


def expect_sequence(who: str, x: Any, features: int, batch_first: bool, weight: Tensor) -> None:
    """Raise ValueError unless x is (T, B, D), or (B, T, D) with batch_first, or one row (T, D)."""
    expect_tensor(f"{who} input", x)
    expect_floating(f"{who} input", x, weight)
    if 2 <= x.dim() <= 3 and x.shape[-1] == features:
        return
    cause = ""
    if x.dim() == 3 and x.shape[1] == features:
        cause = "Features on axis 1? Move them last: x.transpose(1, 2)."
    elif x.dim() in (1, 2) and features == 1:
        cause = "One number a step? Give it an axis of its own: x.unsqueeze(-1)."
    elif x.dim() > 3:
        cause = "Images over time? Make one axis of their features: x.flatten(2)."
    axes = "T D" if x.dim() == 2 else "B T D" if batch_first else "T B D"
    expect_shape(f"{who} input", x, axes, {"D": features}, cause)


def expect_step(who: str, x: Any, features: int, weight: Tensor) -> None:
    """Raise ValueError unless x is (B, D) or one row (D,)."""
    expect_tensor(f"{who} input", x)
    expect_floating(f"{who} input", x, weight)
    if 1 <= x.dim() <= 2 and x.shape[-1] == features:
        return
    cause = f"A sequence? {who} takes one step: loop over x[t], or use {who.removesuffix('Cell')}." if x.dim() == 3 else ""
    expect_shape(f"{who} input", x, "D" if x.dim() == 1 else "B D", {"D": features}, cause)


class StateForm(NamedTuple):
    """What a layer's state looks like: the names and widths (U) of its tensors, and their first axis: L, or 2L with two directions."""

    names: tuple[str, ...]
    widths: tuple[int, ...]
    layers: int
    directions: int
    batch_first: bool


def expect_state(who: str, state: Any, form: StateForm, rows: int | None, x: Tensor) -> tuple[Tensor, ...]:
    """The state as a tuple of tensors (L, B, U), (L, U) where rows is None: a single row; ValueError otherwise."""
    state = expect_tensors(who, state, form.names)
    first = "L" if form.directions == 1 else f"{form.directions}L"
    places = form.layers * form.directions
    for name, width, value in zip(form.names, form.widths, state, strict=True):
        shape = (places, width) if rows is None else (places, rows, width)
        if value.shape != shape:
            axes = (first, "U") if rows is None else (first, "B", "U")
            expect_shape(f"{who} state {name}", value, " ".join(axes), dict(zip(axes, shape, strict=True)), _cause(value, form, rows, x))
        expect_floating(f"{who} state {name}", value, x)
    return state


def expect_step_state(who: str, state: Any, names: tuple[str, ...], x: Tensor, width: int, weight: Tensor) -> tuple[Any, ...]:
    """The state of a cell as a tuple of tensors (B, U), (U,) for a single row; ValueError otherwise."""
    state = expect_tensors(who, state, names)
    for name, value in zip(names, state, strict=True):
        if value.shape != (*x.shape[:-1], width):
            batched = {"B": x.shape[0]} if x.dim() == 2 else {}
            cause = "Carried over from a batch of another size?" if value.dim() == x.dim() == 2 and value.shape[1] == width else ""
            expect_shape(f"{who} state {name}", value, "B U" if batched else "U", {**batched, "U": width}, cause)
        expect_floating(f"{who} state {name}", value, weight)
    return state


def expect_tensors(who: str, state: Any, names: tuple[str, ...]) -> tuple[Tensor, ...]:
    """The state as a tuple, one tensor a name; ValueError otherwise."""
    wanted = f"{len(names)} tensors ({', '.join(names)})"
    if isinstance(state, Tensor):
        cause = f"It carries both from step to step: pass the pair ({', '.join(names)}), or nothing for zeros."
        raise ValueError(f"{who} state: expected {wanted}, got one tensor {tuple(state.shape)}. {cause}")
    if not isinstance(state, (tuple, list)):
        raise ValueError(f"{who} state: expected {wanted}, got {type(state).__name__}. Pass nothing for zeros.")
    if len(state) != len(names):
        raise ValueError(f"{who} state: expected {wanted}, got {len(state)} things. Pass what the layer returned as its state.")
    for name, value in zip(names, state, strict=True):
        expect_tensor(f"{who} state {name}", value)
    return tuple(state)


def _cause(value: Tensor, form: StateForm, rows: int | None, x: Tensor) -> str:
    if rows is None or value.dim() != 3:
        return "A state has as many axes as its input." if value.dim() != x.dim() else ""
    places = form.layers * form.directions
    first, second = value.shape[:2]
    if (first, second) == (rows, places):
        return "A state has its layers first, whatever batch_first says: transpose(0, 1)."
    if form.directions > 1 and first == form.layers:
        return "Two directions keep two states a layer."
    if first != places or second == rows:
        return ""
    if x.dim() == 3 and second == x.shape[1 if form.batch_first else 0]:
        meant = "(T, B, D)" if form.batch_first else "(B, T, D)"
        return f"Rows as many as the input's steps: is the input {meant}? Build the layer with batch_first={not form.batch_first}."
    return "Carried over from a batch of another size? Start the odd batch from zeros, or leave it out."
