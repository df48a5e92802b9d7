"""Load images from files: a Dataset of your own, then the DataLoader.

A Dataset says how many images there are and reads them. The DataLoader shuffles them,
makes batches and, if told so, leaves the reading to processes in the background. Notice
that the order depends on the seed alone, and what it costs to start the workers.
"""

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset


def read_image(path, size):
    """Return an image file of any kind as RGB bytes, an array (size, size, 3).

    Raises ValueError with the name of the file if it cannot be read.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (size, size))  # a JPEG is decoded no larger than needed
            if image.mode in ("I", "F"):
                raise ValueError("32 bits for each pixel, where 8 or 16 are expected")
            if image.mode.startswith("I;16"):  # keep the upper 8 of 16 bits
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = ImageOps.exif_transpose(image)  # turn photos the right way up
            if image.has_transparency_data:
                paper = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(paper, image.convert("RGBA"))
            return np.asarray(image.convert("RGB").resize((size, size)))
    except Exception as error:
        raise ValueError(f"cannot read {path}: {error}") from error


class ImageFolder(Dataset):
    """A folder of folders of images; the name of an inner folder is a class.

    An item is bytes (size, size, 3) and the number of the class; a list of items is a
    batch, bytes (N, size, size, 3) and labels (N,). ValueError if there are no images.
    """

    def __init__(self, folder, size):
        self.size = size
        # No hidden files and folders, nor the one that a Mac adds to a zip file.
        paths = sorted(folder.glob("[!.]*/[!.]*"))
        paths = [path for path in paths if path.parent.name != "__MACOSX"]
        self.classes = sorted({path.parent.name for path in paths})
        self.files = [(path, self.classes.index(path.parent.name)) for path in paths]
        if not self.files:
            raise ValueError(f"{folder} needs a folder of images for each class")

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        path, label = self.files[i]
        return read_image(path, self.size), label

    def __getitems__(self, indices):
        images, labels = zip(*map(self.__getitem__, indices), strict=True)
        return np.stack(images), np.array(labels)


def images_per_second(loader):
    """Read all images, and turn each batch into floats (N, 3, size, size) up to 1."""
    start = time.perf_counter()
    for images, _ in loader:
        torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
    return len(loader.dataset) / (time.perf_counter() - start)


def show(dataset, start_method):
    """Print an image, the same batch twice, and the speed for 0, 1 and 2 workers."""
    image, label = dataset[0]
    print(f"image 0  shape {image.shape}  {image.dtype}  {dataset.classes[label]}")
    # The Dataset makes whole batches of bytes: nothing is left to collate.
    options = {"batch_size": 64, "shuffle": True, "collate_fn": tuple}
    for run in (1, 2):
        loader = DataLoader(dataset, generator=torch.manual_seed(0), **options)
        images, labels = next(iter(loader))
        print(f"run {run}, batch 0  {images.shape}  labels {labels[:8].tolist()}")

    # The workers need the other cores. Those that do not persist start at every epoch.
    torch.set_num_threads(1)
    for workers, kind in ((0, ""), (1, ""), (2, ""), (2, "persistent")):
        if workers <= multiprocessing.cpu_count():
            options |= {"num_workers": workers, "persistent_workers": bool(kind)}
            options["multiprocessing_context"] = start_method if workers else None
            loader = DataLoader(dataset, **options)
            speed = [images_per_second(loader) for epoch in range(1 + bool(kind))][-1]
            print(f"workers {workers} {kind:10}  images per second {speed:.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.add_argument("--images", type=Path, help="default: digits, drawn now")
    parser.add_argument(
        "--start-method", choices=multiprocessing.get_all_start_methods()
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if args.images is None:
            args.images = Path(temporary, "digits")
            draw = Path(__file__).resolve().with_name("draw_images.py")
            command = [sys.executable, draw, args.images]
            done = subprocess.run(
                command, stderr=subprocess.PIPE, text=True, check=False
            )
            if done.returncode != 0:
                reason = done.stderr.strip().rpartition("\n")[2]  # the last line
                parser.error(f"{draw} has drawn no images: {reason}")
        try:
            show(ImageFolder(args.images, size=28), args.start_method)
        except ValueError as error:
            parser.error(error)


if __name__ == "__main__":
    main()
