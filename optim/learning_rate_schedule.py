"""Train with a learning rate that changes: a linear warmup, then a cosine decay.

The rate grows for 50 steps, then falls to 0 at step 500. With --constant it stays as
high as it is at its peak, and the loss never settles.
"""

import argparse
import math

import numpy as np
import torch
from torch import nn


class TwoLayerNet(nn.Module):
    """One hidden layer of H ReLU units; maps (N, D_in) to (N, D_out)."""

    def __init__(self, D_in, H, D_out):
        super().__init__()
        self.linear1 = nn.Linear(D_in, H)
        self.linear2 = nn.Linear(H, D_out)

    def forward(self, x):
        h_relu = self.linear1(x).relu()  # (N, H)
        return self.linear2(h_relu)  # (N, D_out)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
parser.add_argument("--constant", action="store_true", help="keep the rate at its peak")
args = parser.parse_args()

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10

# Inputs and targets are random: standard normal, with seed 0.
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
y = torch.tensor(randn((N, D_out), np.float32), device=args.device)

# The layers draw their own initial weights.
torch.manual_seed(0)
model = TwoLayerNet(D_in, H, D_out).to(args.device)
loss_fn = nn.MSELoss(reduction="sum")
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)


def warmup_then_cosine(t):
    """Return the factor by which the learning rate is multiplied after t steps."""
    if t < 50:
        return (t + 1) / 50
    progress = min(1, (t - 50) / 450)  # from 0 to 1
    return (1 + math.cos(math.pi * progress)) / 2


def constant(t):
    """Return 1: the learning rate stays as it is."""
    return 1


factor = constant if args.constant else warmup_then_cosine
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

for t in range(1, args.steps + 1):
    # Forward pass: predict y from x.
    y_pred = model(x)  # (N, D_out)

    # The loss is the sum of the squared errors.
    loss = loss_fn(y_pred, y)
    if t == 1 or t % 50 == 0:
        (lr,) = scheduler.get_last_lr()  # one for each parameter group
        print(f"step {t:4d}  loss {loss.item():.4e}  lr {lr:.1e}")

    # Backward pass: compute the gradients of the loss with respect to all parameters.
    # backward() adds to w.grad, so the gradients of the last step are cleared first.
    optimizer.zero_grad()
    loss.backward()

    # The optimizer updates the parameters.
    optimizer.step()

    # The scheduler sets the learning rate of the next step.
    scheduler.step()
