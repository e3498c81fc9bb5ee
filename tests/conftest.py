"""For all tests: threads that wait without spinning.

Most tests compute little at a time. Where other programs share the machine, a thread that spins until the next little piece keeps a core
from the thread that has to deliver it, and the suite takes three times as long. Results do not depend on it.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, and for child processes too
