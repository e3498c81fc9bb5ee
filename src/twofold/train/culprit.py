"""The culprit: where in a step the first number stopped being one.     y outputs of a layer, dy the gradient that arrives there

    batch       a value of the input is NaN or infinite              the items are named
    carried     the recurrent state that came from the step before
    weights     a weight, or a running statistic (buffers), was no number before the step
    forward     the first layer with finite input and weights, and y that is not
    loss        all y finite, the loss not; or the loss finite, and its gradient at the model's output not
    backward    all y finite, the loss, too: the first layer on the way back with finite dy, and a gradient within that is not
    nowhere     repeated, the step is finite

The step is made again, layer by layer, with hooks on all of them and on their weights; processes whose layers wait for each other go back
together, or not at all. Nothing remains of it: gradients, buffers and random states are afterwards what they were. A layer that holds
others is named only where none of those is to blame.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from twofold.train.leaves import finite, item_axis, leaves, tensors
from twofold.train.memory import is_out_of_memory
from twofold.train.moment import Moment
from twofold.train.processes import World
from twofold.train.sharded import kind_of, own

ALONE = World()
MANY = 8  # names in a sentence


class Fault(NamedTuple):
    """place: see above. layer: its path in the model, and kind its type; "" is the model itself. items: rows of the batch that are broken.

    said: what is known, in a sentence or two.
    """

    place: str
    layer: str = ""
    kind: str = ""
    said: str = ""
    items: tuple[int, ...] = ()

    @property
    def in_model(self) -> bool:
        """Whether the model was broken before the step: to leave out the batch would not mend it."""
        return self.place in ("weights", "buffers")


@dataclass
class _Gradient:
    """What is known of the gradient of a weight."""

    path: str
    sound: bool = True
    largest: float = 0.0
    norm: Tensor = field(default_factory=lambda: torch.zeros(()))

    def note(self, gradient: Tensor) -> None:
        self.sound = finite(gradient)
        if gradient.numel():
            self.largest, self.norm = gradient.abs().max().item(), torch.linalg.vector_norm(gradient)


@dataclass
class _Call:
    """A layer at work, in the order in which they began."""

    path: str
    module: nn.Module
    parent: "_Call | None"
    entered: bool  # whether what came in was finite
    weights: dict[str, int] = field(default_factory=dict)  # its own, and under which number their gradients are noted
    wrong: str = ""  # how many of the values that went out were not
    asked: list[bool] = field(default_factory=list)  # whether the gradients that arrived at its outputs were finite
    passed: list[bool] = field(default_factory=list)  # and those that it handed on

    @property
    def name(self) -> str:
        kind = kind_of(self.module)
        return f"layer {self.path} ({kind})" if self.path else f"the model itself ({kind})"

    def fault(self, place: str, said: str) -> Fault:
        return Fault(place, self.path, kind_of(self.module), said)


def find_fault(
    model: nn.Module, run: Callable[[], Tensor], batch: Any = None, carried: Any = None, names: Sequence[Any] | None = None,
    world: World = ALONE,
) -> Fault:  # fmt: skip
    """Where the step went wrong. run: the step's forward pass again, returning its loss (the mean over the batch, in the same precision).

    model: the eager one, not its compiled form nor DDP around it. names: those of the items of the batch, in their order, for the sentence.
    world: the processes that call this together, where their layers wait for each other (sharded, or synchronised).
    The states must be those of before the step (Moment.put_back); they are so afterwards, too.
    """
    broken = find_broken_items(batch, names)
    unsound = find_unsound(model)
    before = next((Fault(**each) for each in world.collect(unsound and unsound._asdict()) if each), None)
    moment = Moment(model)
    moment.take()
    try:
        with torch.enable_grad(), _watched(model) as calls:
            loss = run()
            first = calls.forward(loss)
            if not world.any_of(bool(first or broken or before)):
                first = calls.backward(model, loss)
    except (RuntimeError, MemoryError) as error:
        if world.processes > 1 or not is_out_of_memory(error):
            raise
        first = Fault("nowhere", said="Memory does not suffice to look for the layer.")
    finally:
        moment.put_back()
    stale = None
    if not all(finite(x) for _, x in leaves(carried)):
        stale = Fault("carried", said="The state that the batch goes on from is not finite.")
    earlier = broken or stale or before
    if earlier is not None:
        earlier = earlier._replace(said=f"{earlier.said} {calls.reached()}".rstrip())
        return earlier if earlier.in_model else earlier._replace(**calls.first())
    return first or Fault(
        "nowhere",
        said="Repeated, the step is finite: what was not came from outside of it (another process, a penalty), or does not repeat itself.",
    )


def find_broken_items(batch: Any, names: Sequence[Any] | None = None) -> Fault | None:
    """The items of a batch with a value that is NaN or infinite; None where there are none."""
    for path, x in tensors(batch).items():
        if finite(x):
            continue
        wrong, axis = ~torch.isfinite(x.detach()), item_axis(path, x)
        said = f"The batch is broken: {int(wrong.sum()):,} of {x.numel():,} values of {path} are not finite"
        if axis is None:
            return Fault("batch", said=f"{said}.")
        rows = wrong.transpose(0, axis).flatten(1).any(1) if x.dim() > 1 else wrong
        items = tuple(rows.nonzero().flatten().tolist())
        known = [str(names[item]) if names is not None else str(item) for item in items[:MANY]]
        more = f" and {len(items) - MANY} more" if len(items) > MANY else ""
        kind = "samples" if names is not None else "items of the batch"
        return Fault("batch", said=f"{said}, in {kind} {', '.join(known)}{more}.", items=items)
    return None


def find_unsound(model: nn.Module) -> Fault | None:
    """The first weight or running statistic of a model that is no number; None where all are.

    Other buffers may be infinite (masks are), but not NaN.
    """
    for path, module in model.named_modules():
        kind = kind_of(module)
        for name, weight in module.named_parameters(recurse=False):
            if not finite(weight):
                return Fault(
                    "weights", path, kind, f"The model was broken before the step: weight {_part(path, name)} ({kind}) is not finite."
                )
        for name, buffer in module.named_buffers(recurse=False):
            if not finite(buffer) and (name.startswith("running_") or bool(torch.isnan(buffer).any())):
                said = f"The model was broken before the step: buffer {_part(path, name)} ({kind}) is not finite."
                return Fault("buffers", path, kind, said)
    return None


def _listen(value: Any, heard: list[bool]) -> None:
    """Note of every tensor within whether the gradient that arrives at it is finite."""
    for x in tensors(value).values():
        if x.requires_grad:
            x.register_hook(lambda gradient: heard.append(finite(gradient)))


@dataclass
class _Calls:
    """All layers at work: in the order in which they began, and in that in which they ended."""

    begun: list[_Call] = field(default_factory=list)
    ended: list[_Call] = field(default_factory=list)
    open: list[_Call] = field(default_factory=list)
    gradients: dict[int, _Gradient] = field(default_factory=dict)
    handles: list[RemovableHandle] = field(default_factory=list)

    def enter(self, path: str, module: nn.Module, given: Any) -> None:
        call = _Call(path, module, self.open[-1] if self.open else None, all(finite(x) for _, x in leaves(given)))
        call.weights = {name: id(weight) for name, weight in module.named_parameters(recurse=False)}
        for name, weight in module.named_parameters():  # sharded ones are there when their unit has begun, and not before
            if weight.requires_grad and id(weight) not in self.gradients and own(weight) is weight:
                self.gradients[id(weight)] = _Gradient(_part(path, name))
                self.handles.append(weight.register_hook(self.gradients[id(weight)].note))
        _listen(given, call.passed)
        self.begun.append(call)
        self.open.append(call)

    def leave(self, y: Any) -> None:
        call = self.open.pop()
        wrong = [x.detach() for x in tensors(y).values() if not finite(x)]
        if wrong:
            call.wrong = f"{sum(int((~torch.isfinite(x)).sum()) for x in wrong):,} of {sum(x.numel() for x in wrong):,}"
        _listen(y, call.asked)
        self.ended.append(call)

    def first(self) -> dict[str, Any]:
        """Path and kind of the first layer whose output is not finite."""
        found = next((call for call in self.ended if call.wrong), None)
        return {} if found is None else {"layer": found.path, "kind": kind_of(found.module)}

    def reached(self) -> str:
        found = next((call for call in self.ended if call.wrong), None)
        return "" if found is None else f"The first output that is not finite is that of {found.name}."

    def forward(self, loss: Tensor) -> Fault | None:
        """The first layer that made of finite numbers some that are not."""
        for call in self.ended:
            if not call.wrong:
                continue
            if call.entered:
                return call.fault("forward", f"In {call.name}, {call.wrong} values of the output are not finite; what came in was.")
            owner = call.parent or call
            return owner.fault("forward", f"In {owner.name}, outside of its layers: what {call.name} was given is not finite.")
        if not finite(loss):
            return Fault("loss", said=f"The loss is {loss.item():.4g}, though every layer's output is finite: it was computed outside.")
        return None

    def backward(self, model: nn.Module, loss: Tensor) -> Fault | None:
        """The first layer on the way back that made of a finite gradient one that is not."""
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        if not loss.requires_grad or not weights:
            return None
        _go_back(loss, weights)
        for call in reversed(self.begun):  # layers within before those that hold them
            if not all(call.asked):
                continue
            broken = [name for name, number in call.weights.items() if number in self.gradients and not self.gradients[number].sound]
            inside = [part for part in self.begun if part.parent is call and not all(part.asked)]
            if broken or inside or not all(call.passed):
                what = (
                    f"the gradient of {', '.join(broken)}" if broken else "the gradient within" if inside else "the gradient of its input"
                )
                return call.fault("backward", f"In {call.name}, {what} is not finite, though the one that arrived there was.")
        if not all(gradient.sound for gradient in self.gradients.values()):
            return Fault("loss", said=f"The loss is {loss.item():.4g}, but its gradient at the model's output is not finite.")
        return _overflow([*self.gradients.values()])


def _go_back(loss: Tensor, weights: Sequence[Tensor]) -> None:
    """The backward pass, after which the weights have the gradients that they had."""
    if all(own(weight) is weight for weight in weights):
        torch.autograd.grad(loss, weights, allow_unused=True)
        return
    before = [weight.grad for weight in weights]
    for weight in weights:
        weight.grad = None
    loss.backward()
    for weight, gradient in zip(weights, before, strict=True):
        weight.grad = gradient


def _overflow(gradients: Sequence[_Gradient]) -> Fault | None:
    """Gradients that are finite, each of them, and their norm not: its squares are beyond the largest number."""
    if finite(torch.linalg.vector_norm(torch.stack([gradient.norm for gradient in gradients] or [torch.zeros(())]))):
        return None
    value, path = max((gradient.largest, gradient.path) for gradient in gradients)
    layer = path.rpartition(".")[0]
    return Fault("backward", layer, "", f"Every gradient is finite, their norm is not: that of {path} reaches {value:.2g}.")


@contextmanager
def _watched(model: nn.Module) -> Iterator[_Calls]:
    """Within the block every call of a layer is noted. Fused layers see the hooks, and are called one by one."""
    calls, handles = _Calls(), []
    for path, module in model.named_modules():

        def enter(module: nn.Module, given: Any, named: Any, path: str = path) -> None:
            calls.enter(path, module, (given, named))

        def leave(module: nn.Module, given: Any, named: Any, y: Any) -> None:
            calls.leave(y)

        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave, with_kwargs=True))
    try:
        yield calls
    finally:
        for handle in (*handles, *calls.handles):
            handle.remove()


def _part(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
