"""Compiled forms of what the mathematics defines.

They live in one library beside this file, written in C++ and built by setup.py. Without it (no compiler, another torch,
TWOFOLD_NATIVE=0 in the environment) every layer takes its other routes, and `reason()` says why.
"""

import functools
import os
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
REBUILD = "build them with: pip install --no-build-isolation --no-deps -e ."


@functools.cache
def load() -> str:
    """Load the library once per process: '' or the reason why there are no native kernels. Never raises."""
    if os.environ.get("TWOFOLD_NATIVE") == "0":
        return "switched off by TWOFOLD_NATIVE=0"
    libraries = sorted(path for ending in ("so", "pyd", "dylib") for path in FOLDER.glob(f"_native*.{ending}"))
    if not libraries:
        return f"the native kernels are not built; {REBUILD}"
    try:
        torch.ops.load_library(libraries[0])
        built_for = torch.ops.twofold.built_for()
    except (OSError, RuntimeError, AttributeError) as error:
        return f"the native kernels do not fit torch {torch.__version__} ({first_line(error)}); {REBUILD}"
    if release(built_for) != release(torch.__version__):
        return f"the native kernels were built for torch {built_for}, this is torch {torch.__version__}; {REBUILD}"
    return ""


def available() -> bool:
    """Whether native kernels can run."""
    return not load()


def reason() -> str:
    """Why native kernels cannot run, or ''."""
    return load()


def instruction_set() -> str:
    """The instruction set that was chosen for this processor: base, avx2 or avx512; '' where there are no native kernels."""
    return torch.ops.twofold.instruction_set() if available() else ""


def release_memory() -> int:
    """Give back the memory that is kept for maps to come, and is not in use. Returns how many bytes that were.

    Maps and gradients of a quarter of a megabyte and more are kept when they are freed, up to an eighth of the machine's memory and 4 GB:
    the next step of training needs them again, and pages fresh from the system cost more than computing what fills them.
    """
    return int(torch.ops.twofold.release_memory()) if available() else 0


def release(version: str) -> str:
    """Major and minor number: patch releases of torch keep the binary interface.

    >>> release("2.13.0+cpu")
    '2.13'
    """
    return ".".join(version.split(".")[:2])


def first_line(error: BaseException) -> str:
    """The message's first line: a loader's message may have many."""
    return (str(error).splitlines() or [type(error).__name__])[0]
