"""Who may import whom: the table of the house, enforced on the syntax tree."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "twofold"

MATHEMATICS = {"layers", "space", "time"}
MAY_IMPORT = {
    "kernels": set(),
    "layers": {"kernels"},
    "space": {"kernels", "layers"},
    "time": {"kernels", "layers"},
    "data": set(),
    "models": MATHEMATICS | {"nn"},
    "tasks": MATHEMATICS | {"data"},
    "train": {"layers", "time", "data", "tasks"},
    "see": MATHEMATICS | {"nn", "data", "models", "tasks"},
    "deploy": MATHEMATICS | {"nn", "data", "models", "tasks"},
    "nn": MATHEMATICS,
    "run": MATHEMATICS | {"nn", "data", "models", "tasks", "train", "see"},
    "adopting": MATHEMATICS | {"nn", "data", "models", "train", "run", "__init__"},
    "preparing": MATHEMATICS | {"nn", "data", "models", "tasks", "train", "see", "run", "adopting", "__init__"},
    "range_test": MATHEMATICS | {"nn", "data", "models", "tasks", "train", "run", "preparing", "__init__"},
    "calibrating": MATHEMATICS | {"nn", "data", "models", "tasks", "train", "see", "run", "__init__"},
    "predicting": {"data", "tasks", "train", "run"},
    "fitting": MATHEMATICS | {"nn", "data", "models", "tasks", "train", "see", "run", "preparing", "range_test", "__init__"},
    "cli": MATHEMATICS
    | {
        "kernels",
        "nn",
        "data",
        "models",
        "tasks",
        "train",
        "see",
        "run",
        "preparing",
        "fitting",
        "calibrating",
        "adopting",
        "predicting",
        "__init__",
    },
    "__init__": set(),
    "__main__": {"cli"},
}
# What no floor may use: it runs code from a file, or is dead, or calls home.
FORBIDDEN = {"pickle", "joblib", "dill", "marshal", "shelve", "torchvision", "lightning", "ultralytics", "requests", "torchtext"}


def sources():
    return sorted(ROOT.rglob("*.py"))


def floor(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """The dotted names that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_floor_reaches_up(path):
    own = floor(path)
    for name in imported(path):
        parts = name.split(".")
        assert parts[0] not in FORBIDDEN, f"{path}: {name}"
        if parts[0] != "twofold":
            continue
        target = parts[1] if len(parts) > 1 else "__init__"
        if not (ROOT / target).is_dir() and not (ROOT / f"{target}.py").exists():
            target = "__init__"  # a name of the package itself
        assert target == own or target in MAY_IMPORT[own], f"{path.relative_to(ROOT)} imports {name}: {own} may not know {target}"


def test_every_floor_is_in_the_table():
    assert {floor(path) for path in sources()} <= set(MAY_IMPORT)


CALLS = {"eval", "exec"}


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_executed_from_a_file(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        assert called not in CALLS, f"{path}: {called}"
        assert called != "yaml.load" and not called.startswith("torch.hub") and called != "torch.export.load"
        assert keywords.get("allow_pickle") != "True"
        if called == "torch.load":
            assert keywords.get("weights_only") == "True", f"{path}: torch.load must say weights_only=True"


# The command line is light until a command is chosen: a heavy module imported at the top would make --help slow.
HEAVY = ("torch", "numpy", "matplotlib", "sklearn", "pydantic", "tensorboard", "yaml", "PIL")


def test_help_imports_nothing_heavy():
    program = (
        "import atexit, sys; from twofold.cli.main import main\n"
        f"atexit.register(lambda: print([m for m in {HEAVY!r} if m in sys.modules]))\n"
        "main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_importing_the_package_imports_nothing_heavy():
    program = f"import sys, twofold; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
