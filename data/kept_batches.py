"""Keep the batches that a worker sends, until no more files can be opened.

On Linux, a tensor from a worker lies in shared memory, which is an open file as long as
the tensor exists. The limit is often 1,024 open files; here it is set to 64.
"""

import argparse
import sys

import torch
from torch.utils.data import DataLoader


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    if sys.platform != "linux":
        print("only on Linux is a tensor from a worker an open file")
        return

    import resource  # Windows has no such module

    _, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, highest))

    images = torch.arange(100)  # in place of 100 images
    loader = DataLoader(
        images, num_workers=1, multiprocessing_context="forkserver", timeout=60
    )
    try:
        kept = [batch for batch in loader]  # wrong: each is an open file
    except RuntimeError as error:
        print("wrong:", str(error).partition(" Please")[0])

    kept = [batch.clone() for batch in loader]  # right: in ordinary memory
    print("right:", len(kept), "batches")


# A worker process imports this file: without the guard it would start workers, too.
if __name__ == "__main__":
    main()
