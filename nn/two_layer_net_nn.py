"""Fit a two-layer ReLU network written as a custom Module.

A Module makes its layers in __init__ and uses them in forward. From here on Linear
draws the initial weights: smaller ones, which take a learning rate 100 times larger.
"""

import argparse

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

learning_rate = 1e-4
for t in range(1, args.steps + 1):
    # Forward pass: predict y from x.
    y_pred = model(x)  # (N, D_out)

    # The loss is the sum of the squared errors.
    loss = loss_fn(y_pred, y)
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}")

    # Backward pass: compute the gradients of the loss with respect to all parameters.
    # backward() adds to w.grad, so the gradients of the last step are cleared first.
    model.zero_grad()
    loss.backward()

    # Gradient descent. Autograd must not record the update, hence no_grad.
    with torch.no_grad():
        for param in model.parameters():
            param -= learning_rate * param.grad
