"""Fit a two-layer ReLU network with an autograd Function of your own.

Where PyTorch lacks an operation, a Function adds it: its forward and its backward pass.
This ReLU does what PyTorch's own does, so the losses stay the same, bit for bit.
"""

import argparse

import numpy as np
import torch


class ReLU(torch.autograd.Function):
    """max(x, 0) for x of any shape; at x == 0 the gradient is 0, as in torch.relu."""

    @staticmethod
    def forward(x):
        return x.clamp(min=0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output * (ctx.saved_tensors[0] > 0)


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
    y_pred = ReLU.apply(x @ w1) @ w2  # (N, D_out)
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
