"""A process of TensorFlow's own, which the tests ask; theirs never imports it.

TensorFlow opens its libraries to all that are loaded after them. If Triton is among
these, the process ends in a segmentation fault, and torch.compile imports Triton
wherever there is one: with PyTorch for CUDA, which is what pip installs on Linux. What
is called here must be in a module that does not import torch.
"""

import contextlib
import functools
import importlib.machinery
import io
import linecache
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from unittest import mock

import warned

SECONDS = 300


class NoTensorFlow:
    """Finds TensorFlow, and refuses to load it: an entry of sys.meta_path."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name)
        if spec:
            spec.loader = cls
        return spec

    @staticmethod
    def create_module(spec):
        raise ImportError(
            "TensorFlow must stay out of the process that runs the tests: there "
            "torch.compile may crash. Use curve(), outcome() or apart.call()."
        )

    @staticmethod
    def exec_module(module):
        """Nothing to do: no module is created."""


def installed(module):
    """Return whether a module is there, without importing it."""
    return importlib.machinery.PathFinder.find_spec(module) is not None


def execute(name, text, argv, path):
    """Execute the text of a script as if it were the file at path.

    Return its variables. name is what tracebacks and sys.argv call it.
    """
    # tf.function reads the source of what it traces: this text, not the file.
    file = f"<{name}>"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    variables = {"__name__": "__main__", "__file__": path}
    with mock.patch.object(sys, "argv", [name, *argv]):
        exec(compile(text, file, "exec"), variables)  # noqa: S102
    return variables


def outcome(name, text, argv, path):
    """Do the same and return (exit status, stdout, stderr)."""
    code = 0
    with (
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        try:
            execute(name, text, argv, path)
        except SystemExit as exit:
            code = exit.code or 0
    return code, output.getvalue(), errors.getvalue()


def _begin():
    """Make warnings errors, and let what is printed here go nowhere."""
    warned.make_errors()
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


@functools.cache
def _process():
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_begin)


def call(function, *args):
    """Return function(*args), computed in the process that has TensorFlow."""
    future = _process().submit(function, *args)
    try:
        return future.result(SECONDS)
    except TimeoutError:
        end()
        raise


def end():
    """End that process, whatever it does."""
    if _process.cache_info().currsize:
        for process in _process()._processes.values():
            process.kill()
        _process().shutdown(cancel_futures=True)
        _process.cache_clear()
