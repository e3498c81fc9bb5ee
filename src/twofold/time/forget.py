"""The forget gate's bias at the start of training: 1 or 2 leaves the gate open, so that gradients reach far back from the first step.

    b_f = bias_ih[U:2U] + bias_hh[U:2U] = forget_bias          the second half of the sum is set to 0

Jozefowicz, Zaremba and Sutskever, "An empirical exploration of recurrent network architectures", ICML 2015, section 2.2
"""

import math
from typing import Any

import torch
from torch import nn


def expect_forget_bias(who: str, forget_bias: Any, bias: bool) -> float | None:
    """The value as a float, or None. Raises ValueError if it is no finite number or if there is no bias to set."""
    if forget_bias is None:
        return None
    if isinstance(forget_bias, bool) or not isinstance(forget_bias, (int, float)) or not math.isfinite(forget_bias):
        raise ValueError(f"{who}: expected forget_bias to be a finite number or None, got {forget_bias!r}. 1.0 is usual.")
    if not bias:
        raise ValueError(f"{who}: expected bias=True with forget_bias={forget_bias}, got bias=False: there is no bias to set.")
    return float(forget_bias)


class Forgetting(nn.Module):
    """Mixed in before torch's LSTM modules: their weights begin as torch's do, the forget gates' bias as it was asked for."""

    forget_bias: float | None = None

    def reset_parameters(self) -> None:
        """torch's uniform start in +-1/sqrt(U); then the forget gates' bias where one was asked for."""
        super().reset_parameters()  # type: ignore[misc]  # the torch module behind this one has it
        set_forget_bias(self, self.forget_bias)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.forget_bias is None else f"{text}, forget_bias={self.forget_bias}"


def set_forget_bias(layer: nn.Module, forget_bias: float | None) -> None:
    """Set the sum of the two forget biases, in every layer and direction of `layer`; the gates' order is i f g o."""
    if forget_bias is None:
        return
    with torch.no_grad():
        for name, bias in layer.named_parameters():
            if name.startswith("bias_"):
                U = bias.shape[0] // 4
                bias[U : 2 * U] = forget_bias if name.startswith("bias_ih") else 0.0
