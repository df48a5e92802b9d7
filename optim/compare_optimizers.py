"""Compare twelve optimizers, each at the learning rate that suits it best.

All train the same network from the same weights. For each, the script tries eight
learning rates and keeps the one that brings the loss below the target in the fewest
steps. A dash and inf: none does in 100. --plot draws the losses of six of them.
"""

import argparse
import math
from functools import partial

import numpy as np
import torch
from torch import nn, optim

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 100, 50, 10

STEPS = 100
LEARNING_RATES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3]
OPTIMIZERS = {
    "SGD": optim.SGD,
    "momentum": partial(optim.SGD, momentum=0.9),
    "Nesterov": partial(optim.SGD, momentum=0.9, nesterov=True),
    "Rprop": optim.Rprop,
    "Adagrad": optim.Adagrad,
    "RMSprop": optim.RMSprop,
    "Adadelta": optim.Adadelta,
    "Adam": optim.Adam,
    "AdamW": optim.AdamW,
    "Adafactor": optim.Adafactor,
    "L-BFGS": partial(optim.LBFGS, max_iter=1),
    "Muon": partial(optim.Muon, weight_decay=0, adjust_lr_fn="match_rms_adamw"),
}
DRAWN = ["SGD", "Nesterov", "RMSprop", "Adam", "L-BFGS", "Muon"]


def train(make_optimizer, learning_rate, steps=STEPS, device="cpu"):
    """Return the losses of all steps, each computed before the step is taken."""
    # Inputs and targets are random: standard normal, with seed 0.
    randn = np.random.default_rng(0).standard_normal
    x = torch.tensor(randn((N, D_in), np.float32), device=device)
    y = torch.tensor(randn((N, D_out), np.float32), device=device)

    # All parameters are matrices, the only kind that Muon takes.
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(D_in, H, bias=False),
        nn.ReLU(),
        nn.Linear(H, D_out, bias=False),
    ).to(device)
    loss_fn = nn.MSELoss()
    optimizer = make_optimizer(model.parameters(), lr=learning_rate)

    def closure():
        """Compute the loss and its gradients. L-BFGS needs to do this itself."""
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        return loss

    losses = []
    for _ in range(steps):
        loss = optimizer.step(closure)
        losses.append(loss.item())
    return losses


def steps_to(target, losses):
    """Return the number of the first step whose loss is below the target, or inf."""
    for t, loss in enumerate(losses, start=1):
        if loss < target:
            return t
    return math.inf


def draw(best_losses):
    """Return a figure of some of the losses, {name: losses of all steps}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), dpi=240, layout="constrained")
    axes = figure.add_subplot(yscale="log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_ylim(1e-6, 2)
    for name, losses in best_losses.items():
        if name in DRAWN:
            axes.plot(range(1, len(losses) + 1), losses, label=name)
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=float, default=0.01, help="the loss to reach")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the losses")
    args = parser.parse_args()

    print(f"optimizer  best lr  steps to a loss of {args.target:g}")
    best_losses = {}
    for name, make_optimizer in OPTIMIZERS.items():
        best_rate = None
        fewest = math.inf
        for learning_rate in LEARNING_RATES:
            losses = train(make_optimizer, learning_rate, device=args.device)
            steps = steps_to(args.target, losses)
            if steps < fewest:
                best_rate = learning_rate
                fewest = steps
                best_losses[name] = losses
        print(f"{name:9}  {best_rate or '-':>7}  {fewest:5}")

    if args.plot:
        try:
            draw(best_losses).savefig(args.plot)
        except (OSError, ValueError) as error:  # no such folder, no such format
            parser.error(f"cannot write {args.plot}: {error}")


if __name__ == "__main__":
    main()
