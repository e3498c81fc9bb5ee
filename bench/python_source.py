"""The standard library's source with default settings: bits per character on held-out files, seconds of training, a sample.

Target: at most 2.3 bits per character in under 60 seconds of training on 2 cores.
"""

import tempfile
from pathlib import Path

import twofold
from side_by_side import machine
from twofold.tasks.sampling import Sampling


def main() -> None:
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        run = twofold.fit("python-source", out=Path(folder) / "run", quiet=True)
        final = run.metrics
        print(f"test {final['test']['bits_per_character']:.3f} bits per character   training {final['seconds']:.1f} s")
        print(run.sample("def ", 400, Sampling(temperature=0.6)))


if __name__ == "__main__":
    main()
