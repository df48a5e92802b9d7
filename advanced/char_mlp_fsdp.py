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
    dcp.save({"w": w, "s": s}, checkpoint_id=new)
    if dist.get_rank() == 0:
        for old in {*folder.glob("step-*")} - {new}:
            shutil.rmtree(old)


devices = [d for d in ("cpu", "cuda", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--steps", type=int, default=200, help="default: %(default)s")
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
parser.add_argument("--checkpoint", metavar="DIR", type=Path, help="go on from there")
args = parser.parse_args()
if args.steps < 1:
    parser.error("argument --steps: must be 1 or more")

# Meet the other processes. Without torchrun there is this one alone, with rank 0.
alone = {"store": dist.HashStore(), "rank": 0, "world_size": 1}
dist.init_process_group(**{} if dist.is_torchelastic_launched() else alone)
rank, world = dist.get_rank(), dist.get_world_size()
torch.cuda.set_device(dist.get_node_local_rank(0) if args.device == "cuda" else -1)
mesh = dist.init_device_mesh(args.device, (world,))

# A block is whole only while it is made: its shares are left when the next one comes.
N, T, V, E = 512, 8, 256, 16  # rows in a batch, bytes seen, kinds of bytes, their size
torch.manual_seed(0)
blocks = [fully_shard(Block(T * E), mesh=mesh) for _ in range(4)]
first, last = torch.nn.Embedding(V, E), torch.nn.Linear(T * E, V)
model = torch.nn.Sequential(first, torch.nn.Flatten(), *blocks, last)
fully_shard(model, mesh=mesh)  # all that no block has: the first and the last layer
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, foreach=True)
loss_fn = torch.nn.CrossEntropyLoss(reduction="sum")

text = "".join(topics[name] for name in sorted(topics))[:100_000]
chars = torch.tensor(list(text.encode()), device=args.device)
try:
    done = load(args.checkpoint, model, optimizer) if args.checkpoint else 0
except (Exception, dcp.CheckpointException) as error:  # noqa: BLE001, or others
    parser.error(f"argument --checkpoint: cannot go on from there: {error!r:.99}")
whole, shares = sum(w.numel() for w in model.parameters()), [None] * world
share = sum(w.to_local().numel() for w in model.parameters()) / whole
dist.all_gather_object(shares, f"{share:.3f}")
if rank == 0:
    print(f"parameters {whole}  shares {' '.join(shares)}")
for t in range(done + 1, args.steps + 1):
    # The step is the seed, so a run that goes on sees what it would have seen.
    torch.manual_seed(t)
    i = torch.randint(len(chars) - T, (N, 1)) + torch.arange(T + 1)  # (N, T + 1)
    batch = chars[i.tensor_split(world)[rank]]  # the rows of this process
    # FSDP takes the mean over processes where we need the sum: hence world.
    loss = loss_fn(model(batch[:, :-1]), batch[:, -1]) / N  # ()
    optimizer.zero_grad()
    (loss * world).backward()
    optimizer.step()
    if t == 1 or t % 50 == 0 or t == args.steps:
        dist.all_reduce(loss.detach())  # in place: the sum over the processes
        if rank == 0:
            print(f"step {t:4d}  loss {loss.item():.4e}")
        if args.checkpoint:
            save(args.checkpoint, t, model, optimizer)

# The shares must be gone before the group of processes is, or the exit may crash.
del model, optimizer, blocks, first, last
gc.collect()
dist.destroy_process_group()
