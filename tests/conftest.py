"""Settings of the processes that share the tests among them (``pytest -n 2``)."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each of them; torch reads this once, when imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")
