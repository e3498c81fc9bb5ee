"""Published weights: what `twofold models get` fetches, and how a file is known to be the right one.

    the right file = its sha256 begins with the eight digits that stand in its name       resnet18-f37072fd.pth

torchvision publishes its weights, trained on ImageNet (ILSVRC-2012, 1000 classes), under the BSD 3-clause licence, and of a checksum no
more than these digits: enough against a file that was cut or changed by accident, while https vouches for who sends it. Of each the first
version, trained as its paper has it. None of these files was here when this was written.
"""

from __future__ import annotations

from twofold.data.published import Published, PublishedFile

BASE = "https://download.pytorch.org/models"
MOST = 1 << 30  # bytes; VGG-19's are 575 million
FILES = {
    "alexnet": "alexnet-owt-7be5be79.pth",
    "vgg11": "vgg11-8a719046.pth",
    "vgg13": "vgg13-19584684.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg11-bn": "vgg11_bn-6002323d.pth",
    "vgg13-bn": "vgg13_bn-abd245e5.pth",
    "vgg16-bn": "vgg16_bn-6c64b313.pth",
    "vgg19-bn": "vgg19_bn-c79401a0.pth",
    "googlenet": "googlenet-1378be20.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
    "wide-resnet50-2": "wide_resnet50_2-95faca4d.pth",
    "squeezenet1-0": "squeezenet1_0-b66bff10.pth",
    "squeezenet1-1": "squeezenet1_1-b8a52dc0.pth",
    "densenet121": "densenet121-a639ec97.pth",
    "mobilenet-v2": "mobilenet_v2-b0353104.pth",
}
HALVES = "0.5 0.5 0.5 / 0.5 0.5 0.5"
NORMALISED = {"googlenet": HALVES}  # of those that want another than imagenet's: they came from TensorFlow


class PublishedWeights(Published):
    """The weights of one architecture."""

    __slots__ = ()

    @property
    def asked(self) -> str:
        """The command that fetches it."""
        return f"models get {self.name.removesuffix('-weights')}"


def published_weights(architecture: str, size: int = 0) -> PublishedWeights:
    """Those of an architecture; size: bytes, where that is known by now. Raises ValueError, naming all that there are."""
    if architecture not in FILES:
        raise ValueError(f"models get: there are no published weights for {architecture!r}. There are those of {', '.join(FILES)}.")
    name = FILES[architecture]
    digits = name.removesuffix(".pth").rpartition("-")[2]
    file = PublishedFile(name, size, digits, (f"{BASE}/{name}",))
    sentence = f"{architecture}, trained on ImageNet's 1000 classes (torchvision)"
    return PublishedWeights(f"{architecture}-weights", "classify", sentence, "BSD-3-Clause", (file,), tried=False)
