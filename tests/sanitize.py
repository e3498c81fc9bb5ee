"""Memory and threads of the compiled kernels under the compiler's eye: make sanitize, or

    python tests/sanitize.py [address] [thread] [FILE of tests ...]

The kernels are built once more, with -fsanitize=..., into build/sanitize/<name>, beside links to the package's Python files; the installed
ones stay as they are. Then the tests of kernels run in a process in which the sanitizer was loaded first. Before that it has to find a
mistake that is planted for it, or its silence would mean nothing.

address: reads and writes outside of what was allocated, or after it was freed. PyTorch's tensors are allocated through the sanitizer, too.
thread: two threads at one number without order between them. OpenMP's runtime is a stranger to it: a few lines that are built in tell it
where a parallel region begins and ends (`ORDER`). And threads that walk together wait longer for each other (`PATIENCE`): slowed down as
they are here, they would otherwise mostly walk alone.
"""

import os
import re
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE, FOLDER = ROOT / "src" / "twofold", ROOT / "build" / "sanitize"
FAILED = 99  # the exit status of a process in which a sanitizer found something
TESTS = ("kernels/test_dense.py", "kernels/test_recurrence.py", "time/test_walk.py")

PATIENCE = (r"kPatience = \d+;", "kPatience = 200000;")  # team.h, in microseconds

OPTIONS = {
    "address": {"ASAN_OPTIONS": f"detect_leaks=0:exitcode={FAILED}:allocator_may_return_null=1"},  # Python leaves leaks to the system
    "thread": {"TSAN_OPTIONS": f"exitcode={FAILED}:halt_on_error=1:ignore_noninstrumented_modules=1"},
}

ORDER = """
#include <dlfcn.h>
extern "C" {
void __tsan_acquire(void*);
void __tsan_release(void*);
struct Region { void (*work)(void*); void* data; char begun, ended; };
static void in_order(void* region) {
  auto* r = static_cast<Region*>(region);
  __tsan_acquire(&r->begun);
  r->work(r->data);
  __tsan_release(&r->ended);
}
__attribute__((visibility("hidden"))) void GOMP_parallel(void (*work)(void*), void* data, unsigned threads, unsigned flags) {
  static auto* run = reinterpret_cast<void (*)(void (*)(void*), void*, unsigned, unsigned)>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  Region region{work, data, 0, 0};
  __tsan_release(&region.begun);
  run(in_order, &region, threads, flags);
  __tsan_acquire(&region.ended);
}
}
"""

PLANTED = """
#include <cstdint>
extern "C" __attribute__((visibility("default"))) float planted_overflow(float* x, int64_t n) { return x[n]; }
extern "C" __attribute__((visibility("default"))) float planted_race(float* x, int64_t n) {
#pragma omp parallel num_threads(2)
  for (int64_t i = 0; i < n; ++i) x[0] += 1;
  return x[0];
}
"""

PROVE = """
import ctypes, sys, torch
from twofold import kernels
assert kernels.available() and kernels.FOLDER.is_relative_to({folder!r}), kernels.reason() or kernels.FOLDER
library = ctypes.CDLL(str(kernels.FOLDER / "_native.so"))
x = torch.zeros(1000)
getattr(library, {planted!r})(ctypes.c_void_p(x.data_ptr()), ctypes.c_int64(x.numel()))
print("silence")
"""


def compiler():
    return os.environ.get("CXX", "g++").split()


