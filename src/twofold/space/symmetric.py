"""One learnt filter, looked for in every turned, mirrored and enlarged form.     G forms; B images, C channels, F filters, H W, P Q maps

    symmetric   y[b,f,g] = sum_c x[b,c] * T_g W[f,c] + bias[f]                        * correlation, T_g the form (see group.py)
    lifting     the same, where the forms are a group
    group       y[b,f,g] = sum_c,h x[b,c,h] * T_g W[f,c,g^-1 h] + bias[f]             the copy for g is (g W): move, and change places
    pool        y[b,f] = max_g or mean_g of x[b,f,g]
    backward    of the forms: group.py; of the correlation: correlation.py; of pooling: beneath

Laws. A moved picture moves the maps: layer(T_u x) = u layer(x) with (u f)[g] = T_u f[u^-1 g], for all elements u of the group, also
through layers in a row and through anything that treats all pixels and forms alike (ReLU, bias, batch norm over F). Pooling over the
group leaves T_u alone; pooling over the pixels as well leaves nothing: the output no longer depends on u. With a stride s this holds
where s divides H + 2 padding - k and W + 2 padding - k: only then do the windows lie symmetrically on the map.

An enlarged form has s - 1 zeros between its taps (a dilation). A picture enlarged s times by repeating its pixels gives at scale s t
exactly the enlarged response at scale t (with padding="same" at every pixel, edges included); other enlargements do so approximately.

Cohen and Welling, "Group equivariant convolutional networks", ICML 2016, equations 10 to 12 and sections 6.2, 6.3 (pooling);
scale: Worrall and Welling, "Deep scale-spaces: equivariance over scale", NeurIPS 2019, section 3
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating, expect_positive, expect_shape, expect_tensor
from twofold.layers.routes import Routed
from twofold.space.correlation import correlate
from twofold.space.group import GROUPS, forms, group_elements, group_forms
from twofold.space.pooling import expect_countable
from twofold.space.windows import Window, whole_numbers


class MaxSaved(NamedTuple):
    """What backward needs."""

    x_BFGPQ: Tensor
    y_BFPQ: Tensor


def max_forward(x_BFGPQ: Tensor) -> tuple[Tensor, MaxSaved]:
    """y_BFPQ, the largest over the forms"""
    y = x_BFGPQ.amax(2)
    return y, MaxSaved(x_BFGPQ, y)


def max_backward(dy_BFPQ: Tensor, saved: MaxSaved) -> Tensor:
    """dx_BFGPQ: equals share alike, so that the gradient has the symmetry too"""
    won = saved.x_BFGPQ == saved.y_BFPQ.unsqueeze(2)
    return won * (dy_BFPQ / won.sum(2)).unsqueeze(2)


max_forms = differentiable(max_forward, max_backward, vendor=lambda x: x.amax(2))


class MeanSaved(NamedTuple):
    """What backward needs."""

    number: int


def mean_forward(x_BFGPQ: Tensor) -> tuple[Tensor, MeanSaved]:
    """y_BFPQ, the mean over the forms"""
    return x_BFGPQ.mean(2), MeanSaved(x_BFGPQ.shape[2])


def mean_backward(dy_BFPQ: Tensor, saved: MeanSaved) -> Tensor:
    """dx_BFGPQ"""
    return (dy_BFPQ / saved.number).unsqueeze(2).expand(-1, -1, saved.number, -1, -1)


mean_forms = differentiable(mean_forward, mean_backward, vendor=lambda x: x.mean(2))


class SharedFilters(Routed):
    """What the layers with one learnt filter and many forms have in common: weight, bias (one for all forms) and geometry.

    kernel_size, stride and padding are one whole number for both axes, for a quarter turn exchanges these; padding may be "same".
    """

    bias: Tensor | None

    def __init__(self, shape: Sequence[int], kernel_size: Any, stride: Any, padding: Any, bias: bool, device: Any, dtype: Any) -> None:
        super().__init__()
        who = type(self).__name__
        self.kernel_size = _one(who, "kernel_size", kernel_size, 1)
        self.stride = _one(who, "stride", stride, 1)
        if padding == "same":
            if self.kernel_size % 2 == 0:
                raise ValueError(
                    f'{who}: padding="same" needs an odd kernel_size, got {self.kernel_size}: an even one has no middle to turn about.'
                )
            padding = self.kernel_size // 2
        self.padding = _one(who, "padding", padding, 0)
        self.out_channels = shape[0]
        self.weight = nn.Parameter(torch.empty(*shape, self.kernel_size, self.kernel_size, device=device, dtype=dtype))
        self.register_parameter("bias", nn.Parameter(torch.empty(shape[0], device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform within 1 / sqrt(inputs of one output), as in torch's Conv2d."""
        bound = 1 / sqrt(self.weight[0].numel())
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def window(self, scale: int = 1) -> Window:
        """The geometry of the forms of one scale: larger ones get as much more padding, so that all maps have one size."""
        pad = self.padding + (scale - 1) * (self.kernel_size - 1) // 2
        return Window((self.kernel_size,) * 2, (self.stride,), (pad,), (scale,))

    def respond(self, x_BCHW: Tensor, copies_FGCij: Tensor, window: Window) -> Tensor:
        """y_BFGPQ: one correlation with all copies."""
        filters, forms_count = copies_FGCij.shape[:2]
        who = f"{type(self).__name__} input"
        counts = window.output_size(x_BCHW.shape[2:], who)
        expect_countable(who, "outputs", (x_BCHW.shape[0], filters, forms_count, *counts), "Use smaller batches or larger strides.")
        bias = None if self.bias is None else self.bias.repeat_interleave(forms_count)
        y: Tensor = self.run(correlate, x_BCHW, copies_FGCij.flatten(0, 1), bias, window)
        return y.unflatten(1, (filters, forms_count))

    def extra_repr(self) -> str:
        bias = "" if self.bias is not None else ", bias=False"
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}{bias}"


