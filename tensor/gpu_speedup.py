"""Time a training step of small networks and of large ones, on a CPU and on a GPU.

The table says how many times faster than one thread of the CPU all of them are, and a
GPU with --device cuda. The last lines say what a careless clock would have said.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch

devices = [d for d in ("cpu", "cuda", "mps", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
parser.add_argument("--plot", type=Path, help="draw the table into this file")
args = parser.parse_args()
if args.plot:
    writable = os.access(f"{args.plot.parent}/", os.W_OK)
    if args.plot.is_dir() or not writable:
        parser.error(f"cannot write {args.plot}: name a file in a folder that exists")


def make_step(size, device):
    """Return a function that takes a step of training and returns the loss, ()."""
    # The network of the other scripts, with all its sizes multiplied by this one.
    N, D_in, H, D_out = (int(size * n) for n in (64, 1000, 100, 10))
    randn = np.random.default_rng(0).standard_normal
    x = torch.tensor(randn((N, D_in), np.float32), device=device)
    y = torch.tensor(randn((N, D_out), np.float32), device=device)
    w1 = torch.tensor(randn((D_in, H), np.float32), device=device)
    w2 = torch.tensor(randn((H, D_out), np.float32), device=device)
    learning_rate = 1e-6 / size**3  # a larger network has larger gradients

    def step():
        h = x @ w1  # (N, H)
        h_relu = h.relu()
        y_pred = h_relu @ w2  # (N, D_out)
        loss = (y_pred - y).square().sum()  # (), never printed: that would wait for it
        grad_y_pred = 2 * (y_pred - y)  # (N, D_out)
        grad_w2 = h_relu.T @ grad_y_pred  # (H, D_out)
        grad_h_relu = grad_y_pred @ w2.T  # (N, H)
        grad_h = grad_h_relu * (h > 0)
        grad_w1 = x.T @ grad_h  # (D_in, H)
        w1.sub_(grad_w1, alpha=learning_rate)
        w2.sub_(grad_w2, alpha=learning_rate)
        return loss

    return step


def clock(step, steps, device):
    """Return the seconds that each of the steps takes until the device is done."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    if device != "cpu":
        torch.accelerator.synchronize()  # it has its orders, and is still at work
    return (time.perf_counter() - start) / steps


def measure(step, device):
    """Return the seconds that a step takes: a median, after a warm-up."""
    clock(step, 1, device)  # the first step sets up memory, threads, kernels
    once = clock(step, 1, device)
    steps, tries = int(0.01 / once) + 1, 5 if once < 0.05 else 1
    return np.median([clock(step, steps, device) for _ in range(tries)])


def crossing(sizes, slow, fast):
    """Return the size from which on fast takes less time: 0 if always, inf if never."""
    speedups = slow / fast
    if (speedups >= 1).all():
        return 0
    behind = np.flatnonzero(speedups < 1)[-1]
    pair = slice(behind, behind + 2)  # the last size behind, the first one ahead
    return np.interp(1, speedups[pair], sizes[pair], right=np.inf)


# What a careless clock says: the very first step, with nothing set up before it.
cold = clock(make_step(1, args.device), 1, args.device)
sizes = [0.125, 0.25, 0.5, 1, 2, 4]
ways = {"one thread": ("cpu", 1), "all threads": ("cpu", os.cpu_count())}
if args.device != "cpu":
    sizes.append(8)
    ways[args.device] = (args.device, 1)
times = {way: [] for way in ways}
print("size ", *(f"{way:>13}" for way in [*ways][1:]), "  one thread")
for size in sizes:
    for way, (device, threads) in ways.items():
        torch.set_num_threads(threads)
        step = make_step(size, device)
        times[way].append(measure(step, device))
    one, *rest = (column[-1] for column in times.values())
    print(f"{size:<5}", *(f"{one / t:11.2f} x" for t in rest), f"{1e3 * one:9.3f} ms")

one, all_threads, *gpu = map(np.array, times.values())
print(f"all threads win from size {crossing(sizes, one, all_threads):.2f} on")
if gpu:
    found = crossing(sizes, np.minimum(one, all_threads), gpu[0])
    print(f"{args.device} wins from size {found:.2f} on")
    hasty = clock(step, 1, "cpu") / gpu[0][-1]
    print(f"without waiting, size 8 seems to take {hasty:.3f} of its time")
else:
    print("no GPU: --device cuda, mps or xpu adds it, on a machine that has one")
cold /= (gpu[0] if gpu else one)[sizes.index(1)]
print(f"without a warm-up, size 1 seems to take {cold:.1f} times as long")

if args.plot:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.add_subplot(xlabel="size", ylabel="times faster than one thread")
    for way, column in times.items():
        axes.semilogy(list(map(str, sizes)), one / column, "o-", base=2, label=way)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend()
    try:
        figure.savefig(args.plot, dpi=72, format="png")
    except OSError as error:
        parser.error(f"cannot write {args.plot}: {error}")
