"""Classify an image by the network that train_cnn.py --save has written.

The file holds weights and the names of the classes, but no code. So the network is
built here as it was built there, takes over the weights, and is put into evaluation
mode; the image is made the same size as those in training.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn


def read_image(path):
    """Return an image file as RGB bytes, a tensor (3, 32, 32).

    Raises ValueError with the name of the file if it cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":  # Pillow would make them white or black
                raise ValueError("16 or 32 bits per channel, where 8 are expected")
            pixels = np.array(image.convert("RGB").resize((32, 32)))  # (32, 32, 3)
    except Exception as error:  # a broken file can raise anything
        raise ValueError(f"cannot read {path}: {error}") from error

    return torch.from_numpy(pixels).permute(2, 0, 1)


def conv_block(channels_in, channels_out):
    """Return layers that find patterns of 3 x 3 pixels and halve height and width."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


def make_model(class_count):
    """Return the network of train_cnn.py, with weights that are still random."""
    return nn.Sequential(
        nn.BatchNorm2d(3),
        conv_block(3, 32),
        conv_block(32, 64),
        conv_block(64, 128),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(128, class_count),
    )


def load(path):
    """Return the saved network and the names of its classes.

    Raises ValueError with the name of the file if train_cnn.py has not written it.
    """
    try:
        # weights_only: a file from a stranger must not run code of theirs.
        # map_location: the training may have been on a GPU that is not here.
        saved = torch.load(path, map_location="cpu", weights_only=True)
        classes = saved["classes"]
        model = make_model(len(classes))
        model.load_state_dict(saved["model"])
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {path}") from error
    except Exception as error:  # a foreign file can raise anything
        raise ValueError(f"{path} is not a file that train_cnn.py has saved") from error

    return model, classes


@torch.no_grad()
def classify(model, image):
    """Return a probability for each class, (classes,), of an image (3, 32, 32)."""
    model.eval()
    batch = image.float().unsqueeze(0)  # (1, 3, 32, 32): a batch of one image
    logits = model(batch)  # (1, classes)
    return logits.softmax(1)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", type=Path, help="written by train_cnn.py --save")
    parser.add_argument("image", type=Path)
    args = parser.parse_args()

    try:
        model, classes = load(args.network)
        image = read_image(args.image)
    except ValueError as error:
        parser.error(str(error))

    probabilities = classify(model, image)
    best = probabilities.argmax().item()
    print(f"{classes[best]}  probability {probabilities[best].item():.4f}")


if __name__ == "__main__":
    main()
