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


def multiply():
    """Multiply two matrices that are large enough for several threads."""
    torch.ones(500, 500) @ torch.ones(500, 500)


def end_of(process, seconds):
    """Start a process that multiplies, and say how it ends."""
    with warnings.catch_warnings(action="ignore"):  # Python 3.12 and later expect it
        process.start()
    process.join(seconds)
    if process.exitcode is not None:
        return f"exit status {process.exitcode}"

    process.kill()
    process.join()
    return "hangs"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    if sys.platform != "linux":
        print("This can only be tried on Linux.")
        return

    torch.set_num_threads(2)
    multiply()

    context = multiprocessing.get_context("fork")  # wrong: the copy has one thread
    print("first process:", end_of(context.Process(target=multiply), seconds=5))

    context = multiprocessing.get_context("spawn")  # right: a new Python
    print("second process:", end_of(context.Process(target=multiply), seconds=120))


if __name__ == "__main__":
    main()
