"""The public face of all layers: write `from twofold import nn` where you wrote `from torch import nn`.

A name that Twofold lacks is torch.nn's own, so that changing the import never breaks a program.
"""

from typing import Any

import torch.nn as _torch_nn

from twofold.layers.linear import Linear

__all__ = [
    "Linear",
]


def __getattr__(name: str) -> Any:
    return getattr(_torch_nn, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(_torch_nn)})
