"""Measure what worker processes of a DataLoader gain, and where they gain nothing.

Workers read the next batches while the main process is busy with this one. If it has
nothing to do, it only waits for them; if there is a training step to do, the reading is
hidden behind it. Workers have to be started: in each epoch, unless they persist.
"""

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset


class ImageFolder(Dataset):
    """Images (3, 28, 28) in bytes, and labels, of a folder of folders of images."""

    def __init__(self, folder):
        self.files = sorted(folder.glob("[!._]*/[!.]*"))
        self.classes = sorted({file.parent.name for file in self.files})

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        file = self.files[i]
        try:
            with Image.open(file) as image:
                pixels = np.array(image.convert("RGB").resize((28, 28)))
        except Exception as error:  # a broken file can raise anything
            raise ValueError(f"cannot read {file}: {error}") from error

        label = self.classes.index(file.parent.name)
        return torch.from_numpy(pixels).permute(2, 0, 1), label


def seconds_per_epoch(loader, work):
    """Return the time of the fastest of 3 epochs, with work seconds for each batch."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for images, _ in loader:
            # Workers send bytes. Floats would be four times as much to send.
            images.float().div_(255)
            time.sleep(work)  # stands for a training step on a GPU
        times.append(time.perf_counter() - start)
    return min(times)


def measure(dataset, start_method):
    """Print the seconds of an epoch, without and with 20 ms of work for each batch."""
    for workers, persistent in ((0, False), (1, False), (1, True), (2, True)):
        loader = DataLoader(
            dataset,
            batch_size=64,
            shuffle=True,
            num_workers=workers,
            persistent_workers=persistent,
            multiprocessing_context=start_method if workers else None,
        )
        reading = seconds_per_epoch(loader, work=0)
        training = seconds_per_epoch(loader, work=0.02)
        kind = "persistent" if persistent else ""
        print(f"workers {workers} {kind:10}", end="  ")
        print(f"reading {reading:.2f} s  reading and training {training:.2f} s")


def main():
    methods = multiprocessing.get_all_start_methods()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="a folder; default: drawn digits")
    parser.add_argument("--start-method", choices=methods, help="of the workers")
    args = parser.parse_args()

    # The cores are for the workers.
    torch.set_num_threads(1)
    # Two workers are measured on one core, too.
    warnings.filterwarnings("ignore", "This DataLoader will create")

    with tempfile.TemporaryDirectory() as temporary:
        if args.images is None:
            args.images = Path(temporary, "digits")
            draw = Path(__file__).resolve().with_name("draw_images.py")
            command = [sys.executable, draw, args.images]
            if subprocess.run(command, check=False).returncode != 0:
                sys.exit(2)  # the reason has been printed

        dataset = ImageFolder(args.images)
        if len(dataset) == 0:
            parser.error(f"{args.images} needs a folder of images for each class")
        try:
            measure(dataset, args.start_method)
        except ValueError as error:
            parser.error(str(error))


# A worker process imports this file: without the guard it would start workers, too.
if __name__ == "__main__":
    main()
