"""Fit a ReLU network whose depth is drawn anew in every forward pass.

The graph is recorded while Python runs, so a plain loop decides how many hidden layers
there are, one to four; all but the first share one weight. The loss falls all the same.
"""

import argparse
import random

import numpy as np
import torch
from torch import nn


class DynamicNet(nn.Module):
    """1 + k hidden layers, k drawn from 0 to 3; maps (N, D_in) to (N, D_out)."""

    def __init__(self, D_in, H, D_out):
        super().__init__()
        self.input_linear = nn.Linear(D_in, H)
        self.middle_linear = nn.Linear(H, H)
        self.output_linear = nn.Linear(H, D_out)

    def forward(self, x):
        h_relu = self.input_linear(x).relu()  # (N, H)
        for _ in range(random.randint(0, 3)):
            h_relu = self.middle_linear(h_relu).relu()  # (N, H)
        return self.output_linear(h_relu)  # (N, D_out)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
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
random.seed(0)
model = DynamicNet(D_in, H, D_out).to(args.device)
loss_fn = nn.MSELoss(reduction="sum")
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

for t in range(1, args.steps + 1):
    # Forward pass: predict y from x.
    y_pred = model(x)  # (N, D_out)

    # The loss is the sum of the squared errors.
    loss = loss_fn(y_pred, y)
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}")

    # Backward pass: compute the gradients of the loss with respect to all parameters.
    # backward() adds to w.grad, so the gradients of the last step are cleared first.
    optimizer.zero_grad()
    loss.backward()

    # The optimizer updates the parameters.
    optimizer.step()
