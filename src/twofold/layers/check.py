"""The four witnesses: every operation answers the same questions.

    1 differences   the gradient equals finite differences, in first and second order
    2 expression    value and gradient equal those of an independent expression, differentiated by autograd
    3 laws          all routes agree · a linear map is adjoint to its backward: <A x, y> = <x, A' y> · a batch of one is a row of
                    the batch · an output that nobody uses counts as zeros · arguments are left as they were
    4 messages      bad input gets a sentence with the words that a user needs

A new operation gets them for free: describe it as a `Case` in float64 and call `check(case)`. Equal shapes prove nothing.
Choose sizes that differ from each other, distinct weights and more than one row: constant or square data hides mistakes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from twofold.layers.differentiable import Operation

RELATIVE = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class Case:
    """One configuration of an operation."""

    operation: Operation
    arguments: tuple[Any, ...]  # float64 tensors, those that need gradients have requires_grad; then the options
    expression: Callable[..., Any]  # takes the same arguments, built of other operations than the plain form
    linear: bool = False  # the output is linear in the first argument, the bias being absent
    rows: bool = True  # the first axis of the first argument and of the output is a batch of independent rows
    row_arguments: tuple[int, ...] = (0,)  # the arguments that have that axis
    second_order: bool = True
    bad: tuple[tuple[Callable[[], Any], tuple[str, ...]], ...] = ()  # (call, words that its message must hold)


def check(case: Case) -> None:
    """Ask all four witnesses; AssertionError names the one that disagrees."""
    check_differences(case)
    check_expression(case)
    check_routes(case)
    check_adjoint(case)
    check_rows(case)
    check_unused(case)
    for call, words in case.bad:
        check_message(call, *words)


def check_differences(case: Case) -> None:
    """Witness 1: finite differences, first order and, where it is defined, second order."""
    variables, rebuild = _variables(case.arguments)

    def plain(*values: Tensor) -> Any:
        return _floating(case.operation.by("plain", *rebuild(values)))

    assert torch.autograd.gradcheck(plain, variables), f"{case.operation}: gradient differs from finite differences"
    if case.second_order:
        assert torch.autograd.gradgradcheck(plain, variables), f"{case.operation}: second order differs"


def check_expression(case: Case) -> None:
    """Witness 2: the value and every gradient of an independent expression."""
    ours = outcome(lambda *a: case.operation.by("plain", *a), case.arguments)
    theirs = outcome(case.expression, case.arguments)
    _compare(f"{case.operation} against the independent expression", ours, theirs, 1e-10)


def check_routes(case: Case) -> None:
    """Law: every route that can serve gives what the definition gives, in float64 and in float32; arguments stay untouched."""
    truth = outcome(lambda *a: case.operation.by("plain", *a), case.arguments)
    for dtype in (torch.float64, torch.float32):
        arguments = _cast(case.arguments, dtype)
        for route in case.operation.routes(*arguments):
            got = outcome(lambda *a, route=route: case.operation.by(route, *a), arguments)
            _compare(f"{case.operation} by route {route} in {dtype}", got, truth, RELATIVE[dtype])


def check_adjoint(case: Case) -> None:
    """Law: <A x, y> = <x, A' y> for an operation that is linear in its first argument."""
    if not case.linear:
        return
    x = case.arguments[0].detach()
    rest = case.arguments[1:]
    Ax, saved = case.operation.plain.forward(x, *rest)
    y = _noise(Ax)
    dx = case.operation.plain.backward(y, saved)
    dx = dx[0] if isinstance(dx, tuple) else dx
    left, right = (Ax * y).sum(), (x * dx).sum()
    assert torch.allclose(left, right, rtol=1e-11, atol=1e-11), f"{case.operation}: <Ax,y> = {left} but <x,A'y> = {right}"


def check_rows(case: Case) -> None:
    """Law: a batch of one gives that row of the batch."""
    if not case.rows:
        return
    whole = case.operation.by("plain", *case.arguments)
    for row in range(case.arguments[0].shape[0]):
        alone = [a[row : row + 1] if i in case.row_arguments else a for i, a in enumerate(case.arguments)]
        single = case.operation.by("plain", *alone)
        for one, all_rows in zip(_tuple(single), _tuple(whole), strict=True):
            assert torch.allclose(one, all_rows[row : row + 1], rtol=1e-10, atol=1e-12), f"{case.operation}: row {row} differs"


def check_unused(case: Case) -> None:
    """Law: an output that the loss does not use contributes a zero gradient, not an error."""
    for used, output in enumerate(_tuple(case.operation.by("plain", *case.arguments))):
        if not output.requires_grad:
            continue
        ours = outcome(lambda *a, used=used: _tuple(case.operation.by("plain", *a))[used], case.arguments)
        theirs = outcome(lambda *a, used=used: _tuple(case.expression(*a))[used], case.arguments)
        _compare(f"{case.operation}, output {used} alone", ours, theirs, 1e-10)


