"""Fit a two-layer ReLU network with a training step that PyTorch has compiled.

torch.compile makes a graph of the whole step and C++ of the graph, in the first call.
The losses stay the same; a network as small as this one does not win that time back.
"""

import argparse
import os
import shutil
import time
import warnings

import numpy as np
import torch

devices = [d for d in ("cpu", "cuda", "mps", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--steps", type=int, default=500, help="default: %(default)s")
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
args = parser.parse_args()
if args.steps < 1:
    parser.error("argument --steps: must be 1 or more")
if args.device == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
    parser.error("a C++ compiler is missing: install g++, or name another one in CXX")
# The compiler of PyTorch 2.13 imports a part of PyTorch that PyTorch calls deprecated.
warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)

# Inputs, targets and initial weights come from a seeded standard normal distribution.
N, D_in, H, D_out = 64, 1000, 100, 10  # batch, input, hidden and output size
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
y = torch.tensor(randn((N, D_out), np.float32), device=args.device)
w1 = torch.tensor(randn((D_in, H), np.float32), device=args.device)
w2 = torch.tensor(randn((H, D_out), np.float32), device=args.device)
learning_rate = 1e-6
start, seconds = time.perf_counter(), []


@torch.compile
def train_step(x, y, w1, w2):
    h = x @ w1  # (N, H)
    h_relu = h.relu()
    y_pred = h_relu @ w2  # (N, D_out)
    loss = (y_pred - y).square().sum()  # ()
    grad_y_pred = 2 * (y_pred - y)  # (N, D_out)
    grad_w2 = h_relu.T @ grad_y_pred  # (H, D_out)
    grad_h_relu = grad_y_pred @ w2.T  # (N, H)
    grad_h = grad_h_relu * (h > 0)
    grad_w1 = x.T @ grad_h  # (D_in, H)
    w1.sub_(grad_w1, alpha=learning_rate)
    w2.sub_(grad_w2, alpha=learning_rate)
    return loss  # from before the update


for t in range(1, args.steps + 1):
    loss = train_step(x, y, w1, w2)
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}")
    seconds.append(time.perf_counter() - start)
print(f"first step  seconds {seconds[0]:.2f}  all steps  seconds {seconds[-1]:.2f}")
