"""Let the optimizers of torch.optim race, on one network and from one start.

Each takes the learning rate that leads to a loss of 0.01 soonest: the script looks for
it. The table says in how many steps, how many numbers the optimizer keeps in memory for
each parameter, and how long its fastest step takes as a multiple of SGD's. In the end,
a line for every 50 steps says whose loss is the smallest.
"""

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn, optim

devices = [d for d in ("cpu", "cuda", "mps", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--steps", type=int, default=100, help="default: %(default)s")
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
parser.add_argument("--plot", metavar="FILE.png", type=Path, help="draw the race")
args = parser.parse_args()
if args.steps < 1:
    parser.error("argument --steps: must be 1 or more")
if args.plot:
    writable = os.access(f"{args.plot.parent}/", os.W_OK)
    if args.plot.suffix != ".png" or args.plot.is_dir() or not writable:
        parser.error("argument --plot: must be a .png in a folder that takes files")

# Inputs and targets come from a standard normal distribution.
N, D_in, H, D_out = 64, 100, 50, 10  # batch, input, hidden and output size
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
y = torch.tensor(randn((N, D_out), np.float32), device=args.device)


def muon(params, lr):
    """Return Muon for the matrices, which are all that it takes; Adam for the rest."""
    matrices, rest = [[w for w in params if (w.ndim == 2) is i] for i in (True, False)]
    muon = optim.Muon(matrices, lr, weight_decay=0, adjust_lr_fn="match_rms_adamw")
    return muon, optim.Adam(rest, lr)


names = ["Rprop", "Adagrad", "Adadelta", "RMSprop", "Adam", "AdamW", "Adafactor"]
makers = {
    "SGD": optim.SGD,
    "momentum": partial(optim.SGD, momentum=0.9),
    "Nesterov": partial(optim.SGD, momentum=0.9, nesterov=True),
    **{name: getattr(optim, name) for name in names},
    "LBFGS": partial(optim.LBFGS, max_iter=1, history_size=10),
    "Muon": muon,
}


def train(make, learning_rate, steps, target=None):
    """Return the losses and seconds of the steps, and the numbers kept per parameter.

    The training ends early when the loss is down to the target, or not finite.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D_in, H), nn.ReLU(), nn.Linear(H, D_out))
    params = list(model.to(args.device).parameters())
    made = make(params, lr=learning_rate)  # one optimizer, or two
    first, *others = made if isinstance(made, tuple) else [made]

    def closure():
        """Return the loss and compute its gradients; LBFGS may ask for that itself."""
        model.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    losses, seconds = [], []
    for _ in range(steps):
        start = time.perf_counter()
        losses.append(first.step(closure).item())  # the loss before the step
        for other in others:
            other.step()
        seconds.append(time.perf_counter() - start)
        if target and not target < losses[-1] < np.inf:
            break
    states = [state for o in (first, *others) for state in o.state.values()]
    kept = [k if isinstance(k, list) else [k] for s in states for k in s.values()]
    size = sum(k.numel() for part in kept for k in part if torch.is_tensor(k))
    return losses, seconds, size / sum(w.numel() for w in params)


race, unit = {}, None  # all losses of each; the seconds of a step of SGD
for name, make in makers.items():
    # A run for the best learning rate ends where it cannot be the best any more.
    best, fewest = None, 60
    for k in range(-6, 2):  # from 0.001 to 3.2
        losses, _, _ = train(make, 10 ** (k / 2), fewest - 1, target=0.01)
        if losses[-1] <= 0.01:
            best, fewest = 10 ** (k / 2), len(losses)
    race[name], seconds, memory = train(make, best, args.steps)
    unit = unit or min(seconds)
    cost = f"memory {memory:5.2f}  relative time {min(seconds) / unit:.1f}"
    print(f"{name:9} lr {best:.1e}  there in {fewest:<3} {cost}")

steps = range(1, args.steps + 1)
for t in steps:
    if t == 1 or t % 50 == 0:
        leader = min(race, key=lambda name: race[name][t - 1])
        print(f"step {t:4d}  loss {race[leader][t - 1]:.4e}  {leader}")

if args.plot:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=80, layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss", yscale="log")
    axes.set_ylim(1e-6, 2)
    axes.axhline(0.01, color="lightgrey")  # where the search has its goal
    for i, (name, losses) in enumerate(race.items()):
        axes.plot(steps, losses, ["-", "--", ":"][i // 5], label=name)
    figure.legend(loc="outside right upper")
    shown = {name: losses[9::10] for name, losses in race.items()}
    try:
        figure.savefig(args.plot, metadata={"Description": json.dumps(shown)})
    except OSError as error:
        parser.error(f"cannot write {args.plot}: {error}")
