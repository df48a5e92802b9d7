"""Runs of scripts, shared by all tests that look at them."""

import os
import sys

# One thread in this process, like in the others: set before NumPy is imported.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import apart
import forked
import pytest
import warned
from collection import POOL, finished, skip_if_missing, start

sys.meta_path.insert(0, apart.NoTensorFlow())


def pytest_configure(config):
    for each in warned.FILTERS[1:]:
        config.addinivalue_line("filterwarnings", each)
    if not config.option.collectonly:
        forked.prepare()


def pytest_collection_modifyitems(items):
    """Put the tests that wait for runs last: the others need this process."""

    def waits(item):
        runs = not {"run", "real_run"}.isdisjoint(item.fixturenames)
        return runs, hasattr(item.module, "finished")

    items.sort(key=waits)


def pytest_collection_finish(session):
    """Start every command that a chosen test waits for, so that all cores are busy."""
    if not session.config.option.collectonly:
        for item in session.items:
            if "command" in getattr(item, "fixturenames", []):
                start(item.callspec.params["command"])
            if "real_run" in getattr(item, "fixturenames", []):
                start(item.callspec.params["command"], real=True)


def pytest_sessionfinish():
    POOL.shutdown(cancel_futures=True)
    apart.end()


@pytest.fixture
def run(command):
    """The finished run of the test's command, a tuple of a script and its options."""
    skip_if_missing(command[0])
    return finished(command)


@pytest.fixture
def real_run(command):
    """The same command in a process that Python itself has started."""
    return finished(command, real=True)
