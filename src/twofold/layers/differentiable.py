"""The bridge: a plain pair (forward, backward) becomes an operation that autograd can use.

    forward(*arguments)   ->  (y, saved)      y: a tensor or a tuple of tensors; saved: what backward needs
    backward(dy, saved)   ->  gradients       one per leading argument, None where there is none

Autograd orders the backward pass, our code computes it. So optimisers, hooks, DDP and AMP work as with any torch operation.

Second order: when a graph of the gradient is asked for (`create_graph=True`), backward runs in torch operations that autograd
records. What forward computed on the way (gates, normalised values) depends on the inputs, so it is computed anew from them
with autograd watching; otherwise the second derivative would miss those terms in silence.
"""

from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from twofold.layers.forms import FORMS, bf16_autocast, bf16_permitted, by_form, forms_of
from twofold.layers.measured import fastest
from twofold.layers.routes import FURTHER, traced, wanted_route

Forward = Callable[..., tuple[Any, Any]]
Backward = Callable[[Any, Any], Any]


class Pair(NamedTuple):
    """A forward pass and the backward pass that belongs to it."""

    forward: Forward
    backward: Backward


class Native(NamedTuple):
    """A compiled pair, and the question whether it can serve: `unfit(*arguments)` is the reason why not, or ''.

    `worth(*arguments)`: whether `auto` should take it where it fits; None: nobody knows, measure. Without it, always. Its `saved` has the
    type of the plain form's, or an attribute `compiled` that is true: then second derivatives start anew from the arguments, as with
    floating-point intermediates. Where `backward` is None, `forward` returns y alone and is a node of autograd by itself.
    """

    forward: Callable[..., Any]
    backward: Backward | None
    unfit: Callable[..., str]
    worth: Callable[..., bool | None] | None = None


class Other(NamedTuple):
    """One more way to compute y, differentiable by itself, that `auto` may take where it is measured to be the fastest.

    `unfit(*arguments)`: the reason why it cannot serve, or ''. `reduced`: it rounds, so it needs `with precision("bf16")`.
    `worth(*arguments)`: whether it is known to be the fastest where it fits, under autocast too; without it, that is measured.
    """

    compute: Callable[..., Any]
    unfit: Callable[..., str] = lambda *_: ""
    reduced: bool = False
    worth: Callable[..., bool] | None = None


class _Bridge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pair: Pair | Native, plain: Pair, *arguments: Any) -> Any:
        y, saved = pair.forward(*arguments)
        tensors: list[Tensor] = []
        ctx.saved = _set_aside(saved, tensors)
        ctx.anew = getattr(saved, "compiled", False) or _intermediates(tensors, arguments, y)
        if ctx.anew:
            ctx.arguments = _set_aside(arguments, tensors)
        ctx.save_for_backward(*tensors)
        ctx.pair, ctx.plain, ctx.arity = pair, plain, len(arguments)
        return y

    @staticmethod
    def backward(ctx: Any, *dy: Any) -> Any:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):  # the precision was settled in forward
                with torch.autocast(kind, enabled=False):
                    return _gradients(ctx, dy)
        return _gradients(ctx, dy)


def _gradients(ctx: Any, dy: tuple[Any, ...]) -> Any:
    grad = dy[0] if len(dy) == 1 else dy
    tensors = ctx.saved_tensors
    if torch.is_grad_enabled() and ctx.anew:
        _, saved = ctx.plain.forward(*_put_back(ctx.arguments, tensors))
    else:
        saved = _put_back(ctx.saved, tensors)
    compute = ctx.plain.backward if torch.is_grad_enabled() else ctx.pair.backward
    gradients = compute(grad, saved)
    if not isinstance(gradients, tuple):
        gradients = (gradients,)
    assert len(gradients) <= ctx.arity, f"{ctx.pair.backward}: {len(gradients)} gradients for {ctx.arity} arguments"
    gradients += (None,) * (ctx.arity - len(gradients))
    return (None, None, *(g if needed else None for g, needed in zip(gradients, ctx.needs_input_grad[2:], strict=True)))


def _intermediates(tensors: list[Tensor], arguments: tuple[Any, ...], y: Any) -> bool:
    """Whether forward saved real or complex tensors that are neither its arguments nor its results."""
    known = {id(t) for t in (*arguments, *(y if isinstance(y, tuple) else (y,)))}
    return any(id(t) not in known and (t.is_floating_point() or t.is_complex()) for t in tensors)


