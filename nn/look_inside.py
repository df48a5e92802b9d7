"""Measure every layer in the forward and in the backward pass, with hooks.

A forward hook sees the output of a layer; a hook on that output sees its gradient when
the backward pass arrives there. Both families of the ladder are trained this way: the
losses are those without hooks. --plot draws what was measured in all steps.
"""

import argparse
from collections import OrderedDict
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import nn

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10

STEPS = 500
STEPS_SHOWN = [1, 200]


@contextmanager
def looking_inside(model):
    """Measure each layer of a model in every pass, until the with block ends.

    Yields {layer: {quantity: list}}; the lists grow by one element in each pass.
    """
    measured = {name: {} for name, _ in model.named_children()}

    def keep(name, quantity, value):
        measured[name].setdefault(quantity, []).append(value)

    def look_forward(name, layer, inputs, output):
        """A forward hook. What it returns, if not None, would replace the output."""
        activations = output.detach()
        keep(name, "mean square", activations.square().mean())
        if isinstance(layer, nn.ReLU):
            dead = (activations == 0).all(dim=0)  # (H,)
            keep(name, "dead units", dead.sum())

        # Under no_grad(), as in an evaluation, there is no backward pass.
        if output.requires_grad:
            output.register_hook(partial(look_back, name))

    def look_back(name, gradient):
        """A hook of a tensor, called with the gradient with respect to it."""
        keep(name, "gradient norm", gradient.norm())

    handles = []
    for name, layer in model.named_children():
        handle = layer.register_forward_hook(partial(look_forward, name))
        handles.append(handle)
    try:
        yield measured
    finally:
        # Also after an error: a hook that stays on is called in every later pass.
        for handle in handles:
            handle.remove()


def make_problems(device):
    """Return x and y, and {family: (its model, its learning rate)}."""
    # Inputs, targets and the weights of family A: standard normal, with seed 0.
    randn = np.random.default_rng(0).standard_normal
    x = torch.tensor(randn((N, D_in), np.float32), device=device)
    y = torch.tensor(randn((N, D_out), np.float32), device=device)
    w1 = torch.tensor(randn((D_in, H), np.float32), device=device)
    w2 = torch.tensor(randn((H, D_out), np.float32), device=device)

    family_a = make_model(bias=False).to(device)
    with torch.no_grad():
        family_a.linear1.weight.copy_(w1.T)
        family_a.linear2.weight.copy_(w2.T)

    # In family B, the layers draw their own initial weights.
    torch.manual_seed(0)
    family_b = make_model(bias=True).to(device)
    return x, y, {"family A": (family_a, 1e-6), "family B": (family_b, 1e-4)}


def make_model(bias):
    """Return the two-layer network, with names for its layers."""
    return nn.Sequential(
        OrderedDict(
            linear1=nn.Linear(D_in, H, bias=bias),
            relu=nn.ReLU(),
            linear2=nn.Linear(H, D_out, bias=bias),
        )
    )


def train(model, x, y, learning_rate, steps=STEPS):
    """Train as on the rest of the ladder, and return the loss of each step.

    This function knows nothing of hooks.
    """
    losses = []
    for _ in range(steps):
        loss = (model(x) - y).square().sum()
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for param in model.parameters():
                param -= learning_rate * param.grad
    return losses


def print_step(t, losses, measured):
    """Print the loss and the table of layers for step t, counted from 1."""
    print(f"step {t:4d}  loss {losses[t - 1]:.4e}")
    for name, quantities in measured.items():
        mean_square = quantities["mean square"][t - 1]
        gradient_norm = quantities["gradient norm"][t - 1]
        line = f"  {name:9}{mean_square:11.2e}{gradient_norm:15.2e}"
        if "dead units" in quantities:
            line += f"{quantities['dead units'][t - 1]:12d}"
        print(line)


def draw(found):
    """Return a figure of {family: {layer: {quantity: a value for each step}}}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), dpi=200, layout="constrained")
    panels = figure.subplots(2, len(found), sharex=True, squeeze=False)
    for column, (family, measured) in enumerate(found.items()):
        for row, quantity in enumerate(["mean square", "gradient norm"]):
            axes = panels[row, column]
            axes.set_yscale("log")
            axes.set_title(f"{family}: {quantity}", fontsize="medium")
            for name, quantities in measured.items():
                values = [float(value) for value in quantities[quantity]]
                axes.plot(range(1, len(values) + 1), values, label=name)
        panels[-1, column].set_xlabel("step")
    panels[0, -1].legend()
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    parser.add_argument("--plot", metavar="FILE.png", help="draw all steps")
    args = parser.parse_args()

    x, y, problems = make_problems(args.device)
    found = {}
    for family, (model, learning_rate) in problems.items():
        with looking_inside(model) as measured:
            losses = train(model, x, y, learning_rate)
        found[family] = measured

        print(f"{family:11}mean square  gradient norm  dead units")
        for t in STEPS_SHOWN:
            print_step(t, losses, measured)

    if args.plot:
        try:
            draw(found).savefig(args.plot)
        except (OSError, ValueError) as error:  # no such folder, no such format
            parser.error(f"cannot write {args.plot}: {error}")


if __name__ == "__main__":
    main()
