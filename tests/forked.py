"""A script run in a process that was forked from one with torch in its memory."""

import os
import runpy
import sys
from multiprocessing import get_context
from pathlib import Path

import warned

CAN_FORK = sys.platform == "linux"
if CAN_FORK:
    SERVER = get_context("forkserver")
    # What takes long to import; the server imports what is installed of these.
    SERVER.set_forkserver_preload(
        ["torch", "torch._dynamo", "PIL.Image", "matplotlib.figure", "tqdm", "pytest"]
    )


def prepare():
    """Let the server begin its imports, while this process does something else."""
    if CAN_FORK:
        from multiprocessing import forkserver

        forkserver.ensure_running()


def _main(command, folder, outputs):
    os.chdir(folder)
    names = [os.devnull, *outputs]
    for stream, mode in enumerate([os.O_RDONLY, os.O_WRONLY, os.O_WRONLY]):
        os.dup2(os.open(names[stream], mode), stream)
    path = str(command[0])
    sys.argv = [path, *map(str, command[1:])]
    sys.path.insert(0, str(Path(path).parent))
    warned.make_errors()
    runpy.run_path(path, run_name="__main__")


def start(command, folder, outputs):
    """Return the started process of (path of a script, option, ...).

    It runs in folder, with warnings as errors. outputs are the names of the two files
    that take its stdout and stderr.
    """
    for output in outputs:
        Path(output).touch()
    process = SERVER.Process(target=_main, args=(command, folder, outputs))
    process.start()
    return process
