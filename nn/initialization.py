"""Train the two-layer network from five kinds of initial weights.

The larger the initial weights are, the more steeply the gradients change, and the
smaller the learning rate must be. Each cell of the table is one training: its loss in
the last step, or "diverged" if that is no finite number. --plot draws the table.
"""

import argparse
import math
from functools import partial

import numpy as np
import torch
from torch import nn

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10

STEPS = 200
LEARNING_RATES = [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2]


def uniform_(weight):
    """Fill a weight (outputs, inputs) as nn.Linear does by default."""
    inputs = weight.shape[1]
    bound = 1 / math.sqrt(inputs)
    nn.init.uniform_(weight, -bound, bound)


# Each fills a weight of shape (outputs, inputs) in place.
# Kaiming: He et al., 2015. Xavier: Glorot and Bengio, 2010.
INITIALIZATIONS = {
    "normal": nn.init.normal_,
    "nn.Linear": uniform_,
    "Kaiming": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "Xavier": nn.init.xavier_normal_,
    "zeros": nn.init.zeros_,
}


def train(initialize_, learning_rate, steps=STEPS, device="cpu"):
    """Return the loss in the last step: inf or nan if the training has diverged."""
    # Inputs and targets are random: standard normal, with seed 0.
    randn = np.random.default_rng(0).standard_normal
    x = torch.tensor(randn((N, D_in), np.float32), device=device)
    y = torch.tensor(randn((N, D_out), np.float32), device=device)

    model = nn.Sequential(
        nn.Linear(D_in, H, bias=False),
        nn.ReLU(),
        nn.Linear(H, D_out, bias=False),
    )
    torch.manual_seed(0)
    initialize_(model[0].weight)
    initialize_(model[2].weight)
    model.to(device)

    for _ in range(steps):
        loss = (model(x) - y).square().sum()
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for param in model.parameters():
                param -= learning_rate * param.grad
    return loss.item()


def as_text(loss):
    """Return what a cell of the table says."""
    if not math.isfinite(loss):
        return "diverged"
    if loss < 1e-6:
        return "<1e-6"  # the rest is rounding
    return f"{loss:.1e}"


def draw(table):
    """Return a figure of the table, {name: a loss for each learning rate}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), dpi=240, layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel(f"loss after {STEPS} steps")
    for (name, losses), marker in zip(table.items(), "osD^v", strict=True):
        # A line ends where the training diverges: what is no number is not drawn.
        shown = np.where(np.isfinite(losses), np.maximum(losses, 1e-6), np.nan)
        axes.plot(LEARNING_RATES, shown, marker=marker, label=name)
    axes.legend()
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the table")
    args = parser.parse_args()

    print(f"loss after {STEPS} steps, for each learning rate")
    print(" " * 9 + "".join(f"{rate:>9.0e}" for rate in LEARNING_RATES))
    table = {}
    for name, initialize_ in INITIALIZATIONS.items():
        table[name] = [
            train(initialize_, learning_rate, device=args.device)
            for learning_rate in LEARNING_RATES
        ]
        print(f"{name:9}" + "".join(f"{as_text(loss):>9}" for loss in table[name]))

    if args.plot:
        try:
            draw(table).savefig(args.plot)
        except (OSError, ValueError) as error:  # no such folder, no such format
            parser.error(f"cannot write {args.plot}: {error}")


if __name__ == "__main__":
    main()
