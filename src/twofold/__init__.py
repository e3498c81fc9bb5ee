"""Twofold: convolutional and recurrent networks that you can read, run fast, train, see and ship."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Where each public name lives. Resolved on first use, so that `import twofold` and `twofold --help` stay light.
_HOMES = {
    "Run": "twofold.run",
    "describe": "twofold.see.describe",
    "fit": "twofold.fitting",
    "load": "twofold.run",
    "measuring": "twofold.layers.measured",
    "nn": "twofold.nn",
    "precision": "twofold.layers.forms",
    "resume": "twofold.fitting",
    "route": "twofold.layers.routes",
}

__all__ = ["Run", "__version__", "describe", "fit", "load", "measuring", "nn", "precision", "resume", "route"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'twofold' has no attribute {name!r}")
    home = import_module(_HOMES[name])
    return home if _HOMES[name] == f"twofold.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return __all__
