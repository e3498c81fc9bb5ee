"""The run folder: everything about a run, in files that a person can open with nothing installed.

    settings.yaml       everything that is needed to repeat it
    metrics.jsonl       a line for each epoch, and a last one with the final scores
    model.safetensors   the weights of the best epoch          model.json   architecture, classes or vocabulary, preparation
    report.html         curves, mistakes, filters, samples     pictures/    the same as PNG
    tensorboard/        the same curves as events              state/       checkpoints, for going on where it stopped
    faults/             batches that broke a step              .lock        who writes it now

Every file is written whole or not at all. Nothing is ever unpickled.
"""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import yaml
from torch import nn

from twofold.data import files
from twofold.train import lock
from twofold.train.settings import Settings

FORMAT = 1
FILES = ("settings.yaml", "metrics.jsonl", "model.safetensors", "model.json", "report.html")
FOLDERS = ("pictures", "tensorboard", "state", "faults")
OURS = FILES + FOLDERS


class RunFolder:
    """Names, writes and reads the files of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def check_free(self, overwrite: bool) -> None:
        """Raise ValueError if a run, or anything else, is there that must not be replaced."""
        if self.path.is_symlink() and not self.path.exists():
            raise ValueError(f"{self.path} is a link that leads nowhere; name a folder for the run with --out.")
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; name a folder for the run with --out.")
        names = (p.name for p in self.path.iterdir()) if self.path.exists() else ()
        inside = sorted(name for name in names if files.left_of(name) not in OURS and name != lock.NAME)
        strange = [name for name in inside if name not in OURS]
        if strange:
            raise ValueError(f"{self.path} holds other files ({', '.join(strange[:3])}): name an empty or a new folder with --out.")
        if inside and "settings.yaml" not in inside:
            raise ValueError(
                f"{self.path} holds {', '.join(inside[:3])} but no settings.yaml, so it is no run: "
                "name an empty or a new folder with --out."
            )
        if inside and not overwrite:
            raise ValueError(
                f"{self.path} already holds a run. Keep it and name another folder with --out, or add --overwrite to replace it."
            )

    def clear(self) -> None:
        """Make the folder ready for a new run: of an earlier one, remove our own files, half-written ones too, and nothing else."""
        with told(self.path):
            for name in reversed(OURS):  # settings.yaml last: a folder that is half cleared still counts as a run
                place = self.path / name
                for inner in sorted(place.rglob("*"), reverse=True) if place.is_dir() and not place.is_symlink() else []:
                    inner.rmdir() if inner.is_dir() and not inner.is_symlink() else inner.unlink()
                if place.is_dir() and not place.is_symlink():
                    place.rmdir()
                else:
                    place.unlink(missing_ok=True)
            self.path.mkdir(parents=True, exist_ok=True)
            for left in [p for p in self.path.iterdir() if files.left_of(p.name) in OURS]:
                left.unlink()

    def write_settings(self, settings: Settings) -> None:
        self._write("settings.yaml", yaml.safe_dump(settings.model_dump(), sort_keys=False, allow_unicode=True).encode())

    def read_settings(self) -> Settings:
        """Raises ValueError for a file that is missing or not what we wrote."""
        try:
            values = yaml.safe_load(self._read("settings.yaml").decode())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path / 'settings.yaml'} is no YAML: {str(error).splitlines()[0]}.") from None
        return Settings.checked(values)

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        self._write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())

    def read_rows(self) -> list[dict[str, Any]]:
        return [self._json("metrics.jsonl", line) for line in self._read("metrics.jsonl").decode().splitlines()]

    def write_model(self, state: dict[str, torch.Tensor], description: dict[str, Any]) -> None:
        """Weights (a state_dict) and description, both or none."""
        weights = safetensors.torch.save({name: value.detach().contiguous() for name, value in _unique(state).items()})
        described = json.dumps({"format": FORMAT, **description}, indent=1, ensure_ascii=False).encode()
        with told(self.path):
            files.write_all({self.path / "model.safetensors": weights, self.path / "model.json": described})

    def write_description(self, description: dict[str, Any]) -> None:
        """model.json alone: the weights stay."""
        self._write("model.json", json.dumps({**description, "format": FORMAT}, indent=1, ensure_ascii=False).encode())

    def read_description(self) -> dict[str, Any]:
        """model.json. Raises ValueError if it is missing, damaged or of a later format."""
        found = self._json("model.json", self._read("model.json").decode(errors="replace"))
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            got = found.get("format") if isinstance(found, dict) else found
            raise ValueError(f"{self.path / 'model.json'}: expected format {FORMAT}, got {got!r}. Was it written by a later version?")
        return found

    def read_weights(self, model: nn.Module) -> None:
        """Fill the model. Raises ValueError for a cut file and for weights of another architecture; the model is then unchanged."""
        path = self.path / "model.safetensors"
        try:
            weights = safetensors.torch.load(self._read("model.safetensors"))
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is damaged or cut off ({error}). Train again, or copy the file anew.") from None
        wanted = _unique(model.state_dict())
        wrong = [f"{name} is missing" for name in wanted if name not in weights]
        wrong += [f"{name} is left over" for name in weights if name not in wanted]
        wrong += [
            f"{name} is {tuple(weights[name].shape)}, not {tuple(value.shape)}"
            for name, value in wanted.items()
            if name in weights and weights[name].shape != value.shape
        ]
        if wrong:
            raise ValueError(f"{path} does not belong to the architecture of model.json: {'; '.join(wrong[:10])}.")
        with torch.no_grad():
            for name, value in wanted.items():
                value.copy_(weights[name])

    def _write(self, name: str, content: bytes) -> None:
        with told(self.path):
            files.write(self.path / name, content)

    def _read(self, name: str) -> bytes:
        if not self.path.is_dir():
            raise ValueError(f"no run folder {self.path}: there is no such folder.")
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            raise ValueError(f"{self.path} is no run folder, or an unfinished one: it has no {name}.") from None

    def _json(self, name: str, text: str) -> Any:
        try:
            return json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{self.path / name} is damaged: {error}.") from None


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal into a sentence that says what is lost (nothing) and what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        cure = "Free some space" if full else "Make the folder writable"
        reason = "the disk is full" if full else (error.strerror or str(error))
        raise ValueError(
            f"cannot write to {path}: {reason}. What was written before is intact. {cure}, or name another folder with --out."
        ) from error


def _unique(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict without second names of one tensor (tied weights)."""
    seen: set[tuple[int, ...]] = set()
    unique = {}
    for name, value in weights.items():
        key = (value.data_ptr(), *value.shape)
        if value.numel() == 0 or key not in seen:
            seen.add(key)
            unique[name] = value
    return unique
