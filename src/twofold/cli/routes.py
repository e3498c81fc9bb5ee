"""Which route every layer of a model takes under `auto`, why, and how long each route that could serve it would take.

A training step is made as training makes it, so that layers that are computed together say so ("fused"). A second one, with a look at
what each layer receives, makes them run one by one. Then every layer is timed alone, forward and backward, on noise of the same shape.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twofold.cli.output import print_json, print_line, print_table
from twofold.layers import choices
from twofold.layers.forms import bf16_permitted, precision
from twofold.layers.measured import clock, measuring
from twofold.layers.routes import FURTHER, ROUTES, Routed, route

BOUND = 120.0  # seconds that may be spent on choices that are not yet made
ALONE = 0.3  # seconds for the routes of one layer, after a warm-up each
STEPS = 3.0  # seconds for whole steps


class Finding(NamedTuple):
    """One layer: its name and kind, the shape that it receives, its route and why, and the milliseconds of a step by each route."""

    name: str
    kind: str
    input: tuple[int, ...]
    route: str
    why: str
    milliseconds: dict[str, float]


class Examination(NamedTuple):
    """All layers in the order of their calls, and the milliseconds of a whole training step under auto and by the vendor alone."""

    layers: list[Finding]
    step: dict[str, float]


def examine_routes(model: nn.Module, x: Tensor) -> Examination:
    """What `auto` chooses for a training step over x; choices that are missing are made, and remembered."""
    model.train()
    with measuring(BOUND), torch.random.fork_rng(devices=[]):
        _step(model, x)
        chosen = {name: (m.last_route, m.last_reason) for name, m in model.named_modules() if isinstance(m, Routed) and m.last_route}
        received = _received(model, x)
        layers = [_finding(name, layer, given, *chosen[name]) for name, layer, given in received if name in chosen]
        whole = {wanted: partial(_by, wanted, model) for wanted in ("auto", "vendor")}
        times, _ = clock(whole, (x,), STEPS, weights=_weights(model))
    return Examination(layers, times)


def show_routes(name: str, model: nn.Module, task: str, values: dict[str, Any], size: tuple[int, ...], permitted: str, json: bool) -> None:
    """Print the examination of a model over a batch: size is (B, C, H, W) of pictures, (B, T) of text."""
    drawn = torch.Generator().manual_seed(0)
    x = torch.randint(values["vocabulary"], size[::-1], generator=drawn) if task == "language" else torch.randn(size, generator=drawn)
    with precision(permitted):
        found = examine_routes(model, x)
    kept = choices.place()
    if json:
        print_json(
            {
                "model": name,
                "input": list(x.shape),
                "precision": permitted,
                "threads": torch.get_num_threads(),
                "layers": [layer._asdict() for layer in found.layers],
                "step_milliseconds": found.step,
                "choices": None if kept is None else str(kept),
            }
        )
        return
    columns = [wanted for wanted in ("plain", "vendor", "native", *FURTHER) if any(wanted in layer.milliseconds for layer in found.layers)]
    rows = [
        (
            *(layer.name, layer.kind, "x".join(map(str, layer.input)), layer.route, layer.why),
            *(f"{layer.milliseconds[wanted]:.3f}" if wanted in layer.milliseconds else "-" for wanted in columns),
        )
        for layer in found.layers
    ]
    threads = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    print_line(f"{name}, input {'x'.join(map(str, x.shape))}, {threads}; milliseconds of forward and backward by each route")
    print_table(("layer", "kind", "input", "route", "why", *columns), rows)
    print(f"training step: {', '.join(f'{wanted} {taken:.2f} ms' for wanted, taken in found.step.items())}")
    print_line(f"choices: {kept or 'kept nowhere: there is no home folder'}")


def _step(model: nn.Module, x: Tensor) -> None:
    outputs = _floating(model(x))
    torch.autograd.grad([y.sum() for y in outputs if y.requires_grad], _weights(model), allow_unused=True)


def _received(model: nn.Module, x: Tensor) -> list[tuple[str, Routed, tuple[Any, ...]]]:
    """Every layer with routes and what its first call is given, in order."""
    found: dict[str, tuple[str, Routed, tuple[Any, ...]]] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, Routed):

            def note(layer: nn.Module, given: Any, name: str = name) -> None:
                assert isinstance(layer, Routed)
                found.setdefault(name, (name, layer, tuple(_apart(part) for part in given)))

            hooks.append(module.register_forward_pre_hook(note))
    try:
        _step(model, x)
    finally:
        for hook in hooks:
            hook.remove()
    return list(found.values())


def _apart(value: Any) -> Any:
    """The value without what led to it."""
    if isinstance(value, Tensor):
        return value.detach().requires_grad_(value.requires_grad)
    return tuple(map(_apart, value)) if isinstance(value, tuple) else value


def _finding(name: str, layer: Routed, given: tuple[Any, ...], taken: str | None, why: str) -> Finding:
    serving = _serving(layer, given)
    times, _ = clock({wanted: partial(_by, wanted, layer) for wanted in serving}, given, ALONE, weights=_weights(layer))
    why = why or ("only one" if len(serving) == 1 and taken != "fused" else "rule")
    first = next((part for part in given if isinstance(part, Tensor)), None)
    return Finding(name, type(layer).__name__, () if first is None else tuple(first.shape), taken or "", why, times)


def _serving(layer: Routed, given: tuple[Any, ...]) -> list[str]:
    """The routes that can serve; the definition only where there is no other."""
    names = []
    for wanted in ("vendor", "native", *(name for name in FURTHER if bf16_permitted() or "bf16" not in name)):
        try:
            with torch.no_grad(), route(wanted), measuring(False):
                layer(*given)
        except ValueError:  # a route that it has and that cannot serve this
            continue
        if layer.last_route == wanted:
            names.append(wanted)
    return names or [layer.last_route or "plain"]


def _by(wanted: str, call: Callable[..., Any], *given: Any) -> Any:
    with route(wanted if wanted in (*ROUTES, *FURTHER) else "auto"):
        return tuple(_floating(call(*given)))


def _floating(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    return [tensor for part in (output.values() if isinstance(output, dict) else output) for tensor in _floating(part)]


def _weights(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.requires_grad]
