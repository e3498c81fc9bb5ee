"""`python -m twofold` is `twofold`."""

import sys

from twofold.cli.main import main

sys.exit(main())
