"""Load images faster: workers write into memory that all processes share.

A batch that a worker sends is copied several times, each time into fresh memory, which
the system has to provide page by page: for large images that takes as long as decoding.
Here the memory is set up once, in slots, and only the number of a slot is sent.
"""

import argparse
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler


def read_image(path, size):
    """Return an image file as RGB bytes, an array (*size, 3)."""
    with Image.open(path) as image:
        if image.mode in ("I", "F"):
            raise ValueError("32 bits for each pixel, where 8 or 16 are expected")
        if image.mode.startswith("I;16"):  # keep the upper 8 of 16 bits
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return np.asarray(image.convert("RGB").resize(size))


class Batches(Sampler):
    """The tasks of an epoch, (slot, indices of the images), in shuffled order."""

    def __init__(self, images, batch_size, slots):
        self.images, self.batch_size, self.slots = images, batch_size, slots

    def __len__(self):
        return math.ceil(self.images / self.batch_size)

    def __iter__(self):
        order = torch.randperm(self.images)
        for k, indices in enumerate(order.split(self.batch_size)):
            yield k % self.slots, indices.tolist()


class SharedImages(Dataset):
    """A folder of folders of images, read into slots of shared memory.

    buffers is (slots, N, size, size, 3), in bytes. The item (slot, indices) is (slot,
    labels), its images first in buffers[slot] until the slot is used again. With send
    the images themselves come instead of the slot. ValueError if one cannot be read.
    """

    def __init__(self, folder, size, slots, batch_size, send=False):
        # No hidden files and folders, nor the one that a Mac adds to a zip file.
        files = sorted(folder.glob("[!.]*/[!.]*"))
        self.files = [file for file in files if file.parent.name != "__MACOSX"]
        self.classes = sorted({file.parent.name for file in self.files})
        if not self.files:
            raise ValueError(f"{folder} needs a folder of images for each class")
        shape = (slots, batch_size, size, size, 3)
        self.buffers = torch.zeros(shape, dtype=torch.uint8).share_memory_()
        self.send = send

    def __getitem__(self, task):
        slot, indices = task
        pixels = self.buffers[slot].numpy()  # (N, size, size, 3)
        for k, i in enumerate(indices):
            try:
                pixels[k] = read_image(self.files[i], pixels.shape[1:3])
            except Exception as error:
                raise ValueError(f"cannot read {self.files[i]}: {error}") from error
        labels = [self.classes.index(self.files[i].parent.name) for i in indices]
        return (pixels[: len(indices)] if self.send else slot), labels


def make_loader(folder, size, workers=2, batch_size=32, send=False, context=None):
    """Return a DataLoader of (slot, labels), or of (images, labels) if send is true.

    While a batch is in use, two others per worker are on their way. So one slot more is
    enough, as long as a batch is used up before the next one is asked for.
    """
    slots = workers * 2 + 1
    dataset = SharedImages(folder, size, slots, batch_size, send)
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=Batches(len(dataset.files), batch_size, slots),
        collate_fn=tuple,
        num_workers=workers,
        prefetch_factor=2,
        persistent_workers=True,
        multiprocessing_context=context,
    )


def images_per_second(loader):
    """Read all images, and turn each batch into floats (N, 3, size, size) up to 1."""
    start = time.perf_counter()
    for images, labels in loader:
        if not loader.dataset.send:
            images = loader.dataset.buffers[images, : len(labels)].numpy()
        torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
    return len(loader.dataset.files) / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.add_argument("--images", type=Path, help="default: digits, drawn now")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        if args.images is None:
            args.images = Path(temporary, "digits")
            draw = Path(__file__).resolve().with_name("draw_images.py")
            options = ["--size", "224", "--count", "20"]
            command = [sys.executable, draw, args.images, *options]
            done = subprocess.run(
                command, stderr=subprocess.PIPE, text=True, check=False
            )
            if done.returncode != 0:
                reason = done.stderr.strip().rpartition("\n")[2]  # the last line
                parser.error(f"{draw} has drawn no images: {reason}")
        for send in (True, False):
            try:
                loader = make_loader(args.images, 224, send=send)
                speed = max(images_per_second(loader) for epoch in range(3))
            except ValueError as error:  # from a worker it comes with its traceback
                parser.error(str(error).splitlines()[-1])
            how = "sent" if send else "shared"
            print(f"batches {how:6}  images per second {speed:.0f}")


if __name__ == "__main__":
    main()
