"""twofold explain ...: the arithmetic of a layer, and a convolution with every number."""

import re
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from twofold.cli.options import Flag, MaybeWhole
from twofold.cli.output import print_json, print_line

Kind = Literal["max", "average", "power", "gaussian", "stochastic"]
POOLS = {"max": "MaxPool", "average": "AvgPool", "power": "LPPool", "gaussian": "GaussianPool", "stochastic": "StochasticPool"}
ADAPTIVE = {"max": "AdaptiveMaxPool", "average": "AdaptiveAvgPool"}

explain = App(name="explain", help="Work out the arithmetic of a layer, number by number.", help_format="plaintext")


@explain.command
def conv(
    *,
    input: str = "",
    kernel: str | None = None,
    filters: MaybeWhole = None,
    stride: str | None = None,
    padding: str | None = None,
    dilation: str | None = None,
    groups: MaybeWhole = None,
    bias: bool = True,
    depthwise: Flag = False,
    transposed: Flag = False,
    output_padding: str | None = None,
    worked: Flag = False,
    size: MaybeWhole = None,
    seed: MaybeWhole = None,
    out: Path | None = None,
    json: Flag = False,
) -> None:
    """Sizes, weights, work, memory and receptive field of a convolution; with --worked a small one with every number.

    Parameters
    ----------
    input
        Channels and sizes: 3x1000 for signals, 3x224x224 for maps, 1x16x64x64 for volumes.
    kernel
        Taps: 7, or one number for each axis, 3x5.
    filters
        Channels that come out. With --depthwise a multiple of those of the input; default: as many.
    stride
        As the kernel. Default: 1.
    padding
        A number, one for each axis (1x2), before and after (0+1, 0+1x2+2), or valid, same, same_upper, same_lower, full. Default: 0.
    dilation
        As the kernel. Default: 1.
    groups
        Into how many parts channels and filters are split. Default: 1.
    bias
        Whether every filter has a bias.
    depthwise
        Every channel has filters of its own.
    transposed
        The transposed convolution.
    output_padding
        Of the transposed convolution: what is added to the size. Default: 0.
    worked
        A small convolution with every number, forward and backward: one channel, one filter, whole numbers.
    size
        With --worked: the side of the input, up to 6. Default: 5.
    seed
        With --worked: the same seed draws the same numbers. Default: 0.
    out
        With --worked: also draw it into this PNG file.
    json
        Print JSON.
    """
    given = {"--input": input or None, "--filters": filters, "--dilation": dilation, "--groups": groups, "--output-padding": output_padding}
    given |= {"--depthwise": depthwise or None, "--transposed": transposed or None, "--no-bias": None if bias else True}
    if worked:
        _refuse("--worked shows one channel and one filter on a small square", given)
        _work({"size": size, "kernel": kernel, "stride": stride, "padding": padding, "seed": seed}, out, json)
        return
    _refuse("the options --size, --seed and --out belong to --worked", {"--size": size, "--seed": seed, "--out": out})
    shape = _shape("conv", input)
    channels, axes = shape[0], len(shape) - 1
    if depthwise and groups is not None:
        raise ValueError("explain conv: --depthwise already says --groups: as many as the input has channels.")
    if kernel is None or (filters is None and not depthwise):
        missing = "--kernel" if kernel is None else "--filters"
        raise ValueError(
            f"explain conv: {missing} is missing. For example: --input 3x224x224 --kernel 7 --stride 2 --padding 3 --filters 64"
        )
    settings: dict[str, Any] = {
        "kernel_size": _numbers("--kernel", kernel),
        "stride": _numbers("--stride", stride or "1"),
        "padding": _padding(padding or "0", axes),
        "dilation": _numbers("--dilation", dilation or "1"),
        "groups": channels if depthwise else 1 if groups is None else groups,
        "bias": bias,
    }
    if transposed:
        settings["output_padding"] = _numbers("--output-padding", output_padding or "0")
    elif output_padding is not None:
        raise ValueError("explain conv: --output-padding belongs to --transposed.")
    _describe(
        f"{'ConvTranspose' if transposed else 'Conv'}{axes}d", (channels, channels if filters is None else filters), settings, shape, json
    )


