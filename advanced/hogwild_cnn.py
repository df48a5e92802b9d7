"""Train one network in several processes at once, without locks (Hogwild).

The weights lie in shared memory. Each process takes its share of the batches, computes
gradients of its own and subtracts them, whatever the others are doing. So updates can
get lost: see what becomes of a counter. The network learns all the same, and sooner.
"""

import argparse
import copy
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


def make_net():
    """Return a network from images (N, 3, 20, 20) to scores (N, 10)."""
    layers = [nn.InstanceNorm2d(3)]  # brings the bytes 0 to 255 near 0
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10))


def work(rank, net, images, labels, epochs, counter, times, barrier):
    """Count to 100,000, then train net on a share of the images, beside the others.

    images is bytes (N, 3, 20, 20), labels (N,). times[rank] takes the seconds at which
    the training starts and ends. All see what becomes of counter and of the weights.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # started: Ctrl-C is for it again
    torch.set_num_threads(1)

    # The first pass is slow, as it sets things up. A copy makes it before the start.
    copy.deepcopy(net)(images[:4].float()).sum().backward()
    barrier.wait()

    for _ in range(100_000):
        counter += 1
    barrier.wait()

    processes = len(times)
    times[rank, 0] = start = time.perf_counter()  # one clock for all processes
    for epoch in range(1, epochs + 1):
        learning_rate = 0.035 * (1 - (epoch - 1) / epochs)
        # The same seed makes the same batches everywhere; they are dealt like cards.
        order = torch.randperm(len(images), generator=torch.manual_seed(epoch))
        batches = order.split(4)[rank::processes]

        total = 0
        for batch in batches:
            scores = net(images[batch].float())
            loss = nn.functional.cross_entropy(scores, labels[batch])
            net.zero_grad()
            loss.backward()

            # Read, subtract, write: what another process writes in between is lost.
            with torch.no_grad():
                for weight in net.parameters():
                    weight -= learning_rate * weight.grad
            total += loss.item()

        line = f"epoch {epoch:4d}  loss {total / len(batches):.4e}  process {rank + 1}"
        line += f" of {processes}  seconds {time.perf_counter() - start:.2f}\n"
        print(line, end="", flush=True)  # written in one go, so that no lines mix
    times[rank, 1] = time.perf_counter()


def together(processes, *task):
    """Do the task in new processes. Return what they counted and the seconds taken."""
    counter, times = torch.tensor(0), torch.zeros(processes, 2, dtype=torch.float64)
    task += counter, times, mp.get_context("spawn").Barrier(processes, timeout=600)

    # Ctrl-C is not for processes that are just starting: as daemons they end with us.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    context = mp.spawn(work, task, processes, join=False, daemon=True)
    signal.signal(signal.SIGINT, handler)

    try:
        while not context.join():
            pass
    except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
        sys.exit(f"error: {str(error).strip()}")
    except KeyboardInterrupt:
        sys.exit(130)
    return counter.item(), (times[:, 1].max() - times[:, 0].min()).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--processes", type=int, default=2, help="default: %(default)s")
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error("argument --epochs: must be 1 or more")
    if not 1 <= args.processes <= 64:
        parser.error("argument --processes: must be 1 to 64")

    # SIGTERM ends Python on the spot. As an exit it takes folder and processes along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as out:
        draw = Path(__file__).resolve().parents[1] / "data" / "draw_images.py"
        command = [sys.executable, draw, out, "--count=200", "--size=20"]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            reason = done.stderr.strip().rpartition("\n")[2]  # the last line
            parser.error(f"{draw} has drawn no images: {reason}")
        images = np.stack([Image.open(file) for file in sorted(Path(out).glob("*/*"))])

    images = torch.from_numpy(images).permute(0, 3, 1, 2)
    labels = torch.arange(10).repeat_interleave(200)
    seen, unseen = torch.randperm(2000, generator=torch.manual_seed(0)).split(1600)

    seconds = {}
    for n in sorted({1, args.processes}):
        torch.manual_seed(0)
        net = make_net().share_memory()
        counter, seconds[n] = together(n, net, images[seen], labels[seen], args.epochs)

        with torch.no_grad():
            scores = net(images[unseen].float())
        loss = nn.functional.cross_entropy(scores, labels[unseen])
        accuracy = (scores.argmax(1) == labels[unseen]).float().mean()
        print(f"processes {n}  counter {counter} of {n * 100_000}")
        print(f"processes {n}  loss {loss:.4e}  accuracy {accuracy:.4f}", end="  ")
        print(f"seconds {seconds[n]:.2f}  speed-up {seconds[1] / seconds[n]:.2f}")


if __name__ == "__main__":
    main()
