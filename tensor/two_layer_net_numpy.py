"""Fit a two-layer ReLU network with NumPy alone.

NumPy knows nothing of networks, gradients or GPUs: the forward pass, the loss and the
backward pass are written out. The other scripts of this family start from the same
numbers and print the same losses; each hands over a part of this work.
"""

import argparse

import numpy as np

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
args = parser.parse_args()

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10

# Inputs, targets and initial weights are random: standard normal, with seed 0.
randn = np.random.default_rng(0).standard_normal
x = randn((N, D_in), np.float32)
y = randn((N, D_out), np.float32)
w1 = randn((D_in, H), np.float32)
w2 = randn((H, D_out), np.float32)

learning_rate = 1e-6
for t in range(1, args.steps + 1):
    # Forward pass: predict y from x.
    h = x @ w1  # (N, H)
    h_relu = np.maximum(h, 0)
    y_pred = h_relu @ w2  # (N, D_out)

    # The loss is the sum of the squared errors.
    loss = np.square(y_pred - y).sum()
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss:.4e}")

    # Backward pass: the chain rule, from the loss back to the weights.
    grad_y_pred = 2 * (y_pred - y)  # (N, D_out)
    grad_w2 = h_relu.T @ grad_y_pred  # (H, D_out)
    grad_h_relu = grad_y_pred @ w2.T  # (N, H)
    grad_h = grad_h_relu * (h > 0)
    grad_w1 = x.T @ grad_h  # (D_in, H)

    # Gradient descent: take a small step in the direction opposite to the gradient.
    w1 -= learning_rate * grad_w1
    w2 -= learning_rate * grad_w2
