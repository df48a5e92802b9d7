"""What holds for every test: one thread, warnings as errors, no TensorFlow."""

import os
import signal
import sys

# One thread in this process, like in the others: set before NumPy is imported.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import apart
import warned

sys.meta_path.insert(0, apart.NoTensorFlow())

# A shell starts what runs in the background with Ctrl-C ignored, and every process that
# the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    for each in warned.FILTERS[1:]:
        config.addinivalue_line("filterwarnings", each)


def pytest_sessionfinish():
    apart.end()
