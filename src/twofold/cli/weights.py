"""twofold models get and twofold models convert: published weights into the cache, and any weights by torchvision's names."""

from pathlib import Path
from typing import Any

from twofold.cli.getting import Told
from twofold.cli.output import print_json, print_line
from twofold.data.amount import amount
from twofold.data.published import bytes_in_words

UNTRIED = (
    "torchvision publishes the first eight digits of the checksum, and these are compared; nobody has tried them here on the file itself. "
    "Should it be refused though you know it to be right, they are wrong: tell us"
)


def get(architecture: str, origin: Path | None, json: bool) -> None:
    """Download the published weights of an architecture, or take them from the user's own file."""
    from twofold.data.cache import set_folder, whole
    from twofold.data.downloads import size_at
    from twofold.data.obtaining import obtain
    from twofold.data.published_weights import MOST, NORMALISED, published_weights

    wanted = published_weights(architecture)
    (file,) = wanted.files
    try:
        with Told() as told:
            if not whole(wanted):
                told.say(f"{architecture}: {UNTRIED}")
                own = origin / file.name if origin is not None and origin.is_dir() else origin
                size = size_at(file.urls[0], MOST) if own is None else own.stat().st_size if own.is_file() else 0
                wanted = published_weights(architecture, size)
            found = obtain(wanted, origin, listener=told)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; what came of {file.name} is kept, and the same command goes on from there") from None
    path = set_folder(wanted) / file.name
    how = NORMALISED.get(architecture, "imagenet")
    if json:
        print_json({"architecture": architecture, "file": str(path), "bytes": found.bytes, "new": found.new, "licence": wanted.licence})
        return
    print_line(f"{architecture}: {file.name}, {bytes_in_words(found.bytes)}, licence: {wanted.licence}; pictures normalised by {how}")
    print_line(f"{'here now' if found.new else 'was here already'}: {path}")
    line = f"use it: twofold train photos/ --model {architecture} --weights {path} --image-size 224"
    print_line(line if how == "imagenet" else f'{line} --normalise "{how}"')


def convert(name: str, weights: Path | None, config: dict[str, Any], out: Path | None, json: bool) -> None:
    """Write the weights of a run, or of a file for an architecture, by torchvision's names."""
    import safetensors.torch

    from twofold.data import files
    from twofold.models.adopt import to_torchvision
    from twofold.train.folder import told

    if out is None or out.suffix.lower() != ".safetensors":
        raise ValueError(f"models convert: expected --out as the name of a .safetensors file, for example {Path(name).name}.safetensors.")
    if out.exists():
        raise ValueError(f"models convert: {out} is there already. Remove it, or take another name.")
    model, architecture, said = _filled(name, weights, config)
    state = to_torchvision(model)
    with told(out.parent):
        files.write(out, safetensors.torch.save(state, {"architecture": architecture, "format": "pt"}))
    if json:
        print_json({"architecture": architecture, "file": str(out), "tensors": len(state)})
        return
    print_line(f"{said}{amount(len(state), 'tensor', 'tensors')} of {architecture} written to {out}")


def _filled(name: str, weights: Path | None, config: dict[str, Any]) -> tuple[Any, str, str]:
    """The model, the name of its architecture, and what was read."""
    import torch

    from twofold.adopting import take_weights
    from twofold.models import catalogue
    from twofold.models.adopt import classes_of
    from twofold.models.weights import read_weights
    from twofold.run import load

    if weights is None:
        if name in catalogue.MODELS and not Path(name).is_dir():
            raise ValueError(f"models convert: {name} is an architecture, and has learnt nothing: give it --weights FILE, or name a run.")
        if config:
            raise ValueError("models convert: --config belongs to an architecture; a run has its own. Leave it out.")
        run = load(name)
        return run.model, run.settings.model, ""
    with torch.device("meta"):
        classes = classes_of(catalogue.build(name, **config), read_weights(weights))
    if classes is not None and "classes" in {**catalogue.find(name).preset.as_dict()} and classes >= 2:
        config = {"classes": classes, **config}
    with torch.random.fork_rng():
        model = catalogue.build(name, **config)
    return model, name, f"{take_weights(model, str(weights), name, heads='kept').said} "
