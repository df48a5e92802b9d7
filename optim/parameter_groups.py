"""Train the parts of a network by different optimizers, rates and weight decays.

SGD with momentum trains the first layer, AdamW the second. Each has two parameter
groups: the weight, which decays, and the bias, which does not and has half the rate.
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

# A group may have its own options; the options after the list are for all groups.
sgd = torch.optim.SGD(
    [
        {"params": [model.linear1.weight], "weight_decay": 1e-2},
        {"params": [model.linear1.bias], "lr": 1e-4},
    ],
    lr=2e-4,
    momentum=0.9,
)
adamw = torch.optim.AdamW(
    [
        {"params": [model.linear2.weight], "weight_decay": 1e-1},
        {"params": [model.linear2.bias], "weight_decay": 0, "lr": 1e-3},
    ],
    lr=2e-3,
)

for t in range(1, args.steps + 1):
    # Forward pass: predict y from x.
    y_pred = model(x)  # (N, D_out)

    # The loss is the sum of the squared errors.
    loss = loss_fn(y_pred, y)
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}")

    # Backward pass: compute the gradients of the loss with respect to all parameters.
    # backward() adds to w.grad, so the gradients of the last step are cleared first.
    # An optimizer clears only the gradients of its own parameters, the model all.
    model.zero_grad()
    loss.backward()

    # Each optimizer updates its own parameters.
    sgd.step()
    adamw.step()
