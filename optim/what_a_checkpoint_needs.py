"""Resume a training from checkpoints that lack a part, and see what that changes.

The second half of a training is repeated from a checkpoint. With all of its parts, the
losses are the same to the last digit. Without the state of the optimizer, the scheduler
or the random generator they are not; and the last loss alone would not tell.
"""

import argparse
import io

import numpy as np
import torch
from torch import nn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
args = parser.parse_args()

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10

# Inputs and targets are random: standard normal, with seed 0.
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32))
y = torch.tensor(randn((N, D_out), np.float32))
loss_fn = nn.MSELoss(reduction="sum")


def new_parts():
    """Return {name: part} as a process has them that has just started."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(D_in, H),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(H, D_out),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: 1 / (1 + t / 100)
    )
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler}


def train_step(model, optimizer, scheduler):
    """Fit half of the examples, drawn at random; return their loss before that."""
    batch = torch.randperm(N)[: N // 2]  # (N / 2,)
    y_pred = model(x[batch])  # (N / 2, D_out)
    loss = loss_fn(y_pred, y[batch])

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    return loss.item()


# Train without an interruption, and make a checkpoint halfway.
half = args.steps // 2
file = io.BytesIO()  # a file in memory
losses = []
parts = new_parts()
for t in range(1, args.steps + 1):
    if t == half + 1:
        checkpoint = {name: part.state_dict() for name, part in parts.items()}
        checkpoint["generator"] = torch.get_rng_state()
        torch.save(checkpoint, file)

    losses.append(train_step(**parts))
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {losses[-1]:.8e}")

# Train the second half again, each time from a checkpoint that lacks another part.
print(f"resumed at step {half}")
for missing in ["nothing", "optimizer", "scheduler", "generator"]:
    file.seek(0)
    checkpoint = torch.load(file, weights_only=True)
    parts = new_parts()
    for name, part in parts.items():
        if name != missing:
            part.load_state_dict(checkpoint[name])
    if missing != "generator":
        torch.set_rng_state(checkpoint["generator"])

    largest = 0.0
    for expected in losses[half:]:
        loss = train_step(**parts)
        largest = max(largest, abs(loss / expected - 1))
    print(f"without {missing:9}  loss {loss:.8e}  off by up to {largest:.0%}")
