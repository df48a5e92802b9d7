"""Fine-tune a network that knows digits, so that it reads letters from few samples.

The letters are learned in three ways: from scratch; with the pretrained layers frozen,
so that only a new last layer learns; and with the pretrained layers as a start, from
which all layers go on learning. Compare the columns: the fewer samples there are, the
more the pretraining is worth. In the end, what happens to frozen layers that are put
into training mode: their weights stay, but batch normalization's averages do not.
"""

import argparse
import copy

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

DIGITS = "0123456789"
LETTERS = "ABCDEFGHIJ"
SIZE = 28  # of an image, in pixels

SAMPLES = [1, 2, 5, 10, 20]  # of each letter
WAYS = ["from scratch", "frozen layers", "all layers"]


def draw_character(character, fonts, rng):
    """Return an image, (SIZE, SIZE, 3) in bytes, as data/draw_images.py draws it."""
    # Dark paper and light ink; the middle is near that of the image.
    paper = tuple(rng.integers(0, 110, 3))
    ink = tuple(rng.integers(146, 256, 3))
    middle = tuple(SIZE * rng.uniform(0.4, 0.6, 2))
    font = fonts[rng.integers(len(fonts))]
    image = Image.new("RGB", (SIZE, SIZE), paper)
    ImageDraw.Draw(image).text(middle, character, ink, font, anchor="mm")

    angle = rng.uniform(-20, 20)
    image = image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=paper)
    noisy = np.asarray(image) + rng.normal(0, 20, (SIZE, SIZE, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def draw_images(characters, count, seed):
    """Return images (N, 3, SIZE, SIZE) and labels (N,), with count of each character.

    The first images are one of each character, as are the next ones, and so on.
    """
    rng = np.random.default_rng(seed)
    fonts = [ImageFont.load_default(SIZE * scale) for scale in (0.6, 0.7, 0.8, 0.9)]
    images = []
    labels = []
    for _ in range(count):
        for label, character in enumerate(characters):
            images.append(draw_character(character, fonts, rng))
            labels.append(label)
    pixels = torch.from_numpy(np.stack(images))  # (N, SIZE, SIZE, 3)
    return pixels.permute(0, 3, 1, 2).float(), torch.tensor(labels)


def conv_block(channels_in, channels_out):
    """Return layers that find patterns of 3 x 3 pixels and halve height and width."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


def make_model(class_count):
    """Return the network of data/train_cnn.py."""
    return nn.Sequential(
        nn.BatchNorm2d(3),  # brings the bytes, 0 to 255, to mean 0 and variance 1
        conv_block(3, 32),
        conv_block(32, 64),
        conv_block(64, 128),
        nn.AdaptiveMaxPool2d(1),  # how strongly each of 128 patterns appears
        nn.Flatten(),
        nn.Linear(128, class_count),
    )


def start(way, pretrained, class_count):
    """Return a network that is to learn class_count new classes."""
    if way == "from scratch":
        return make_model(class_count)
    model = copy.deepcopy(pretrained)
    if way == "frozen layers":
        model.requires_grad_(False)
    model[-1] = nn.Linear(128, class_count)  # new, so it is not frozen
    return model


def train_mode(model):
    """Put the layers that learn into training mode, and all others into eval mode.

    In training mode, batch normalization would renew its averages, frozen or not.
    """
    for layer in model:
        learns = any(param.requires_grad for param in layer.parameters())
        layer.train(learns)


def train(model, images, labels, steps, set_mode=train_mode):
    """Train what is not frozen; yield each step and the loss before its update."""
    # The learning rate rises to 1e-2 and falls again, in one cycle: Smith and Topin,
    # 2017, https://arxiv.org/abs/1708.07120
    trainable = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.Adam(trainable)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-2, total_steps=steps
    )
    set_mode(model)
    for t in range(1, steps + 1):
        batch = torch.randperm(len(images))[:32]
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        yield t, loss.item()

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def learn(model, images, labels, steps, set_mode=train_mode):
    """Train to the end."""
    for _ in train(model, images, labels, steps, set_mode):
        pass


@torch.no_grad()
def predict(model, images):
    """Return the logits (N, classes) of images that the network is not to learn."""
    model.eval()
    return model(images)


def accuracy(model, images, labels):
    """Return the share of images that are classified correctly."""
    return (predict(model, images).argmax(1) == labels).float().mean().item()


def changes(old, new):
    """Return how many parameters and how many buffers of two networks differ."""
    pairs = zip(old.parameters(), new.parameters(), strict=True)
    params = sum(not torch.equal(one, other) for one, other in pairs)
    pairs = zip(old.buffers(), new.buffers(), strict=True)
    buffers = sum(not torch.equal(one, other) for one, other in pairs)
    return params, buffers


def draw(table):
    """Return a figure of the table, {way: an accuracy for each number of samples}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), dpi=240, layout="constrained")
    axes = figure.add_subplot(xscale="log")
    for (way, accuracies), marker in zip(table.items(), "osD", strict=True):
        axes.plot(SAMPLES, accuracies, marker=marker, label=way)
    axes.set_xlabel("samples of each letter")
    axes.set_xticks(SAMPLES, labels=SAMPLES)
    axes.minorticks_off()
    axes.set_ylabel("accuracy on other letters")
    axes.set_ylim(0, 1.05)
    axes.legend()
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=80, help="of each training")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the table")
    args = parser.parse_args()

    # Pretraining, with plenty of digits.
    digits, digit_labels = draw_images(DIGITS, count=100, seed=0)
    other_digits, other_digit_labels = draw_images(DIGITS, count=20, seed=1)
    torch.manual_seed(0)
    pretrained = make_model(len(DIGITS))
    for t, loss in train(pretrained, digits, digit_labels, args.steps):
        if t == 1 or t % 20 == 0:
            print(f"step {t:4d}  loss {loss:.4e}")
    share = accuracy(pretrained, other_digits, other_digit_labels)
    print(f"accuracy on other digits {share:.2f}")

    # A few letters to learn from, and others to test with.
    letters, labels = draw_images(LETTERS, count=max(SAMPLES), seed=2)
    held_out, held_out_labels = draw_images(LETTERS, count=20, seed=3)
    print("accuracy on other letters, for each number of samples")
    print(" " * 14 + "".join(f"{samples:>6}" for samples in SAMPLES))
    table = {}
    for way in WAYS:
        table[way] = []
        for samples in SAMPLES:
            first = slice(samples * len(LETTERS))
            torch.manual_seed(0)
            model = start(way, pretrained, len(LETTERS))
            learn(model, letters[first], labels[first], args.steps)
            table[way].append(accuracy(model, held_out, held_out_labels))
        print(f"{way:14}" + "".join(f"{share:>6.2f}" for share in table[way]))

    # The usual mistake: model.train() although layers are frozen.
    logits = predict(pretrained, other_digits)
    for name, set_mode in ("eval()", train_mode), ("train()", nn.Module.train):
        torch.manual_seed(0)
        model = start("frozen layers", pretrained, len(LETTERS))
        learn(model, letters, labels, args.steps, set_mode)
        model[-1] = pretrained[-1]  # back to digits
        params, buffers = changes(pretrained, model)
        moved = (predict(model, other_digits) - logits).abs().max()
        print(f"frozen, in {name:8} changed parameters {params}", end="  ")
        print(f"changed buffers {buffers:2}  logits of digits moved by {moved:.1f}")

    if args.plot:
        try:
            draw(table).savefig(args.plot)
        except (OSError, ValueError) as error:  # no such folder, no such format
            parser.error(f"cannot write {args.plot}: {error}")


if __name__ == "__main__":
    main()
