"""Wrong answers to data/data_exercises.py, each with words that the verdict has.

A name ends in two underscores and what is wrong.
"""

import numpy as np
import torch
from data_solutions import BatchesByLength, flip_at_random
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset


def image_to_tensor__reshaped(image):
    """for pixels of shape (2, 4, 3) your answer[0, 0, 1] is"""
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).reshape(3, image.height, image.width) / 255


def image_to_tensor__transposed(image):
    """has shape (3, 4, 2), wanted (3, 2, 4)"""
    return torch.from_numpy(np.array(image.convert("RGB")).T / np.float32(255))


def image_to_tensor__from_0_to_255(image):
    """your answer[0, 0, 0] is"""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float()


def image_to_tensor__divided_by_the_brightest(image):
    """your answer[0, 0, 0] is"""
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    return pixels / pixels.max()


def image_to_tensor__of_rgb_only(image):
    """RuntimeError: permute"""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def normalize_images__each_by_its_own(train, held_out):
    """your answer[1][0, 0, 0, 0] is"""
    return scaled(train, train), scaled(held_out, held_out)


def normalize_images__with_what_both_have(train, held_out):
    """your answer[0][0, 0, 0, 0] is"""
    both = torch.cat([train, held_out])
    return scaled(train, both), scaled(held_out, both)


def normalize_images__over_all_channels(train, held_out):
    """your answer[0][0, 0, 0, 0] is"""
    mean, deviation = train.mean(), train.std(correction=0)
    return (train - mean) / deviation, (held_out - mean) / deviation


def normalize_images__with_correction(train, held_out):
    """your answer[0][0, 0, 0, 0] is"""
    return scaled(train, train, correction=1), scaled(held_out, train, correction=1)


def normalize_images__in_place(train, held_out):
    """you change train in place"""
    mean = train.mean(dim=(0, 2, 3), keepdim=True)
    deviation = train.std(dim=(0, 2, 3), correction=0, keepdim=True)
    return train.sub_(mean).div_(deviation), held_out.sub_(mean).div_(deviation)


def scaled(images, others, correction=0):
    dims = 0, 2, 3
    deviation = others.std(dims, correction=correction, keepdim=True)
    return (images - others.mean(dims, keepdim=True)) / deviation


def split_indices__with_repetition(n, count, seed):
    """times, wanted 1"""
    generator = torch.Generator().manual_seed(seed)
    held_out = torch.randint(n, [count], generator=generator)
    train = torch.randint(n, [n - count], generator=generator)
    return train, held_out


def split_indices__by_the_global_generator(n, count, seed):
    """torch's global generator"""
    torch.manual_seed(seed)
    order = torch.randperm(n)
    return order[count:], order[:count]


def split_indices__without_the_seed(n, count, seed):
    """the same seed gives another split"""
    order = torch.from_numpy(np.random.default_rng().permutation(n))
    return order[count:], order[:count]


def split_indices__in_order(n, count, seed):
    """is held out by 100 of 100 seeds"""
    return torch.arange(count, n), torch.arange(count)


def split_indices__from_the_end(n, count, seed):
    """for n = 4 and count = 0 your answer[0] has shape (0,), wanted (4,)"""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[:-count], order[-count:]


@torch.no_grad()
def accuracy__as_a_mean_of_batches(model, loader):
    """for 5 images in batches of 4 your answer is 0.75, wanted 0.6"""
    model.eval()
    shares = [(model(x).argmax(1) == y).double().mean() for x, y in loader]
    return sum(shares).item() / len(loader)


@torch.no_grad()
def accuracy__in_training_mode(model, loader):
    """called in training mode"""
    correct = sum((model(x).argmax(1) == y).sum().item() for x, y in loader)
    return correct / len(loader.dataset)


def accuracy__recorded(model, loader):
    """recorded for backward()"""
    model.eval()
    correct = sum((model(x).argmax(1) == y).sum().item() for x, y in loader)
    return correct / len(loader.dataset)


def accuracy__with_autograd_left_off(model, loader):
    """autograd still records nothing after your answer"""
    model.eval()
    torch.set_grad_enabled(False)
    correct = sum((model(x).argmax(1) == y).sum().item() for x, y in loader)
    return correct / len(loader.dataset)


@torch.no_grad()
def accuracy__as_a_tensor(model, loader):
    """is of type Tensor, wanted a number"""
    model.eval()
    correct = sum((model(x).argmax(1) == y).sum() for x, y in loader)
    return correct / len(loader.dataset)


class Windows__with_one_too_many(Dataset):
    """for a series of 4 elements and size = 2, len(dataset) is 3, wanted 2"""

    def __init__(self, series, size):
        self.series = series
        self.size = size

    def __len__(self):
        return len(self.series) - self.size + 1

    def __getitem__(self, i):
        end = i + self.size
        return self.series[i:end], self.series[end]


class Windows__without_negative_indices(Windows__with_one_too_many):
    """dataset[-1][0] has shape (0,), wanted (2,)"""

    def __len__(self):
        return max(0, len(self.series) - self.size)


class Windows__without_an_error(Windows__without_negative_indices):
    """and size = 2, dataset[2] raises nothing, wanted IndexError"""

    def __getitem__(self, i):
        return super().__getitem__(i % len(self))


class Windows__without_an_error_before_the_first(Windows__without_negative_indices):
    """and size = 2, dataset[-3] raises nothing, wanted IndexError"""

    def __getitem__(self, i):
        return super().__getitem__(i + len(self) if i < 0 else i)