class SymmetricConv2d(SharedFilters):
    """Maps (B, C, H, W) become responses (B, F, G, P, Q) to G forms of every filter: scales x reflections x rotations, in this order.

    rotations: the four quarter turns. reflections: the mirror image too. scales: whole enlargements, such as (1, 2, 4).
    kernel_size is odd where there are scales beyond 1, so that all forms have one middle. Follow it with GroupPool2d.
    Raises ValueError for settings that cannot be, and for input of another rank, channel number, dtype or device, or too small.

    >>> layer = SymmetricConv2d(1, 8, 3, reflections=True, scales=(1, 2), padding="same")
    >>> layer(torch.zeros(2, 1, 9, 7)).shape, layer.weight.shape
    (torch.Size([2, 8, 16, 9, 7]), torch.Size([8, 1, 3, 3]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | str = 0,
        bias: bool = True,
        *,
        rotations: bool = True,
        reflections: bool = False,
        scales: Sequence[int] = (1,),
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        who = type(self).__name__
        expect_positive(who, in_channels=in_channels, out_channels=out_channels)
        if not isinstance(scales, (tuple, list)) or not scales or len(set(scales)) < len(scales):
            raise ValueError(f"{who}: expected scales to be different whole numbers like (1, 2), got {scales!r}.")
        super().__init__((out_channels, in_channels), kernel_size, stride, padding, bias, device, dtype)
        self.in_channels = in_channels
        self.scales = whole_numbers(who, "scales", scales, len(scales), 1)
        if self.kernel_size % 2 == 0 and max(self.scales) > 1:
            raise ValueError(f"{who}: scales {self.scales} need an odd kernel_size, got {self.kernel_size}: the forms must share a middle.")
        kept = [g for g in GROUPS["p4m"] if (rotations or g.turns == 0) and (reflections or not g.mirrored)]
        self.elements = tuple(kept)

    def forward(self, input: Tensor) -> Tensor:
        who = f"{type(self).__name__} input"
        expect_tensor(who, input)
        if input.dim() != 4 or input.shape[1] != self.in_channels:
            expect_shape(who, input, "B C H W", {"C": self.in_channels}, _cause(input))
        expect_floating(who, input, self.weight)
        copies = forms(self.weight, self.elements)
        found = [self.respond(input, copies, self.window(scale)) for scale in self.scales]
        return found[0] if len(found) == 1 else torch.cat(found, 2)

    def extra_repr(self) -> str:
        turned, mirrored = any(g.turns for g in self.elements), any(g.mirrored for g in self.elements)
        kinds = f"rotations={turned}, reflections={mirrored}, scales={self.scales}"
        return f"{self.in_channels}, {self.out_channels}, {super().extra_repr()}, {kinds}"


class LiftingConv2d(SymmetricConv2d):
    """The first layer of a group network: maps (B, C, H, W) become maps over the group, (B, F, G, P, Q); G is 4 for "p4", 8 for "p4m".

    Raises ValueError for settings that cannot be, and for input of another rank, channel number, dtype or device, or too small.

    >>> LiftingConv2d(3, 8, 5, padding="same", group="p4m")(torch.zeros(2, 3, 9, 7)).shape
    torch.Size([2, 8, 8, 9, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | str = 0,
        bias: bool = True,
        *,
        group: str = "p4",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        mirrored = any(g.mirrored for g in group_elements("LiftingConv2d", group))
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias, reflections=mirrored, device=device, dtype=dtype)
        self.group = group

    def extra_repr(self) -> str:
        return f'{self.in_channels}, {self.out_channels}, {SharedFilters.extra_repr(self)}, group="{self.group}"'


class GroupConv2d(SharedFilters):
    """Maps over the group (B, C, G, H, W) become maps over the group (B, F, G, P, Q); the weight is (F, C, G, k, k).

    Raises ValueError for settings that cannot be, and for input of another rank, channel number, group, dtype or device, or too small.

    >>> GroupConv2d(8, 16, 3, padding="same", group="p4")(torch.zeros(2, 8, 4, 9, 7)).shape
    torch.Size([2, 16, 4, 9, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | str = 0,
        bias: bool = True,
        *,
        group: str = "p4",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        order = len(group_elements("GroupConv2d", group))
        expect_positive("GroupConv2d", in_channels=in_channels, out_channels=out_channels)
        super().__init__((out_channels, in_channels, order), kernel_size, stride, padding, bias, device, dtype)
        self.in_channels, self.group = in_channels, group

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("GroupConv2d input", input)
        order = len(GROUPS[self.group])
        if input.dim() != 5 or input.shape[1] != self.in_channels or input.shape[2] != order:
            cause = "Pictures? Put a LiftingConv2d in front." if input.dim() == 4 else ""
            if input.dim() == 5 and input.shape[2] in (4, 8) and input.shape[2] != order:
                cause = f'Made by a layer with another group? This one has group="{self.group}".'
            expect_shape("GroupConv2d input", input, "B C G H W", {"C": self.in_channels, "G": order}, cause)
        expect_floating("GroupConv2d input", input, self.weight)
        copies_FGCGij = group_forms(self.weight, self.group)
        return self.respond(input.flatten(1, 2), copies_FGCGij.flatten(2, 3), self.window())

    def extra_repr(self) -> str:
        return f'{self.in_channels}, {self.out_channels}, {super().extra_repr()}, group="{self.group}"'


KINDS = {"max": max_forms, "mean": mean_forms}


class GroupPool2d(Routed):
    """Maps over the group (B, F, G, H, W) become maps (B, F, H, W): the largest or the mean response of all forms.

    Raises ValueError for another kind, and for input of another rank, without forms, or not floating point.

    >>> GroupPool2d()(torch.tensor([1.0, 3.0, 2.0, 0.0]).reshape(1, 1, 4, 1, 1)).tolist()
    [[[[3.0]]]]
    """

    def __init__(self, kind: str = "max") -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f'GroupPool2d: expected kind to be "max" or "mean", got {kind!r}.')
        self.kind = kind

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("GroupPool2d input", input)
        if input.dim() != 5 or not input.shape[2]:
            expect_shape("GroupPool2d input", input, "B F G H W", cause="Maps without an axis G? Nothing is left to pool over.")
            raise ValueError(f"GroupPool2d input: expected (B, F, G, H, W) with G of at least 1, got {tuple(input.shape)}.")
        expect_floating("GroupPool2d input", input)
        y: Tensor = self.run(KINDS[self.kind], input)
        return y

    def extra_repr(self) -> str:
        return f'kind="{self.kind}"'


def _one(who: str, name: str, value: Any, least: int) -> int:
    if isinstance(value, (tuple, list)) and len(set(value)) > 1:
        raise ValueError(f"{who}: expected {name} to be the same along both axes, for a quarter turn exchanges them, got {value!r}.")
    return whole_numbers(who, name, value, 2 if isinstance(value, (tuple, list)) else 1, least)[0]


def _cause(input: Tensor) -> str:
    if input.dim() == 3:
        return "One image? x.unsqueeze(0). A batch of grey images? x.unsqueeze(1)."
    if input.dim() == 5:
        return "Maps over a group? Use GroupConv2d, or GroupPool2d in front."
    return "Grey images? Build the layer with in_channels=1." if input.dim() == 4 and input.shape[1] == 1 else ""
