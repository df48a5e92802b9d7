"""Fit a two-layer ReLU network, leaving the backward pass to autograd.

Autograd records what the forward pass does to w1 and w2; backward() goes through that
record by the chain rule. The losses are, bit for bit, those of the pass by hand.
"""

import argparse

import numpy as np
import torch

devices = [d for d in ("cpu", "cuda", "mps", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--steps", type=int, default=500, help="default: %(default)s")
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
args = parser.parse_args()
if args.steps < 1:
    parser.error("argument --steps: must be 1 or more")

# Inputs, targets and initial weights come from a seeded standard normal distribution.
N, D_in, H, D_out = 64, 1000, 100, 10  # batch, input, hidden and output size
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
y = torch.tensor(randn((N, D_out), np.float32), device=args.device)
w1 = torch.tensor(randn((D_in, H), np.float32), device=args.device, requires_grad=True)
w2 = torch.tensor(randn((H, D_out), np.float32), device=args.device, requires_grad=True)

learning_rate = 1e-6
for t in range(1, args.steps + 1):
    # Forward pass: predict y from x. The loss is the sum of the squared errors.
    y_pred = (x @ w1).relu() @ w2  # (N, D_out)
    loss = (y_pred - y).square().sum()  # ()
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}")

    # Backward pass: autograd adds the gradients to w.grad, so the old ones go first.
    w1.grad = w2.grad = None
    loss.backward()

    # Gradient descent: w becomes w - learning_rate * w.grad, in place and unrecorded.
    with torch.no_grad():
        w1.sub_(w1.grad, alpha=learning_rate)
        w2.sub_(w2.grad, alpha=learning_rate)
