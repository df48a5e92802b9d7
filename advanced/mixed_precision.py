"""Train in mixed precision (bfloat16 and float32), beside the same training in float32.

A bfloat16 has the range of a float32, but only 8 of its 24 binary digits. Autocast uses
it for matrix products; weights, gradients and the loss stay in float32. Watch where the
two losses part. Then see which tensor has which dtype.
"""

import argparse

import numpy as np
import torch
from torch import nn

loss_fn = nn.MSELoss(reduction="sum")


def make_data(device):
    """Return inputs (64, 1000) and targets (64, 10): standard normal, with seed 0."""
    randn = np.random.default_rng(0).standard_normal
    inputs = torch.tensor(randn((64, 1000), np.float32), device=device)
    targets = torch.tensor(randn((64, 10), np.float32), device=device)
    return inputs, targets


def train(inputs, targets, steps, mixed):
    """Train a two-layer ReLU network, in mixed precision or in float32.

    Returns the model, its optimizer, and the list of the losses of all steps.
    """
    # Both trainings start from the same weights.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1000, 100), nn.ReLU(), nn.Linear(100, 10))
    model.to(inputs.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    losses = []
    for _ in range(steps):
        # Forward pass and loss: autocast chooses the dtype of each operation.
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=mixed):
            loss = loss_fn(model(inputs), targets)
        losses.append(loss.item())

        # Backward pass, outside: each operation goes back in the dtype it came in.
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, optimizer, losses


def tensors_of_a_step(model, optimizer, inputs, targets):
    """Return {name: tensor}: what the layers compute, and what is kept."""
    with torch.autocast(inputs.device.type, torch.bfloat16):
        h = model[0](inputs)  # (N, H)
        computed = {
            "output of Linear": h,
            "relu": h.relu(),
            "softmax": h.softmax(1),
            "sum": h.sum(),
            "MSELoss": loss_fn(model(inputs), targets),
        }
    weight = model[0].weight
    kept = {
        "weight": weight,
        "weight.grad": weight.grad,
        "Adam's average": optimizer.state[weight]["exp_avg"],
    }
    return computed | kept


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    args = parser.parse_args()

    inputs, targets = make_data(args.device)
    _, _, in_float32 = train(inputs, targets, args.steps, mixed=False)
    model, optimizer, in_mixed = train(inputs, targets, args.steps, mixed=True)
    for t in range(1, args.steps + 1):
        if t == 1 or t % 50 == 0:
            print(f"step {t:4d}  loss {in_float32[t - 1]:.4e}", end="")
            print(f"  mixed {in_mixed[t - 1]:.4e}")

    # No prediction in bfloat16 is nearer to its target than the target, rounded.
    rounded = loss_fn(targets.bfloat16(), targets)
    print(f"targets rounded to bfloat16  loss {rounded.item():.4e}")

    for name, tensor in tensors_of_a_step(model, optimizer, inputs, targets).items():
        print(f"{name:17} {tensor.dtype}")


if __name__ == "__main__":
    main()
