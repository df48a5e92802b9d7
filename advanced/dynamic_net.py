"""Fit a ReLU network whose depth is drawn anew in every forward pass.

The graph is recorded while Python runs, so a plain loop decides how many hidden layers
there are, one to four; all but the first share one weight. The loss falls all the same.
"""

import argparse
import random

import numpy as np
import torch


class DynamicNet(torch.nn.Module):
    """1 + k hidden layers, k drawn from 0 to 3; maps (N, D_in) to (N, D_out)."""

    def __init__(self, D_in, H, D_out):
        super().__init__()
        self.input_linear = torch.nn.Linear(D_in, H)
        self.middle_linear = torch.nn.Linear(H, H)
        self.output_linear = torch.nn.Linear(H, D_out)

    def forward(self, x):
        h_relu = self.input_linear(x).relu()  # (N, H)
        for _ in range(random.randint(0, 3)):
            h_relu = self.middle_linear(h_relu).relu()  # (N, H)
        return self.output_linear(h_relu)  # (N, D_out)


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
random.seed(0)
model = DynamicNet(D_in, H, D_out).to(args.device)
loss_fn = torch.nn.MSELoss(reduction="sum")
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

for t in range(1, args.steps + 1):
    # Forward pass: predict y from x. The loss is the sum of the squared errors.
    y_pred = model(x)  # (N, D_out)
    loss = loss_fn(y_pred, y)  # ()
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}")

    # Backward pass: the old gradients go first. Then the optimizer uses the new ones.
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
