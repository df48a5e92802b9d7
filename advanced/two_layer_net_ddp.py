"""Fit a two-layer ReLU network in several processes, each with a part of the batch.

torchrun starts them and gives each its rank. DistributedDataParallel, DDP for short,
exchanges the gradients. However many processes there are, the losses are the same.
"""

import argparse
import time

import numpy as np
import torch
import torch.distributed as dist

devices = [d for d in ("cpu", "cuda", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--steps", type=int, default=500, help="default: %(default)s")
parser.add_argument("--batch", choices=["64", "256", "1024", "4096"], default="64")
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
args = parser.parse_args()
if args.steps < 1:
    parser.error("argument --steps: must be 1 or more")
# Meet the other processes. Without torchrun there is this one alone, with rank 0.
alone = {"store": dist.HashStore(), "rank": 0, "world_size": 1}
dist.init_process_group(**{} if dist.is_torchelastic_launched() else alone)
rank, world = dist.get_rank(), dist.get_world_size()
N, D_in, H, D_out = int(args.batch), 1000, 100, 10  # batch, input, hidden, output size
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
y = torch.tensor(randn((N, D_out), np.float32), device=args.device)
w1 = torch.tensor(randn((D_in, H), np.float32), device=args.device)
w2 = torch.tensor(randn((H, D_out), np.float32), device=args.device)
x, y = (part.tensor_split(world)[rank] for part in (x, y))  # the rows of this process
# Linear multiplies by the transpose of its weight: model[0].weight is (H, D_in).
model = torch.nn.Sequential(
    torch.nn.Linear(D_in, H, bias=False),
    torch.nn.ReLU(),
    torch.nn.Linear(H, D_out, bias=False),
).to(args.device)
with torch.no_grad():
    model[0].weight.copy_(w1.T)
    model[2].weight.copy_(w2.T)
model = torch.nn.parallel.DistributedDataParallel(model)
learning_rate = 1e-6 * 64 / N * world  # world: DDP takes the mean where we need the sum
start = time.perf_counter()
for t in range(1, args.steps + 1):
    y_pred = model(x)  # (N / world, D_out)
    loss = (y_pred - y).square().sum()  # ()
    if t == 1 or t % 50 == 0:
        dist.all_reduce(loss.detach())  # in place: the sum over the processes
        if rank == 0:
            print(f"step {t:4d}  loss {loss.item():.4e}")
    model.zero_grad()
    loss.backward()  # sends gradients that are ready while it computes the others
    with torch.no_grad():
        for w in model.parameters():
            w.sub_(w.grad, alpha=learning_rate)
if rank == 0:
    print(f"steps per second {args.steps / (time.perf_counter() - start):.0f}")
del model  # lets go of the group first: or this process can hang when it ends
dist.destroy_process_group()
