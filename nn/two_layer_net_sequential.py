"""Fit a two-layer ReLU network put together from layers.

A layer of torch.nn keeps its own weights, and Sequential passes its input through one
layer after the other. Started from the same weights, it prints the same losses.
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
w1 = torch.tensor(randn((D_in, H), np.float32), device=args.device)
w2 = torch.tensor(randn((H, D_out), np.float32), device=args.device)

# Linear multiplies by the transpose of its weight: model[0].weight is (H, D_in).
model = torch.nn.Sequential(
    torch.nn.Linear(D_in, H, bias=False),
    torch.nn.ReLU(),
    torch.nn.Linear(H, D_out, bias=False),
).to(args.device)
with torch.no_grad():
    model[0].weight.copy_(w1.T)
    model[2].weight.copy_(w2.T)

learning_rate = 1e-6
for t in range(1, args.steps + 1):
    # Forward pass: predict y from x. The loss is the sum of the squared errors.
    y_pred = model(x)  # (N, D_out)
    loss = (y_pred - y).square().sum()  # ()
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}")

    # Backward pass: autograd adds the gradients to w.grad, so the old ones go first.
    model.zero_grad()
    loss.backward()

    # Gradient descent: w becomes w - learning_rate * w.grad, in place and unrecorded.
    with torch.no_grad():
        for w in model.parameters():
            w.sub_(w.grad, alpha=learning_rate)
