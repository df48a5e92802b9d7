"""Train a network, and save a checkpoint from which the training can be resumed.

Run it with --checkpoint FILE, kill it at any moment, and start it again: it prints the
losses that it would have printed without the interruption, down to the last digit. That
takes more than the weights: see state_dict() for what a checkpoint holds.
"""

import argparse
import io
import math
import os

import numpy as np
import torch
from torch import nn

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10


class CheckpointError(Exception):
    """A file cannot be written, or holds no checkpoint of this training."""


class Training:
    """A network and all that changes while it is trained.

    As its parts do, it has state_dict() and load_state_dict().
    """

    def __init__(self, device):
        self.device = device
        self.step = 0

        # Inputs and targets are random: standard normal, with seed 0.
        randn = np.random.default_rng(0).standard_normal
        self.x = torch.tensor(randn((N, D_in), np.float32), device=device)
        self.y = torch.tensor(randn((N, D_out), np.float32), device=device)

        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(D_in, H),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(H, D_out),
        ).to(device)
        self.loss_fn = nn.MSELoss(reduction="sum")
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-3)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda t: 1 / (1 + t / 100)
        )

    def train_step(self):
        """Fit half of the examples, drawn at random; return their loss before that."""
        batch = torch.randperm(N)[: N // 2].to(self.device)  # (N / 2,)
        y_pred = self.model(self.x[batch])  # (N / 2, D_out)
        loss = self.loss_fn(y_pred, self.y[batch])

        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

        # Set the learning rate of the next step.
        self.scheduler.step()
        self.step += 1
        return loss.item()

    def state_dict(self):
        """Return the checkpoint: everything that the steps to come depend on."""
        checkpoint = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": torch.get_rng_state(),
        }
        if self.device != "cpu":
            # On a GPU, dropout draws from the GPU's own generator.
            gpu = torch.get_device_module(self.device)
            checkpoint["gpu_generator"] = gpu.get_rng_state()
        return checkpoint

    def load_state_dict(self, checkpoint):
        """Put everything back. A checkpoint from a GPU can be resumed on a CPU."""
        self.step = int(checkpoint["step"])
        self.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scheduler.load_state_dict(checkpoint["scheduler"])
        torch.set_rng_state(checkpoint["generator"])
        if self.device != "cpu" and "gpu_generator" in checkpoint:
            gpu = torch.get_device_module(self.device)
            gpu.set_rng_state(checkpoint["gpu_generator"])


def save(training, path):
    """Write a checkpoint; at every moment, the file holds a whole one, old or new.

    Raises CheckpointError if it cannot be written; the old one is kept then.
    """
    # Into memory first: torch.save itself would not say that a disk is full.
    checkpoint = io.BytesIO()
    torch.save(training.state_dict(), checkpoint)

    unfinished = f"{path}.unfinished"
    try:
        with open(unfinished, "wb") as file:
            file.write(checkpoint.getbuffer())
            # Wait for the disk, or a power cut could keep the name but not the bytes.
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error}") from error
    finally:
        if os.path.exists(unfinished):
            os.remove(unfinished)


def load(training, path):
    """Read a checkpoint and put everything back.

    A file that is no checkpoint of this training can raise any exception.
    """
    # map_location: the GPU that the tensors were saved on need not be here.
    # weights_only: a file from a stranger must not run code.
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    training.load_state_dict(checkpoint)


def resume(training, path):
    """Load a checkpoint, and make sure that training can go on from it.

    A file can be loaded and still not fit. So two steps are tried before any new
    checkpoint replaces that file. Raises CheckpointError.
    """
    try:
        load(training, path)
        training.train_step()
        loss = training.train_step()
        if not math.isfinite(loss):
            raise ValueError(f"the loss is {loss}")

        # Undo the two steps.
        load(training, path)
    except Exception as error:
        message = f"cannot resume from {path}, was it saved by this script?"
        raise CheckpointError(f"{message} {error!r:.70}") from error


def train(training, steps, path=None, every=50):
    """Train up to step number steps; given a path, save a checkpoint now and then."""
    while training.step < steps:
        loss = training.train_step()
        if training.step == 1 or training.step % 50 == 0:
            # Flush, or a kill after the checkpoint would lose this line for good.
            print(f"step {training.step:4d}  loss {loss:.8e}", flush=True)

        if path and (training.step % every == 0 or training.step == steps):
            save(training, path)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    parser.add_argument("--checkpoint", metavar="FILE", help="resume from here")
    parser.add_argument("--every", type=int, default=50, help="steps between saves")
    args = parser.parse_args(argv)
    if args.every < 1:
        parser.error("argument --every: must be at least 1")

    training = Training(args.device)
    try:
        if args.checkpoint and os.path.exists(args.checkpoint):
            resume(training, args.checkpoint)
            print(f"resumed at step {training.step}")
        elif args.checkpoint:
            # Find out now, and not hours later, whether it can be written.
            save(training, args.checkpoint)
        train(training, args.steps, args.checkpoint, args.every)
    except CheckpointError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