class _Slot:
    """Where the tensor of this number stood."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


def _set_aside(value: Any, tensors: list[Tensor]) -> Any:
    """The value with a slot for every tensor; the tensors are appended: autograd must keep them (it guards them against changes)."""
    kind = type(value)
    if kind in _COMMON or isinstance(value, Tensor):  # isinstance alone costs a microsecond
        tensors.append(value)
        return _Slot(len(tensors) - 1)
    if isinstance(value, tuple):
        return _like(value, [part if type(part) in _NUMBERS else _set_aside(part, tensors) for part in value])
    assert kind not in _HIDING, f"saved may hold tuples, not {kind.__name__}: autograd must see all tensors"
    return value


def _put_back(value: Any, tensors: tuple[Tensor, ...]) -> Any:
    if type(value) is _Slot:
        return tensors[value.number]
    if isinstance(value, tuple):
        return _like(value, [part if type(part) in _NUMBERS else _put_back(part, tensors) for part in value])
    return value


_COMMON, _NUMBERS, _HIDING = {Tensor, Parameter}, {int, float, bool, type(None)}, {list, dict, set}


def _like(value: tuple[Any, ...], parts: list[Any]) -> tuple[Any, ...]:
    """A tuple of the same type: named tuples take their parts one by one."""
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


class Operation:
    """A differentiable operation with routes. Call it with forward's arguments: it returns y."""

    def __init__(
        self,
        forward: Forward,
        backward: Backward,
        vendor: Callable[..., Any] | None,
        native: Native | None,
        layouts: bool,
        reduced: bool,
        others: Mapping[str, Other],
    ) -> None:
        self.plain = Pair(forward, backward)
        self.vendor = vendor
        self.native = native
        self.layouts, self.reduced, self.others = layouts, reduced, others
        self.open = layouts or any(not other.reduced for other in others.values())  # a choice even without native and permission
        self.rounds = reduced or any(other.reduced for other in others.values())
        FURTHER.extend(name for name in others if name not in FURTHER)
        self.__name__ = forward.__module__.rsplit(".", 1)[-1]
        self.__doc__ = forward.__doc__

    def routes(self, *arguments: Any) -> list[str]:
        """The routes that can serve these arguments, the definition first."""
        names = ["plain"]
        if self.vendor is not None:
            names.append("vendor")
        if self.native is not None and not self.native.unfit(*arguments):
            names.append("native")
        return names

    def contenders(self, *arguments: Any) -> dict[str, Callable[..., Any]]:
        """What `auto` may choose among for these arguments; what rounds only where the user permits it."""
        permitted = bf16_permitted()
        names = [name for name in self.routes(*arguments) if name != "plain" or self.vendor is None]
        names += forms_of(arguments, self.layouts, self.reduced and permitted) if self.vendor is not None else []
        names += [name for name, other in self.others.items() if (permitted or not other.reduced) and not other.unfit(*arguments)]
        return {name: partial(self.by, name) for name in names}

    def choose(self, *arguments: Any) -> str:
        """The route for these arguments: the wanted one, or that of `auto`.

        Raises ValueError where the wanted route exists but cannot serve, with the reason.
        """
        return self.decide(*arguments)[0]

    def decide(self, *arguments: Any) -> tuple[str, str]:
        """(the route for these arguments, why)"""
        default = "vendor" if self.vendor is not None else "plain"
        if torch.compiler.is_compiling():  # the compiler fuses torch's own operators; it cannot look into ours
            return default, "a compiler looks on"
        wanted, native = wanted_route(), self.native
        if wanted != "auto" and self._has(wanted, arguments):
            return wanted, "asked for"
        for name, other in self.others.items():
            permitted = not other.reduced or bf16_permitted() or bf16_autocast()
            if other.worth is not None and permitted and not traced() and other.worth(*arguments) and not other.unfit(*arguments):
                return name, "rule"
        rule: bool | None = None if self.open else False  # True: native, False: the default, None: nobody knows
        if native is not None:
            rule = native.worth is None or native.worth(*arguments)
            if rule and native.unfit(*arguments):
                rule = None if self.open else False
        if (rule is None or (self.rounds and bf16_permitted())) and not traced():
            kept = "native" if rule else default
            return fastest(self._name(), arguments, kept, partial(self._in_question, kept, rule is not None, arguments))
        if rule and not traced():
            return "native", "rule"
        return default, "rule" if native is not None else "only one"

    def _has(self, wanted: str, arguments: tuple[Any, ...]) -> bool:
        """Whether there is the wanted route. Raises ValueError where it cannot serve these arguments."""
        if wanted == "native" and self.native is not None:
            reason = self.native.unfit(*arguments)
            if reason:
                raise ValueError(f'route "native": {reason}. Use route("auto"), which takes what fits.')
            return True
        if wanted in self.others:
            return not self.others[wanted].unfit(*arguments)
        if wanted == "plain" or self.vendor is None:
            return wanted == "plain"
        return wanted == "vendor" or wanted in forms_of(arguments, self.layouts, self.reduced)

    def _in_question(self, kept: str, ruled: bool, arguments: tuple[Any, ...]) -> dict[str, Callable[..., Any]]:
        """The contenders; where a rule has chosen, its choice and those that round, of which it knows nothing.

        Not those that also change the layout: all layers behind would inherit it, and lose the kernels that it has not.
        """
        rounding = {name for name, form in FORMS.items() if form.reduced and not form.layouts} | {
            name for name, other in self.others.items() if other.reduced
        }
        return {name: run for name, run in self.contenders(*arguments).items() if not ruled or name == kept or name in rounding}

    def _name(self) -> str:
        """What a measurement is remembered by."""
        forward = self.plain.forward
        return f"{forward.__module__}.{forward.__name__}{' in bf16' if self.rounds and bf16_permitted() else ''}"

    def by(self, route_name: str, *arguments: Any) -> Any:
        """Apply by the named route."""
        if route_name == "vendor":
            assert self.vendor is not None
            return self.vendor(*arguments)
        if route_name in FORMS:
            assert self.vendor is not None
            return by_form(route_name, self.vendor, arguments)
        if route_name in self.others:
            return self.others[route_name].compute(*arguments)
        pair = self.plain if route_name == "plain" else self.native
        assert pair is not None
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                with torch.autocast(kind, enabled=False):
                    return self._compute(pair, _same_precision(arguments))
        return self._compute(pair, arguments)

    def _compute(self, pair: Pair | Native, arguments: tuple[Any, ...]) -> Any:
        if traced():
            return self.plain.forward(*arguments)[0]  # a tracer differentiates what it sees
        if pair.backward is None:
            return pair.forward(*arguments)
        if torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in arguments):
            return _Bridge.apply(pair, self.plain, *arguments)
        return pair.forward(*arguments)[0]

    def __call__(self, *arguments: Any) -> Any:
        return self.by(self.choose(*arguments), *arguments)

    def explain(self, *arguments: Any) -> tuple[Any, Any]:
        """The plain form's (y, saved) without gradients: what `see` draws."""
        with torch.no_grad():
            return self.plain.forward(*arguments)

    def __repr__(self) -> str:
        return f"<operation {self.plain.forward.__module__}.{self.plain.forward.__name__}>"


