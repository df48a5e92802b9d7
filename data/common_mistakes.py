"""Make the classic mistakes with data, see what happens, and mend them.

Each function is a mistake, and its docstring is the question that it leads to. The
first ones are those of which PyTorch says nothing. What is claimed is asserted, so with
another version of PyTorch this script says which lessons are out of date.
"""

import argparse
import multiprocessing
import pickle
import re
import subprocess
import sys
import tempfile
import traceback
import warnings
from inspect import isfunction
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info


class Numbers(IterableDataset):
    """The numbers from 0 to 3; with split, only the share of the worker that asks."""

    def __init__(self, split):
        self.split = split

    def __iter__(self):
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if self.split else (0, 1)
        yield from range(first, 4, step)


class Noise(Dataset):
    """4 random numbers, from a generator of its own, if there is one, or torch's."""

    def __init__(self, generator=None):
        self.generator = generator

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return self.generator.random() if self.generator else torch.rand(()).item()


def stream_repeated():
    """Why do I get every item twice?"""
    # Wrong: each worker goes through all of an IterableDataset. It says nothing.
    wrong = sorted(DataLoader(Numbers(split=False), batch_size=None, num_workers=2))
    assert wrong == [0, 0, 1, 1, 2, 2, 3, 3]
    print("wrong:", wrong)
    # Right: get_worker_info() tells the workers apart, and each takes its share.
    right = sorted(DataLoader(Numbers(split=True), batch_size=None, num_workers=2))
    assert right == [0, 1, 2, 3]
    print("right:", right)
    print("why:   an IterableDataset has no indices that could be handed out")


def same_augmentation_everywhere():
    """Why does my random augmentation repeat itself?"""
    # Wrong: every worker has a copy of the generator, in the same state.
    wrong = len(set(DataLoader(Noise(np.random.default_rng(0)), None, num_workers=2)))
    assert wrong == 2
    print("wrong:", wrong, "different numbers out of 4")
    # Right: torch's, or the global ones of random and NumPy; each worker has a seed.
    right = len(set(DataLoader(Noise(), None, num_workers=2)))
    assert right == 4
    print("right:", right, "out of 4")
    print("why:   the dataset is copied as it is, and copied again for each epoch.")
    print("       NumPy's global numbers repeated, too, before torch gave them seeds")


def series_shuffled_first():
    """Why are my forecasts so much worse than in the test?"""
    torch.manual_seed(0)
    series = torch.randn(1000).cumsum(0)  # each value is near the one before

    def error(known, asked):
        nearest = known[(asked[:, None] - known).abs().argmin(1)]
        return (series[asked] - series[nearest]).abs().mean().item()

    # Wrong: shuffled before the split. PyTorch says nothing.
    days = torch.randperm(1000)
    wrong = error(days[:800], days[800:])
    assert wrong < 2
    print(f"wrong: an error of {wrong:.1f}, from copying the nearest day")
    # Right: the test comes after all that is known.
    days = torch.arange(1000)
    right = error(days[:800], days[800:])
    assert right > 10
    print(f"right: {right:.1f}, which is what the future will bring")
    print("why:   the days before and after were known. Keep pieces that overlap, or")
    print("       images of one patient, on one side of the split, too")


def reshaped_channels():
    """Why does my image look like stripes and noise?"""
    image = torch.zeros(2, 2, 3)  # (height, width, channels), as images come
    image[..., 0] = 1  # all red
    # Wrong: reshape gives the shape, and mixes pixels and channels. It says nothing.
    wrong = image.reshape(3, 2, 2)[0]
    assert wrong.tolist() == [[1, 0], [0, 1]]
    print("wrong: red is", wrong.tolist())
    # Right: permute moves whole dimensions.
    right = image.permute(2, 0, 1)[0]
    assert right.tolist() == [[1, 1], [1, 1]]
    print("right: red is", right.tolist())
    print("why:   reshape only cuts the same row of numbers into other pieces")


