"""Train a network that no process holds as a whole: FSDP2 shards its parameters.

Each process, started by torchrun, keeps a share of every weight, of its gradient and of
the optimizer's state. A block is put together when it is used, and let go right after.
With --checkpoint, it goes on from the newest checkpoint in there, with any number of
processes. The network learns to guess the next byte of Python's documentation.
"""

import argparse
import gc
import shutil
from pathlib import Path
from pydoc_data.topics import topics

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard


class Block(torch.nn.Module):
    """Adds to its input what two layers make of it; maps (N, D) to (N, D)."""

    def __init__(self, D):
        super().__init__()
        self.norm = torch.nn.LayerNorm(D)
        self.linear1 = torch.nn.Linear(D, D)
        self.linear2 = torch.nn.Linear(D, D)

    def forward(self, x):
        return x + self.linear2(self.linear1(self.norm(x)).relu())


def load(folder, model, optimizer):
    """Read the newest checkpoint and return its step, 0 if there is none.

    Each process reads its share of now, however many there were when it was written.
    Raises whatever a foreign file causes. It can run code, too: load only your own.
    """
    folder.mkdir(exist_ok=True)
    complete = folder.glob("step-*/.metadata")  # the file that is written last
    step = max((int(path.parent.name[5:]) for path in complete), default=0)
    if step:
        reader = dcp.FileSystemReader(folder / f"step-{step}")
        reader.read_metadata()  # fails on a foreign file with less ado than load
        w, s = get_state_dict(model, optimizer)
        dcp.load({"w": w, "s": s}, storage_reader=reader)
        set_state_dict(model, optimizer, model_state_dict=w, optim_state_dict=s)
    return step


def save(folder, step, model, optimizer):
    """Write a checkpoint, each process its share, and only then remove the older."""
    new = folder / f"step-{step}"
    w, s = get_state_dict(model, optimizer)
    try:
        dcp.save({"w": w, "s": s}, checkpoint_id=new)
    except dcp.CheckpointException:  # raised in all processes if one cannot write
        if dist.get_rank() == 0:
            shutil.rmtree(new, ignore_errors=True)
        raise

    if dist.get_rank() == 0:
        for old in {*folder.glob("step-*")} - {new}:
            shutil.rmtree(old)


def reason(error):
    """Return in a line what went wrong, be it in one process or in all."""
    if isinstance(error, dcp.CheckpointException):
        error, _ = next(iter(error.failures.values()))
    return f"{error!r:.99}"


def train(args):
    """Train and print the losses. Return what is wrong with the checkpoint, or None."""
    rank = dist.get_rank()
    world_size = dist.get_world_size()
    mesh = dist.init_device_mesh(args.device, (world_size,))

    # N is the number of rows in a batch, each of T bytes;
    # V is how many kinds of bytes there are; E is the size of what stands for one.
    N, T, V, E = 512, 8, 256, 16
    text = "".join(topics[name] for name in sorted(topics))[:100_000]
    chars = torch.tensor(list(text.encode()), device=args.device)

    # A block is whole only while it is made: it is sharded when the next one comes.
    torch.manual_seed(0)
    blocks = [fully_shard(Block(T * E), mesh=mesh) for _ in range(4)]
    first = torch.nn.Embedding(V, E)
    last = torch.nn.Linear(T * E, V)
    model = torch.nn.Sequential(first, torch.nn.Flatten(), *blocks, last)
    fully_shard(model, mesh=mesh)  # all that no block has: the first and the last layer
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, foreach=True)
    loss_fn = torch.nn.CrossEntropyLoss(reduction="sum")

    done = 0
    if args.checkpoint:
        try:
            done = load(args.checkpoint, model, optimizer)
        except (Exception, dcp.CheckpointException) as error:  # noqa: BLE001, or others
            return f"cannot go on from {args.checkpoint}: {reason(error)}"

    # What this process holds of the parameters, and what the others do.
    whole = sum(w.numel() for w in model.parameters())
    own = sum(w.to_local().numel() for w in model.parameters())
    shares = [None] * world_size
    dist.all_gather_object(shares, f"{own / whole:.3f}")
    if rank == 0:
        print(f"parameters {whole}  shares {' '.join(shares)}")

    for t in range(done + 1, args.steps + 1):
        # The step is the seed, so a run that goes on sees what it would have seen.
        torch.manual_seed(t)
        i = torch.randint(len(chars) - T, (N, 1)) + torch.arange(T + 1)  # (N, T + 1)
        batch = chars[i.tensor_split(world_size)[rank]]  # the rows of this process

        # The sums over the rows here, and over the processes, make a mean over N.
        loss = loss_fn(model(batch[:, :-1]), batch[:, -1]) / N  # ()

        # FSDP takes the mean over processes where we need the sum: hence world_size.
        optimizer.zero_grad()
        (loss * world_size).backward()
        optimizer.step()

        if t == 1 or t % 50 == 0 or t == args.steps:
            # In place: loss becomes the sum over the processes.
            dist.all_reduce(loss.detach())
            if rank == 0:
                print(f"step {t:4d}  loss {loss.item():.4e}")
            if args.checkpoint:
                try:
                    save(args.checkpoint, t, model, optimizer)
                except (OSError, dcp.CheckpointException) as error:
                    return f"cannot write to {args.checkpoint}: {reason(error)}"
    return None


devices = [d for d in ("cpu", "cuda", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--steps", type=int, default=200, help="default: %(default)s")
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
parser.add_argument("--checkpoint", metavar="DIR", type=Path, help="go on from there")
args = parser.parse_args()
if args.steps < 1:
    parser.error("argument --steps: must be 1 or more")

# Each process of a machine computes on a GPU of its own.
if args.device != "cpu":
    torch.accelerator.set_device_index(dist.get_node_local_rank(0))

# Meet the other processes. Without torchrun there is this one alone, with rank 0.
if dist.is_torchelastic_launched():
    dist.init_process_group()
else:
    dist.init_process_group(store=dist.HashStore(), rank=0, world_size=1)

problem = train(args)

# What train has made goes before the group, and the group before the interpreter does:
# the process can crash if a thread of the group has something left to let go of then.
gc.collect()
dist.destroy_process_group()
if problem:
    parser.error(f"argument --checkpoint: {problem}")
