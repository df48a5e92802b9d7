"""TensorFlow never comes into the process that runs the tests."""

import importlib
import sys

import apart
import pytest


def names_of_tensorflow():
    """Return the names of what is imported here and belongs to TensorFlow."""
    return [name for name in sys.modules if name.split(".")[0] == "tensorflow"]


@pytest.fixture(autouse=True)
def skip_without_tensorflow():
    if not apart.installed("tensorflow"):
        pytest.skip("TensorFlow is not installed: pip install tensorflow")


def test_a_test_that_imports_it_is_told_what_to_do_instead():
    with pytest.raises(ImportError, match="must stay out of the process"):
        importlib.import_module("tensorflow")
    assert names_of_tensorflow() == []


def test_its_own_process_has_it_and_has_no_torch():
    code, output, _ = apart.call(
        apart.outcome,
        "a script",
        "import sys, tensorflow; print('torch' in sys.modules)",
        [],
        "",
    )
    assert (code, output) == (0, "False\n")
