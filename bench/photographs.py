"""A folder of photographs, from nothing to a report: one command to train, one to judge, one to predict; beside two baselines.

    python bench/photographs.py FOLDER [words for `twofold train`]

FOLDER holds class folders, or train/ and test/ with class folders. Of classes with enough pictures the first 5 (by name) are taken, of each
40 photographs to learn from; all others of these classes are the test. Every command is run as a user runs it. The baselines are those of
`twofold evaluate --baselines`: the class that is the most frequent in training, and a linear classifier (ridge regression on the classes)
on the pixels of the same pictures, averaged down to 32x32 where they are larger, its regularisation chosen by leaving one out.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from side_by_side import machine

CLASSES, PHOTOGRAPHS, TESTED = 5, 40, 5


def main() -> None:
    if len(sys.argv) < 2:
        print("not measured: it needs photographs of yours, python bench/photographs.py FOLDER")
        return
    print(machine())
    with tempfile.TemporaryDirectory() as place:
        photographs, run = Path(place) / "photographs", Path(place) / "run"
        lay_out(Path(sys.argv[1]), photographs)
        began = time.perf_counter()
        command("train", str(photographs), "--out", str(run), *(sys.argv[2:] or ["--recipe", "photographs"]))
        took = time.perf_counter() - began
        judged = json.loads(command("evaluate", str(run), "--baselines", "--json"))
        some = sorted((photographs / "test").glob("*/*"))[:3]
        print(command("predict", str(run), *map(str, some)))
        print(f"{(run / 'report.html').stat().st_size:,} bytes of report; training, from command to report: {took:.0f} s")
        beside, tested = judged["baselines"], sum(row["count"] for row in judged["per_class"])
        print(f"this net        {100 * judged['accuracy']:.1f} % of {tested} test photographs")
        print(f"linear, pixels  {100 * beside['linear']['accuracy']:.1f} %")
        print(f"majority class  {100 * beside['majority']:.1f} %")


def lay_out(given: Path, into: Path) -> None:
    """train/ with 40 photographs of each of 5 classes, test/ with all others of them."""
    roots = [given / part for part in ("train", "test") if (given / part).is_dir()] or [given]
    names = sorted({folder.name for root in roots for folder in root.iterdir() if folder.is_dir()})
    files = {name: [file for root in roots for file in sorted((root / name).glob("*"))] for name in names}
    enough = [name for name, found in files.items() if len(found) >= PHOTOGRAPHS + TESTED][:CLASSES]
    if len(enough) < CLASSES:
        raise SystemExit(f"{given}: expected {CLASSES} classes of at least {PHOTOGRAPHS + TESTED} photographs, found {len(enough)}.")
    for name in enough:
        for part, found in (("train", files[name][:PHOTOGRAPHS]), ("test", files[name][PHOTOGRAPHS:])):
            (into / part / name).mkdir(parents=True)
            for file in found:
                shutil.copyfile(file, into / part / name / file.name)


def command(*words: str) -> str:
    """What `twofold WORDS` prints. Its errors end this."""
    print("$ twofold", *words)
    done = subprocess.run([sys.executable, "-m", "twofold", *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


if __name__ == "__main__":
    main()
