"""What this installation can do: versions, processor, native kernels and why not, optional packages."""

import importlib.metadata
import platform
from pathlib import Path


def examine() -> dict[str, str]:
    """Findings by name, each a short sentence."""
    import torch

    from twofold import __version__, kernels

    found = {
        "twofold": __version__,
        "python": platform.python_version(),
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads",
        "processor": f"{processor()}, {torch.backends.cpu.get_cpu_capability()}",
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "not available",
        "native kernels": f"ready, {kernels.instruction_set()}" if kernels.available() else f"off: {kernels.reason()}",
    }
    for package in ("safetensors", "tensorboard", "matplotlib", "scikit-learn", "pillow"):
        found[package] = importlib.metadata.version(package)
    return found


def processor() -> str:
    """The name of the processor, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
