"""Train the two-layer network from several initial weights, at several learning rates.

Each cell of the table is a training of its own: the loss at its end, or the step at
which the loss was no finite number any more. The larger the initial weights, the
smaller the learning rate has to be. Before that, the mean of the squared errors takes
the place of their sum, which changes the learning rate and nothing else.
"""

import argparse
import json
import os
from functools import partial
from math import isfinite, nan
from pathlib import Path

import numpy as np
import torch
from torch.nn import init

devices = [d for d in ("cpu", "cuda", "mps", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--steps", type=int, default=200, help="default: %(default)s")
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
parser.add_argument("--plot", metavar="FILE.png", type=Path, help="draw the table")
args = parser.parse_args()
if args.steps < 1:
    parser.error("argument --steps: must be 1 or more")
if args.plot:
    writable = os.access(f"{args.plot.parent}/", os.W_OK)
    if args.plot.suffix != ".png" or args.plot.is_dir() or not writable:
        parser.error("argument --plot: must be a .png in a folder that takes files")

# Inputs and targets come from a standard normal distribution.
N, D_in, H, D_out = 64, 1000, 100, 10  # batch, input, hidden and output size
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
y = torch.tensor(randn((N, D_out), np.float32), device=args.device)


def uniform(w):
    """Fill a weight (outputs, inputs) as nn.Linear does: up to 1 / sqrt(inputs)."""
    bound = w.shape[1] ** -0.5
    return init.uniform_(w, -bound, bound)


# Kaiming: He et al., 2015, with the ReLU in mind. Xavier: Glorot and Bengio, 2010.
weights = {
    "normal": init.normal_,
    "nn.Linear": uniform,
    "Kaiming": partial(init.kaiming_normal_, nonlinearity="relu"),
    "Xavier": init.xavier_normal_,
    "zeros": init.zeros_,
}
learning_rates = [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2]


def train(fill, learning_rate, reduction="sum"):
    """Yield the loss of each step; the last is not finite if the training diverges."""
    torch.manual_seed(0)
    w1 = fill(torch.empty(H, D_in)).to(args.device).requires_grad_()
    w2 = fill(torch.empty(D_out, H)).to(args.device).requires_grad_()
    for _ in range(args.steps):
        # Forward pass: the weights are (outputs, inputs), as in nn.Linear.
        y_pred = (x @ w1.T).relu() @ w2.T  # (N, D_out)
        loss = torch.nn.functional.mse_loss(y_pred, y, reduction=reduction)
        yield loss.item()
        if not loss.isfinite():
            return

        # Backward pass and gradient descent.
        w1.grad = w2.grad = None
        loss.backward()
        with torch.no_grad():
            w1.sub_(w1.grad, alpha=learning_rate)
            w2.sub_(w2.grad, alpha=learning_rate)


# The mean is the sum divided by N * D_out = 640, and so is its gradient: with a rate
# that is 640 times larger, the steps are the same.
sums = train(uniform, 1e-4)
means = train(uniform, 640 * 1e-4, reduction="mean")
for t, (loss, mean) in enumerate(zip(sums, means, strict=True), 1):
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss:.4e}  640 times the mean {640 * mean:.4e}")

print(f"after {args.steps} steps: the loss, or the step at which it was not finite")
print("          " + "".join(f"{rate:9.0e}" for rate in learning_rates))
losses, table = {}, {}
for name, fill in weights.items():
    runs = [list(train(fill, rate)) for rate in learning_rates]
    losses[name] = [run[-1] if isfinite(run[-1]) else nan for run in runs]
    table[name] = [f"{loss:.1e}" if loss > 1e-6 else "<1e-6" for loss in losses[name]]
    for j, run in enumerate(runs):
        if not isfinite(run[-1]):
            table[name][j] = f"step {len(run)}"
    print(f"{name:10}" + "".join(f"{cell:>9}" for cell in table[name]))

if args.plot:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.4), layout="constrained")
    axes = figure.add_subplot(xlabel="learning rate")
    # A loss is a colour; nan, where the training diverged, is none.
    cells = list(losses.values())
    image = axes.imshow(cells, "summer", norm="log", vmin=1e-6, vmax=1e6, aspect="auto")
    axes.set_xticks(range(len(learning_rates)), [f"{r:.0e}" for r in learning_rates])
    axes.set_yticks(range(len(table)), table)
    for i, row in enumerate(table.values()):
        for j, cell in enumerate(row):
            axes.text(j, i, cell, ha="center", va="center")
    figure.colorbar(image, label=f"loss after {args.steps} steps")
    # The table goes into the file as text, too, for programs to read.
    try:
        figure.savefig(args.plot, metadata={"Description": json.dumps(table)})
    except OSError as error:
        parser.error(f"cannot write {args.plot}: {error}")