def check_message(call: Callable[[], Any], *words: str) -> None:
    """Witness 4: the call raises ValueError in one line, and the message holds all the words."""
    try:
        call()
    except ValueError as error:
        message = str(error)
        assert "\n" not in message, f"the message has several lines: {message}"
        missing = [word for word in words if word not in message]
        assert not missing, f"the message lacks {missing}: {message}"
        return
    raise AssertionError(f"accepted in silence; expected a ValueError with {words}")


def check_drop_in(ours: nn.Module, theirs: nn.Module, *inputs: Any) -> None:
    """Law: our layer stands in for torch's: it is one, weights load both ways, values and gradients are the same."""
    assert isinstance(ours, type(theirs)), f"{type(ours).__name__} is no {type(theirs)}"
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert repr(ours) == repr(theirs), f"{ours!r} reads differently from {theirs!r}"
    results = []
    for layer in (ours, theirs):
        leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) if isinstance(x, Tensor) else x for x in inputs]
        outputs = [y for y in _leaves(layer(*leaves)) if y.is_floating_point()]
        wanted = [x for x in (*leaves, *layer.parameters()) if isinstance(x, Tensor) and x.requires_grad]
        total = sum((_noise(y, place) * y).sum() for place, y in enumerate(outputs))
        results.append([*outputs, *torch.autograd.grad(total, wanted)])  # type: ignore[arg-type]
    dtype = results[0][0].dtype
    _compare(f"{type(ours).__name__} against torch", results[0], results[1], RELATIVE[dtype])


def outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Tensor]:
    """The outputs of the function and the gradients of a fixed random weighing of them, for all arguments that need one.

    The function works on copies; AssertionError where it, or its backward pass, changes one.
    """
    leaves = [a.detach().clone().requires_grad_(a.requires_grad) if isinstance(a, Tensor) else a for a in arguments]
    outputs = [y for y in _tuple(function(*leaves)) if isinstance(y, Tensor)]
    wanted = [a for a in leaves if isinstance(a, Tensor) and a.requires_grad]
    total = sum((_noise(y, place) * y).sum() for place, y in enumerate(outputs) if y.requires_grad)
    gradients = torch.autograd.grad(total, wanted, allow_unused=True) if wanted else ()  # type: ignore[arg-type]
    for place, (given, used) in enumerate(zip(arguments, leaves, strict=True)):
        untouched = not isinstance(given, Tensor) or bool(((given == used) | ((given != given) & (used != used))).all())
        assert untouched, f"{function} changed its arguments: number {place}"
    return [
        *(y.detach() for y in outputs),
        *(torch.zeros_like(a) if g is None else g for a, g in zip(wanted, gradients, strict=True)),
    ]


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64, grad: bool = True) -> Tensor:
    """Normally distributed numbers, the same for the same seed and shape: all distinct, so that no two weights can be confused."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype).requires_grad_(grad)


def _noise(like: Tensor, place: int = 0) -> Tensor:
    """Other numbers for every place, so that outputs of one shape cannot be confused."""
    return noise(*like.shape, seed=sum(like.shape) + 1000 * place, grad=False).to(like.dtype)


def _compare(what: str, got: Iterable[Tensor], truth: Iterable[Tensor], relative: float) -> None:
    for number, (a, b) in enumerate(zip(got, truth, strict=True)):
        assert a.shape == b.shape, f"{what}: result {number} has shape {tuple(a.shape)}, not {tuple(b.shape)}"
        if not b.numel():
            continue
        bound = relative * max(1.0, b.abs().double().nan_to_num(0.0, 0.0, 0.0).max().item())
        same = torch.isclose(a.double(), b.double(), rtol=relative, atol=bound, equal_nan=True)
        worst = (a.double() - b.double()).abs().max().item()
        assert same.all(), f"{what}: result {number} differs by {worst:.3g}, more than {bound:.3g}"


def _variables(arguments: tuple[Any, ...]) -> tuple[tuple[Tensor, ...], Callable[[Iterable[Tensor]], list[Any]]]:
    places = [i for i, a in enumerate(arguments) if isinstance(a, Tensor) and a.requires_grad]

    def rebuild(values: Iterable[Tensor]) -> list[Any]:
        whole = list(arguments)
        for place, value in zip(places, values, strict=True):
            whole[place] = value
        return whole

    return tuple(arguments[i].detach().clone().requires_grad_() for i in places), rebuild


def _cast(arguments: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    return tuple(
        a.detach().to(dtype).requires_grad_(a.requires_grad) if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments
    )


def _tuple(y: Any) -> tuple[Any, ...]:
    return y if isinstance(y, tuple) else (y,)


def _leaves(y: Any) -> list[Tensor]:
    return [y] if isinstance(y, Tensor) else [leaf for part in y for leaf in _leaves(part)]


def _floating(y: Any) -> Any:
    return tuple(part for part in _tuple(y) if part.is_floating_point())
