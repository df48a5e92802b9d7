"""Read a stream with two workers, and get every item twice.

An IterableDataset has no indices that the loader could deal out. Each worker has a copy
of the stream and reads all of it, unless the copy asks which worker it is in.
"""

import argparse
import itertools
import multiprocessing
import warnings

from torch.utils.data import DataLoader, IterableDataset, get_worker_info


class Stream(IterableDataset):
    """The numbers from 0 to 5, in place of lines of a file or rows of a database."""

    def __iter__(self):
        yield from range(6)  # wrong: each worker reads all of it


def share_of_this_worker(items):
    """Return the items for this worker: every second one, if there are two workers."""
    worker = get_worker_info()
    if worker is None:  # num_workers=0: the main process reads
        return items
    return itertools.islice(items, worker.id, None, worker.num_workers)


class SharedStream(IterableDataset):
    """The same numbers, each read by one worker."""

    def __iter__(self):
        yield from share_of_this_worker(range(6))  # right


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

    print("wrong:", load(Stream()))
    print("right:", load(SharedStream()))


# A worker process imports this file: without the guard it would start workers, too.
if __name__ == "__main__":
    main()