class Windows__of_negative_length(Windows__without_an_error):
    """ValueError: __len__() should return >= 0"""

    def __len__(self):
        return len(self.series) - self.size

    def __getitem__(self, i):
        return super().__getitem__(range(len(self))[i])


def collate_sequences__with_time_first(items):
    """your answer[0] has shape (3, 2), wanted (2, 3)"""
    padded, lengths, labels = collated(items)
    return padded.T, lengths, labels


def collate_sequences__sorted(items):
    """your answer[0]["""
    return collated(sorted(items, key=lambda item: len(item[0]), reverse=True))


def collate_sequences__of_floats(items):
    """your answer[0] has dtype torch.float32, wanted torch.int64"""
    padded, lengths, labels = collated(items)
    return padded.float(), lengths, labels


def collate_sequences__with_zeros_as_padding(items):
    """your answer[1]["""
    padded, _, labels = collated(items)
    return padded, (padded != 0).sum(dim=1), labels


def collate_sequences__with_lengths_after_padding(items):
    """your answer[1][0] is 3, wanted 1"""
    padded, lengths, labels = collated(items)
    return padded, torch.full_like(lengths, padded.shape[1]), labels


def collated(items):
    sequences, labels = zip(*items)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return pad_sequence(sequences, batch_first=True), lengths, torch.tensor(labels)


def flip_at_random__upside_down(images, probability, generator):
    """your answer[0, 0, 0, 0] is"""
    return flipped(images, probability, generator, dim=2)


def flip_at_random__all_or_none(images, probability, generator):
    """you mirror 0 images, wanted about 100"""
    flip = torch.rand((), generator=generator) < probability
    return images.flip(3) if flip else images


def flip_at_random__an_exact_share(images, probability, generator):
    """you mirror the same number of images in every call"""
    order = torch.randperm(len(images), generator=generator)
    chosen = order[: round(probability * len(images))]
    images = images.clone()
    images[chosen] = images[chosen].flip(3)
    return images


def flip_at_random__pixel_by_pixel(images, probability, generator):
    """image 0 of 400 is neither mirrored nor the same"""
    flip = torch.rand(images.shape, generator=generator) < probability
    return torch.where(flip, images.flip(3), images)


def flip_at_random__by_the_global_generator(images, probability, generator):
    """other images are mirrored when the seed is the same again"""
    return flipped(images, probability, None)


def flip_at_random__in_place(images, probability, generator):
    """you change images in place"""
    images.copy_(flip_at_random(images, probability, generator))
    return images


def flipped(images, probability, generator, dim=3):
    flip = torch.rand(len(images), 1, 1, 1, generator=generator) < probability
    return torch.where(flip, images.flip(dim), images)


class BatchesByLength__in_the_same_order(BatchesByLength):
    """of 6 batches only 1 ever came first in 100 iterations"""

    def __iter__(self):
        return iter(self.batches)


class BatchesByLength__shuffled_once(BatchesByLength__in_the_same_order):
    """of 6 batches only 1 ever came first in 100 iterations"""

    def __init__(self, lengths, batch_size, generator):
        super().__init__(lengths, batch_size, generator)
        order = torch.randperm(len(self), generator=generator)
        self.batches = [self.batches[i] for i in order]


class BatchesByLength__by_the_global_generator(BatchesByLength__in_the_same_order):
    """generators with the same seed give batches in another order"""

    def __iter__(self):
        return (self.batches[i] for i in torch.randperm(len(self)))


class BatchesByLength__without_the_smaller_batch(BatchesByLength__in_the_same_order):
    """for lengths = [5, 2, 9, 2, 7] and batch_size = 2, len(batches) is 2, wanted 3"""

    def __init__(self, lengths, batch_size, generator):
        super().__init__(lengths, batch_size, generator)
        self.batches = self.batches[: len(lengths) // batch_size]


class BatchesByLength__without_sorting(BatchesByLength__in_the_same_order):
    """the list of lengths by batch is [[2, 5], [2, 9], [7]], wanted [[2, 2], [5, 7],"""

    def __init__(self, lengths, batch_size, generator):
        indices = torch.arange(len(lengths))
        self.batches = [batch.tolist() for batch in indices.split(batch_size)]


class BatchesByLength__of_tensors(BatchesByLength__in_the_same_order):
    """is no list of ints"""

    def __iter__(self):
        return map(torch.tensor, self.batches)


def train_on_images__as_it_was(images, labels):
    """the loss ends at 1.4"""

    def shuffled():
        order = torch.randperm(len(images))
        return images[order], labels

    return trained(shuffled)


def train_on_images__in_one_order(images, labels):
    """the loss ends at 1.3"""
    order = torch.randperm(len(images))
    return trained(lambda: (images[order], labels))


def train_on_images__without_an_update(images, labels):
    """the loss ends at 1.4"""
    return trained(lambda: (images, labels), rate=0)


def train_on_images__by_tensors(images, labels):
    """a loss is of type Tensor, wanted a number"""
    return [torch.tensor(loss) for loss in trained(lambda: (images, labels))]


def trained(shuffled, rate=0.1):
    images, labels = shuffled()
    model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 4))
    losses = []
    for epoch in range(20):
        images, labels = shuffled()
        total = 0
        for inputs, targets in zip(images.split(32), labels.split(32)):
            loss = nn.functional.cross_entropy(model(inputs.float() / 255), targets)
            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for param in model.parameters():
                    param -= rate * param.grad
            total += loss.item() * len(inputs)
        losses.append(total / len(images))
    return losses