def differentiable(
    forward: Forward,
    backward: Backward,
    *,
    vendor: Callable[..., Any] | None = None,
    native: Native | None = None,
    layouts: bool = False,
    reduced: bool = False,
    others: Mapping[str, Other] | None = None,
) -> Operation:
    """Make an operation of a plain pair. `vendor` takes forward's arguments and returns y, differentiable by torch itself.

    Further contenders of `auto`: the vendor in the other layout (`layouts`), the vendor in bf16 where the user permits it (`reduced`),
    and `others` by name.

    The leading arguments of forward are those that backward returns gradients for, in the same order.

    >>> import torch
    >>> def forward(x): return x * x, x
    >>> def backward(dy, saved): return 2 * saved * dy
    >>> square = differentiable(forward, backward)
    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> square(x).backward(); x.grad
    tensor(6.)
    """
    return Operation(forward, backward, vendor, native, layouts, reduced, others or {})


def _same_precision(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Under autocast a layer meets tensors of two precisions: the plain and native forms compute in the wider one."""
    dtypes = [a.dtype for a in arguments if isinstance(a, Tensor) and a.is_floating_point()]
    if len(set(dtypes)) < 2:
        return arguments
    widest = reduce(torch.promote_types, dtypes)
    return tuple(a.to(widest) if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments)
