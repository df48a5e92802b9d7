"""Compute the same thing in two ways: which digits agree?

The gradient of the two-layer network is computed again and again, with one thing
changed each time, and so are random numbers and batches. The table has what can be
relied on ("same bits", "same to rounding" or "different") and the largest difference
that was found, relative to the largest element: 0.0e+00 means the same bits.
"""

import argparse
import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10

BITS = "same bits"
ROUNDING = "same to rounding"
DIFFERENT = "different"

# What counts as rounding in float32: about a hundred times its eps of 1.2e-7.
TOLERANCE = 1e-5


def make_arrays():
    """Return x, y, w1 and w2 of the ladder as NumPy arrays."""
    randn = np.random.default_rng(0).standard_normal
    shapes = [(N, D_in), (N, D_out), (D_in, H), (H, D_out)]
    return [randn(shape, np.float32) for shape in shapes]


def gradient(x, y, w1, w2):
    """Return the gradient with respect to w1, for tensors or for NumPy arrays."""
    h = x @ w1  # (N, H)
    h_relu = h * (h > 0)
    grad_y_pred = 2 * (h_relu @ w2 - y)  # (N, D_out)
    grad_h = grad_y_pred @ w2.T * (h > 0)  # (N, H)
    return x.T @ grad_h  # (D_in, H)


def draw(seed, skip=0):
    """Return random numbers: those that come after the first few with this seed."""
    torch.manual_seed(seed)
    torch.randn(skip)
    return torch.randn(1000)


class Augmented(Dataset):
    """The samples 0 to 99, each with a random number drawn when it is loaded."""

    def __len__(self):
        return 100

    def __getitem__(self, index):
        return index, torch.randn(())


def load(num_workers, seed=0):
    """Return the order of the samples and their random numbers, in one epoch."""
    torch.manual_seed(seed)
    loader = DataLoader(
        Augmented(),
        batch_size=10,
        shuffle=True,
        num_workers=num_workers,
        multiprocessing_context=process_context() if num_workers else None,
    )
    order, noise = zip(*loader)
    return torch.cat(order), torch.cat(noise)


def process_context():
    """Return a way to start processes that does not copy this one, unlike fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    return context


def difference(one, other):
    """Return the largest difference, relative to the largest element of one."""
    one = one.cpu().double()
    other = torch.as_tensor(other).cpu().double()
    return ((one - other).abs().max() / one.abs().max()).item()


def holds(promise, found):
    """Return whether a difference is one that was promised."""
    if promise == BITS:
        return found == 0
    if promise == ROUNDING:
        return found <= TOLERANCE
    return found > TOLERANCE


def compare_seeds():
    """Yield (what was done, what can be relied on, the difference found)."""
    reference = draw(seed=0)
    yield "the same seed", BITS, difference(reference, draw(seed=0))
    yield "another seed", DIFFERENT, difference(reference, draw(seed=1))
    yield "one number drawn before", DIFFERENT, difference(reference, draw(0, skip=1))


def compare_sums():
    """Yield the same for a long sum, compared with that of one thread in float32."""
    numbers = np.random.default_rng(0).standard_normal(1_000_000, np.float32)
    squares = torch.tensor(numbers).square()
    reference = squares.sum()
    yield "computed again", BITS, difference(reference, squares.sum())

    torch.set_num_threads(2)
    two_threads = squares.sum()
    torch.set_num_threads(1)
    yield "two threads", ROUNDING, difference(reference, two_threads)

    first_half, second_half = squares.chunk(2)
    in_halves = first_half.sum() + second_half.sum()
    yield "two halves", ROUNDING, difference(reference, in_halves)
    yield "NumPy", ROUNDING, difference(reference, squares.numpy().sum())


def compare_gradients():
    """Yield the same for gradients, compared with that of one thread in float32."""
    arrays = make_arrays()
    x, y, w1, w2 = network = [torch.tensor(array) for array in arrays]
    reference = gradient(*network)
    yield "computed again", BITS, difference(reference, gradient(*network))

    torch.use_deterministic_algorithms(True)
    deterministic = gradient(*network)
    torch.use_deterministic_algorithms(False)
    yield "deterministic algorithms", BITS, difference(reference, deterministic)

    torch.set_num_threads(2)
    two_threads = gradient(*network)
    torch.set_num_threads(1)
    yield "two threads", ROUNDING, difference(reference, two_threads)

    # The gradient is a sum over the samples: here one half is added to the other.
    half = N // 2
    first_half = gradient(x[:half], y[:half], w1, w2)
    second_half = gradient(x[half:], y[half:], w1, w2)
    in_halves = first_half + second_half
    yield "two halves of the batch", ROUNDING, difference(reference, in_halves)

    by_numpy = gradient(*arrays)
    yield "NumPy", ROUNDING, difference(reference, by_numpy)

    in_float64 = gradient(*[tensor.double() for tensor in network])
    yield "float64", ROUNDING, difference(reference, in_float64)

    in_bfloat16 = gradient(*[tensor.bfloat16() for tensor in network])
    yield "bfloat16", DIFFERENT, difference(reference, in_bfloat16)


def compare_processes():
    """Yield the same for another process, and for the workers of a DataLoader."""
    network = [torch.tensor(array) for array in make_arrays()]
    context = process_context()
    with ProcessPoolExecutor(
        1, context, initializer=torch.set_num_threads, initargs=[1]
    ) as pool:
        drawn = pool.submit(draw, seed=0).result()
        computed = pool.submit(gradient, *network).result()
    yield "the same seed", BITS, difference(draw(seed=0), drawn)
    yield "the gradient", BITS, difference(gradient(*network), computed)

    order, noise = load(num_workers=0)
    order_of_worker, noise_of_worker = load(num_workers=1)
    _, noise_again = load(num_workers=1)
    yield "a worker: order", BITS, difference(order, order_of_worker)
    yield "a worker: noise", DIFFERENT, difference(noise, noise_of_worker)
    yield "a worker: noise again", BITS, difference(noise_of_worker, noise_again)


def compare_compiled(backend="inductor"):
    """Yield the same for the compiled gradient."""
    # Before PyTorch 2.15, the compiler uses a part of PyTorch that PyTorch deprecates.
    warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)

    network = [torch.tensor(array) for array in make_arrays()]
    compiled = torch.compile(gradient, backend=backend)
    found = difference(gradient(*network), compiled(*network))
    yield "torch.compile", ROUNDING, found


def compare_devices(device):
    """Yield the same for another device than the CPU."""
    network = [torch.tensor(array) for array in make_arrays()]
    moved = [tensor.to(device) for tensor in network]
    on_device = gradient(*moved)
    yield f"on {device}", ROUNDING, difference(gradient(*network), on_device)
    yield f"on {device}, again", BITS, difference(on_device, gradient(*moved))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compile", action="store_true", help="compare torch.compile")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    args = parser.parse_args()

    torch.set_num_threads(1)
    groups = {
        "random numbers": compare_seeds(),
        "a sum of a million numbers": compare_sums(),
        "a gradient": compare_gradients(),
        "in other processes": compare_processes(),
    }
    if args.compile:
        try:
            groups["the gradient, compiled"] = list(compare_compiled())
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            parser.error(f"cannot compile, is there a C++ compiler? {reason}")
    if args.device != "cpu":
        groups["the gradient, on another device"] = compare_devices(args.device)

    for group, comparisons in groups.items():
        print(group)
        for done, promise, found in comparisons:
            surprise = "" if holds(promise, found) else "  but not here"
            print(f"  {done:26}{promise:18}{found:.1e}{surprise}")


if __name__ == "__main__":
    main()
