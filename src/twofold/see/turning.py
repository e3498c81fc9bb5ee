"""The arithmetic of filters that are shared over enumerated transforms: turned, mirrored, enlarged, over a group (symmetric.py).

Every filter is learned once and applied in G forms: k x k taps, C channels in, F filters out, B images, P Q maps out.

    parameters       ((k k C) + 1) F          over maps of a group: ((k k C G) + 1) F
    multiply-adds    (B F G P Q) (k k C)      over maps of a group: (B F G P Q) (k k C G)

Cohen and Welling, "Group equivariant convolutional networks", ICML 2016, section 6
"""

from math import prod

from twofold.see.law import ALONE, Counted, Law, times
from twofold.see.sliding import along, view
from twofold.space.symmetric import GroupPool2d, SharedFilters, SymmetricConv2d


def turn(layer: SharedFilters, shape: tuple[int, ...]) -> Law:
    """The law of a convolution with shared filters; what it sees is the reach of its largest form."""
    size = shape[-2:]
    scales = layer.scales if isinstance(layer, SymmetricConv2d) else (1,)
    forms = len(layer.elements) * len(scales) if isinstance(layer, SymmetricConv2d) else shape[2]
    window = layer.window(max(scales))
    outputs = (shape[0], layer.out_channels, forms, *window.output_size(size))
    taps = (*window.kernel, *shape[1:-2])
    one = f"({times(*taps)})" if layer.bias is None else f"(({times(*taps)})+1)"
    lines = (("forms", f"{forms} of every filter"), *along(size, window, outputs[3:]))
    return Law(
        outputs,
        lines,
        Counted((prod(taps) + (layer.bias is not None)) * outputs[1], f"{one}*{outputs[1]}"),
        Counted(prod(outputs) * prod(taps), f"({times(*outputs)})*({times(*taps)})"),
        *view(window),
    )


def gather(layer: GroupPool2d, shape: tuple[int, ...]) -> Law:
    """The law of pooling over the forms."""
    line = ("forms", f"{shape[2]} become one")
    return Law((*shape[:2], *shape[3:]), (line,), Counted(0, ""), Counted(0, ""), ALONE)
