"""twofold data preview: what augmentation makes of a source's pictures, as one picture."""

from pathlib import Path

from twofold.cli.output import print_json, print_line

PICTURES, VERSIONS = 10, 6


def preview(source: str, words: str, out: str = "", seed: int = 0, image_size: int | None = None, json: bool = False) -> None:
    """Draw ten training pictures of the source and six versions of each, those of the first six epochs, as PNG.

    words: a preset or transforms, as for `twofold train --augment`. out: the PNG file, default SOURCE-augmented.png in the current folder.
    Raises ValueError for a source without pictures, for words that mean nothing, and for a name that is no PNG file's.
    """
    from twofold.data.augment import Augmenter
    from twofold.data.augment_samples import Samples
    from twofold.data.augment_text import read_recipe, write_recipe
    from twofold.data.options import DataOptions
    from twofold.data.sources import ImageSource, open_source
    from twofold.see.augmented import augmented
    from twofold.see.sheet import Head
    from twofold.see.style import save_png

    target = Path(out or f"{Path(source).resolve().stem}-augmented.png")
    if target.suffix.lower() != ".png":
        raise ValueError(f"data preview: expected --out as the name of a PNG file, for example {target.stem}.png, got {target}.")
    recipe = read_recipe(words)
    found = open_source(source, DataOptions(image_size=image_size))
    if not isinstance(found, ImageSource):
        raise ValueError(f"data preview: expected a source of pictures, but {source} is text. Augmentation is for pictures.")
    import torch

    count = len(found.train.y_B)
    chosen = torch.linspace(0, count - 1, min(PICTURES, count)).round().long()
    original = Samples(found.train.pictures(chosen))
    augmenter = Augmenter(recipe, seed)
    versions = [Samples(augmenter.pictures(original.x_BCHW, epoch, chosen)) for epoch in range(VERSIONS)]
    said = write_recipe(recipe)
    save_png(augmented(original, versions, Head(f"Augmentation of {found.name}", said)), target)
    if json:
        print_json({"source": source, "augment": said, "pictures": len(chosen), "versions": VERSIONS, "seed": seed, "out": str(target)})
        return
    print_line(f"{len(chosen)} pictures of {found.name}, {VERSIONS} versions of each, {said}: {target}")
