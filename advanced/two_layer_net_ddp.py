"""Fit a two-layer ReLU network in several processes, each with a part of the batch.

torchrun starts the processes and gives each one its rank. DistributedDataParallel (DDP)
averages the gradients over them, so all take the same step. However many processes
there are, the losses are the same.
"""

import argparse
import time

import numpy as np
import torch
import torch.distributed as dist

# DDP imports this itself, but so late that its default arguments would keep the group.
import torch.distributed.nn
from torch import nn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--batch", type=int, default=64, help="number of samples")
parser.add_argument("--device", default="cpu", help="cpu, cuda, xpu")
args = parser.parse_args()

# Each process of a machine computes on its own GPU.
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

# The loss is a sum: with more samples it is larger, and needs a smaller learning rate.
learning_rate = 1e-6 * 64 / N
start = time.perf_counter()
for t in range(1, args.steps + 1):
    # Forward pass: predict y from x.
    y_pred = model(x)  # (N / world_size, D_out)

    # The loss is the sum of the squared errors, here of this process's rows.
    loss = (y_pred - y).square().sum()
    if t == 1 or t % 50 == 0:
        total = loss.detach().clone()
        dist.all_reduce(total)  # in place: now the sum over all processes
        if rank == 0:
            print(f"step {t:4d}  loss {total.item():.4e}")

    # Backward pass: compute the gradients of the loss with respect to all parameters.
    # DDP averages them over the processes. We need their sum: hence world_size.
    model.zero_grad()
    (world_size * loss).backward()

    # Gradient descent. Autograd must not record the update, hence no_grad.
    with torch.no_grad():
        for param in model.parameters():
            param -= learning_rate * param.grad

if rank == 0:
    print(f"steps per second {args.steps / (time.perf_counter() - start):.0f}")

# A clean end: the model holds the group, and both must be gone before the interpreter
# is, or a thread of the group can crash the process when all losses are printed.
del model
dist.destroy_process_group()
