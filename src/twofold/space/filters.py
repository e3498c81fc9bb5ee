"""Fixed kernels: what a correlation finds that nobody had to train.     (rows, columns) float64; B images, C channels, H W map

    apply         y[b,c,h,w] = sum_i,j K[i,j] x[b,c,h + i - before, w + j - before]     correlation: K is not flipped
    derivatives   sum K = 0: nothing on a flat map; K reads from dark to bright, left to right and top to bottom
    smoothing     sum K = 1: a flat map stays as it is

An edge is named by the way it runs: "vertical" answers where dark turns into bright from left to right. r and c count rows and
columns from the middle of the kernel, also where an even size has its middle between two of them.

    sobel     (1 2 1)' (-1 0 1)       8 times the slope of a ramp    Sobel and Feldman, "A 3x3 isotropic gradient operator", 1968
    prewitt   (1 1 1)' (-1 0 1)       6 times                        Prewitt, "Object enhancement and extraction", 1970
    scharr    (3 10 3)' (-1 0 1)      32 times                       Scharr, "Optimale Operatoren ...", Heidelberg, 2000
    gaussian  exp(-r^2 / 2 sr^2) exp(-c^2 / 2 sc^2), sum 1
    laplacian of gaussian   G (r^2 + c^2 - 2 s^2) / s^4, less its mean   Marr and Hildreth, "Theory of edge detection", 1980
    gabor     exp(-(u^2 + a^2 v^2) / 2 s^2) cos(2 pi u / wavelength + phase),  u = c cos t + r sin t,  v = r cos t - c sin t
              Petkov and Kruizinga, Biological Cybernetics 76, 1997, equation 1

Line masks, Laplacians and sharpening: Gonzalez and Woods, Digital Image Processing, 3rd edition 2008, sections 3.6 and 10.2
"""

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Real
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from twofold.layers.expect import expect_floating, expect_shape, expect_tensor
from twofold.space.correlation import correlate
from twofold.space.matched import matched_filter as matched_filter
from twofold.space.padding import pad
from twofold.space.windows import Window, whole_numbers

EDGES: Final = ("vertical", "horizontal")
LINES: Final = ("horizontal", "vertical", "diagonal", "antidiagonal")
# Where the light stands, and the step (rows, columns) away from it.
LIGHTS: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "top": (1, 0), "top right": (1, -1), "right": (0, -1), "bottom right": (-1, -1),
        "bottom": (-1, 0), "bottom left": (-1, 1), "left": (0, 1), "top left": (1, 1),
    }
)  # fmt: skip
MODES: Final = ("reflect", "replicate", "zeros")


def sobel(edge: str = "vertical") -> Tensor:
    """8 times the slope across the edges that run `edge`: "vertical" or "horizontal".

    >>> sobel("vertical").int().tolist()
    [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
    """
    return _derivative("sobel", edge, (1, 2, 1))


def prewitt(edge: str = "vertical") -> Tensor:
    """6 times the slope across the edges that run `edge`: "vertical" or "horizontal"."""
    return _derivative("prewitt", edge, (1, 1, 1))


def scharr(edge: str = "vertical") -> Tensor:
    """32 times the slope across the edges that run `edge`; of the three the least dependent on the direction of the slope."""
    return _derivative("scharr", edge, (3, 10, 3))


def _derivative(who: str, edge: str, smooth: Sequence[int]) -> Tensor:
    _expect_one_of(who, "edge", edge, EDGES)
    across = torch.outer(_exact(smooth), _exact((-1, 0, 1)))
    return across if edge == "vertical" else across.T.contiguous()


def laplacian(neighbours: int = 4) -> Tensor:
    """The sum of the neighbours less as many times the middle: f_rr + f_cc with 4 neighbours, 3 times that with 8."""
    if neighbours not in (4, 8):
        raise ValueError(f"laplacian: expected neighbours to be 4 or 8, got {neighbours!r}.")
    kernel = torch.ones(3, 3, dtype=torch.float64)
    if neighbours == 4:
        kernel[::2, ::2] = 0
    kernel[1, 1] = -neighbours
    return kernel


def laplacian_of_gaussian(size: Any = 9, sigma: float = 1.4) -> Tensor:
    """The Laplacian of the map smoothed by a Gaussian: lowest on a bright blob, lowest of all (times sigma^2) where its width is sigma.

    The size should reach 3 sigma to either side: 6 sigma + 1.
    """
    _expect_above_zero("laplacian_of_gaussian", sigma=sigma)
    r, c = _grid("laplacian_of_gaussian", size)
    kernel = gaussian(size, sigma) * (r**2 + c**2 - 2 * sigma**2) / sigma**4
    return kernel - kernel.mean()


