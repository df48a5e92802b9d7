"""Fit a two-layer ReLU network with tensors, on a CPU or a GPU.

A tensor is an array that lives on a device. The mathematics is that of the NumPy
script, and so are the losses; with --device cuda all of it happens on the GPU.
"""

import argparse

import numpy as np
import torch

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

learning_rate = 1e-6
for t in range(1, args.steps + 1):
    # Forward pass: predict y from x.
    h = x @ w1  # (N, H)
    h_relu = h.relu()
    y_pred = h_relu @ w2  # (N, D_out)

    # The loss is the sum of the squared errors.
    loss = (y_pred - y).square().sum()
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}")

    # Backward pass: the chain rule, from the loss back to the weights.
    grad_y_pred = 2 * (y_pred - y)  # (N, D_out)
    grad_w2 = h_relu.T @ grad_y_pred  # (H, D_out)
    grad_h_relu = grad_y_pred @ w2.T  # (N, H)
    grad_h = grad_h_relu * (h > 0)
    grad_w1 = x.T @ grad_h  # (D_in, H)

    # Gradient descent: take a small step in the direction opposite to the gradient.
    w1 -= learning_rate * grad_w1
    w2 -= learning_rate * grad_w2
