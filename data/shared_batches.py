"""Load large images faster: workers write batches into memory that is set up once.

A worker of a DataLoader stacks each batch in a new piece of shared memory, which the
system clears and hands out page by page. Here there are a few slots of shared memory. A
worker fills one of them and sends its number alone; later batches use it again.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler


class ImageFolder(Dataset):
    """Images (size, size, 3) in bytes, and labels, of a folder of folders of images."""

    def __init__(self, folder, size):
        self.size = size
        self.files = sorted(folder.glob("[!._]*/[!.]*"))
        self.classes = sorted({file.parent.name for file in self.files})

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        file = self.files[i]
        with Image.open(file) as image:
            pixels = np.array(image.convert("RGB").resize((self.size, self.size)))
        label = self.classes.index(file.parent.name)
        return torch.from_numpy(pixels), label


class SharedBatches(Dataset):
    """Batches of an ImageFolder, written into slots of shared memory.

    The item (slot, indices) is slot and labels (N,). Its images are in
    buffers[slot, :N] until the slot is used again.
    """

    def __init__(self, images, batch_size, slots):
        self.images = images
        shape = (slots, batch_size, images.size, images.size, 3)
        self.buffers = torch.zeros(shape, dtype=torch.uint8).share_memory_()

    def __getitem__(self, item):
        slot, indices = item
        labels = []
        for place, i in enumerate(indices):
            image, label = self.images[i]
            self.buffers[slot, place] = image
            labels.append(label)
        return slot, torch.tensor(labels)


class SlotSampler(Sampler):
    """The items of an epoch, (slot, indices): shuffled indices, slots in turn."""

    def __init__(self, count, batch_size, slots):
        self.count = count
        self.batch_size = batch_size
        self.slots = slots

    def __iter__(self):
        batches = torch.randperm(self.count).split(self.batch_size)
        for number, indices in enumerate(batches):
            yield number % self.slots, indices.tolist()


def shared_loader(images, batch_size, workers, context=None):
    """Return a DataLoader of (slot, labels).

    While a batch is in use, two others per worker are on their way. So one slot more is
    enough, as long as a batch has been used up before the next one is asked for.
    """
    slots = 2 * workers + 1
    return DataLoader(
        SharedBatches(images, batch_size, slots),
        sampler=SlotSampler(len(images), batch_size, slots),
        batch_size=None,  # an item is a batch already
        num_workers=workers,
        prefetch_factor=2,
        persistent_workers=True,
        multiprocessing_context=context,
    )


def usual_loader(images, batch_size, workers, context=None):
    """Return a DataLoader of (batch, labels), as it is used everywhere else."""
    return DataLoader(
        images,
        shuffle=True,
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context=context,
    )


def images_per_second(loader, buffers=None):
    """Read all images, and turn each batch into floats (N, 3, size, size) up to 1.

    With buffers, the loader gives the number of a slot instead of the images.
    """
    count = 0
    start = time.perf_counter()
    for batch, labels in loader:
        if buffers is not None:
            batch = buffers[batch, : len(labels)]
        batch.permute(0, 3, 1, 2).float().div_(255)
        count += len(labels)
    return count / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--size", type=int, default=224, help="of the images, in pixels"
    )
    args = parser.parse_args()

    # The cores are for the workers, of which there are two on one core, too.
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "This DataLoader will create")

    with tempfile.TemporaryDirectory() as folder:
        draw = Path(__file__).resolve().with_name("draw_images.py")
        command = [sys.executable, draw, folder, "--size", str(args.size)]
        if subprocess.run([*command, "--count", "20"], check=False).returncode != 0:
            sys.exit(2)  # the reason has been printed

        images = ImageFolder(Path(folder), args.size)
        usual = usual_loader(images, batch_size=32, workers=2)
        shared = shared_loader(images, batch_size=32, workers=2)
        buffers = shared.dataset.buffers

        # The fastest of three epochs; the workers start in the first.
        speed = max(images_per_second(usual) for epoch in range(3))
        print(f"usual batches   images per second {speed:.0f}")

        speed = max(images_per_second(shared, buffers) for epoch in range(3))
        print(f"shared batches  images per second {speed:.0f}")


# A worker process imports this file: without the guard it would start workers, too.
if __name__ == "__main__":
    main()
