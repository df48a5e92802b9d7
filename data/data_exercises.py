"""Exercises with data sets and images, judged at once.

Replace "raise NotImplementedError" by your answer, then let it be judged:

    python data/data_exercises.py                             all of them
    python data/data_exercises.py image_to_tensor             one, and where it fails
    python data/data_exercises.py image_to_tensor --hint      one, with a hint

The file works alone, so a copy of it does as well. The judge is at its end.
"""

import argparse
import contextlib
import copy
import faulthandler
import inspect
import itertools
import math
import multiprocessing
import os
import signal
import sys
import textwrap
import time
import traceback
import types
from collections import Counter

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset


def image_to_tensor(image):
    """Turn a Pillow image into the tensor that a network takes.

    image is RGB or greyscale (mode L); a greyscale image gets three equal channels.
    Return a float32 tensor of shape (3, height, width), where the byte 0 becomes 0 and
    the byte 255 becomes 1.

    >>> from PIL import Image
    >>> x = image_to_tensor(Image.new("RGB", (2, 1), "red"))
    >>> x.shape
    torch.Size([3, 1, 2])
    >>> x[:, 0]
    tensor([[1., 1.],
            [0., 0.],
            [0., 0.]])

    Read: data/README.md#reading-images-of-all-kinds
    """
    raise NotImplementedError


def normalize_images(train, held_out):
    """Bring each channel of the training images to mean 0 and variance 1.

    train has shape (n, c, h, w) and held_out (m, c, h, w). Subtract from each channel
    its mean over all training images and pixels, and divide by the root of its mean
    squared deviation, which is never 0. Change the held-out images in the same way,
    with the mean and the deviation of the training images. Return two new tensors.

    >>> train, held_out = torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[4.0, 2.0]]]])
    >>> normalize_images(train, held_out)
    (tensor([[[[-1.,  1.]]]]), tensor([[[[2., 0.]]]]))

    Read: https://docs.pytorch.org/docs/stable/generated/torch.std_mean.html
    """
    raise NotImplementedError


def split_indices(n, count, seed):
    """Hold out some of n images, chosen at random.

    Return two int64 tensors, of shapes (n - count,) and (count,): the indices of the
    images for training and of those held out. Each index from 0 to n - 1 is in one of
    them, in any order. n is at least 1, and count is from 0 to n. The same arguments
    always give the same result, and other seeds give other splits. The state of torch's
    global generator does not change.

    >>> train, held_out = split_indices(5, 2, seed=0)
    >>> len(train), len(held_out)
    (3, 2)
    >>> torch.cat([train, held_out]).sort().values
    tensor([0, 1, 2, 3, 4])

    Read: data/README.md#training-and-held-out-images
    """
    raise NotImplementedError


def accuracy(model, loader):
    """Return the share of images that a network classifies correctly.

    loader is a DataLoader, which yields images and labels, of shape (n,), in batches;
    the last batch may be smaller. model turns images into logits (n, classes). Call it
    in evaluation mode, without recording its operations for backward(). Return a
    number.

    >>> images, labels = torch.eye(4), torch.tensor([0, 1, 2, 0])
    >>> loader = torch.utils.data.DataLoader(list(zip(images, labels)), batch_size=3)
    >>> accuracy(nn.Identity(), loader)
    0.75

    Read: data/README.md#training-and-held-out-images
    """
    raise NotImplementedError


class Windows(Dataset):
    """Serve the windows of a series, each with the element that follows it.

    series has shape (n,). Item i is a pair of tensors: series[i : i + size], and the
    element series[i + size], of shape (). There are n - size items, or none if the
    series is shorter than that. As in a list, negative indices count from the end, so
    that item -1 is the last one, and an index out of range, in either direction, raises
    IndexError.

    >>> dataset = Windows(torch.tensor([1, 2, 3, 4]), size=2)
    >>> len(dataset)
    2
    >>> dataset[0]
    (tensor([1, 2]), tensor(3))
    >>> dataset[-1]
    (tensor([2, 3]), tensor(4))

    Read: data/README.md#a-custom-dataset
    """

    def __init__(self, series, size):
        self.series = series
        self.size = size

    def __len__(self):
        raise NotImplementedError

    def __getitem__(self, i):
        raise NotImplementedError