def runtime(sanitizer):
    """The libraries that must be loaded before all others: the sanitizer's, and the one whose exceptions it watches."""
    names = [f"lib{sanitizer[0]}san.so", "libstdc++.so.6"]
    found = [subprocess.run([*compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=True) for name in names]
    paths = [Path(answer.stdout.strip()) for answer in found]
    missing = [name for name, path in zip(names, paths, strict=True) if not path.is_absolute()]
    if missing:
        sys.exit(f"sanitize: {compiler()[0]} has no {', '.join(missing)}")
    return [path.resolve() for path in paths]


def copy(path, target):
    """The source with more patience; a file that would stay the same is not touched, or all would be compiled anew."""
    text = re.sub(*PATIENCE, path.read_text(encoding="utf-8"))
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def build(sanitizer):
    """The package with instrumented kernels; only what changed is compiled. -> the folder to import it from"""
    from torch.utils.cpp_extension import include_paths, library_paths
    from torch.version import __version__ as torch_version

    folder = FOLDER / sanitizer
    kernels = folder / "src" / "twofold" / "kernels"
    for path in PACKAGE.rglob("*.py"):
        link = folder / "src" / "twofold" / path.relative_to(PACKAGE)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(path)
    (folder / "order.cpp").write_text(ORDER if sanitizer == "thread" else "")
    (folder / "planted.cpp").write_text(PLANTED)
    flags = ["-std=c++20", "-O1", "-g", "-fPIC", "-fopenmp", "-fvisibility=hidden", "-fno-omit-frame-pointer", "-fno-trapping-math"]
    flags += ["-Wno-tsan", f"-fsanitize={sanitizer}", f'-DTWOFOLD_TORCH="{torch_version}"', "-DTORCH_API_INCLUDE_EXTENSION_H"]
    flags += [f"-I{path}" for path in (*include_paths(), sysconfig.get_path("include"))]
    for path in (PACKAGE / "kernels" / "cpu").iterdir():
        copy(path, folder / "cpu" / path.name)
    sources = sorted((folder / "cpu").glob("*.cpp"))
    changed = max(path.stat().st_mtime for path in (*(folder / "cpu").iterdir(), Path(__file__)))

    def compiled(source):
        made = folder / f"{source.stem}.o"
        if not made.exists() or made.stat().st_mtime < changed:
            half = made.with_suffix(".half")  # what is interrupted is no object file
            subprocess.run([*compiler(), *flags, "-c", str(source), "-o", str(half)], check=True)
            half.replace(made)
        return str(made)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, [*sources, folder / "order.cpp", folder / "planted.cpp"]))
    libraries = [f"-L{path}" for path in library_paths()] + ["-lc10", "-ltorch_cpu", "-ltorch", "-ldl"]
    linked = [*compiler(), "-shared", f"-fsanitize={sanitizer}", *objects, *libraries, "-o", str(kernels / "_native.so")]
    subprocess.run(linked, check=True)  # without -fopenmp: its calls find the runtime that torch brings along
    return folder / "src"


def watched(sanitizer, folder, *command, quiet=False):
    """Run Python on the package in the folder, under the sanitizer. -> status, what the sanitizer says"""
    ((name, options),) = OPTIONS[sanitizer].items()
    place = {
        **os.environ,
        name: f"{options}:log_path={folder.parent / 'report'}",
        "LD_PRELOAD": " ".join(map(str, runtime(sanitizer))),
        "PYTHONPATH": str(folder),
        "PYTHONMALLOC": "malloc",
        "OMP_NUM_THREADS": "2",
    }
    for old in folder.parent.glob("report.*"):
        old.unlink()
    ran = subprocess.run([sys.executable, *command], env=place, cwd=ROOT, capture_output=quiet, text=True, check=False)
    reports = [path.read_text(errors="replace") for path in sorted(folder.parent.glob("report.*"))]  # of child processes, too
    return ran.returncode, "\n".join(reports)


def sanitize(sanitizer, tests):
    """'' or what is wrong."""
    folder = build(sanitizer)
    planted = {"address": "planted_overflow", "thread": "planted_race"}[sanitizer]
    status, report = watched(sanitizer, folder, "-c", PROVE.format(folder=str(folder), planted=planted), quiet=True)
    if status != FAILED or planted not in report:
        return f"does not find what is planted (status {status}): {report[:2000]}"
    status, report = watched(sanitizer, folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=0", *tests)
    print(report)
    return "see above" if report else f"the tests ended with status {status}" if status else ""


def main():
    wanted = [name for name in sys.argv[1:] if name in OPTIONS] or list(OPTIONS)
    tests = [name for name in sys.argv[1:] if name not in OPTIONS]
    tests = tests or [str(ROOT / "tests" / name) for name in TESTS]
    found = {name: sanitize(name, tests) for name in wanted}
    for name, words in found.items():
        print(f"{name}: {words or 'nothing found in ' + ', '.join(Path(test).name for test in tests)}")
    sys.exit(any(found.values()))


if __name__ == "__main__":
    main()
