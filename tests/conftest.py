"""Settings of the processes that share the tests among them (``pytest -n 2``)."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each of them; torch reads this once, when imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightning.pytorch  # noqa: F401 - its loggers keep the stderr of their import, not that of a test
