"""Load images from files: a custom Dataset, then a DataLoader.

A Dataset says how many items there are and reads one of them. A DataLoader shuffles the
items, makes batches of them and, if told to, leaves the reading to worker processes.
Notice that the order depends on the seed alone, whoever reads the files.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset


def read_image(path, size):
    """Return an image file of any kind as RGB bytes, a tensor (3, size, size).

    The upper 8 of 16 bits are kept, and what is transparent becomes white. Raises
    ValueError with the name of the file if it cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image.mode in ("I", "F"):
                raise ValueError("32 bits per channel, where 8 or 16 are expected")

            # A JPEG is decoded no larger than needed.
            image.draft("RGB", (size, size))

            # Pillow's own conversion would turn nearly all 16-bit values into white.
            if image.mode.startswith("I;16"):
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))

            # A camera that was held sideways has said so in the file.
            image = ImageOps.exif_transpose(image)

            if image.has_transparency_data:
                paper = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(paper, image.convert("RGBA"))

            image = image.convert("RGB").resize((size, size))
            pixels = torch.from_numpy(np.array(image))  # (size, size, 3)
    except Exception as error:  # a broken file can raise anything
        raise ValueError(f"cannot read {path}: {error}") from error

    return pixels.permute(2, 0, 1)


class ImageFolder(Dataset):
    """A folder of folders of images; the name of an inner folder is a class.

    An item is an image, bytes (3, size, size), and the number of its class. Files and
    folders that begin with a dot are left out, and folders that begin with an
    underscore. Raises ValueError if there are no images or one cannot be read.
    """

    def __init__(self, folder, size):
        self.size = size
        # Such as .DS_Store, .ipynb_checkpoints and, in a zip file of a Mac, __MACOSX.
        self.files = sorted(folder.glob("[!._]*/[!.]*"))
        # An empty folder is no class: it has no images to learn from.
        self.classes = sorted({file.parent.name for file in self.files})
        if not self.files:
            raise ValueError(f"{folder} needs a folder of images for each class")

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        file = self.files[i]
        image = read_image(file, self.size)
        label = self.classes.index(file.parent.name)
        return image, label


def show(dataset):
    """Print an item, and the first batch of two epochs, without and with a worker."""
    image, label = dataset[0]
    print(f"item 0  {tuple(image.shape)}  {image.dtype}  {dataset.classes[label]}")

    for workers in (0, 1):
        loader = DataLoader(
            dataset,
            batch_size=64,
            shuffle=True,
            num_workers=workers,
            generator=torch.Generator().manual_seed(0),
        )
        for epoch in (1, 2):
            batches = list(loader)
            images, labels = batches[0]  # (64, 3, size, size) and (64,)
            print(f"workers {workers}  epoch {epoch}", end="  ")
            print(f"batch {tuple(images.shape)}  labels {labels[:8].tolist()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="a folder; default: drawn digits")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        if args.images is None:
            args.images = Path(temporary, "digits")
            draw = Path(__file__).resolve().with_name("draw_images.py")
            command = [sys.executable, draw, args.images]
            if subprocess.run(command, check=False).returncode != 0:
                sys.exit(2)  # the reason has been printed
        try:
            show(ImageFolder(args.images, size=28))
        except ValueError as error:
            parser.error(str(error))


# A worker process imports this file: without the guard it would start workers, too.
if __name__ == "__main__":
    main()