def collate_sequences(items):
    """Make a batch of sequences of different lengths.

    items is a list of n pairs, at least one, as a DataLoader hands it to collate_fn: a
    tensor of shape (length,), where length may be 0, and a label, which is an int. All
    tensors have the same dtype. Return three tensors: the sequences, of shape
    (n, longest) and that dtype, with zeros after the end of each; the lengths, of shape
    (n,) and int64; the labels, of shape (n,) and int64. The order stays the same, and
    items must not change.

    >>> items = [(torch.tensor([5, 6]), 1), (torch.tensor([7, 8, 9]), 0)]
    >>> collate_sequences(items)
    (tensor([[5, 6, 0],
            [7, 8, 9]]), tensor([2, 3]), tensor([1, 0]))

    Read: https://docs.pytorch.org/docs/stable/data.html#working-with-collate-fn
    """
    raise NotImplementedError


def flip_at_random(images, probability, generator):
    """Mirror some of the images left to right, as augmentation does.

    images has shape (n, c, h, w), any dtype, and must not change. Return a tensor of
    the same shape and dtype, in which each image is mirrored with this probability,
    independently of the others: what was on the left is on the right. Draw all random
    numbers from generator, a torch.Generator.

    >>> image = torch.tensor([[[[1, 2, 3], [4, 5, 6]]]])
    >>> flip_at_random(image, 1.0, torch.Generator())
    tensor([[[[3, 2, 1],
              [6, 5, 4]]]])

    Read: data/README.md#overfitting-too-few-images
    """
    raise NotImplementedError


class BatchesByLength:
    """Put sequences of similar length into a batch, so that there is little padding.

    This is a batch sampler. Iterating over it yields each batch as a list of indices,
    which are ints. lengths is a list of ints, lengths[i] that of sequence i. The
    batch_size shortest sequences are a batch, the batch_size shortest of the others are
    the next one, and so on; the last batch may be smaller. Within a batch, and among
    sequences of equal length, the order does not matter. The batches are yielded in a
    random order, a new one in each iteration, drawn from generator, a torch.Generator.
    len() is the number of batches.

    >>> batches = BatchesByLength([5, 2, 9, 2, 7], 2, torch.Generator())
    >>> len(batches)
    3
    >>> sorted(sorted(batch) for batch in batches)
    [[0, 4], [1, 3], [2]]

    Read: https://docs.pytorch.org/docs/stable/data.html#data-loading-order-and-sampler
    """

    def __init__(self, lengths, batch_size, generator):
        self.lengths = lengths
        self.batch_size = batch_size
        self.generator = generator

    def __len__(self):
        raise NotImplementedError

    def __iter__(self):
        raise NotImplementedError


def train_on_images(images, labels):
    """Find the bug: this script runs, and its loss stays where it is.

    Delete "raise NotImplementedError", run the file, and change one more line.

    images are bytes of shape (n, 3, h, w), and labels, of shape (n,), are integers from
    0 to 3. Return the losses of 20 epochs, each a mean over the images, as a list of
    numbers. The last one is to be less than 0.5.

    Read: data/README.md#batches-and-shuffling-the-dataloader
    """
    raise NotImplementedError
    model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 4))
    losses = []
    for epoch in range(20):
        order = torch.randperm(len(images))
        total = 0
        for inputs, targets in zip(images[order].split(32), labels.split(32)):
            logits = model(inputs.float() / 255)
            loss = nn.functional.cross_entropy(logits, targets)

            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for param in model.parameters():
                    param -= 0.1 * param.grad

            total += loss.item() * len(inputs)  # the last batch may be smaller
        losses.append(total / len(images))
    return losses


# The checks. Each calls the answer with inputs of several kinds and sizes, and compares
# it with a computation of another kind. The paragraphs of its docstring are the hints.


