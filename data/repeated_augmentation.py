"""Turn images by random angles in two workers, and get the same angles in both.

Each worker gets a copy of the dataset, with any random generator that it holds, in the
same state. PyTorch seeds each worker differently, but only the global generators of
torch, random and NumPy.
"""

import argparse
import multiprocessing
import warnings

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class Turned(Dataset):
    """Six images, of which only the random angles are shown."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return self.generator.integers(360).item()  # wrong: each worker has a copy


class TurnedBySeed(Turned):
    """The same, with angles from torch's global generator."""

    def __getitem__(self, i):
        return torch.randint(360, ()).item()  # right: each worker has a seed


def load(dataset):
    """Return the items in the order in which two workers send them."""
    return list(DataLoader(dataset, batch_size=None, num_workers=2, timeout=60))


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Start workers without fork, as macOS, Windows and, since Python 3.14, Linux do.
    known = multiprocessing.get_all_start_methods()
    start_method = "forkserver" if "forkserver" in known else "spawn"
    multiprocessing.set_start_method(start_method)
    multiprocessing.set_forkserver_preload(["torch"])  # imported once for all workers

    # Two workers, even on a machine with a single core.
    warnings.filterwarnings("ignore", "This DataLoader will create")

    torch.manual_seed(0)  # the seeds of the workers follow from it
    print("wrong:", load(Turned()))
    print("right:", load(TurnedBySeed()))


# A worker process imports this file: without the guard it would start workers, too.
if __name__ == "__main__":
    main()