@explain.command
def pool(
    *,
    input: str = "",
    kernel: str | None = None,
    stride: str | None = None,
    padding: str = "0",
    dilation: str = "1",
    kind: Kind = "max",
    ceil: Flag = False,
    adaptive: str | None = None,
    json: Flag = False,
) -> None:
    """Sizes, memory and receptive field of a pooling layer.

    Parameters
    ----------
    input
        Channels and sizes: 8x1000 for signals, 8x98x98 for maps, 1x16x64x64 for volumes.
    kernel
        Taps: 3, or one number for each axis, 3x5.
    stride
        As the kernel. Default: the kernel itself.
    padding
        A number, one for each axis (1x2), before and after (0+1, 0+1x1+1), or valid, same, same_upper, same_lower.
    dilation
        As the kernel.
    kind
        max, average, power, gaussian or stochastic; power is the length of the window as a vector.
    ceil
        Round the number of windows up.
    adaptive
        In place of the kernel: the sizes of the output, 7x7, whatever the input. For max and average.
    json
        Print JSON.
    """
    shape = _shape("pool", input)
    axes = len(shape) - 1
    if adaptive is not None:
        usual = {"--kernel": kernel, "--stride": stride, "--ceil": ceil or None}
        usual |= {"--padding": padding if padding != "0" else None, "--dilation": dilation if dilation != "1" else None}
        _refuse("--adaptive chooses the windows itself", usual, "pool")
        if kind not in ADAPTIVE:
            raise ValueError(f"explain pool: --adaptive goes with --kind {' or '.join(ADAPTIVE)}, not {kind}.")
        _describe(f"{ADAPTIVE[kind]}{axes}d", (_numbers("--adaptive", adaptive),), {}, shape, json)
        return
    if kernel is None:
        raise ValueError("explain pool: --kernel is missing. For example: --input 64x112x112 --kernel 3 --stride 2 --padding 1")
    taps = _numbers("--kernel", kernel)
    settings = {
        "stride": None if stride is None else _numbers("--stride", stride),
        "padding": _padding(padding, axes),
        "dilation": _numbers("--dilation", dilation),
        "ceil_mode": ceil,
    }
    _describe(f"{POOLS[kind]}{axes}d", (2, taps) if kind == "power" else (taps,), settings, shape, json)


def _describe(name: str, places: tuple[Any, ...], settings: dict[str, Any], shape: tuple[int, ...], json: bool) -> None:
    """Build the layer without its numbers and print what is said of it."""
    import torch

    from twofold import nn
    from twofold.see.describe import describe

    with torch.device("meta"):
        layer = getattr(nn, name)(*places, **settings)
    said = describe(layer, shape)
    if json:
        print_json(said.to_dict())
        return
    for line in str(said).splitlines():
        print_line(line)


def _work(given: dict[str, Any], out: Path | None, json: bool) -> None:
    from twofold.see.worked import Example, work

    if out is not None and out.suffix.lower() != ".png":
        raise ValueError(f"explain conv: expected --out as the name of a PNG file, for example convolution.png, got {out}.")
    numbers = {name: _whole(f"--{name}", value) for name, value in given.items() if value is not None}
    worked = work(Example(**numbers))
    if out is not None:
        from twofold.see.style import save_png
        from twofold.see.worked_picture import worked_picture

        save_png(worked_picture(worked), out)
    if json:
        print_json({**worked.to_dict(), "out": None if out is None else str(out)})
        return
    for line in str(worked).splitlines():
        print_line(line)
    if out is not None:
        print_line(f"picture: {out}")


def _refuse(why: str, given: dict[str, Any], what: str = "conv") -> None:
    """ValueError if one of these options was given."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ValueError(f"explain {what}: {why}; leave out {', '.join(names)}.")


def _shape(what: str, text: str) -> tuple[int, ...]:
    sizes = re.fullmatch(r"\d{1,10}(x\d{1,10}){1,3}", text.strip())
    numbers = tuple(int(n) for n in text.split("x")) if sizes else ()
    if not numbers or 0 in numbers:
        raise ValueError(f"explain {what}: expected --input as CxT, CxHxW or CxDxHxW, for example 3x224x224, got {text!r}.")
    return numbers


def _numbers(option: str, text: str) -> int | tuple[int, ...]:
    """7 as a number, 3x5 as numbers."""
    if not re.fullmatch(r"-?\d{1,10}(x-?\d{1,10})*", text):
        raise ValueError(f"explain: expected {option} as a whole number or one for each axis, such as 3 or 3x5, got {text!r}.")
    numbers = tuple(map(int, text.split("x")))
    return numbers[0] if len(numbers) == 1 else numbers


def _padding(text: str, axes: int) -> Any:
    """3, 1x2, 0+1 (before and after), 0+1x2+2, or a word."""
    if re.fullmatch(r"[a-z_]+", text):
        return text
    if re.fullmatch(r"\d{1,10}\+\d{1,10}(x\d{1,10}\+\d{1,10})*", text):
        each = text.split("x")
        return tuple(int(side) for axis in (each if len(each) > 1 else each * axes) for side in axis.split("+"))
    return _numbers("--padding", text)


def _whole(option: str, value: Any) -> int:
    """One whole number."""
    number = value if isinstance(value, int) else _numbers(option, value)
    if isinstance(number, tuple):
        raise ValueError(f"explain conv --worked: expected {option} as one whole number, got {value!r}.")
    return number