def line(direction: str = "horizontal") -> Tensor:
    r"""Bright lines one pixel wide: "horizontal", "vertical", "diagonal" (as \ runs) or "antidiagonal" (as / runs)."""
    _expect_one_of("line", "direction", direction, LINES)
    kernel = -torch.ones(3, 3, dtype=torch.float64)
    rows, columns = {
        "horizontal": ((1, 1, 1), (0, 1, 2)),
        "vertical": ((0, 1, 2), (1, 1, 1)),
        "diagonal": ((0, 1, 2), (0, 1, 2)),
        "antidiagonal": ((0, 1, 2), (2, 1, 0)),
    }[direction]
    kernel[list(rows), list(columns)] = 2
    return kernel


def box(size: Any = 3) -> Tensor:
    """The mean of rows x columns pixels. size: one whole number or (rows, columns), odd or even."""
    rows, columns = whole_numbers("box", "size", size, 2, 1)
    return torch.full((rows, columns), 1 / (rows * columns), dtype=torch.float64)


def gaussian(size: Any = 5, sigma: Any = None) -> Tensor:
    """Gaussian blur. size: one whole number or (rows, columns), odd or even; sigma: one number or (rows, columns), in pixels.

    Without sigma: 0.3 ((size - 1) / 2 - 1) + 0.8 along each axis, which lets the kernel end at about 2.5 sigma (as OpenCV does).
    """
    sizes = whole_numbers("gaussian", "size", size, 2, 1)
    if sigma is None:
        sigmas: Any = [0.3 * ((n - 1) / 2 - 1) + 0.8 for n in sizes]
    else:
        sigmas = sigma if isinstance(sigma, (tuple, list)) and len(sigma) == 2 else (sigma, sigma)
        for number in sigmas:
            _expect_above_zero("gaussian", sigma=number)
    bells = [torch.softmax(-((_middle(n) / s) ** 2) / 2, 0) for n, s in zip(sizes, sigmas, strict=True)]
    return torch.outer(*bells)


