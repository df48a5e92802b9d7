"""Train a small convolutional network on a folder of folders of images.

The name of an inner folder is the class of its images. A fifth of them is held out: the
accuracy there tells what the network has learned beyond the examples it was shown.
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

devices = [d for d in ("cpu", "cuda", "mps", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
parser.add_argument("--images", type=Path, help="the folder, default: digits drawn now")
parser.add_argument("--plot", type=Path, help="draw some predictions into this file")
parser.add_argument("--save", type=Path, help="write the trained network to this file")
parser.add_argument("--classify", nargs=2, metavar=("NETWORK", "IMAGE"))
args = parser.parse_args()
if args.epochs < 1:
    parser.error("argument --epochs: must be 1 or more")
for file in filter(None, (args.plot, args.save)):
    writable = os.access(f"{file.parent}/", os.W_OK)
    if not writable or (file.exists() and not file.is_file()):
        parser.error(f"cannot write {file}: name a file in a folder that exists")


def read_image(path, size=32):
    """Return an image file of any kind as RGB bytes, a tensor (3, size, size)."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (size, size))
            if image.mode in ("I", "F"):
                raise ValueError("32 bits for each pixel, where 8 or 16 are expected")
            if image.mode.startswith("I;16"):  # keep the upper 8 of 16 bits
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = ImageOps.exif_transpose(image).convert("RGBA").resize((size, size))
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return torch.tensor(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except Exception as error:  # noqa: BLE001, as a broken file can raise anything
        parser.error(f"cannot read {path}: {error}")


def make_net(classes):
    """Return a network from images (N, 3, height, width) to scores (N, classes)."""
    layers = [nn.BatchNorm2d(3)]  # brings the bytes 0 to 255 near 0
    for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(128, classes)]
    return nn.Sequential(*layers)


if args.classify:
    file, image = args.classify
    try:
        # torch.load itself does not look at the checksums.
        if zipfile.ZipFile(file).testzip() is not None:
            parser.error(f"{file} is damaged")
        # The training may have been on a GPU that this computer does not have.
        saved = torch.load(file, map_location="cpu", weights_only=True)
        net = make_net(len(saved["classes"])).eval()
        net.load_state_dict(saved["net"])
    except Exception:  # noqa: BLE001, as a foreign file can raise anything
        parser.error(f"{file} is not a file that --save has written")
    scores = net(read_image(image)[None].float()).softmax(1)[0]
    print(f"{saved['classes'][scores.argmax()]}  probability {scores.max().item():.4f}")
    parser.exit()  # nothing to train

with tempfile.TemporaryDirectory() as temporary:
    if args.images is None:
        args.images = Path(temporary, "digits")
        draw = Path(__file__).resolve().with_name("draw_images.py")
        command = [sys.executable, draw, args.images]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            reason = done.stderr.strip().rpartition("\n")[2]  # the last line says it
            parser.error(f"{draw} has drawn no images: {reason}")

    # No hidden files and folders, nor the one that a Mac adds to a zip file.
    files = sorted(args.images.glob("[!.]*/[!.]*"))
    files = [file for file in files if file.parent.name != "__MACOSX"]
    classes = sorted({file.parent.name for file in files})
    if len(classes) < 2 or len(files) < 10:
        parser.error(f"{args.images} needs two folders or more, with 10 images in all")
    images = torch.stack([read_image(file) for file in tqdm(files, disable=None)])
labels = torch.tensor([classes.index(file.parent.name) for file in files])
images, labels = images.to(args.device), labels.to(args.device)
torch.manual_seed(0)
held_out, shown = torch.randperm(len(files)).tensor_split([len(files) // 5])
loader = DataLoader(TensorDataset(images[shown], labels[shown]), 32, shuffle=True)
net = make_net(len(classes)).to(args.device)
optimizer = torch.optim.Adam(net.parameters())
# The learning rate goes up to 1e-2 and down again (Smith and Topin, 2017).
steps = args.epochs * len(loader)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
for epoch in range(1, args.epochs + 1):
    net.train()
    total = 0
    for x, y in tqdm(loader, leave=False, disable=None):
        loss = nn.functional.cross_entropy(net(x.float()), y)  # bytes to floats
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item() * len(x)  # the last batch may be smaller
    net.eval()  # batch normalization now uses the averages that it has gathered
    with torch.no_grad():
        scores = torch.cat([net(x.float()) for x in images[held_out].split(256)])
    accuracy = (scores.argmax(1) == labels[held_out]).float().mean().item()
    print(f"epoch {epoch:4d}  loss {total / len(shown):.4e}  accuracy {accuracy:.4f}")
if args.save:
    # Beside it first, so that a full disk or a crash leaves an older file as it was.
    unfinished = args.save.with_name(args.save.name + ".unfinished")
    stream = io.BytesIO()  # in memory: only Python itself says that a disk is full
    torch.save({"classes": classes, "net": net.state_dict()}, stream)
    try:
        unfinished.write_bytes(stream.getvalue())
        os.replace(unfinished, args.save)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        parser.error(f"cannot write {args.save}: {error}")
if args.plot:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.4), layout="tight")
    for k, i in enumerate(held_out[:16]):
        axes = figure.add_subplot(2, 8, k + 1, title=classes[scores[k].argmax()])
        axes.imshow(images[i].permute(1, 2, 0).numpy(force=True))
        axes.axis("off")
    names = " ".join(axes.get_title() for axes in figure.axes)
    metadata = {"Description": names}
    try:
        figure.savefig(args.plot, dpi=50, format="png", metadata=metadata)
    except OSError as error:
        parser.error(f"cannot write {args.plot}: {error}")