def check_image_to_tensor(answer):
    """image.convert("RGB") makes an image with three channels of either kind.

    torch.from_numpy(np.array(image)) has shape (height, width, 3). permute() moves
    its dimensions, while reshape() would mix up the pixels.

    The bytes go from 0 to 255. Divided by 255, with / and not //, they become floats.
    """

    def answer_to(pixels):
        return answer(Image.fromarray(pixels.numpy()))

    for shape in (2, 4, 3), (1, 1, 3), (5, 2, 3), (4, 5), (2, 1):
        pixels = torch.randint(200, shape, dtype=torch.uint8)
        wanted = torch.zeros(3, *shape[:2], dtype=torch.float64)
        for channel, y, x in np.ndindex(*wanted.shape):
            value = pixels[y, x, channel] if len(shape) == 3 else pixels[y, x]
            wanted[channel, y, x] = value.item() / 255
        expect(answer_to, pixels, wanted=wanted, dtype=torch.float32)


def check_normalize_images(answer):
    """The mean of a channel runs over images, rows and columns: mean() takes several
    dimensions as dim=(0, 2, 3).

    With keepdim=True the mean has shape (1, c, 1, 1), and broadcasts. std() divides by
    the number of elements less 1, unless correction=0.
    """
    for train, held_out in inputs("nchw", "mchw", empty=False):
        if not train.any():
            continue  # without any deviation
        rows = train.double().permute(0, 2, 3, 1).flatten(0, 2).numpy()  # of pixels
        means, deviations = rows.mean(axis=0), rows.std(axis=0)
        wanted = []
        for images in train, held_out:
            channels_last = images.double().permute(0, 2, 3, 1).numpy()
            normal = torch.from_numpy((channels_last - means) / deviations)
            wanted.append(normal.permute(0, 3, 1, 2).to(train.dtype))
        expect(answer, train, held_out, wanted=tuple(wanted))


def check_split_indices(answer):
    """torch.randperm(n) has all indices, in a random order. It takes a generator.

    A generator that starts from a seed: torch.Generator().manual_seed(seed). The first
    count indices of the order are held out, the others are not.
    """
    for n, count in (5, 2), (3, 3), (4, 0), (1, 1), (1, 0), (40, 8):
        case = f"for n = {n} and count = {count}"
        split = split_once(answer, n, count, 3)
        torch.manual_seed(n)
        if split_once(answer, n, count, 3) != split:
            raise Wrong(f"{case} the same seed gives another split when called again")

    splits = [split_once(answer, 10, 3, seed)[1] for seed in range(100)]
    times = Counter(itertools.chain.from_iterable(splits))
    for index in range(10):
        if not 5 <= times[index] <= 65:  # 30 is to be expected
            held_out = f"index {index} is held out by {times[index]} of 100 seeds"
            raise Wrong(f"for n = 10 and count = 3 {held_out}, wanted about 30")
    different = len({tuple(sorted(held_out)) for held_out in splits})
    if different < 30:  # of 120 that are possible
        raise Wrong(f"for n = 10 and count = 3, 100 seeds give {different} splits only")


def split_once(answer, n, count, seed):
    """Return both parts as lists, in which each index is there once."""
    case = f"for n = {n} and count = {count}"
    before = torch.get_rng_state()
    parts = answer(n, count, seed)
    if not torch.equal(before, torch.get_rng_state()):
        raise Wrong("your answer draws from torch's global generator, or seeds it")
    if not isinstance(parts, (tuple, list)) or len(parts) != 2:
        compare(parts, (None, None), f"{case} your answer")
    for i, size in (0, n - count), (1, count):
        if not isinstance(parts[i], torch.Tensor) or parts[i].dtype != torch.int64:
            raise Wrong(f"{case} your answer[{i}] is no int64 tensor")
        if parts[i].shape != (size,):
            shapes = f"{tuple(parts[i].shape)}, wanted {(size,)}"
            raise Wrong(f"{case} your answer[{i}] has shape {shapes}")
    times = Counter(torch.cat(tuple(parts)).tolist())
    for index in range(n):
        if times[index] != 1:
            raise Wrong(f"{case} index {index} is there {times[index]} times, wanted 1")
    return parts[0].tolist(), parts[1].tolist()


