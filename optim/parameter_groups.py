"""Train the parts of a network by rules, learning rates and weight decays of their own.

SGD with momentum takes the first layer, AdamW the last. Each has two groups: the
weights, which decay, and the biases, which do not. All rates follow one schedule: up in
a straight line for 50 steps, then down along a cosine to 0 after 500. The lines show
the rates of first.weight, first.bias, last.weight and last.bias.
"""

import argparse
import math

import numpy as np
import torch

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
first, last = torch.nn.Linear(D_in, H), torch.nn.Linear(H, D_out)
model = torch.nn.Sequential(first, torch.nn.ReLU(), last).to(args.device)
loss_fn = torch.nn.MSELoss(reduction="sum")

# A group has options of its own; what it does not name comes after the list.
sgd = torch.optim.SGD(
    [
        {"params": [first.weight], "weight_decay": 1e-2},
        {"params": [first.bias], "lr": 1e-4},
    ],
    lr=2e-4,
    momentum=0.9,
)
adamw = torch.optim.AdamW(
    [
        {"params": [last.weight], "weight_decay": 1e-1},
        {"params": [last.bias], "weight_decay": 0, "lr": 1e-3},
    ],
    lr=2e-3,
)
optimizers = [sgd, adamw]


def share(t):
    """Return the share of its full learning rate that a group has after t steps."""
    if t < 50:
        return (t + 1) / 50
    return (1 + math.cos(math.pi * min(1, (t - 50) / 450))) / 2


schedules = [torch.optim.lr_scheduler.LambdaLR(o, share) for o in optimizers]

for t in range(1, args.steps + 1):
    # Forward pass: predict y from x. The loss is the sum of the squared errors.
    y_pred = model(x)  # (N, D_out)
    loss = loss_fn(y_pred, y)  # ()
    if t == 1 or t % 50 == 0:
        rates = [f"{r:.1e}" for schedule in schedules for r in schedule.get_last_lr()]
        print(f"step {t:4d}  loss {loss.item():.4e}  lr {' '.join(rates)}")

    # Backward pass: the module knows all parameters, an optimizer only its own.
    model.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    # The rates of the next step: after the step of the optimizers, not before it.
    for schedule in schedules:
        schedule.step()
