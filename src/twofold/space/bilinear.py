"""Transposed convolution that enlarges: straight lines between the pixels.     C maps, k taps, s the stride

    W[c,c,i] = hat(i - (k - 1) / 2) / sum of the hats on the taps that lie whole steps from i        hat(t) = max(1 - |t| / s, 0)

The product of that along all axes (linear, bilinear, trilinear); 0 between different maps, and for the bias. Inside, constants stay
constants; ramps stay ramps where the whole hat fits: for odd kernels from 2 s - 1 on, for even ones from 2 s on. There the sum is 1.
With k = 2 s and padding s / 2 it is bilinear resizing (resize.py).

Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015, section 3.3
"""

import torch

from twofold.space.transposed import Transposing
from twofold.space.windows import by


def bilinear_(layer: Transposing) -> Transposing:
    """Fill the layer, in place, with the weights above; it keeps learning unless they are frozen.

    Raises ValueError where the layer has another number of maps out than in, dilation, or a kernel below its stride (which leaves gaps).

    >>> from twofold.space.transposed import ConvTranspose1d
    >>> bilinear_(ConvTranspose1d(1, 1, 4, stride=2)).weight.tolist()
    [[[0.25, 0.75, 0.75, 0.25]]]
    """
    window, maps = layer.window(), layer.in_channels
    if layer.out_channels != maps:
        raise ValueError(f"bilinear_: expected a layer with as many maps out as in, got {maps} in and {layer.out_channels} out.")
    if max(window.dilation) > 1:
        raise ValueError(f"bilinear_: expected a layer without dilation, got {by(window.dilation)}.")
    if any(k < s for k, s in zip(window.kernel, window.stride, strict=True)):
        raise ValueError(
            f"bilinear_: expected a kernel of at least the stride {by(window.stride)}, got {by(window.kernel)}: gaps would stay."
        )
    kernel = torch.ones((), dtype=torch.float64)
    for k, s in zip(window.kernel, window.stride, strict=True):
        hat = (1 - (torch.arange(k, dtype=torch.float64) - (k - 1) / 2).abs() / s).clamp(min=0)
        sums = torch.stack([hat[i % s :: s].sum() for i in range(k)])
        kernel = kernel.unsqueeze(-1) * (hat / sums)
    with torch.no_grad():
        layer.weight.zero_()
        own = torch.arange(maps, device=layer.weight.device)
        layer.weight[own, own % (maps // layer.groups)] = kernel.to(layer.weight)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer
