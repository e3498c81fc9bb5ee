"""Weights of another's training taken into a model: all that belong, or none.

    read (weights.py) -> in our names (dialects.py) -> every name, shape and number judged -> copied

    heads   kept       taken like all else
            fitting    those of another shape, or that are missing, stay as the model has them: fine-tuning learns them anew
            new        all stay as the model has them

Whatever else does not fit refuses the whole, with at most ten names of each kind and the architecture that the names do belong to.
"""

from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from twofold.layers.parts import AUXILIARY, head_weights
from twofold.models import catalogue
from twofold.models.dialects import COUNTS, Fit, State, fit

SHOWN = 10  # names of each kind
Heads = Literal["kept", "fitting", "new"]


class Loaded(NamedTuple):
    """The dialect that the names were in; how many tensors were taken; those of the model that stayed as they were; and what was left."""

    dialect: str
    taken: int
    new: tuple[str, ...]
    unused: tuple[str, ...]


def load_weights(model: nn.Module, state: State, architecture: str, heads: Heads = "kept") -> Loaded:
    """Copy the weights into the model; heads: see above. Auxiliary heads that the model was built without are left out.

    Raises ValueError, and changes nothing, for weights of another architecture, for numbers that are none, and for a new head that shares
    its weights with the rest.
    """
    wanted = model.state_dict()
    found = fit(wanted, state)
    aside = tuple(name for name in found.over if name.startswith(AUXILIARY) and not any(each.startswith(AUXILIARY) for each in wanted))
    new = () if heads == "kept" else _fresh(model, found, heads == "new")
    rest = found._replace(
        missing=tuple(name for name in found.missing if name not in new),
        over=tuple(name for name in found.over if name not in aside),
        misshapen=tuple(name for name in found.misshapen if name not in new),
    )
    if rest.faults:
        raise ValueError(_refusal(rest, wanted, state, architecture))
    taken = {name: found.state[name] for name in wanted if name in found.state and name not in new}
    _refuse_numbers(taken, wanted)
    with torch.no_grad():
        for name, value in taken.items():
            wanted[name].copy_(value)
    return Loaded(found.dialect, len(taken), new, aside)


def classes_of(model: nn.Module, state: State) -> int | None:
    """For how many classes the head of the weights is; None where they have no head by the model's names."""
    heads = [name for name in head_weights(model) if name.endswith("weight") and not name.startswith(AUXILIARY)]
    named = fit(model.state_dict(), state).state
    return len(named[heads[0]]) if heads and heads[0] in named and named[heads[0]].dim() else None


def to_torchvision(model: nn.Module) -> dict[str, Tensor]:
    """The weights by torchvision's names, where torchvision has the architecture: ours are the same. On the processor, each by itself."""
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in model.state_dict().items()}


def nearest(state: State) -> str:
    """The architecture of the catalogue whose names and shapes the weights share most; "" where they share hardly any."""
    best, share = "", 0.0
    for name in catalogue.MODELS:
        wanted = _shapes(name)
        found = fit(wanted, state)
        right = len(wanted) - len(found.missing) - len(found.misshapen)
        if (now := right / max(1, len(wanted) + len(found.over))) > share:
            best, share = name, now
    return best if share > 0.5 else ""


def _fresh(model: nn.Module, found: Fit, every: bool) -> tuple[str, ...]:
    """The weights of the heads that the file has for other classes, or not at all, or of every head; of a head all, or none."""
    heads = head_weights(model)
    wrong = {name.rpartition(".")[0] for name in (heads if every else (*found.missing, *found.misshapen)) if name in heads}
    if every:
        _refuse_shared(model, wrong)
    auxiliary = [name for name in found.missing if name.startswith(AUXILIARY)]  # all of it, where the file has none
    return tuple(dict.fromkeys([*(name for name in heads if name.rpartition(".")[0] in wrong), *auxiliary]))


def _refuse_shared(model: nn.Module, layers: set[str]) -> None:
    """Raise ValueError where one of these layers holds a weight that belongs to another one, too."""
    own = {id(weight): name for name, weight in model.named_parameters()}
    for name, weight in model.named_parameters(remove_duplicate=False):
        if name != own[id(weight)] and name.rpartition(".")[0] in layers:
            raise ValueError(f"new_head: {name} is {own[id(weight)]}, which is taken: a head cannot be new alone. Leave new_head out.")


def _refuse_numbers(taken: State, wanted: State) -> None:
    """Raise ValueError for weights that are no numbers, or of another kind."""
    for name, value in taken.items():
        if value.is_floating_point() != wanted[name].is_floating_point():
            kinds = (str(kind).removeprefix("torch.") for kind in (value.dtype, wanted[name].dtype))
            raise ValueError("weights: {} is of {} values, and the model's of {}.".format(name, *kinds))
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"weights: {name} holds values that are no numbers (NaN or infinite). Nothing was loaded.")


def _refusal(found: Fit, wanted: State, state: State, architecture: str) -> str:
    """What is missing, left over and of another shape, and whose weights they are."""
    shapes = [f"{name} {tuple(found.state[name].shape)}, not {tuple(wanted[name].shape)}" for name in found.misshapen]
    kinds = (("missing", list(found.missing)), ("left over", list(found.over)), ("of another shape", shapes))
    said = "; ".join(f"{kind}: {_listed(names)}" for kind, names in kinds if names)
    return f"weights: they do not fit {architecture}. {said[0].upper()}{said[1:]}. {_cause(found, wanted, state, architecture)}"


def _cause(found: Fit, wanted: State, state: State, architecture: str) -> str:
    """Why the weights do not fit, as far as it can be told."""
    left = [] if found.missing or found.over else list(found.misshapen)
    causes = []
    first = next((name for name, value in wanted.items() if value.dim() == 4), "")
    if first in left and _differ_in(1, found.state[first], wanted[first]):
        had, has = found.state[first].shape[1], wanted[first].shape[1]
        grey = " Grey pictures? Save them in colour (RGB)." if (had, has) == (3, 1) else ""
        causes.append(f"They are for pictures of {had} {'channel' if had == 1 else 'channels'}, and these have {has}.{grey}")
        left.remove(first)
    head = next((name for name in left if name.endswith("weight")), "")
    if head and _differ_in(0, found.state[head], wanted[head]) and all(name.rpartition(".")[0] == head[:-7] for name in left):
        causes.append(f"They tell {len(found.state[head])} classes apart, and here are {len(wanted[head])}.")
        left.clear()
    if causes and not left:
        return " ".join(causes)
    near = nearest(state)
    if near == architecture and not found.missing and not found.over:
        return f"They are of {near} for pictures of another size (--image-size), or with another configuration (--config)."
    if near == architecture:
        return f"They are of {near} with another configuration (--config)."
    return f"Their names and shapes are those of {near}: --model {near}." if near else "They are of no architecture that is known here."


def _differ_in(axis: int, given: Tensor, wanted: Tensor) -> bool:
    """Whether that axis is the one in which the shapes differ."""
    return given.dim() == wanted.dim() and [i for i in range(given.dim()) if given.shape[i] != wanted.shape[i]] == [axis]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


@cache
def _shapes(name: str) -> State:
    """Names and shapes of the preset, without content."""
    found = catalogue.MODELS[name]
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        state: dict[str, Tensor] = found.build(found.preset).state_dict()
    return {key: value for key, value in state.items() if not key.endswith(COUNTS)}
