"""Train one model in several processes at once, without locks (Hogwild).

The weights lie in shared memory. Each process takes its share of the batches, computes
gradients and subtracts them from the weights, whatever the others are doing. Some
updates get lost that way; the network learns all the same, and sooner. Compare with
--processes 1.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing as mp
from PIL import Image
from torch import nn


def draw_digits():
    """Return images (N, 3, 20, 20) and labels (N,) of data/draw_images.py.

    Where it draws nothing, it says why, and this script exits as well.
    """
    script = Path(__file__).resolve().parents[1] / "data" / "draw_images.py"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, script, folder, "--count", "200", "--size", "20"]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            sys.exit(done.returncode)
        files = sorted(Path(folder).glob("*/*.png"))  # 200 of each class in turn
        images = np.stack([Image.open(file) for file in files])  # (N, 20, 20, 3)

    labels = torch.arange(10).repeat_interleave(200)
    return torch.tensor(images).permute(0, 3, 1, 2).float(), labels


def make_model():
    """Return a small CNN that maps images (N, 3, 20, 20) to logits (N, 10)."""
    return nn.Sequential(
        nn.InstanceNorm2d(3),  # brings the bytes 0 to 255 near 0
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),  # (N, 16, 10, 10)
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),  # (N, 32, 5, 5)
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(1),  # (N, 64, 1, 1)
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def train(rank, processes, model, images, labels, epochs, barrier):
    """Train the shared model on this process's share of the batches.

    This runs in every process, with a rank from 0 to processes - 1. images is
    (N, 3, 20, 20), labels (N,). At the barrier, all wait for the last one to start.
    """
    torch.set_num_threads(1)  # or the processes take each other's cores
    barrier.wait()
    start = time.perf_counter()

    for epoch in range(1, epochs + 1):
        learning_rate = 0.035 * (1 - (epoch - 1) / epochs)

        # The same seed makes the same batches everywhere; each takes its share of them.
        torch.manual_seed(epoch)
        batches = torch.randperm(len(images)).split(4)[rank::processes]

        total_loss = 0
        for batch in batches:
            logits = model(images[batch])  # (4, 10)
            loss = nn.functional.cross_entropy(logits, labels[batch])
            total_loss += loss.item()

            model.zero_grad()
            loss.backward()

            # Read, subtract, write: what another process writes in between is lost.
            with torch.no_grad():
                for param in model.parameters():
                    param -= learning_rate * param.grad

        line = f"epoch {epoch:4d}  loss {total_loss / len(batches):.4e}  "
        line += f"process {rank + 1}  seconds {time.perf_counter() - start:.2f}\n"
        print(line, end="", flush=True)  # in one go, so that lines do not mix


def train_together(processes, model, images, labels, epochs):
    """Train the model, which must be in shared memory, in new processes.

    If one of them fails, the others are ended and its error is raised.
    """
    # As daemons, they end when this process does, by Ctrl-C for example.
    barrier = mp.get_context("spawn").Barrier(processes, timeout=600)
    task = processes, model, images, labels, epochs, barrier
    mp.spawn(train, task, processes, daemon=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()

    # SIGTERM would end Python at once; exiting removes images and ends processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    images, labels = draw_digits()
    torch.manual_seed(0)
    seen, held_out = torch.randperm(len(images)).split(1600)
    data = images[seen], labels[seen]

    torch.manual_seed(0)
    model = make_model()
    model.share_memory()
    train_together(args.processes, model, *data, args.epochs)

    # The processes have changed the weights of this one, which are in shared memory.
    with torch.no_grad():
        logits = model(images[held_out])  # (400, 10)
    loss = nn.functional.cross_entropy(logits, labels[held_out])
    accuracy = (logits.argmax(dim=1) == labels[held_out]).float().mean()
    print(f"held out: loss {loss:.4e}  accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