def identity(size: Any = 3) -> Tensor:
    """The kernel that changes nothing: one 1, in the middle. size: odd, one whole number or (rows, columns)."""
    rows, columns = whole_numbers("identity", "size", size, 2, 1)
    if rows % 2 == 0 or columns % 2 == 0:
        raise ValueError(f"identity: expected odd numbers of rows and columns, got {rows} and {columns}: an even size has no middle pixel.")
    kernel = torch.zeros(rows, columns, dtype=torch.float64)
    kernel[rows // 2, columns // 2] = 1
    return kernel


def sharpen(amount: float = 1.0) -> Tensor:
    """The map less `amount` times its Laplacian: amount 0 changes nothing, 1 is the usual kernel with 5 in the middle."""
    _expect_finite("sharpen", "amount", amount)
    return identity() - amount * laplacian(4)


def emboss(light: str = "top left") -> Tensor:
    """The map as a relief, bright as high, lit from one of eight sides: "top", "top right", "right" ... "top left"."""
    _expect_one_of("emboss", "light", light, tuple(LIGHTS))
    down, across = LIGHTS[light]
    r, c = _grid("emboss", 3)
    return identity() + down * r + across * c


def gabor(
    size: Any = 21, wavelength: float = 6.0, angle: float = 0.0, sigma: float | None = None, aspect: float = 0.5, phase: float = 0.0
) -> Tensor:
    """Stripes under a Gaussian: answers stripes of this wavelength (pixels) that run across `angle` (radians; 0: vertical stripes).

    The angle turns from the columns towards the rows, clockwise as one looks at it. sigma: width across the stripes, in pixels, 0.56
    wavelengths (a bandwidth of one octave) if not given; along the stripes it is sigma / aspect. phase: 0 bright line, -pi/2 edge.
    """
    _expect_above_zero("gabor", wavelength=wavelength, aspect=aspect)
    sigma = 0.56 * wavelength if sigma is None else sigma
    _expect_above_zero("gabor", sigma=sigma)
    _expect_finite("gabor", "angle", angle)
    _expect_finite("gabor", "phase", phase)
    r, c = _grid("gabor", size)
    u, v = c * math.cos(angle) + r * math.sin(angle), r * math.cos(angle) - c * math.sin(angle)
    return torch.exp(-(u**2 + (aspect * v) ** 2) / (2 * sigma**2)) * torch.cos(2 * math.pi * u / wavelength + phase)


def gabor_bank(
    size: Any = 21,
    wavelengths: Sequence[float] = (6.0,),
    angles: int = 8,
    sigma: float | None = None,
    aspect: float = 0.5,
    phase: float = 0.0,
) -> Tensor:
    """(F, rows, columns): for every wavelength, `angles` kernels spread evenly over half a turn, beginning with vertical stripes."""
    whole_numbers("gabor_bank", "angles", angles, 1, 1)
    if not isinstance(wavelengths, (tuple, list)) or not wavelengths:
        raise ValueError(f"gabor_bank: expected wavelengths to be numbers of pixels like (4.0, 8.0), got {wavelengths!r}.")
    turns = [math.pi * number / angles for number in range(angles)]
    return torch.stack([gabor(size, wavelength, turn, sigma, aspect, phase) for wavelength in wavelengths for turn in turns])


FILTERS: Final[Mapping[str, Callable[..., Tensor]]] = MappingProxyType(
    {
        "identity": identity, "box": box, "gaussian": gaussian, "sharpen": sharpen, "emboss": emboss,
        "sobel": sobel, "prewitt": prewitt, "scharr": scharr, "line": line,
        "laplacian": laplacian, "laplacian_of_gaussian": laplacian_of_gaussian, "gabor": gabor,
    }
)  # fmt: skip


def apply(images_BCHW: Tensor, kernel: Tensor, mode: str = "reflect") -> Tensor:
    """Every channel of every image correlated with the kernel, (B, C, H, W); differentiable in both.

    kernel: (rows, columns), or a bank (F, rows, columns), which gives (B, C, F, H, W); it takes the dtype and the device of the images.
    mode: what lies beyond the edge: "reflect" (the mirror image), "replicate" (the last pixel) or "zeros". An even kernel sees one more
    below and on the right. Raises ValueError for other ranks, for images that are not floating point or too small to be mirrored.

    >>> apply(torch.tensor([[[[0.0, 3.0, 0.0]]]]), box((1, 3)), "zeros").tolist()
    [[[[1.0, 1.0, 1.0]]]]
    """
    expect_tensor("apply images", images_BCHW)
    cause = "One image? x.unsqueeze(0). Grey images? x.unsqueeze(1)." if images_BCHW.dim() == 3 else ""
    expect_shape("apply images", images_BCHW, "B C H W", cause=cause)
    expect_floating("apply images", images_BCHW)
    expect_tensor("apply kernel", kernel)
    if kernel.dim() not in (2, 3) or not kernel.numel():
        raise ValueError(f"apply kernel: expected (rows, columns) or (F, rows, columns), none of them 0, got {tuple(kernel.shape)}.")
    expect_floating("apply kernel", kernel)
    _expect_one_of("apply", "mode", mode, MODES)
    channels, (rows, columns) = images_BCHW.shape[1], kernel.shape[-2:]
    sides = ((rows - 1) // 2, rows // 2, (columns - 1) // 2, columns // 2)
    framed = _continued(images_BCHW, sides, mode)
    weight_FCij = kernel.to(images_BCHW).reshape(-1, 1, rows, columns).repeat(channels, 1, 1, 1)
    window = Window((rows, columns), padding=sides if mode == "zeros" else (0,))
    y: Tensor = correlate(framed, weight_FCij, None, window, channels)
    return y if kernel.dim() == 2 else y.unflatten(1, (channels, -1))


def _continued(x_BCHW: Tensor, sides: tuple[int, ...], mode: str) -> Tensor:
    """The images with their edges continued; the correlation itself adds zeros."""
    if mode == "zeros":
        return x_BCHW
    for name, length, most in (("rows", x_BCHW.shape[2], max(sides[:2])), ("columns", x_BCHW.shape[3], max(sides[2:]))):
        needed = most + 1 if mode == "reflect" else 1
        if length < needed:
            hint = 'Use mode="replicate" or a smaller kernel.' if length else ""
            raise ValueError(f"apply images: expected at least {needed} {name} in mode {mode!r}, got {length}. {hint}".strip())
    framed: Tensor = pad(x_BCHW, sides, mode)
    return framed


def _middle(length: int) -> Tensor:
    """Places along an axis, counted from its middle."""
    return torch.arange(length, dtype=torch.float64) - (length - 1) / 2


def _grid(who: str, size: Any) -> tuple[Tensor, Tensor]:
    rows, columns = whole_numbers(who, "size", size, 2, 1)
    return _middle(rows)[:, None], _middle(columns)[None, :]


def _exact(numbers: Sequence[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _expect_one_of(who: str, name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        near = get_close_matches(str(value), choices, 1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise ValueError(f"{who}: expected {name} to be one of {', '.join(choices)}, got {value!r}.{hint}")


def _expect_finite(who: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{who}: expected {name} to be a finite number, got {value!r}.")


def _expect_above_zero(who: str, **values: Any) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
            raise ValueError(f"{who}: expected {name} to be a finite number above 0, got {value!r}.")
