"""A linear map of features.     B rows (any leading axes), D features in, U features out

    forward    y[b,u] = sum_d x[b,d] W[u,d] + bias[u]              y = x W' + bias
    backward   dx = dy W        dW = dy' x        dbias = sum_b dy

Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", Nature 323, 1986, eq. 1 and 6
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from twofold.kernels import dense as kernel
from twofold.kernels import nodes
from twofold.layers.differentiable import Native, differentiable
from twofold.layers.expect import expect_floating, expect_positive, expect_shape, expect_tensor
from twofold.layers.routes import Routed


class Saved(NamedTuple):
    """What backward needs."""

    x_BD: Tensor
    weight_UD: Tensor
    has_bias: bool


def forward(x_BD: Tensor, weight_UD: Tensor, bias_U: Tensor | None) -> tuple[Tensor, Saved]:
    """y_BU = x_BD W' + bias; x may have any number of leading axes."""
    y_BU = x_BD @ weight_UD.t()
    if bias_U is not None:
        y_BU = y_BU + bias_U
    return y_BU, Saved(x_BD, weight_UD, bias_U is not None)


def backward(dy_BU: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor | None]:
    """(dx_BD, dweight_UD, dbias_U)"""
    dx_BD = dy_BU @ saved.weight_UD
    dy_RU = dy_BU.reshape(-1, saved.weight_UD.shape[0])
    dweight_UD = dy_RU.t() @ saved.x_BD.reshape(-1, saved.weight_UD.shape[1])
    return dx_BD, dweight_UD, dy_RU.sum(0) if saved.has_bias else None


linear = differentiable(forward, backward, vendor=F.linear, native=Native(nodes.dense, None, kernel.unfit, kernel.worth), reduced=True)


class Linear(Routed, nn.Linear):
    """y = x W' + bias, for x of shape (..., in_features); torch.nn.Linear with routes and clear errors.

    Raises ValueError for sizes below 1, and for input of another last size, dtype or device.

    >>> import torch
    >>> layer = Linear(2, 1)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[3.0, 4.0]]), "bias": torch.tensor([5.0])})
    >>> layer(torch.tensor([[1.0, 2.0]])).tolist()
    [[16.0]]
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device=None, dtype=None) -> None:  # type: ignore[no-untyped-def]
        expect_positive("Linear", in_features=in_features, out_features=out_features)
        super().__init__(in_features, out_features, bias, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        self.expect_input(input)
        return self.run(linear, input, self.weight, self.bias)

    def expect_input(self, input: Tensor) -> None:
        """ValueError unless the input has the features that the weights ask for."""
        expect_tensor("Linear input", input)
        if input.dim() == 0 or input.shape[-1] != self.in_features:
            cause = "Feature maps? Flatten them first: x.flatten(1)." if input.dim() > 2 else ""
            leading = " ".join(f"B{axis}" for axis in range(1, input.dim() - 1))
            expect_shape("Linear input", input, f"B {leading} D", {"D": self.in_features}, cause)
        expect_floating("Linear input", input, self.weight)
