"""Fit a two-layer ReLU network put together from layers.

A layer of torch.nn keeps its own weights, and Sequential passes its input through one
layer after the other. Started from the same weights, it prints the same losses.
"""

import argparse

import numpy as np
import torch
from torch import nn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
args = parser.parse_args()

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10

# Inputs, targets and initial weights are random: standard normal, with seed 0.
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
y = torch.tensor(randn((N, D_out), np.float32), device=args.device)
w1 = torch.tensor(randn((D_in, H), np.float32), device=args.device)
w2 = torch.tensor(randn((H, D_out), np.float32), device=args.device)

# Linear multiplies by the transpose of its weight: model[0].weight is (H, D_in).
model = nn.Sequential(
    nn.Linear(D_in, H, bias=False),
    nn.ReLU(),
    nn.Linear(H, D_out, bias=False),
).to(args.device)
with torch.no_grad():
    model[0].weight.copy_(w1.T)
    model[2].weight.copy_(w2.T)

learning_rate = 1e-6
for t in range(1, args.steps + 1):
    # Forward pass: predict y from x.
    y_pred = model(x)  # (N, D_out)

    # The loss is the sum of the squared errors.
    loss = (y_pred - y).square().sum()
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
