"""wandb, trackio and mlflow: the same numbers and pictures, kept where these programs keep them. None of them is needed.

    wandb     online where this user has logged in, else offline, in ./wandb (`wandb sync` sends it later); WANDB_MODE decides otherwise
    trackio   on this machine (`trackio show --project twofold`); TRACKIO_SPACE_ID decides otherwise
    mlflow    on this machine (`mlflow ui`); MLFLOW_TRACKING_URI decides otherwise

Each is told the flat settings, and every run belongs to the project "twofold" under the name of its folder.
"""

import netrc
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from twofold.train.tracker import Scalars, Start

PROJECT = "twofold"
BINS = 64
LONGEST = 250  # characters of a setting: mlflow takes no more in its oldest stores


class Wandb:
    """Weights & Biases."""

    name = "wandb"
    known_as = ""
    run: Any = None

    def begin(self, start: Start) -> None:
        self.module = import_module(self.name)
        self.run = self._init(start)
        self.known_as = self._known_as()

    def _init(self, start: Start) -> Any:
        again = {"id": start.known_as, "resume": "allow"} if start.known_as else {}
        mode = {} if "WANDB_MODE" in os.environ or _logged_in() else {"mode": "offline"}
        quiet = self.module.Settings(console="off")  # it would read along what this process prints
        return self.module.init(project=PROJECT, name=start.folder.name, config=dict(start.settings), settings=quiet, **again, **mode)

    def _known_as(self) -> str:
        return str(self.run.id)

    def step(self, number: int, scalars: Scalars) -> None:
        self.run.log(dict(scalars), step=number)

    epoch = step

    def picture(self, number: int, name: str, pixels_HWC: NDArray[np.uint8]) -> None:
        self.run.log({name: self.module.Image(pixels_HWC)}, step=number)

    def histogram(self, number: int, name: str, values: Tensor) -> None:
        counts, edges = np.histogram(values.numpy(), bins=BINS)
        self.run.log({name: self.module.Histogram(np_histogram=(counts, edges))}, step=number)

    def end(self, scores: Scalars | None) -> None:
        if self.run is None:
            return
        if scores is not None:
            self._summarise(scores)
        self._finish(failed=scores is None)

    def _summarise(self, scores: Scalars) -> None:
        self.run.summary.update(dict(scores))

    def _finish(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


class Trackio(Wandb):
    """trackio, which takes the same calls."""

    name = "trackio"

    def _init(self, start: Start) -> Any:
        again = "allow" if start.known_as else "never"
        called = start.known_as or start.folder.name
        return self.module.init(project=PROJECT, name=called, config=dict(start.settings), resume=again, embed=False)

    def _known_as(self) -> str:
        return str(self.run.name)

    def _summarise(self, scores: Scalars) -> None:
        self.run.log(dict(scores))

    def _finish(self, failed: bool) -> None:
        self.module.finish()


class Mlflow:
    """MLflow. It keeps no histograms: of these, mean and standard deviation."""

    name = "mlflow"
    known_as = ""

    def begin(self, start: Start) -> None:
        self.module = import_module(self.name)
        if start.known_as:
            run = self.module.start_run(run_id=start.known_as, nested=True)
        else:
            self.module.set_experiment(PROJECT)
            run = self.module.start_run(run_name=start.folder.name, nested=True)
            self.module.log_params({name: str(value)[:LONGEST] for name, value in start.settings.items()})
        self.known_as = str(run.info.run_id)

    def step(self, number: int, scalars: Scalars) -> None:
        self.module.log_metrics(dict(scalars), step=number)

    epoch = step

    def picture(self, number: int, name: str, pixels_HWC: NDArray[np.uint8]) -> None:
        self.module.log_image(pixels_HWC, artifact_file=f"{name}/{number:08d}.png")

    def histogram(self, number: int, name: str, values: Tensor) -> None:
        deviation = float(values.std(correction=0))
        self.module.log_metrics({f"{name}/mean": float(values.mean()), f"{name}/deviation": deviation}, step=number)

    def end(self, scores: Scalars | None) -> None:
        if not self.known_as:
            return
        if scores is not None:
            self.module.log_metrics(dict(scores))
        self.module.end_run("FAILED" if scores is None else "FINISHED")


def _logged_in() -> bool:
    """Whether this user has given wandb a key: without one it would ask for it, and the run would wait."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0].split(":")[0]
    for place in (os.environ.get("NETRC"), Path.home() / ".netrc", Path.home() / "_netrc"):
        if place is None:
            continue
        try:
            if netrc.netrc(str(place)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
