"""Change a global variable, and see that a worker does not notice.

A worker that is not forked imports this file again, and the variable has the value that
the import gives it. The attributes of the dataset are sent to the worker.
"""

import argparse
import multiprocessing

from torch.utils.data import DataLoader, Dataset

scale = 1


class ScaledByGlobal(Dataset):
    """The numbers from 0 to 3, times the global variable."""

    def __init__(self):
        self.scale = scale

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return i * scale  # wrong: 1, in a worker that imports this file


class Scaled(ScaledByGlobal):
    """The same numbers, times the value at the time the dataset was made."""

    def __getitem__(self, i):
        return i * self.scale  # right: sent to the worker with the dataset


def load(dataset):
    """Return the items as a worker sends them."""
    return list(DataLoader(dataset, batch_size=None, num_workers=1, timeout=60))


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Start workers without fork, as macOS, Windows and, since Python 3.14, Linux do.
    known = multiprocessing.get_all_start_methods()
    start_method = "forkserver" if "forkserver" in known else "spawn"
    multiprocessing.set_start_method(start_method)
    multiprocessing.set_forkserver_preload(["torch"])  # imported once for all workers
    global scale
    scale = 10

    print("wrong:", load(ScaledByGlobal()))
    print("right:", load(Scaled()))


# A worker process imports this file: without the guard it would start workers, too.
if __name__ == "__main__":
    main()
