"""Train with the products in bfloat16, beside the same training in float32.

A bfloat16 reaches as far as a float32, but keeps only 8 of its 24 binary digits.
Autocast uses it where it saves time and memory; weights, gradients and the loss stay in
float32. Watch where the two losses part, then the dtypes, and the speed.
"""

import argparse
import time
from functools import partial

import numpy as np
import torch
from torch.nn.functional import linear

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
loss_fn = torch.nn.MSELoss(reduction="sum")
runs = []
for mixed in (False, True):
    torch.manual_seed(0)  # both start from the same weights
    layers = torch.nn.Linear(D_in, H), torch.nn.ReLU(), torch.nn.Linear(H, D_out)
    model = torch.nn.Sequential(*layers).to(args.device)
    runs.append((mixed, model, torch.optim.Adam(model.parameters(), lr=1e-4)))

for t in range(1, args.steps + 1):
    losses = []
    for mixed, model, optimizer in runs:
        # Forward pass: autocast chooses the dtype of each operation, the loss included.
        with torch.autocast(args.device, torch.bfloat16, enabled=mixed):
            y_pred = model(x)  # (N, D_out)
            loss = loss_fn(y_pred, y)  # ()
        losses.append(loss.item())

        # Backward pass, outside: each operation goes back in the dtype it came in.
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {losses[0]:.4e}  bfloat16 {losses[1]:.4e}")

# No y_pred in bfloat16 can be nearer to y than y itself, rounded to bfloat16.
print(f"y rounded  bfloat16 {loss_fn(y.bfloat16(), y).item():.4e}")

# What has which dtype? model and optimizer are now those of the mixed run.
with torch.autocast(args.device, torch.bfloat16):
    h = model[0](x)  # (N, H)
    tensors = {"output of Linear": h, "relu": h.relu(), "softmax": h.softmax(1)}
    tensors |= {"sum": h.sum(), "MSELoss": loss_fn(model(x), y)}
weight = model[0].weight
tensors |= {"weight": weight, "weight.grad": weight.grad}
tensors |= {"Adam's average": optimizer.state[weight]["exp_avg"]}
for name, tensor in tensors.items():
    print(f"{name:18}{str(tensor.dtype).removeprefix('torch.')}")

# Large products are what there is to gain. Measured in turns, with one thread.
size = 512 if args.device == "cpu" else 4096
a = torch.randn(size, size, device=args.device)
ways = partial(linear, a, a), partial(linear, a.bfloat16(), a.bfloat16())
torch.set_num_threads(1)
seconds = {way: [] for way in ways}
for way in 5 * ways:
    start = time.perf_counter()
    way()
    if args.device != "cpu":
        torch.accelerator.synchronize()  # a GPU works on after the call returned
    seconds[way].append(time.perf_counter() - start)
# The fastest counts: the first call of each sets things up, others may be disturbed.
float32, bfloat16 = (min(seconds[way]) for way in ways)
print(f"product of {size} x {size} beside float32  speed {float32 / bfloat16:.2f}")
