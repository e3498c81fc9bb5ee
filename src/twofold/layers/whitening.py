"""Whitening filters: a first convolution whose outputs are uncorrelated and of unit size.     P patches of C x k x k = D numbers

    S = (1/P) sum_p x_p x_p' = sum_d s_d v_d v_d'          the second moments of the patches, and their principal directions
    w_d = v_d / sqrt(s_d + e)          filters d = 1 .. D, and the same D with the other sign

Then the mean of (w_d . x)^2 over the patches is s_d / (s_d + e), nearly 1, and (w_d . x)(w_c . x) averages to 0. With an activation behind
it, which passes one sign only, both signs are needed to lose nothing.

Page, "How to train your ResNet 8: bag of tricks", 2019 (patch whitening); Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024,
section 3.2
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SMALL = 5e-4  # e: what a direction without any variance is divided by
AT_ONCE = 256  # pictures


def whitening_filters(x_BCHW: Tensor, kernel: int, small: float = SMALL) -> Tensor:
    """(2 D, C, k, k): the filters for all patches of the pictures, those of the largest second moment first.

    Raises ValueError for what are no pictures, or too small ones.
    """
    if x_BCHW.dim() != 4 or not len(x_BCHW) or not x_BCHW.is_floating_point():
        raise ValueError(f"whitening_filters: expected pictures (B, C, H, W) of floats, got {x_BCHW.dtype} {tuple(x_BCHW.shape)}.")
    C, H, W = x_BCHW.shape[1:]
    if kernel < 1 or min(H, W) < kernel:
        raise ValueError(f"whitening_filters: expected a kernel from 1 to the picture's smaller side {min(H, W)}, got {kernel}.")
    D = C * kernel * kernel
    moments_DD, patches = torch.zeros(D, D, dtype=torch.float64, device=x_BCHW.device), 0
    for part_BCHW in x_BCHW.split(AT_ONCE):
        columns_BDP = F.unfold(part_BCHW.double(), kernel)
        moments_DD += torch.einsum("bdp,bep->de", columns_BDP, columns_BDP)
        patches += columns_BDP.shape[0] * columns_BDP.shape[2]
    sizes_D, directions_DD = torch.linalg.eigh(moments_DD / patches)  # ascending, a direction in each column
    filters_DD = (directions_DD / (sizes_D.clamp_min(0) + small).sqrt()).t().flip(0)
    filters_DCkk = filters_DD.reshape(D, C, kernel, kernel)
    return torch.cat([filters_DCkk, -filters_DCkk]).to(x_BCHW.dtype)
