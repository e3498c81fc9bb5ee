"""Builds the native kernels where torch and a C++ compiler are at hand; pyproject.toml says everything else.

    pip install --no-build-isolation -e .        torch of this environment is the one that the kernels are built for

Without torch, without a compiler, or when the compiler fails, one line says so and the package is installed all the same: every
layer then takes its other routes. TWOFOLD_NATIVE=0 skips the kernels, CXX names the compiler.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from setuptools import setup

SOURCES = Path("src/twofold/kernels/cpu")
BUILDING = {"build", "build_ext", "bdist_wheel", "editable_wheel", "install", "develop"}


def settings() -> dict[str, Any]:
    """The extension and how to build it, or nothing where it cannot be built."""
    reason = obstacle()
    if reason:
        say(reason)
        return {}
    return {"ext_modules": [extension()], "cmdclass": {"build_ext": build()}}


def obstacle() -> str:
    """Why the kernels cannot be built here, or ''. Settles which compiler is used."""
    if os.environ.get("TWOFOLD_NATIVE") == "0":
        return "TWOFOLD_NATIVE is 0"
    try:
        import torch.utils.cpp_extension  # noqa: F401
    except ImportError as error:
        return f"torch cannot be imported while building ({error}); install it first, then use pip install --no-build-isolation"
    if sys.platform == "win32":
        return ""  # setuptools finds Microsoft's compiler by itself
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for candidate in candidates:
        if runs(candidate):
            os.environ["CXX"] = candidate
            return ""
    return f"no C++ compiler works ({', '.join(candidates)})"


def runs(command: str) -> bool:
    """Whether the compiler is there and answers."""
    words = command.split()
    if not shutil.which(words[0]):
        return False
    return subprocess.run([*words, "--version"], capture_output=True, check=False).returncode == 0


def gcc() -> bool:
    """Whether the compiler is GNU's."""
    if sys.platform != "linux":
        return False
    asked = subprocess.run([*os.environ["CXX"].split(), "--version"], capture_output=True, text=True, check=False)
    return "Free Software Foundation" in asked.stdout and "clang" not in asked.stdout


def extension() -> Any:
    """One library, no Python module in it: torch loads it and finds the operators that it registers."""
    import torch
    from torch.utils.cpp_extension import CppExtension

    unix = ["-O3", "-g0", "-fvisibility=hidden", "-fno-trapping-math"]  # comparisons may be vectorised; NaN keeps its meaning
    if gcc():
        # at::parallel_for is a loop in one thread without it. Not given to the linker: the calls find the runtime that torch
        # brings along, whereas a second one would stall both. (Clang's calls torch's runtime does not know.)
        unix.append("-fopenmp")
    return CppExtension(
        "twofold.kernels._native",
        [str(path) for path in sorted(SOURCES.glob("*.cpp"))],
        define_macros=[("TWOFOLD_TORCH", f'"{torch.__version__}"')],
        extra_compile_args=["/O2"] if sys.platform == "win32" else unix,
        extra_link_args=[] if sys.platform in ("win32", "darwin") else ["-Wl,-s"],
        py_limited_api=True,  # the library holds no Python: do not link libtorch_python
        optional=True,
    )


def build() -> type:
    """torch's build command (its flags for its headers), except that a failure is told and forgiven."""
    from torch.utils.cpp_extension import BuildExtension

    class Build(BuildExtension.with_options(no_python_abi_suffix=True, use_ninja=False)):  # type: ignore[misc]
        def finalize_options(self) -> None:
            super().finalize_options()
            self.force = True  # dates of files say nothing about a torch or a compiler that changed

        def build_extensions(self) -> None:
            with tempfile.TemporaryFile() as log:
                try:
                    for ext in self.extensions:
                        ext.optional = False  # else setuptools swallows the error, and the compiler's words with it
                    with output_to(log.fileno()):
                        super().build_extensions()
                except Exception as error:
                    for folder in (SOURCES.parent, Path(self.build_lib, "twofold", "kernels")):
                        for stale in folder.glob("_native*"):  # an older build would run in place of the sources
                            stale.unlink()
                    log.seek(0)
                    lines = log.read().decode(errors="replace").splitlines()
                    say("the compiler failed. Its last lines:")
                    print("\n".join(lines[-20:] or [str(error)]), flush=True)
                finally:
                    for ext in self.extensions:
                        ext.optional = True

    return Build


@contextmanager
def output_to(file: int) -> Iterator[None]:
    """Send what this process and its children print to the file: the compiler writes past Python's streams."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(stream, os.dup(stream)) for stream in (1, 2)]
    try:
        for stream, _ in kept:
            os.dup2(file, stream)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, copy in kept:
            os.dup2(copy, stream)
            os.close(copy)


def say(reason: str) -> None:
    """Tell once, though pip runs this file several times."""
    if BUILDING & set(sys.argv[1:]):
        print(f"twofold: native kernels are skipped: {reason}", flush=True)


setup(**settings())
