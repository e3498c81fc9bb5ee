"""`python -m twofold` is `twofold`."""

import os
import sys

from twofold.cli.main import main

try:
    code = main()
except SystemExit as end:
    code = end.code if isinstance(end.code, int) else int(end.code is not None)
if "RANK" in os.environ:
    # One of several processes: torch's threads of communication may still hold Python objects when the interpreter ends, and then abort.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
sys.exit(code)
