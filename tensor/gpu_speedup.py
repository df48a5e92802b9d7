"""Measure from which size of network on more threads, or a GPU, make training faster.

A training step is timed for small and large networks. One thread of the CPU is the
baseline: 2.00 x means twice as fast. Every operation takes time to start, however small
it is, so only large networks profit.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.utils.benchmark import Timer

SIZES = [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8]


def make_network(size, device):
    """Return x, y, w1, w2 of the other scripts, with all dimensions times size."""
    N = int(64 * size)
    D_in = int(1000 * size)
    H = int(100 * size)
    D_out = int(10 * size)

    randn = np.random.default_rng(0).standard_normal
    x = torch.tensor(randn((N, D_in), np.float32), device=device)
    y = torch.tensor(randn((N, D_out), np.float32), device=device)
    w1 = torch.tensor(randn((D_in, H), np.float32), device=device)
    w2 = torch.tensor(randn((H, D_out), np.float32), device=device)
    return x, y, w1, w2


def train_step(x, y, w1, w2, learning_rate):
    """Change w1 and w2 by a step of gradient descent; return the loss, of shape ()."""
    h = x @ w1  # (N, H)
    h_relu = h.relu()
    y_pred = h_relu @ w2  # (N, D_out)

    # No item() here: it would make the CPU wait for the GPU in every step.
    loss = (y_pred - y).square().sum()

    grad_y_pred = 2 * (y_pred - y)  # (N, D_out)
    grad_w2 = h_relu.T @ grad_y_pred  # (H, D_out)
    grad_h_relu = grad_y_pred @ w2.T  # (N, H)
    grad_h = grad_h_relu * (h > 0)
    grad_w1 = x.T @ grad_h  # (D_in, H)

    w1 -= learning_rate * grad_w1
    w2 -= learning_rate * grad_w2
    return loss


def seconds_per_step(size, device, threads):
    """Return the time of one training step, in seconds: the median of many.

    The Timer warms up first, and waits for the GPU before it stops the clock.
    """
    x, y, w1, w2 = make_network(size, device)
    learning_rate = 1e-6 / size**3  # a larger network has larger gradients

    def step():
        train_step(x, y, w1, w2, learning_rate)

    timer = Timer("step()", globals={"step": step}, num_threads=threads)
    return timer.blocked_autorange(min_run_time=0.2).median


def draw(speedups):
    """Return a figure of {name: [speedup for each of SIZES]}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), dpi=240, layout="constrained")
    axes = figure.add_subplot(
        xlabel="size of the network", ylabel="speedup over one thread"
    )
    axes.axhline(1, color="black", linestyle="dashed", label="one thread")
    for name, values in speedups.items():
        axes.loglog(SIZES, values, "o-", base=2, label=name)

    axes.margins(y=0.15)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend()
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the table")
    args = parser.parse_args()

    compared = {"all threads": ("cpu", torch.get_num_threads())}
    if args.device != "cpu":
        compared[args.device] = (args.device, 1)

    speedups = {name: [] for name in compared}
    print("size     one thread", *(f"{name:>13}" for name in compared))
    for size in SIZES:
        baseline = seconds_per_step(size, "cpu", threads=1)
        row = f"{size:<5g} {1000 * baseline:10.3f} ms"
        for name, (device, threads) in compared.items():
            speedup = baseline / seconds_per_step(size, device, threads)
            speedups[name].append(speedup)
            row += f"{speedup:12.2f} x"
        print(row)

    if args.plot:
        try:
            draw(speedups).savefig(args.plot)
        except (OSError, ValueError) as error:
            parser.error(f"cannot write {args.plot}: {error}")


if __name__ == "__main__":
    main()
