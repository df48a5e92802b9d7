"""Fit a two-layer ReLU network in several processes that accumulate gradients.

Each process takes its part of the batch in two halves. Under no_sync(), DDP only adds
up the gradients; after the last half it averages them over the processes. The losses
stay the same. The last column makes a common mistake: it tells DDP after the forward
pass, which is too late. With one process that does no harm; with two, no error is
raised, and the losses are wrong.
"""

import argparse
import contextlib
import copy

import numpy as np
import torch
import torch.distributed as dist

# DDP imports this itself, but so late that its default arguments would keep the group.
import torch.distributed.nn
from torch import nn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
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
N, D_in, H, D_out = 64, 1000, 100, 10

# Inputs, targets and initial weights are random: standard normal, with seed 0.
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
y = torch.tensor(randn((N, D_out), np.float32), device=args.device)
w1 = torch.tensor(randn((D_in, H), np.float32), device=args.device)
w2 = torch.tensor(randn((H, D_out), np.float32), device=args.device)

# Every process has drawn the same numbers, and keeps its own rows of the batch.
x = x.tensor_split(world_size)[rank]  # (N / world_size, D_in)
y = y.tensor_split(world_size)[rank]  # (N / world_size, D_out)

# It takes them in two halves, as if they did not fit into memory at once.
halves = list(zip(x.tensor_split(2), y.tensor_split(2)))

# Linear multiplies by the transpose of its weight: model[0].weight is (H, D_in).
model = nn.Sequential(
    nn.Linear(D_in, H, bias=False),
    nn.ReLU(),
    nn.Linear(H, D_out, bias=False),
).to(args.device)
with torch.no_grad():
    model[0].weight.copy_(w1.T)
    model[2].weight.copy_(w2.T)
late = nn.parallel.DistributedDataParallel(copy.deepcopy(model))
model = nn.parallel.DistributedDataParallel(model)


def accumulate(model):
    """Add the gradients of both halves; return the loss of this process's rows."""
    total = 0
    for x_half, y_half in halves:
        # Only the last backward pass sends gradients to the other processes.
        is_last = x_half is halves[-1][0]
        with contextlib.nullcontext() if is_last else model.no_sync():
            loss = (model(x_half) - y_half).square().sum()
            (world_size * loss).backward()
        total += loss.detach()
    return total


def accumulate_too_late(model):
    """Do the same, but tell DDP only after the forward pass."""
    total = 0
    for x_half, y_half in halves:
        is_last = x_half is halves[-1][0]
        loss = (model(x_half) - y_half).square().sum()
        model.require_backward_grad_sync = is_last  # what no_sync() sets, too late
        (world_size * loss).backward()
        total += loss.detach()
    return total


learning_rate = 1e-6
for t in range(1, args.steps + 1):
    # Forward and backward pass, half by half.
    model.zero_grad()
    loss = accumulate(model)
    late.zero_grad()
    loss_late = accumulate_too_late(late)

    if t == 1 or t % 50 == 0:
        dist.all_reduce(loss)  # in place: now the sum over all processes
        dist.all_reduce(loss_late)
        if rank == 0:
            both = f"loss {loss.item():.4e}  too late {loss_late.item():.4e}"
            print(f"step {t:4d}  {both}")

    # Gradient descent. Autograd must not record the update, hence no_grad.
    with torch.no_grad():
        for param in [*model.parameters(), *late.parameters()]:
            param -= learning_rate * param.grad

# A clean end: the models hold the group, and all must be gone before the interpreter
# is, or a thread of the group can crash the process when all losses are printed.
del model, late
dist.destroy_process_group()
