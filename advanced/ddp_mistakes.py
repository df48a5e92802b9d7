"""Make three mistakes with DistributedDataParallel (DDP), and fix each of them.

Two processes train one weight w, with y = w * x. The first process has x = 1, the other
one x = 2. The gradient of the sum of both y is therefore 3. Each line of the output
shows the gradients that the two processes have instead.
"""

import argparse
import tempfile
from datetime import timedelta

import torch
import torch.distributed as dist

# DDP imports this itself, but so late that its default arguments would keep the group.
import torch.distributed.nn
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class OneOfTwo(nn.Module):
    """Has two layers, and uses the first."""

    def __init__(self):
        super().__init__()
        self.used = nn.Linear(1, 1, bias=False)
        self.unused = nn.Linear(1, 1, bias=False)

    def forward(self, x):
        return self.used(x)


def sum_of_losses(x):
    model = DistributedDataParallel(nn.Linear(1, 1, bias=False))
    loss = model(x).sum()
    loss.backward()  # wrong: DDP averages the gradients
    show("sum averaged", model)

    model.zero_grad()
    loss = model(x).sum()
    (dist.get_world_size() * loss).backward()  # right
    show("sum scaled", model)


def layer_without_gradient(x):
    model = DistributedDataParallel(OneOfTwo())  # wrong: waits for all gradients
    take_two_steps("layer unused", model, x)

    model = DistributedDataParallel(OneOfTwo(), find_unused_parameters=True)  # right
    take_two_steps("layer expected", model, x)


def take_two_steps(words, model, x):
    try:
        for _ in range(2):
            model.zero_grad()
            model(x).sum().backward()
        show(words, model)
    except RuntimeError as error:
        if dist.get_rank() == 0:
            print(f"{words:15}{str(error).partition('. ')[0]}.")


def accumulated_gradients(x):
    model = DistributedDataParallel(nn.Linear(1, 1, bias=False))
    for last in (False, True):
        loss = model(x / 2).sum()  # wrong: forward() reads the flag ...
        model.require_backward_grad_sync = last  # wrong: ... which comes too late
        loss.backward()
    show("flag after", model)

    model.zero_grad()
    for last in (False, True):
        model.require_backward_grad_sync = last  # right
        loss = model(x / 2).sum()  # right
        loss.backward()
    show("flag before", model)


def show(words, model):
    """Print the gradients that all processes have of the first weight."""
    grad = next(model.parameters()).grad
    grads = [torch.zeros_like(grad) for _ in range(dist.get_world_size())]
    dist.all_gather(grads, grad)
    if dist.get_rank() == 0:
        print(f"{words:15}{[each.item() for each in grads]}")


def run_process(rank, folder):
    """Be one of the two processes."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(f"{folder}/store", 2),
        rank=rank,
        world_size=2,
        timeout=timedelta(minutes=2),  # if one waits for the other in vain
    )

    x = torch.tensor([[rank + 1.0]])
    sum_of_losses(x)
    layer_without_gradient(x)
    accumulated_gradients(x)
    dist.destroy_process_group()


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(run_process, (folder,), nprocs=2, daemon=True)


if __name__ == "__main__":
    main()
