"""Hang in a forked process, because its parent's threads are missing there.

A large matrix product starts threads that serve later products as well. A forked
process is a copy of its parent without these threads, and waits for them forever. It
happens on Linux only: elsewhere, fork is not the way to start a process.
"""

import argparse
import multiprocessing
import sys
import warnings

import torch


def multiply(started):
    """Multiply two matrices that are large enough for several threads."""
    started.set()
    torch.ones(500, 500) @ torch.ones(500, 500)


def end_of_process(context):
    """Let a new process multiply, and say how it ends."""
    started = context.Event()
    process = context.Process(target=multiply, args=(started,))
    with warnings.catch_warnings(action="ignore"):  # Python 3.12 and later expect it
        process.start()
    started.wait(120)
    process.join(5)
    if process.exitcode is not None:
        return f"exit status {process.exitcode}"

    process.kill()
    process.join()
    return "hangs"


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    if sys.platform != "linux":
        print("This can only be tried on Linux.")
        return

    torch.set_num_threads(2)
    torch.ones(500, 500) @ torch.ones(500, 500)

    context = multiprocessing.get_context("fork")  # wrong: the copy has one thread
    print("first process:", end_of_process(context))

    context = multiprocessing.get_context("spawn")  # right: a new Python
    print("second process:", end_of_process(context))


if __name__ == "__main__":
    main()
