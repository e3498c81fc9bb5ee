"""twofold see ...: pictures of what layers do."""

from pathlib import Path

from cyclopts import App

from twofold.cli.options import Flag
from twofold.cli.output import print_json, print_line

see = App(name="see", help="Draw what layers do, as PNG pictures.", help_format="plaintext")


@see.command
def kernels(image: Path, *, out: Path | None = None, only: str = "", json: Flag = False) -> None:
    """Draw fixed kernels, such as Sobel and Gaussian, and what each of them answers to a picture.

    Parameters
    ----------
    image
        A picture file.
    out
        The PNG file to write. Default: the picture's name with -kernels.png, in the current folder.
    only
        Names with commas between: sobel,gaussian. Default: all.
    json
        Print JSON.
    """
    import numpy as np

    from twofold.data.amount import amount
    from twofold.data.pictures import read_image
    from twofold.see.kernels import entries
    from twofold.see.kernels import kernels as draw
    from twofold.see.style import save_png

    names = [name.strip() for name in only.split(",") if name.strip()]
    shown = entries(names)
    picture = np.asarray(read_image(image))
    target = _target(image, out, "kernels")
    save_png(draw(picture, f"Fixed kernels on {image.name}", names), target)
    if json:
        print_json({"picture": str(image), "kernels": [entry.name for entry in shown], "out": str(target)})
        return
    print_line(f"{amount(len(shown), 'kernel', 'kernels')} on {image.name}: {target}")


def _target(image: Path, out: Path | None, what: str) -> Path:
    """Where to write. Raises ValueError for a name that is no PNG file's, and for the picture itself."""
    target = out or Path(f"{image.stem}-{what}.png")
    if target.suffix.lower() != ".png":
        raise ValueError(f"see {what}: expected --out as the name of a PNG file, for example {target.stem or what}.png, got {target}.")
    if target.exists() and target.samefile(image):
        raise ValueError(f"see {what}: --out {target} is the picture itself. Choose another name.")
    return target