def mean_of_means():
    """Why does the loss of my test depend on the batch size?"""
    losses = torch.tensor([1.0, 1.0, 1.0, 1.0, 6.0])  # of 5 items
    # Wrong: the mean over batches, of which the last is smaller. It says nothing.
    loader = DataLoader(losses, batch_size=4)
    wrong = sum(batch.mean() for batch in loader) / len(loader)
    assert wrong == 3.5
    print("wrong: loss", wrong.item())
    # Right: the sum over items, divided at the end.
    right = sum(batch.sum() for batch in loader) / len(losses)
    assert right == 2
    print("right: loss", right.item())
    print("why:   the one item of the last batch counted as much as four others")


def classes_in_order():
    """Why does my network forget one class while it learns the next?"""
    labels = torch.arange(4).repeat_interleave(16)  # sorted, as folders are read
    # Wrong: batches in the order of the files. PyTorch says nothing.
    wrong = max(len(batch.unique()) for batch in DataLoader(labels, batch_size=16))
    assert wrong == 1
    print("wrong:", wrong, "class in each batch")
    # Right: shuffle=True, for training.
    torch.manual_seed(0)
    loader = DataLoader(labels, batch_size=16, shuffle=True)
    right = min(len(batch.unique()) for batch in loader)
    assert right > 1
    print("right:", right, "or more")
    print("why:   a step makes the loss of its batch smaller, not that of the others")


def order_not_seeded():
    """Why do I get other results each time that I run my program?"""
    # Wrong: the order depends on how many random numbers were drawn before.
    torch.manual_seed(0)
    first, second = (list(DataLoader(range(99), None, shuffle=True)) for _ in range(2))
    wrong = first == second
    assert wrong is False
    print("wrong: the same order twice:", wrong)
    # Right: a generator for the order, and torch.manual_seed for the weights.
    first, second = (
        list(DataLoader(range(99), None, shuffle=True, generator=torch.manual_seed(0)))
        for _ in range(2)
    )
    right = first == second
    assert right is True
    print("right: the same order twice:", right)
    print("why:   without a seed, each program starts with numbers of its own")


def images_left_open():
    """Why "unclosed file", or "Too many open files"?"""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "image.png")
        Image.new("RGB", (2, 2)).save(file)
        with warnings.catch_warnings(record=True, action="always") as wrong:
            # Wrong: Pillow opens the file, and waits until the pixels are needed.
            size = Image.open(file).size
        assert "unclosed file" in str(wrong[0].message)
        print("wrong: size", size, "and a ResourceWarning: unclosed file")
        # Right: with closes it.
        with (
            warnings.catch_warnings(record=True, action="always") as right,
            Image.open(file) as image,
        ):
            size = image.size
        assert right == []
        print("right: size", size, "and no warning")
    print("why:   Python hides this warning unless you ask with -W default")


def too_many_workers():
    """Why "This DataLoader will create 1000 worker processes in total"?"""
    # Wrong: more workers than cores. It warns; the workers start with the first batch.
    with warnings.catch_warnings(record=True, action="always") as wrong:
        DataLoader(range(4), num_workers=1000)
    assert "This DataLoader will create 1000 worker processes" in str(wrong[0].message)
    print("wrong:", str(wrong[0].message).partition(". ")[0])
    # Right: try 0, 1, 2 and so on, and measure.
    with warnings.catch_warnings(record=True, action="always") as right:
        DataLoader(range(4), num_workers=1)
    assert right == []
    print("right: no warning")
    print("why:   workers share the cores, with the network as well")


def sizes_unequal():
    """Why "stack expects each tensor to be equal size"?"""
    items = [torch.ones(2), torch.ones(3)]
    # Wrong: a batch is one tensor, so its items must have the same shape.
    try:
        wrong = next(iter(DataLoader(items, batch_size=2)))
    except RuntimeError as error:
        wrong = str(error)
    assert "stack expects each tensor to be equal size" in wrong
    print("wrong:", wrong)
    # Right: make them equal, here by padding; images are resized or cropped.
    collate = nn.utils.rnn.pad_sequence
    right = next(iter(DataLoader(items, batch_size=2, collate_fn=collate)))
    assert right.shape == (3, 2)
    print("right:", tuple(right.shape))
    print("why:   collate_fn makes a batch of a list of items; by default it stacks")


