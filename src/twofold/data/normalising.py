"""By which mean and standard deviation pictures are normalised, where not by those of the training pictures.

    own          mean and standard deviation of the training pictures
    imagenet     of ILSVRC-2012, as published weights expect them
    cifar10      of CIFAR-10's training pictures
    cifar100     of CIFAR-100's
    m m m / s s s    numbers, one mean and one deviation for each channel, in 0..1 ("0.5 / 0.25" for grey pictures)

imagenet: torchvision's and timm's published models; cifar10, cifar100: over all pixels of the 50,000 training pictures, four digits
"""

from __future__ import annotations

import math

from twofold.data.preparation import CHANNELS, Preparation
from twofold.data.values import ImageSource

OWN, IMAGENET = "own", "imagenet"
KNOWN = {
    IMAGENET: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
FORMS = f'{OWN}, {", ".join(KNOWN)}, or numbers such as "0.5 0.5 0.5 / 0.25 0.25 0.25"'


def read_numbers(text: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(means, deviations), None for the pictures' own. Raises ValueError for any other words."""
    if text == OWN:
        return None
    if text in KNOWN:
        return KNOWN[text]
    means, slash, deviations = text.partition("/")
    try:
        mean, std = tuple(map(float, means.split())), tuple(map(float, deviations.split()))
    except ValueError:
        mean = std = ()
    if not slash or not mean or len(mean) != len(std):
        raise ValueError(f"normalise: expected {FORMS}, got {text!r}")
    if not all(math.isfinite(value) for value in mean) or not all(0 < value < math.inf for value in std):
        raise ValueError(f"normalise: expected means that are numbers and deviations above 0, got {text!r}")
    return mean, std


def normalised(source: ImageSource, text: str) -> ImageSource:
    """The source whose pictures are normalised so. Raises ValueError for numbers of another count than the pictures have channels."""
    numbers = read_numbers(text)
    if numbers is None:
        return source
    kind = source.preparation
    channels = CHANNELS[kind.mode]
    if len(numbers[0]) != channels:
        what = "grey" if kind.mode == "L" else "in colour"
        raise ValueError(
            f"normalise={text}: it has {len(numbers[0])} means, and the pictures of {source.name} are {what}: expected {channels}. "
            "Leave normalise out, or save the pictures in colour"
        )
    return source._replace(preparation=Preparation(kind.mode, kind.height, kind.width, *numbers))
