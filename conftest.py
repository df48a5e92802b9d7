"""What holds for every test; and the sessions on the pages, which are tests as well.

A page can be named: python -m pytest tensor/common_mistakes.md
"""

import os
import re
import signal
import sys

# One thread in this process, like in the others: set before NumPy is imported.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import apart
import pages
import pytest
import warned
from xdist.scheduler import LoadScopeScheduling

# TensorFlow never enters this process.
sys.meta_path.insert(0, apart.NoTensorFlow())

# A shell starts what runs in the background with Ctrl-C ignored, and every process that
# the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    for each in warned.FILTERS[1:]:
        config.addinivalue_line("filterwarnings", each)


class ByScript(LoadScopeScheduling):
    """Let one process make all tests of a script: they share its runs.

    Other tests go, one by one, to the process that has nothing to do.
    """

    def _split_scope(self, nodeid):
        script = re.search(r"\[.*?(\w+/\w+\.py)", nodeid)
        return script[1] if script else nodeid


def pytest_xdist_make_scheduler(config, log):
    return ByScript(config, log)


def pytest_sessionfinish():
    apart.end()


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".md":
        return Page.from_parent(parent, path=file_path)
    return None


class Page(pytest.File):
    """A page, as a collection of its sections."""

    def collect(self):
        page = self.path.relative_to(self.config.rootpath).as_posix()
        for section in pages.sections(page):
            if section.sessions:
                name = " ".join([section.title, *section.needs])
                yield Section.from_parent(self, name=name, section=section)


class Section(pytest.Item):
    """A section with sessions; it passes if they print what the page shows."""

    def __init__(self, section, **arguments):
        super().__init__(**arguments)
        self.section = section

    def runtest(self):
        missing = pages.missing(self.section.needs)
        if missing:
            pytest.skip(f"{self.section.page} needs {', '.join(missing)}: not here")
        report = pages.failures(pages.doctests(self.section))
        if report:
            pytest.fail(report, pytrace=False)

    def reportinfo(self):
        return self.path, self.section.line, self.name
