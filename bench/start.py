"""How long `twofold --help` takes, as a whole process. Target: under 0.3 seconds."""

import subprocess
import sys

from side_by_side import machine, seconds


def main() -> None:
    print(machine())
    command = [sys.executable, "-m", "twofold", "--help"]
    times = seconds({"help": lambda: subprocess.run(command, check=True, capture_output=True)}, rounds=10)
    print(f"twofold --help   {times['help']:.3f} s")


if __name__ == "__main__":
    main()
