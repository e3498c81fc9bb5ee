"""A compiler that fails: what torch.compile says in pages, in one sentence.

    fails    there is no C++ compiler; it refuses; it is killed, perhaps for memory; torch has no code for an operator

The model is compiled at the first step, and again where a batch has another shape. Faults of the model itself come through as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CURE = "Train without --compile: the layers have kernels of their own. Or"


class CompilerError(ValueError):
    """torch.compile could not compile the model. The step has not reached the weights."""


@contextmanager
def compiled(wanted: bool) -> Iterator[None]:
    """A block that runs a compiled model, where that is wanted. Raises CompilerError where it cannot be compiled."""
    if not wanted:
        yield
        return
    from torch._dynamo.exc import BackendCompilerFailed
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    try:
        yield
    except (BackendCompilerFailed, CppCompileError, InvalidCxxCompiler) as error:
        raise CompilerError(told(error)) from error


def told(error: Exception) -> str:
    """Which compiler failed, its last line, and what to do."""
    cause: Any = getattr(error, "inner_exception", error)
    command, kind = getattr(cause, "cmd", None), type(cause).__name__
    if not command:
        first = next((line.strip(" .") for line in str(cause).splitlines() if line.strip()), "")
        said = "no C++ compiler works here" if kind == "InvalidCxxCompiler" else f"{kind}: {first}"
        return f"compile: torch.compile failed: {said}. {CURE} install a C++ compiler, or name it: CXX=g++."
    code = getattr(cause.__cause__, "returncode", 0)
    silent = f"it was killed by signal {-code}" if code < 0 else "it said nothing"
    said = _last_line(str(cause.output)) or silent
    return f"compile: the compiler of torch.compile, {command[0]}, failed: {said}. {CURE} mend the compiler, or name another: CXX=g++."


def _last_line(text: str) -> str:
    """The compiler's last error, else its last line."""
    lines = [line.strip(" .") for line in text.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")