def check_accuracy(answer):
    """logits.argmax(1) are the predicted classes of a batch.

    Add up the number of correct predictions and the number of images over all batches,
    and divide at the end. A mean of the batches' accuracies would count the images of a
    smaller batch for more.

    model.eval() switches to evaluation mode, and in "with torch.no_grad():" nothing is
    recorded for backward().
    """
    for count, batch_size in (5, 4), (4, 4), (1, 3), (23, 5):
        images = torch.randn(count, 6)
        logits = images.numpy()[:, 1:4] - images.numpy()[:, :3]
        labels = torch.from_numpy(logits.argmax(axis=1))
        labels[: count // 2] = (labels[: count // 2] + 1) % 3  # in the first batches
        loader = DataLoader(TensorDataset(images, labels), batch_size)
        model = Differences()
        got = answer(model, loader)
        case = f"for {count} images in batches of {batch_size}"
        if "training" in model.seen:
            raise Wrong(f"{case} the network is called in training mode")
        if not torch.is_grad_enabled():
            torch.set_grad_enabled(True)
            raise Wrong(f"{case} autograd still records nothing after your answer")
        if "recorded" in model.seen:
            raise Wrong(f"{case} the calls of the network are recorded for backward()")
        compare(got, (count - count // 2) / count, f"{case} your answer")


class Differences(nn.Module):
    """A network that notes how it is called, and guesses badly in training mode."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3, bias=False)
        self.linear.weight.data = torch.eye(4, 6)[1:] - torch.eye(3, 6)
        self.seen = set()

    def forward(self, images):
        logits = self.linear(images)
        if logits.requires_grad:
            self.seen.add("recorded")
        if self.training:
            self.seen.add("training")
            return -logits
        return logits


def check_Windows(answer):
    """In a series of n elements n - size windows have an element that follows them.

    A tensor's slices raise no error, whatever the index is. So compare i with the
    length, and raise IndexError yourself.

    If i is negative, item i is item i + len(self).
    """
    for n, size in (4, 2), (6, 1), (3, 3), (2, 4), (9, 3):
        series = torch.randint(100, [n]) if n == 6 else torch.randn(n)
        before = series.clone()
        case = f"for a series of {n} elements and size = {size},"
        dataset = answer(series, size)
        items = [(before[i : i + size], before[i + size]) for i in range(n - size)]
        compare(len(dataset), len(items), f"{case} len(dataset)")
        for i in [*range(len(items)), *range(-1, -len(items) - 1, -1)]:
            try:
                item = dataset[i]
            except IndexError as error:
                raised = in_one_line(error)
                raise Wrong(f"{case} dataset[{i}] raises {raised}") from error
            compare(item, items[i], f"{case} dataset[{i}]")
        errors = ArithmeticError, AssertionError, LookupError, StopIteration, ValueError
        for i in len(items), -len(items) - 1, n + 1, -n - 1, -n - size - 2:
            raised = "nothing"
            try:
                dataset[i]
            except errors as error:
                raised = type(error).__name__
            if raised != "IndexError":
                raise Wrong(f"{case} dataset[{i}] raises {raised}, wanted IndexError")
        if not torch.equal(series, before):
            raise Wrong(f"{case} you change the series in place")


def check_collate_sequences(answer):
    """Begin with zeros of shape (n, longest) and fill in one sequence after the other.

    Or take pad_sequence() from torch.nn.utils.rnn. With batch_first=True its result has
    shape (n, longest).

    zip(*items) gives the sequences and the labels apart.
    """
    for lengths in [1, 3], [3], [1, 4, 2], [0, 2, 1], [0], [20, 10]:
        for dtype in torch.int64, torch.float32:
            sequences = [torch.randint(3, [size]).to(dtype) for size in lengths]
            labels = torch.randint(10, [len(lengths)])
            wanted = torch.zeros(len(lengths), max(lengths), dtype=dtype)
            for i, j in np.ndindex(*wanted.shape):
                if j < lengths[i]:
                    wanted[i, j] = sequences[i][j]
            items = list(zip(sequences, labels.tolist()))
            before = copy.deepcopy(items)
            expect(answer, items, wanted=(wanted, torch.tensor(lengths), labels))
            if str(items) != str(before):
                raise Wrong(f"for items = {before} you change items")


def check_flip_at_random(answer):
    """images.flip(3) mirrors all of them. Decide for each image whether to take it from
    there.

    torch.rand(n, generator=generator) < probability is True as often as it should be.
    torch.where() chooses between two tensors. Its condition has to broadcast with the
    images, so give it three more dimensions of size 1.
    """

    def with_seed_0(images, probability):
        return answer(images, probability, torch.Generator().manual_seed(0))

    for (images,) in inputs("nchw", empty=False):
        mirrored = np.flip(images.numpy(), axis=3).copy()
        expect(with_seed_0, images, 1.0, wanted=mirrored)
        expect(with_seed_0, images, 0.0, wanted=images.clone())
    images = torch.randint(256, [1, 3, 2, 5], dtype=torch.uint8)
    expect(with_seed_0, images, 1.0, wanted=np.flip(images.numpy(), axis=3).copy())

    images = torch.randn(400, 3, 2, 4)
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    first, second = (flipped(answer, images, 0.25, generator) for _ in range(2))
    case = "for 400 images and a probability of 0.25"
    for mask in first, second:
        if not 55 <= sum(mask) <= 145:  # 100 is to be expected
            raise Wrong(f"{case} you mirror {sum(mask)} images, wanted about 100")
    if flipped(answer, images, 0.25, torch.Generator().manual_seed(0)) != first:
        raise Wrong(f"{case} other images are mirrored when the seed is the same again")
    if first == second:
        raise Wrong(f"{case} the same images are mirrored in every call")
    counts = {sum(flipped(answer, images, 0.25, generator)) for _ in range(10)}
    if len(counts) == 1:
        raise Wrong(f"{case} you mirror the same number of images in every call")
    if not torch.equal(before, torch.get_rng_state()):
        raise Wrong("your answer draws from torch's global generator, or seeds it")


def flipped(answer, images, probability, generator):
    """Return for each image whether it is mirrored."""
    before = images.clone()
    got = answer(images, probability, generator)
    if not torch.equal(images, before):
        raise Wrong("you change images in place")
    same = (got == before).flatten(1).all(dim=1)
    mirrored = (got == before.flip(3)).flatten(1).all(dim=1)
    for i in range(len(images)):
        if not same[i] and not mirrored[i]:
            raise Wrong(f"image {i} of {len(images)} is neither mirrored nor the same")
    return mirrored.tolist()


def check_BatchesByLength(answer):
    """sorted(range(n), key=lengths.__getitem__) has the indices of the sequences, the
    shortest first. Cut this list into batches.

    torch.randperm(number of batches, generator=generator) is an order for the batches.

    __iter__ may be a generator: for i in order.tolist(): yield batches[i].
    """
    random = torch.randint(1, 9, [23]).tolist()
    for lengths, size in (
        ([5, 2, 9, 2, 7], 2),
        ([4, 3], 5),
        ([3, 1, 2, 1], 2),
        (random, 4),
    ):
        case = f"for lengths = {lengths} and batch_size = {size},"
        if lengths is random:
            case = f"for {len(random)} lengths and batch_size = {size},"
        batches = answer(list(lengths), size, torch.Generator().manual_seed(0))
        in_order = sorted(lengths)
        wanted = [in_order[i : i + size] for i in range(0, len(lengths), size)]
        compare(len(batches), len(wanted), f"{case} len(batches)")
        for nth in "first", "second":
            got = list(itertools.islice(iter(batches), len(wanted) + 1))
            for batch in got:
                if type(batch) is not list or any(type(i) is not int for i in batch):
                    shown = repr(batch).partition("\n")[0]
                    raise Wrong(f"{case} {shown} is no list of ints")
            times = Counter(itertools.chain.from_iterable(got))
            for index in {*range(len(lengths)), *times}:
                if times[index] != int(index < len(lengths)):
                    comes = f"index {index} comes {times[index]} times"
                    raise Wrong(f"{case} {comes} in the {nth} iteration")
            grouped = sorted(sorted(lengths[i] for i in batch) for batch in got)
            compare(grouped, sorted(wanted), f"{case} the list of lengths by batch")

    before = torch.get_rng_state()
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    here, there = (answer(random, 4, generator) for generator in generators)
    epochs = [list(here) for _ in range(100)]
    for wanted in epochs[:5]:
        if list(there) != wanted:
            raise Wrong("generators with the same seed give batches in another order")
    first = {min(epoch[0]) for epoch in epochs}
    if len(first) < 6:
        raise Wrong(f"of 6 batches only {len(first)} ever came first in 100 iterations")
    orders = {tuple(map(min, epoch)) for epoch in epochs}
    if len(orders) < 50:  # of 720 that are possible
        raise Wrong(f"100 iterations give only {len(orders)} orders of 6 batches")
    if not torch.equal(before, torch.get_rng_state()):
        raise Wrong("your answer draws from torch's global generator, or seeds it")


def check_train_on_images(answer):
    """With four classes, a network that has learned nothing has a loss of about log(4),
    which is 1.39. Does each image still have its label?

    The images are put into a random order. And the labels?
    """
    labels = torch.randint(4, [400])
    patterns = torch.randint(64, 192, [4, 3, 4, 4])
    noise = torch.randint(-40, 41, [400, 3, 4, 4])
    losses = answer((patterns[labels] + noise).to(torch.uint8), labels)
    compare(type(losses), list, "the type of your answer")
    compare(len(losses), 20, "the length of your answer")
    for loss in losses:
        if isinstance(loss, bool) or not isinstance(loss, (int, float)):
            raise Wrong(f"a loss is of type {type(loss).__name__}, wanted a number")
    if not losses[-1] < 0.5:
        raise Wrong(f"the loss ends at {losses[-1]:.4g}, wanted less than 0.5")
    if not losses[-1] < losses[0]:
        raise Wrong(f"the loss begins and ends at {losses[-1]:.4g}: it does not fall")


# The judge. It is the same in all files of exercises.


SECONDS = 5  # that an answer may take


class Wrong(Exception):
    """Says in one line what is wrong with an answer."""


def inputs(*shapes, empty=True):
    """Yield tuples of floating-point tensors of these shapes, small ones first.

    A shape has a letter for each dimension: inputs("nd", "d") yields a matrix and a
    vector. Different letters have different sizes. In turn there are small whole
    numbers, zeros, one row, more rows of random numbers, the same in float64, views
    that are not contiguous, and no row at all unless empty=False.
    """
    letters = "".join(dict.fromkeys("".join(shapes)))
    small = range(2, 2 + len(letters))
    large = range(4 + len(letters), 4, -1)
    kinds = [("whole", small), ("zeros", small), ("whole", [1, *small])]
    kinds += [("random", large), ("float64", large), ("view", large)]
    if empty:
        kinds.append(("random", [0, *small]))
    for kind, sizes in kinds:
        size = dict(zip(letters, sizes))
        yield tuple(tensor(kind, [size[i] for i in shape]) for shape in shapes)


def tensor(kind, shape):
    if kind == "zeros":
        return torch.zeros(shape)
    if kind == "whole":
        return torch.randint(-4, 5, shape).float()
    if kind == "view":
        every_second = tuple(slice(None, None, 2) for _ in shape)
        return torch.randn([2 * size for size in shape])[every_second]
    return torch.randn(shape, dtype=torch.float64 if kind == "float64" else None)


def expect(answer, *arguments, wanted, dtype=None, tolerance=None):
    """Call the answer and compare what it returns with what is wanted.

    wanted is a tensor, an array, a number, a string, or a tuple of these. A tensor of
    floating-point numbers is wanted in the dtype of the first argument, or in dtype.
    Its elements may differ by 1000 eps of the largest, which is rounding, or by
    tolerance.
    """
    names = names_of_arguments(answer)
    names += [f"argument {i}" for i in range(len(names), len(arguments))]
    wanted = in_dtype(wanted, dtype or getattr(arguments[0], "dtype", None))
    before = copy.deepcopy(arguments)
    details = [f"{name} = {value!r}" for name, value in zip(names, before)]
    details.append(f"wanted: {wanted!r}")
    case = "for " + shorten(", ".join(map(described, names, before)))
    try:
        got = answer(*arguments)
        details.append(f"your answer: {got!r}")
        for name, old, new in zip(names, before, arguments):
            if not unchanged(old, new):
                raise Wrong(f"{case} you change {name} in place")
        compare(got, wanted, f"{case} your answer", tolerance)
    except Exception as error:
        error.add_note("\n".join(details))
        raise


def names_of_arguments(answer):
    try:
        return list(inspect.signature(answer).parameters)
    except (TypeError, ValueError):  # such as torch.outer
        return []


def in_dtype(wanted, dtype):
    if isinstance(wanted, tuple):
        return tuple(in_dtype(each, dtype) for each in wanted)
    if isinstance(wanted, (torch.Tensor, np.ndarray)):
        wanted = torch.as_tensor(wanted)
        if wanted.is_floating_point() and isinstance(dtype, torch.dtype):
            return wanted.to(dtype)
    return wanted


def unchanged(old, new):
    if isinstance(old, torch.Tensor):
        return old.shape == new.shape and old.isclose(new, 0, 0, equal_nan=True).all()
    if isinstance(old, np.ndarray):
        return np.array_equal(old, new)
    if isinstance(old, (list, tuple)):
        return len(old) == len(new) and all(map(unchanged, old, new))
    return True


def described(name, value):
    if isinstance(value, (list, tuple)) and any(map(torch.is_tensor, value)):
        return f"{name} of {len(value)} tensors"
    if not isinstance(value, (torch.Tensor, np.ndarray)):
        return f"{name} = {shorten(repr(value))}"
    words = f"{name} of shape {tuple(value.shape)}"
    if value.dtype in (torch.float16, torch.bfloat16, torch.float64):
        words += f" and {value.dtype}"
    if isinstance(value, torch.Tensor) and not value.is_contiguous():
        words += " that is not contiguous"
    return words


def compare(got, wanted, what, tolerance=None):
    """Raise Wrong if got is not what is wanted: by type, shape, dtype or elements."""
    if got is None and wanted is not None:
        raise Wrong(f"{what} is None: is there a return missing?")
    if isinstance(wanted, tuple):
        if not isinstance(got, (tuple, list)) or len(got) != len(wanted):
            raise Wrong(f"{what} is no list or tuple of {len(wanted)} values")
        for i in range(len(wanted)):
            compare(got[i], wanted[i], f"{what}[{i}]", tolerance)
    elif isinstance(wanted, torch.Tensor):
        if not isinstance(got, torch.Tensor):
            raise Wrong(f"{what} is of type {type(got).__name__}, wanted a tensor")
        if got.shape != wanted.shape:
            shapes = tuple(got.shape), tuple(wanted.shape)
            raise Wrong("{} has shape {}, wanted {}".format(what, *shapes))
        if got.dtype != wanted.dtype:
            raise Wrong(f"{what} has dtype {got.dtype}, wanted {wanted.dtype}")
        if got.device != wanted.device:
            raise Wrong(f"{what} is on {got.device}, wanted on {wanted.device}")
        compare_elements(got.detach(), wanted, what, tolerance)
    elif isinstance(wanted, float):
        if isinstance(got, bool) or not isinstance(got, (int, float)):
            raise Wrong(f"{what} is of type {type(got).__name__}, wanted a number")
        if not math.isclose(got, wanted, rel_tol=tolerance or 1e-6, abs_tol=1e-12):
            raise Wrong(f"{what} is {apart(got, wanted)}")
    elif type(got) is not type(wanted):
        kind = type(got).__name__
        raise Wrong(f"{what} is of type {kind}, wanted {shorten(repr(wanted))}")
    elif got != wanted:
        raise Wrong(f"{what} is {shorten(repr(got))}, wanted {shorten(repr(wanted))}")


def compare_elements(got, wanted, what, tolerance):
    bound = 0
    if wanted.is_floating_point() and wanted.numel():
        relative = tolerance or 1000 * torch.finfo(wanted.dtype).eps
        bound = relative * max(1, wanted.abs().max().item())
    differs = ~torch.isclose(got, wanted, rtol=0, atol=bound)
    if differs.any():
        index = tuple(differs.nonzero()[0].tolist())
        place = f"[{', '.join(map(str, index))}]" if index else ""
        numbers = apart(got[index].item(), wanted[index].item())
        raise Wrong(f"{what}{place} is {numbers}")


def apart(got, wanted):
    """Write two numbers with as many digits as it takes to tell them apart."""
    digits = 6 if f"{got:.6g}" != f"{wanted:.6g}" else 17
    return f"{got:.{digits}g}, wanted {wanted:.{digits}g}"


def shorten(text):
    return textwrap.shorten(text, 200, placeholder=" ...")


def verdict(name, answers):
    """Judge an exercise. answers has the variables of the reader's file.

    Returns the verdict in one line, and the input at which the answer fails, or "".
    """
    # Another answer may have changed these.
    torch.manual_seed(0)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    try:
        if name not in answers:
            raise Wrong(f"the file has no {name}")
        globals()[f"check_{name}"](answers[name])
        if not torch.is_grad_enabled():
            raise Wrong("your answer leaves autograd switched off")
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever an answer raises)
        frames = traceback.walk_tb(error.__traceback__)
        lines = [line for frame, line in frames if frame.f_globals is answers]
        message = str(error) if isinstance(error, Wrong) else in_one_line(error)
        if lines and (message == "NotImplementedError" or "ellipsis" in message):
            return "not yet", ""
        if lines:
            message = f"line {lines[-1]}: {message}"
        return f"wrong: {message}", "\n".join(getattr(error, "__notes__", []))
    return "right", ""


def in_one_line(error):
    message = shorten(str(error).strip().partition("\n")[0])
    return f"{type(error).__name__}: {message}".removesuffix(": ")


def load(file):
    """Execute a file. Returns its variables, and in one line what is wrong with it."""
    module = types.ModuleType("answers")
    sys.modules["answers"] = module
    try:
        with open(file, encoding="utf-8") as text:
            code = compile(text.read(), file, "exec")
        exec(code, vars(module))  # noqa: S102
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a file raises)
        return {}, in_one_line(error)
    return vars(module), None


def work(file, connection):
    """In a process of its own: load a file, then judge each exercise that is asked for.

    What takes too long is ended from outside of Python, with the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.reconfigure(line_buffering=True)
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere, contextlib.suppress(EOFError):
        faulthandler.dump_traceback_later(60, exit=True, file=nowhere)
        torch.optim.SGD([torch.zeros(1)])  # the first optimizer imports for seconds
        answers, problem = load(file)
        connection.send(problem)
        while True:
            faulthandler.cancel_dump_traceback_later()
            name = connection.recv()
            faulthandler.dump_traceback_later(SECONDS, exit=True, file=nowhere)
            connection.send(verdict(name, answers))


def start(file):
    """Start that process and return the connection with it."""
    spawn = multiprocessing.get_context("spawn")
    connection, other_end = spawn.Pipe()
    spawn.Process(target=work, args=(file, other_end), daemon=True).start()
    other_end.close()
    try:
        problem = connection.recv()
    except (EOFError, OSError):
        problem = "it ends Python, or takes longer than a minute"
    if problem:
        print(f"cannot load {file}: {problem}", file=sys.stderr)
        sys.exit(2)
    return connection


def judge(file, names):
    """Yield (name, verdict, details) for each exercise."""
    connection = None
    for name in names:
        connection = connection or start(file)
        begin = time.monotonic()
        try:
            connection.send(name)
            yield name, *connection.recv()
        except (EOFError, OSError):
            too_long = time.monotonic() - begin >= SECONDS
            why = f"no answer after {SECONDS} seconds" if too_long else "it ends Python"
            yield name, f"wrong: {why}", ""
            connection = None


def main():
    checks = [name for name in globals() if name.startswith("check_")]
    names = [name.removeprefix("check_") for name in checks]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("exercise", nargs="?", choices=names, metavar="exercise")
    parser.add_argument("--hint", action="count", default=0, help="twice for two hints")
    parser.add_argument(
        "--answers", default=__file__, help="judge those of another file"
    )
    args = parser.parse_args()
    if args.hint and not args.exercise:
        parser.error("--hint needs the name of an exercise")

    right = 0
    chosen = [args.exercise] if args.exercise else names
    for name, words, details in judge(args.answers, chosen):
        print(f"{name:22s}{words}", flush=True)
        right += words == "right"
        if args.exercise and details:
            print(f"\n{details}")

    if args.exercise:
        hints = inspect.getdoc(globals()[f"check_{args.exercise}"]).split("\n\n")
        for hint in hints[: args.hint]:
            print(f"\nHint: {hint}")
    else:
        print(f"{right} of {len(names)} right")
    sys.exit(right < len(chosen))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
