"""Fit a two-layer ReLU network with a training step that PyTorch has compiled.

At the first call, torch.compile makes one graph of the whole step, and C++ code of the
graph. The losses stay the same. Look at the seconds: a network as small as this one
does not win the time of the compilation back.
"""

import argparse
import time
import warnings

import numpy as np
import torch

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
args = parser.parse_args()

# Before PyTorch 2.15, the compiler uses a part of PyTorch that PyTorch deprecates.
warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)

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


@torch.compile
def train_step(x, y, w1, w2):
    """Take one step of gradient descent; return the loss before it, of shape ()."""
    # Forward pass: predict y from x.
    h = x @ w1  # (N, H)
    h_relu = h.relu()
    y_pred = h_relu @ w2  # (N, D_out)

    # The loss is the sum of the squared errors.
    loss = (y_pred - y).square().sum()

    # Backward pass: the chain rule, from the loss back to the weights.
    grad_y_pred = 2 * (y_pred - y)  # (N, D_out)
    grad_w2 = h_relu.T @ grad_y_pred  # (H, D_out)
    grad_h_relu = grad_y_pred @ w2.T  # (N, H)
    grad_h = grad_h_relu * (h > 0)
    grad_w1 = x.T @ grad_h  # (D_in, H)

    # Gradient descent: take a small step in the direction opposite to the gradient.
    w1 -= learning_rate * grad_w1
    w2 -= learning_rate * grad_w2
    return loss


# The first call compiles. It gets copies of the weights, which it would change.
start = time.perf_counter()
try:
    train_step(x, y, w1.clone(), w2.clone())
except RuntimeError as error:
    reason = str(error).partition("\n")[0]
    parser.error(f"cannot compile, are g++ and Python.h (python3-dev) there? {reason}")
print(f"compilation  seconds {time.perf_counter() - start:.2f}")

start = time.perf_counter()
for t in range(1, args.steps + 1):
    loss = train_step(x, y, w1, w2)
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}")
print(f"training  seconds {time.perf_counter() - start:.2f}")
