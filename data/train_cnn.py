"""Train a small convolutional network on a folder of folders of images.

The name of an inner folder is the class of the images in it. A fifth of the images is
held out: the accuracy there tells what the network has learned beyond the images that
it was trained on.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm


def draw_digits(folder, count):
    """Draw each digit count times, by the script that is beside this one."""
    script = Path(__file__).resolve().with_name("draw_images.py")
    command = [sys.executable, script, folder, "--count", str(count)]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(2)  # the reason has been printed


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


def read_folder(folder):
    """Return images (N, 3, 32, 32), labels (N,) and the names of the classes.

    Names that begin with a dot, or of folders with an underscore, are left out. Raises
    ValueError if an image cannot be read, or if there are too few to learn from.
    """
    files = sorted(folder.glob("[!._]*/[!.]*"))
    classes = sorted({file.parent.name for file in files})
    if len(classes) < 2 or len(files) < 10:
        raise ValueError(f"{folder} needs 2 folders of images, with 10 images in all")

    images = [read_image(file) for file in tqdm(files, disable=None)]
    labels = [classes.index(file.parent.name) for file in files]
    return torch.stack(images), torch.tensor(labels), classes


def conv_block(channels_in, channels_out):
    """Return layers that find patterns of 3 x 3 pixels and halve height and width."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


def make_model(class_count):
    """Return a network from images (N, 3, height, width) to logits (N, class_count).

    Batch normalization: Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167
    """
    return nn.Sequential(
        nn.BatchNorm2d(3),  # brings the bytes, 0 to 255, to mean 0 and variance 1
        conv_block(3, 32),
        conv_block(32, 64),
        conv_block(64, 128),
        nn.AdaptiveMaxPool2d(1),  # how strongly each of 128 patterns appears
        nn.Flatten(),
        nn.Linear(128, class_count),
    )


def train_epoch(model, loader, optimizer, schedule):
    """Train on every batch once, and return the mean of the loss over the images."""
    model.train()
    total = 0
    for inputs, targets in tqdm(loader, leave=False, disable=None):
        logits = model(inputs.float())  # (N, classes)
        loss = nn.functional.cross_entropy(logits, targets)

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

        total += loss.item() * len(inputs)  # the last batch may be smaller
    return total / len(loader.dataset)


@torch.no_grad()
def predict(model, images):
    """Return the logits (N, classes) of images that the network is not to learn."""
    model.eval()  # batch normalization takes the averages gathered in training
    return torch.cat([model(batch.float()) for batch in images.split(256)])


def can_be_written(path):
    """Return whether a file may be made here; a folder or a device is not replaced."""
    return path.parent.is_dir() and (path.is_file() or not path.exists())


def save(model, classes, path):
    """Write the network to a file; after an OSError an older file is as it was."""
    # In memory first: on a full disk, torch.save itself raises no OSError.
    stream = io.BytesIO()
    torch.save({"classes": classes, "model": model.state_dict()}, stream)

    unfinished = path.with_name(path.name + ".unfinished")
    try:
        unfinished.write_bytes(stream.getvalue())
        os.replace(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def draw(losses, accuracies, images, labels, logits, classes):
    """Return a figure: the learning curve, and the images with the highest loss."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), dpi=240, layout="constrained")
    curves, hardest = figure.subfigures(2, height_ratios=(1, 1.1))

    axes = curves.subplots()
    epochs = range(1, len(losses) + 1)
    axes.plot(epochs, losses, "o-", color="C0", label="loss in training")
    axes.plot(epochs, accuracies, "s-", color="C1", label="accuracy held out")
    axes.set_xlabel("epoch")
    axes.set_xticks(epochs)
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right")

    image_losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    order = image_losses.argsort(descending=True)[:10]
    for place, i in enumerate(order.tolist()):
        axes = hardest.add_subplot(2, 5, place + 1)
        axes.imshow(images[i].permute(1, 2, 0).numpy(force=True))
        axes.axis("off")
        guess = logits[i].argmax().item()
        color = "black" if guess == labels[i].item() else "red"
        axes.set_title(classes[guess], color=color)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    parser.add_argument("--images", type=Path, help="a folder; default: drawn digits")
    parser.add_argument("--count", type=int, default=100, help="how many of each digit")
    parser.add_argument("--save", type=Path, help="write the network to this file")
    parser.add_argument(
        "--plot", type=Path, help="draw what was learned into this file"
    )
    args = parser.parse_args()
    if args.save and not can_be_written(args.save):
        parser.error(f"cannot write {args.save}: name a file in a folder that exists")

    with tempfile.TemporaryDirectory() as temporary:
        if args.images is None:
            args.images = Path(temporary, "digits")
            draw_digits(args.images, args.count)
        try:
            images, labels, classes = read_folder(args.images)
        except ValueError as error:
            parser.error(str(error))

    # A fifth of the images is held out, the others are for training.
    torch.manual_seed(0)
    order = torch.randperm(len(images))
    held_out, train = order.tensor_split([len(images) // 5])
    images = images.to(args.device)
    labels = labels.to(args.device)
    train_set = TensorDataset(images[train], labels[train])
    loader = DataLoader(train_set, batch_size=32, shuffle=True)

    # The learning rate rises to 1e-2 and falls again, in one cycle: Smith and Topin,
    # 2017, https://arxiv.org/abs/1708.07120
    model = make_model(len(classes)).to(args.device)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-2, total_steps=args.epochs * len(loader)
    )

    losses = []
    accuracies = []
    for epoch in range(1, args.epochs + 1):
        loss = train_epoch(model, loader, optimizer, schedule)
        logits = predict(model, images[held_out])
        accuracy = (logits.argmax(1) == labels[held_out]).float().mean().item()
        print(f"epoch {epoch:4d}  loss {loss:.4e}  accuracy {accuracy:.4f}")
        losses.append(loss)
        accuracies.append(accuracy)

    if args.save:
        try:
            save(model, classes, args.save)
        except OSError as error:
            parser.error(f"cannot write {args.save}: {error}")

    if args.plot:
        shown = images[held_out], labels[held_out], logits
        figure = draw(losses, accuracies, *shown, classes)
        try:
            figure.savefig(args.plot)
        except (OSError, ValueError) as error:  # no such folder, no such format
            parser.error(f"cannot write {args.plot}: {error}")


if __name__ == "__main__":
    main()
