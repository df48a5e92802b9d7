"""Train a model that is sharded over several processes (FSDP2).

Each process, started by torchrun, holds only its shard of every parameter, of its
gradient and of the optimizer's state. A block's parameters are gathered when the block
is used and freed right after. The model learns to predict the next byte of Python's
documentation; however many processes there are, the losses are the same.
"""

import argparse
import gc
from pydoc_data.topics import topics

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

# N is batch size; T is the number of bytes to predict the next one from;
# V is the number of different bytes; E is the size of a byte's embedding.
N, T, V, E = 512, 8, 256, 16


class Block(nn.Module):
    """A residual block of two linear layers; maps (N, D) to (N, D)."""

    def __init__(self, D):
        super().__init__()
        self.norm = nn.LayerNorm(D)
        self.linear1 = nn.Linear(D, D)
        self.linear2 = nn.Linear(D, D)

    def forward(self, x):
        hidden = self.linear1(self.norm(x)).relu()  # (N, D)
        return x + self.linear2(hidden)


def make_model(mesh):
    """Return a model that maps bytes (N, T) to logits (N, V), sharded over the mesh.

    All processes must call this; each draws the same weights and keeps its shards.
    """
    torch.manual_seed(0)
    blocks = []
    for _ in range(4):
        block = Block(T * E)
        fully_shard(block, mesh=mesh)  # before the next block takes memory
        blocks.append(block)

    embedding = nn.Embedding(V, E)
    output_layer = nn.Linear(T * E, V)
    model = nn.Sequential(embedding, nn.Flatten(), *blocks, output_layer)
    fully_shard(model, mesh=mesh)  # what is in no block: the first and the last layer
    return model


def train(model, steps, device):
    """Train the sharded model and print the losses. All processes must call this."""
    rank = dist.get_rank()
    world_size = dist.get_world_size()
    text = "".join(topics[name] for name in sorted(topics))[:100_000]
    data = torch.tensor(list(text.encode()), device=device)

    # The parameters are sharded already, so Adam's state is sharded, too.
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loss_fn = nn.CrossEntropyLoss(reduction="sum")

    for t in range(1, steps + 1):
        # The step is the seed: all processes draw one batch, and each takes its rows.
        torch.manual_seed(t)
        starts = torch.randint(len(data) - T, (N, 1))
        rows = data[starts + torch.arange(T + 1)]  # (N, T + 1)
        rows = rows.tensor_split(world_size)[rank]  # (N / world_size, T + 1)
        inputs, targets = rows[:, :T], rows[:, T]

        # The sum over the rows of all processes, divided by N, is the mean.
        logits = model(inputs)  # (N / world_size, V)
        loss = loss_fn(logits, targets) / N
        if t == 1 or t % 50 == 0:
            total = loss.detach().clone()
            dist.all_reduce(total)  # in place: now the sum over all processes
            if rank == 0:
                print(f"step {t:4d}  loss {total.item():.4e}")

        # Like DDP, FSDP averages the gradients where we need the sum: hence world_size.
        optimizer.zero_grad()
        (world_size * loss).backward()
        optimizer.step()


def run(steps, device):
    """Shard a model over all processes, print the size of the shards, and train."""
    mesh = dist.init_device_mesh(device, (dist.get_world_size(),))
    model = make_model(mesh)

    whole = sum(param.numel() for param in model.parameters())
    shard = sum(param.to_local().numel() for param in model.parameters())
    shards = [None] * dist.get_world_size()
    dist.all_gather_object(shards, shard)
    if dist.get_rank() == 0:
        print(f"parameters {whole}  in each process {' '.join(map(str, shards))}")

    train(model, steps, device)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
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

    run(args.steps, args.device)

    # A clean end: what run() has made goes before the group, and the group before the
    # interpreter. Otherwise a thread of the group can crash the process at its end.
    gc.collect()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
