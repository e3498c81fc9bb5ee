"""The parts of a network, as fine-tuning sees them: its head, and its stages from the input to the head.

head      the last linear layer or 1x1 convolution: it tells the classes apart, all else is the body. Auxiliary heads (aux1, aux2)
          belong to it
stages    the network's top-level parts that have weights. Of fewer than FEW, those that are sequences are opened. A normalisation
          belongs to what precedes it, and the head is a stage by itself, the last
"""

from typing import NamedTuple

from torch import nn

FEW = 4
AUXILIARY = "aux"
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Stage(NamedTuple):
    """The names of its parts, joined with +, and of its weights."""

    name: str
    weights: tuple[str, ...]


def heads(model: nn.Module) -> tuple[str, ...]:
    """The names of the layers that tell the classes apart: the head, then the auxiliary ones. Empty where the model has no such layer."""
    classes = getattr(getattr(model, "config", None), "classes", None)
    outputs = {name: count for name, layer in model.named_modules() if (count := _outputs(layer))}
    fitting = [name for name, count in outputs.items() if classes is None or count == classes] or list(outputs)
    main = [name for name in fitting if not name.startswith(AUXILIARY)][-1:]
    aside = {name.partition(".")[0]: name for name in fitting if name.startswith(AUXILIARY)}
    return (*main, *aside.values())


def head_weights(model: nn.Module) -> tuple[str, ...]:
    """The names of the weights of all heads. Where no layer is one, those of the last layer that has weights."""
    layers = heads(model)
    named = [name for name, _ in model.named_parameters()]
    if not layers:
        layers = tuple({name.rpartition(".")[0] for name in named[-1:]})
    return tuple(name for name in named if name.rpartition(".")[0] in layers)


def stages(model: nn.Module) -> tuple[Stage, ...]:
    """The stages from the input to the head. Every weight of the model is in one."""
    named = dict(model.named_parameters())
    last = [name for name in named if name in head_weights(model) or name.startswith(AUXILIARY)]
    body = {name: weight for name, weight in named.items() if name not in last}
    parts = _parted(model, body)
    found: list[Stage] = []
    for part in parts:
        own = tuple(name for name in body if name == part or name.startswith(f"{part}."))
        if not own:
            continue
        if found and all(body[name].dim() < 2 for name in own):
            found[-1] = Stage(f"{found[-1].name}+{part}", (*found[-1].weights, *own))
        else:
            found.append(Stage(part, own))
    loose = tuple(name for name in body if not any(name in stage.weights for stage in found))
    if loose:
        found[:1] = [Stage(found[0].name, (*loose, *found[0].weights))] if found else [Stage("body", loose)]
    owners = (name.partition(".")[0] if name.startswith(AUXILIARY) else name.rpartition(".")[0] for name in last)
    return (*found, Stage("+".join(dict.fromkeys(owners)), tuple(last)))


def _parted(model: nn.Module, body: dict[str, nn.Parameter]) -> dict[str, nn.Module]:
    """The parts of the body, opened until there are enough, or nothing is left to open."""
    parts = _with_weights("", model)
    while sum(any(w.dim() >= 2 for name, w in body.items() if name.startswith(f"{part}.")) for part in parts) < FEW:
        opened = {inner: part for name, whole in parts.items() for inner, part in _opened(name, whole).items()}
        if opened.keys() == parts.keys():
            break
        parts = opened
    return parts


def _outputs(layer: nn.Module) -> int:
    """How many numbers the layer gives for its input, or for each place of it; 0 for any other layer."""
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, CONVOLUTIONS) and set(layer.kernel_size) == {1} else 0


def _opened(name: str, part: nn.Module) -> dict[str, nn.Module]:
    return _with_weights(f"{name}.", part) if isinstance(part, nn.Sequential) else {name: part}


def _with_weights(start: str, part: nn.Module) -> dict[str, nn.Module]:
    return {f"{start}{name}": child for name, child in part.named_children() if next(child.parameters(), None) is not None}