def channels_come_last():
    """Why "expected input[...] to have 3 channels, but got 28 channels instead"?"""
    images, conv = torch.ones(4, 28, 28, 3), nn.Conv2d(3, 8, 3)
    # Wrong: (N, height, width, channels), as Pillow and NumPy have it.
    try:
        wrong = conv(images)
    except RuntimeError as error:
        wrong = str(error)
    assert "to have 3 channels, but got 28 channels instead" in wrong
    print("wrong:", wrong)
    # Right: (N, channels, height, width).
    right = conv(images.permute(0, 3, 1, 2))
    assert right.shape == (4, 8, 26, 26)
    print("right:", tuple(right.shape))
    print("why:   torch.channels_last is another thing: an order in memory, no shape")


def lambda_not_picklable():
    """Why "Can't pickle" or "Can't get local object", as soon as I use workers?"""
    # Wrong: what a started process is to have must be pickled, and a lambda cannot be.
    loader = DataLoader(range(4), 2, num_workers=1, collate_fn=lambda batch: batch)
    try:
        with warnings.catch_warnings(
            action="ignore"
        ):  # it explains the error that follows
            wrong = list(loader)
    except (AttributeError, pickle.PicklingError) as error:
        wrong = str(error)
    assert "local object" in wrong
    print("wrong:", wrong)
    # Right: a function that has a name, at the top level of a file.
    loader = DataLoader(range(4), 2, num_workers=1, collate_fn=list)
    right = list(loader)
    assert right == [[0, 1], [2, 3]]
    print("right:", right)
    print("why:   only fork copies a process whole, which Linux did before Python 3.14")


def main_not_guarded():
    """Why "before the current process has finished its bootstrapping phase"?"""
    # A DataLoader starts each of its workers like this, wherever there is no fork.
    program = """
import multiprocessing
worker = multiprocessing.get_context("spawn").Process(target=print, args=["hello"])
worker.start()
"""

    def run(program):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "program.py")
            file.write_text(program)
            command = [sys.executable, file]
            done = subprocess.run(command, capture_output=True, timeout=99, check=False)
        return " ".join((done.stdout + done.stderr).decode().split())

    # Wrong: the worker imports the program, and is about to start another worker.
    wrong = run(program)
    assert "current process has finished its bootstrapping phase" in wrong
    print("wrong:", re.search("An attempt .* phase", wrong)[0])
    # Right: the guard says whether the file is run or imported.
    right = run(program.replace("worker.s", 'if __name__ == "__main__": worker.s'))
    assert right == "hello"
    print(f"right: {right}\nwhy:   fork needs no import, but is being given up")


def main():
    """Show one mistake or all, and exit with 1 if a lesson is out of date."""
    mistakes = {
        name: mistake
        for name, mistake in list(globals().items())
        if isfunction(mistake) and (mistake.__doc__ or "").endswith("?")
    }
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.add_argument("name", nargs="?", metavar="name", choices=mistakes)
    parser.add_argument("--list", action="store_true", help="print the names")
    args = parser.parse_args()
    if not __debug__:
        parser.error("the lessons are made of assertions: run this without -O")
    if args.list:
        print(*mistakes, sep="\n")
        parser.exit()

    # As Windows, macOS and new Pythons start processes; the server imports torch once.
    forkserver = "forkserver" in multiprocessing.get_all_start_methods()
    multiprocessing.set_start_method("forkserver" if forkserver else "spawn", True)
    multiprocessing.set_forkserver_preload(["torch"])
    outdated = []
    for name in [args.name] if args.name else mistakes:
        print(f"{name}\n{mistakes[name].__doc__}")
        try:
            mistakes[name]()
        except Exception as error:  # noqa: BLE001, as a new version can raise anything
            line = traceback.extract_tb(error.__traceback__)[1].line
            version = f"out of date with torch {torch.__version__}"
            outdated.append(f"{name}: {version}: {error!r} at {line}")
        if not args.name:
            print()
    sys.exit("\n".join(outdated) or None)


if __name__ == "__main__":
    main()
