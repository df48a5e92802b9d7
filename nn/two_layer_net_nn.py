"""Fit a two-layer ReLU network written as a Module of your own.

A Module makes its layers in __init__ and uses them in forward. From here on Linear
draws the initial weights: smaller ones, which take a learning rate 100 times larger.
"""

import argparse

import numpy as np
import torch


class TwoLayerNet(torch.nn.Module):
    """One hidden layer of H ReLU units; maps (N, D_in) to (N, D_out)."""

    def __init__(self, D_in, H, D_out):
        super().__init__()
        self.linear1 = torch.nn.Linear(D_in, H)
        self.linear2 = torch.nn.Linear(H, D_out)

    def forward(self, x):
        h_relu = self.linear1(x).relu()  # (N, H)
        return self.linear2(h_relu)  # (N, D_out)


devices = [d for d in ("cpu", "cuda", "mps", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--steps", type=int, default=500, help="default: %(default)s")
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
args = parser.parse_args()
if args.steps < 1:
    parser.error("argument --steps: must be 1 or more")

# Inputs and targets come from a standard normal distribution, weights from Linear.
N, D_in, H, D_out = 64, 1000, 100, 10  # batch, input, hidden and output size
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
y = torch.tensor(randn((N, D_out), np.float32), device=args.device)
torch.manual_seed(0)
model = TwoLayerNet(D_in, H, D_out).to(args.device)
loss_fn = torch.nn.MSELoss(reduction="sum")

learning_rate = 1e-4
for t in range(1, args.steps + 1):
    # Forward pass: predict y from x. The loss is the sum of the squared errors.
    y_pred = model(x)  # (N, D_out)
    loss = loss_fn(y_pred, y)  # ()
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}")

    # Backward pass: autograd adds the gradients to w.grad, so the old ones go first.
    model.zero_grad()
    loss.backward()

    # Gradient descent: w becomes w - learning_rate * w.grad, in place and unrecorded.
    with torch.no_grad():
        for w in model.parameters():
            w.sub_(w.grad, alpha=learning_rate)
