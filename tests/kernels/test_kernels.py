"""Loading the native library: what it says, and that nothing depends on it. Building it: what setup.py says where it cannot."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from twofold import kernels

ROOT = Path(__file__).parents[2]
needs_library = pytest.mark.skipif(not kernels.available(), reason=kernels.reason())


def python(code, **environment):
    """What another Python process prints."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.fixture
def fresh():
    """Loading starts anew within the test, and again after it."""
    kernels.load.cache_clear()
    yield kernels
    kernels.load.cache_clear()


def test_available_is_the_absence_of_a_reason():
    assert kernels.available() == (kernels.reason() == "") == (kernels.instruction_set() != "")


def test_switched_off_the_other_routes_serve():
    code = """
import torch, twofold
from twofold import kernels
from twofold.space.max_pooling import MaxPool2d
layer = MaxPool2d(2)
layer(torch.ones(1, 1, 2, 2))
print(kernels.reason(), "|", layer.last_route, "|", repr(kernels.instruction_set()))
try:
    with twofold.route("native"):
        layer(torch.ones(1, 1, 2, 2))
except ValueError as error:
    print(error)
"""
    first, second = python(code, TWOFOLD_NATIVE="0").splitlines()
    assert first == "switched off by TWOFOLD_NATIVE=0 | vendor | ''"
    assert second == 'route "native": switched off by TWOFOLD_NATIVE=0. Use route("auto"), which takes what fits.'


def test_a_library_that_is_absent_is_said(fresh, monkeypatch, tmp_path):
    monkeypatch.delenv("TWOFOLD_NATIVE", raising=False)
    monkeypatch.setattr(fresh, "FOLDER", tmp_path)
    assert fresh.reason().startswith("the native kernels are not built; build them with: pip install --no-build-isolation")
    assert not fresh.available() and fresh.instruction_set() == ""


def test_a_library_that_cannot_be_loaded_is_said_in_one_line(fresh, monkeypatch, tmp_path):
    monkeypatch.delenv("TWOFOLD_NATIVE", raising=False)
    (tmp_path / "_native.so").write_bytes(b"no library")
    monkeypatch.setattr(fresh, "FOLDER", tmp_path)
    assert f"do not fit torch {torch.__version__}" in fresh.reason() and "\n" not in fresh.reason()


@needs_library
def test_a_library_for_another_torch_is_not_used(fresh, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "9.9.0")
    assert "were built for torch 2." in fresh.reason() and "this is torch 9.9.0" in fresh.reason()


SETS = ("base", "avx2", "avx512")


@needs_library
@pytest.mark.parametrize("asked", ["default", "avx2"])
def test_torchs_own_setting_lowers_the_instruction_set(asked):
    chosen = python("from twofold import kernels; print(kernels.instruction_set())", ATEN_CPU_CAPABILITY=asked)
    assert SETS.index(chosen) <= SETS.index({"default": "base", "avx2": "avx2"}[asked])
    assert SETS.index(chosen) <= SETS.index(kernels.instruction_set())


@needs_library
@pytest.mark.parametrize("asked", ["default", "avx2", "avx512"])
def test_every_kernel_on_every_instruction_set(asked):
    """Each file's fixed cases, in a process where torch, and so the kernels, use no more than is asked for."""
    here = torch.backends.cpu.get_cpu_capability()
    order = ("DEFAULT", "AVX2", "AVX512")
    if here not in order or order.index(asked.upper()) > order.index(here):
        pytest.skip(f"this machine has {here}, not {asked.upper()}")
    names = ("test_depthwise", "test_weighted_mean", "test_power_pool", "test_dense", "test_norm_join", "test_convolution_last")
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import {', '.join(names)}"
    runs = [f"{name}.in_a_process_of_its_own()" for name in names]
    said = python("; ".join([code, *runs, "print(test_depthwise.kernels.instruction_set())"]), ATEN_CPU_CAPABILITY=asked)
    assert said == {"default": "base"}.get(asked, asked)


@pytest.fixture
def copy_of_the_project(tmp_path):
    """setup.py and the sources of the kernels, where a build does no harm, with an outdated library among them."""
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    target = tmp_path / "src" / "twofold" / "kernels"
    shutil.copytree(ROOT / "src" / "twofold" / "kernels", target, ignore=shutil.ignore_patterns("_native*", "__pycache__"))
    (target / "_native.so").write_bytes(b"an older build")
    return tmp_path


def build(folder, **environment):
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext", "--inplace", "--build-temp", "objects"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


REASONS = {
    "no compiler": ({"CXX": "/bin/false"}, "no C++ compiler works (/bin/false)"),
    "switched off": ({"TWOFOLD_NATIVE": "0"}, "TWOFOLD_NATIVE is 0"),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_be_built_is_said_in_one_line(copy_of_the_project, name):
    environment, reason = REASONS[name]
    said = [line for line in build(copy_of_the_project, **environment) if line.startswith("twofold")]
    assert said == [f"twofold: native kernels are skipped: {reason}"]


@pytest.mark.skipif(sys.platform == "win32", reason="the compiler is a shell script")
def test_a_compiler_that_fails_is_quoted_and_forgiven(copy_of_the_project):
    compiler = copy_of_the_project / "broken"
    compiler.write_text('#!/bin/sh\ncase "$1" in -*version) echo 12.2.0;; *) echo "error: out of ink" >&2; exit 1;; esac\n')
    compiler.chmod(0o755)
    said = build(copy_of_the_project, TWOFOLD_NATIVE="1", CXX=str(compiler))
    assert "twofold: native kernels are skipped: the compiler failed. Its last lines:" in said and "error: out of ink" in said
    assert not list((copy_of_the_project / "src" / "twofold" / "kernels").glob("_native*")), "the outdated library is still there"
