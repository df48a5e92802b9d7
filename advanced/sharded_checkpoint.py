"""Save and resume sharded training, with any number of processes.

With --checkpoint, each process writes its own shards of the parameters and of Adam's
state, all at the same time. The next run resumes from the newest complete checkpoint
and reshards it for its own number of processes. The network is that of the optim
script, and so are the losses, wherever the run was interrupted.
"""

import argparse
import gc
import shutil
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard


class CheckpointError(Exception):
    """A checkpoint cannot be read or written; says which one and why."""


def first_reason(error):
    """Return what went wrong, in one line, in the first process that failed."""
    if isinstance(error, dcp.CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return f"{type(error).__name__}: {error}".splitlines()[0][:120]


def checkpoints(folder):
    """Return {step: path} for the checkpoints in folder, complete or not."""
    paths = [path for path in folder.glob("step-*") if path.name[5:].isdigit()]
    return {int(path.name[5:]): path for path in paths}


def save(folder, step, model, optimizer):
    """Write the checkpoint folder/step-STEP, and only then remove the older ones.

    All processes must call this. If one of them cannot write, all of them raise
    CheckpointError, and the older checkpoint stays.
    """
    path = folder / f"step-{step}"
    model_state, optimizer_state = get_state_dict(model, optimizer)
    state = {"model": model_state, "optimizer": optimizer_state}
    try:
        dcp.save(state, checkpoint_id=path)
    except (OSError, dcp.CheckpointException) as error:
        shutil.rmtree(path, ignore_errors=True)
        reason = first_reason(error)
        raise CheckpointError(f"cannot write {path}: {reason}") from None

    if dist.get_rank() == 0:
        for other_step, other_path in checkpoints(folder).items():
            if other_step != step:
                shutil.rmtree(other_path)


def load(folder, model, optimizer):
    """Load the newest checkpoint in folder and return its step, 0 if there is none.

    All processes must call this. Each reads what it needs for its own shards.
    Raises CheckpointError if a file is damaged, or belongs to another network. Reading
    can also run code that is hidden in a checkpoint: load only your own.
    """
    if folder.is_file():
        raise CheckpointError(f"cannot resume from {folder}: a file, not a folder")
    try:
        folder.mkdir(exist_ok=True)
        # A checkpoint is complete when it has the file that is written last.
        complete = [
            step
            for step, path in checkpoints(folder).items()
            if (path / ".metadata").exists()
        ]
        if not complete:
            return 0
        step = max(complete)

        reader = dcp.FileSystemReader(folder / f"step-{step}")
        reader.read_metadata()  # says in one line if this is no checkpoint at all
        model_state, optimizer_state = get_state_dict(model, optimizer)
        state = {"model": model_state, "optimizer": optimizer_state}
        dcp.load(state, storage_reader=reader)  # in place
        set_state_dict(
            model,
            optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
    except (Exception, dcp.CheckpointException) as error:  # noqa: BLE001, or others
        reason = first_reason(error)
        raise CheckpointError(f"cannot resume from {folder}: {reason}") from None
    return step


def train(x, y, steps, folder=None):
    """Train a sharded network, from the newest checkpoint in folder if there is one.

    x is (N, D_in), y is (N, D_out). All processes must call this, with the same
    arguments; each computes with its own rows.
    """
    rank = dist.get_rank()
    world_size = dist.get_world_size()
    D_in, H, D_out = x.shape[1], 100, y.shape[1]

    # The layers draw the initial weights of optim/two_layer_net_optim.py.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D_in, H), nn.ReLU(), nn.Linear(H, D_out))
    mesh = dist.init_device_mesh(x.device.type, (world_size,))
    fully_shard(model, mesh=mesh)
    loss_fn = nn.MSELoss(reduction="sum")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    done = load(folder, model, optimizer) if folder else 0
    if done and rank == 0:
        print(f"resumed after step {done}")

    x = x.tensor_split(world_size)[rank]  # (N / world_size, D_in)
    y = y.tensor_split(world_size)[rank]  # (N / world_size, D_out)
    for t in range(done + 1, steps + 1):
        # Forward pass, loss, backward pass and update are those of char_mlp_fsdp.py.
        y_pred = model(x)  # (N / world_size, D_out)
        loss = loss_fn(y_pred, y)
        if t == 1 or t % 50 == 0:
            total = loss.detach().clone()
            dist.all_reduce(total)  # in place: now the sum over all processes
            if rank == 0:
                print(f"step {t:4d}  loss {total.item():.4e}")

        optimizer.zero_grad()
        (world_size * loss).backward()
        optimizer.step()

        if folder and (t % 50 == 0 or t == steps):
            save(folder, t, model, optimizer)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, xpu")
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER")
    args = parser.parse_args()

    # Each process of a machine computes on its own GPU.
    if args.device != "cpu":
        torch.accelerator.set_device_index(dist.get_node_local_rank(0))

    # Meet the other processes. Without torchrun there is this one alone, with rank 0.
    if dist.is_torchelastic_launched():
        dist.init_process_group()
    else:
        dist.init_process_group(store=dist.HashStore(), rank=0, world_size=1)

    # Inputs and targets are random: standard normal, with seed 0.
    N, D_in, D_out = 64, 1000, 10
    randn = np.random.default_rng(0).standard_normal
    x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
    y = torch.tensor(randn((N, D_out), np.float32), device=args.device)

    problem = None
    try:
        train(x, y, args.steps, args.checkpoint)
    except CheckpointError as error:
        problem = str(error)

    # A clean end, as in char_mlp_fsdp.py: first the model, then the group.
    gc.collect()
    dist.destroy_process_group()
    if problem:
        parser.error(problem)


if __name__ == "__main__":
    main()
