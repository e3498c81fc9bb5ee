"""A compiler that fails, is killed or is not there ends a run with one sentence, and leaves nothing."""

import os
import subprocess
import sys

import pytest

from twofold.train.compiling import CompilerError, compiled, told

REFUSES = """#!/bin/sh
case "$1" in -v|--version|-dumpversion) echo "c++ (GCC) 12.2.0"; exit 0;; esac
echo "x.hpp:3: fatal error: out of ink" >&2
echo "compilation terminated." >&2
exit 1
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the compiler is a shell script")
def test_a_compiler_that_refuses_ends_the_run_with_its_last_words(tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text(REFUSES)
    compiler.chmod(0o755)
    words = [*("train", "digits", "--model", "vgg-mini", "--config", "stages=4 M"), "--compile", "--out", str(tmp_path / "run")]
    there = {**os.environ, "CXX": str(compiler), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "twofold", *words], env=there, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"twofold: compile: the compiler of torch.compile, {compiler}, failed: x.hpp:3: fatal error: out of ink. Train without --compile: "
        "the layers have kernels of their own. Or mend the compiler, or name another: CXX=g++."
    )
    assert "Traceback" not in done.stderr and not list((tmp_path / "run").iterdir())


def failures():
    from torch._dynamo.exc import BackendCompilerFailed
    from torch._inductor.exc import CppCompileError, InductorError, InvalidCxxCompiler

    killed = CppCompileError(["c++", "-O3"], "")
    killed.__cause__ = subprocess.CalledProcessError(-9, "c++")
    refused = BackendCompilerFailed(lambda: None, RuntimeError("missing lowering\nx"), None)
    return {
        "compile: the compiler of torch.compile, c++, failed: it was killed by signal 9. Train without --compile: ": killed,
        "compile: the compiler of torch.compile, g++, failed: it said nothing. ": CppCompileError(["g++"], "\n"),
        "compile: the compiler of torch.compile, cc, failed: last words. ": CppCompileError(["cc"], "first\nlast words.\n"),
        "compile: torch.compile failed: no C++ compiler works here. ": InductorError(InvalidCxxCompiler(), None),
        "compile: torch.compile failed: RuntimeError: missing lowering. ": refused,
    }


def test_every_failure_is_one_sentence_and_a_cure():
    for words, error in failures().items():
        assert told(error).startswith(words), told(error)
        with pytest.raises(CompilerError, match="Train without --compile"), compiled(True):
            raise error


def test_faults_of_the_model_come_through():
    with pytest.raises(RuntimeError, match="^mine$"), compiled(True):
        raise RuntimeError("mine")
