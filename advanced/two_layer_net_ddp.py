"""Fit a two-layer ReLU network in several processes, each with a part of the batch.

torchrun starts them and gives each its rank. DistributedDataParallel, DDP for short,
exchanges the gradients. However many processes there are, the losses are the same.
"""

import argparse
import time

import numpy as np
import torch
import torch.distributed as dist

# DDP imports this later, when its default arguments would keep the group to the end.
import torch.distributed.nn
from torch import nn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--batch", type=int, default=64, help="number of samples")
parser.add_argument("--device", default="cpu", help="cpu, cuda, xpu")
args = parser.parse_args()

# Each process of a machine computes on a GPU of its own.
if args.device != "cpu":
    torch.accelerator.set_device_index(dist.get_node_local_rank(0))

# Meet the other processes. Without torchrun there is this one alone, with rank 0.
if dist.is_torchelastic_launched():
    dist.init_process_group()
else:
    dist.init_process_group(store=dist.HashStore(), rank=0, world_size=1)
rank = dist.get_rank()
world_size = dist.get_world_size()

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = args.batch, 1000, 100, 10

# Inputs, targets and initial weights are random: standard normal, with seed 0.
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
y = torch.tensor(randn((N, D_out), np.float32), device=args.device)
w1 = torch.tensor(randn((D_in, H), np.float32), device=args.device)
w2 = torch.tensor(randn((H, D_out), np.float32), device=args.device)

# Every process has drawn the same numbers, and keeps its own rows of the batch.
x = x.tensor_split(world_size)[rank]  # (N / world_size, D_in)
y = y.tensor_split(world_size)[rank]  # (N / world_size, D_out)

# Linear multiplies by the transpose of its weight: model[0].weight is (H, D_in).
model = nn.Sequential(
    nn.Linear(D_in, H, bias=False),
    nn.ReLU(),
    nn.Linear(H, D_out, bias=False),
).to(args.device)
with torch.no_grad():
    model[0].weight.copy_(w1.T)
    model[2].weight.copy_(w2.T)
model = nn.parallel.DistributedDataParallel(model)

# A larger batch has a larger sum as its loss, and wants a smaller learning rate.
# DDP takes the mean of the gradients where we need the sum: hence world_size.
learning_rate = 1e-6 * 64 / N * world_size
start = time.perf_counter()
for t in range(1, args.steps + 1):
    y_pred = model(x)  # (N / world_size, D_out)

    # The loss is the sum of the squared errors.
    loss = (y_pred - y).square().sum()

    if t == 1 or t % 50 == 0:
        # In place: loss becomes the sum over the processes.
        dist.all_reduce(loss.detach())
        if rank == 0:
            print(f"step {t:4d}  loss {loss.item():.4e}")

    # DDP sends the gradients that are ready while backward computes the others.
    model.zero_grad()
    loss.backward()

    with torch.no_grad():
        for param in model.parameters():
            param -= learning_rate * param.grad

if rank == 0:
    print(f"steps per second {args.steps / (time.perf_counter() - start):.0f}")

# The model holds the group. Both must be gone before the interpreter is: a thread of
# the group that it finds at work then makes the process crash, with all losses printed.
del model
dist.destroy_process_group()
