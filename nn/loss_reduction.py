"""Train on the sum and on the mean of the squared errors, with the same result.

The mean is the sum divided by N * D_out = 640, and so is its gradient. With a learning
rate 640 times as large, each step is the same: a learning rate means nothing until you
know what the loss is divided by.
"""

import argparse
import copy

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

# Inputs and targets are random: standard normal, with seed 0.
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
y = torch.tensor(randn((N, D_out), np.float32), device=args.device)

# Two models with the same initial weights.
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(D_in, H), nn.ReLU(), nn.Linear(H, D_out))
model = model.to(args.device)
model_of_mean = copy.deepcopy(model)

loss_fn = nn.MSELoss(reduction="sum")
mean_fn = nn.MSELoss()  # the default is reduction="mean"

learning_rate = 1e-4
for t in range(1, args.steps + 1):
    # Forward pass and loss, for each model.
    loss = loss_fn(model(x), y)
    mean = mean_fn(model_of_mean(x), y)
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}  mean {mean.item():.4e}")

    # Backward pass.
    model.zero_grad()
    model_of_mean.zero_grad()
    loss.backward()
    mean.backward()

    # Gradient descent. The gradients of the mean are 640 times smaller.
    with torch.no_grad():
        for param in model.parameters():
            param -= learning_rate * param.grad
        for param in model_of_mean.parameters():
            param -= learning_rate * (N * D_out) * param.grad
