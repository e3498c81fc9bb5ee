"""What this installation can do: versions, processor, native kernels and why not, measured routes, optional packages."""

import importlib.metadata
import platform


def examine() -> dict[str, str]:
    """Findings by name, each a short sentence."""
    import torch

    from twofold import __version__, kernels
    from twofold.layers.choices import number, place, processor

    found = {
        "twofold": __version__,
        "python": platform.python_version(),
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads",
        "processor": f"{processor()}, {torch.backends.cpu.get_cpu_capability()}",
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "not available",
        "native kernels": f"ready, {kernels.instruction_set()}" if kernels.available() else f"off: {kernels.reason()}",
        "measured routes": "kept nowhere: there is no home folder" if place() is None else f"{place()}, {number()} choices",
    }
    for package in ("safetensors", "tensorboard", "matplotlib", "scikit-learn", "pillow"):
        found[package] = importlib.metadata.version(package)
    return found
