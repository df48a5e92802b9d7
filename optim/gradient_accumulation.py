"""Fit a two-layer ReLU network with each batch in parts: gradient accumulation.

backward() adds to w.grad, so parts that fit into memory give the gradient of a batch
that does not. In halves, in parts of 16 rows and in parts of 7, of which the last has
only 1, the losses stay the same. The last column makes a common mistake: it averages
the means of the parts, and that row counts as much as seven others.
"""

import argparse

import numpy as np
import torch

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
args = parser.parse_args()

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


def train_step(w1, w2, rows, mean_of_means=False):
    """Update w1 and w2 for the whole batch, which is processed rows at a time.

    Return the loss of the batch before the update.
    """
    # backward() adds to w.grad, so the gradients of the last step are cleared first:
    # once for the batch, not once for each part.
    w1.grad = None
    w2.grad = None
    total = 0
    x_parts = x.split(rows)
    y_parts = y.split(rows)
    for x_part, y_part in zip(x_parts, y_parts):
        # Forward pass: predict y from x, for these rows alone.
        y_pred = (x_part @ w1).relu() @ w2  # (rows, D_out)

        # The loss is the sum of the squared errors: the parts' sums add up to it.
        squares = (y_pred - y_part).square()
        loss = squares.sum()
        total += loss.item()

        # The mean of the parts' means, times N * D_out to compare it with the sum.
        # It is the sum only if all parts have the same number of rows.
        if mean_of_means:
            loss = squares.mean() / len(x_parts) * (N * D_out)

        # Backward pass: add to w1.grad and w2.grad, and forget the graph of this part.
        loss.backward()

    # Gradient descent, once for the batch. Autograd must not record the update.
    with torch.no_grad():
        w1 -= learning_rate * w1.grad
        w2 -= learning_rate * w2.grad
    return total


# Every column trains its own copy of the weights.
columns = {
    "loss": {"rows": 64},
    "32s": {"rows": 32},
    "16s": {"rows": 16},
    "7s": {"rows": 7},
    "means of 7s": {"rows": 7, "mean_of_means": True},
}
weights = {}
for name in columns:
    weights[name] = (w1.clone().requires_grad_(), w2.clone().requires_grad_())

for t in range(1, args.steps + 1):
    losses = {}
    for name, how in columns.items():
        losses[name] = train_step(*weights[name], **how)
    if t == 1 or t % 50 == 0:
        shown = [f"{name} {loss:.4e}" for name, loss in losses.items()]
        print(f"step {t:4d}", *shown, sep="  ")
