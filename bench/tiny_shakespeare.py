"""Tiny Shakespeare with the settings of its recipe: nats per character on the last 10 % of the text, and the seconds of training.

Read as streams, each with the state that all of its past has left; and, beside it, cut into pieces of 64 characters that know no past, as
models without a state are judged. Target: at most 1.48 nats per character, as streams, after three minutes of training on 2 cores.

    twofold data get tiny-shakespeare
    python bench/tiny_shakespeare.py [name=value ...]          settings to try instead of the recipe's
"""

import sys
import tempfile
from pathlib import Path

import torch

import twofold
from side_by_side import machine
from twofold.cli.training import read_changes
from twofold.data.values import Text
from twofold.layers.routes import routes_taken
from twofold.run import Run
from twofold.tasks.sampling import Sampling

CUT = 64  # characters


def main() -> None:
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        run = twofold.fit("tiny-shakespeare", out=Path(folder) / "run", **read_changes(sys.argv[1:]))
        final, source = run.metrics, run.open()
        assert isinstance(source.validation, Text)
        weights = sum(weight.numel() for weight in run.model.parameters())
        print(f"{weights:,} weights, {final['step']:,} steps; LSTM took {routes_taken(run.model)}")
        print(f"training {final['seconds']:.1f} s, of which {final['time']}")
        print(f"as streams with carried state: {final['validation']['loss']:.4f} nats per character")
        print(f"contexts cut at {CUT}:          {cut(run, source.validation):.4f} nats per character")
        print(run.sample("ROMEO:\n", 400, Sampling(temperature=0.7)))


@torch.no_grad()
def cut(run: Run, text: Text) -> float:
    """Nats per character where every piece of 64 begins without a past."""
    pieces = (len(text.codes_T) - 1) // CUT
    x_TB = text.codes_T[: pieces * CUT].view(pieces, CUT).t().long()
    y_TB = text.codes_T[1 : pieces * CUT + 1].view(pieces, CUT).t().long()
    logits_TBV, _ = run.model(x_TB)
    return torch.nn.functional.cross_entropy(logits_TBV.flatten(0, 1), y_TB.flatten()).item()


if __name__ == "__main__":
    main()
