"""Lose an update between two processes, then prevent it with a lock.

Two processes add 1 to the same number in shared memory. Adding is not one action: a
process reads the number, adds 1 and writes the sum, here with a second in between, so
that the other process always comes too early.
"""

import argparse
import contextlib
import time

import torch
import torch.multiprocessing as mp


def add_one(total):
    """Do what total += 1 does, slowly."""
    number = total.item()
    time.sleep(1)
    total.fill_(number + 1)


def add(rank, totals, barrier, lock):
    """Add 1 to each of the two totals, at the same time as the other process."""
    barrier.wait()
    with contextlib.nullcontext():  # wrong: nothing keeps the other process out
        add_one(totals[0])

    barrier.wait()
    with lock:  # right: the other process waits until this one has written
        add_one(totals[1])


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()

    context = mp.get_context("spawn")
    totals = torch.zeros(2).share_memory_()
    arguments = totals, context.Barrier(2, timeout=120), context.Lock()
    mp.spawn(add, arguments, nprocs=2, daemon=True)

    unlocked, locked = totals.tolist()
    print(f"without a lock  1 + 1 = {unlocked:.0f}")
    print(f"with a lock     1 + 1 = {locked:.0f}")


if __name__ == "__main__":
    main()
