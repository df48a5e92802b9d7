"""Save all that a training needs to go on, so that a kill costs time and nothing else.

Killed and started again with the same --checkpoint, it prints the losses that it would
have printed anyway, to the last bit. Without one it shows what a part left out changes.
"""

import argparse
import contextlib
import glob
import io
import os
import zipfile

import numpy as np
import torch
from torch import nn


def pack(step):
    """Return a checkpoint, in bytes: the step and the states of all parts."""
    states = {name: part.state_dict() for name, part in parts.items()}
    states["random"] = {name: place.get_rng_state() for name, place in places.items()}
    stream = io.BytesIO()
    torch.save({"step": step, **states}, stream)
    return stream.getvalue()


def restore(checkpoint, left_out=None):
    """Load a checkpoint and return its step. If it is none, any exception may come."""
    if zipfile.ZipFile(io.BytesIO(checkpoint)).testzip() is not None:
        raise ValueError("damaged")  # torch.load does not look at the checksums
    saved = torch.load(io.BytesIO(checkpoint), map_location="cpu", weights_only=True)

    for name in parts.keys() - {left_out}:
        parts[name].load_state_dict(saved[name])
    if left_out != "random":
        for name, place in places.items():
            if name == "cpu" or name in saved["random"]:  # it may be from another GPU
                place.set_rng_state(saved["random"][name])
    return saved["step"]


def resume(file):
    """Go on from the checkpoint in a file and return its step, or raise an exception.

    What can be loaded need not fit. Two steps on trial tell: the second one takes the
    learning rate that the scheduler has set. Then all is restored once more.
    """
    if not os.path.isfile(file):
        raise ValueError("no regular file")
    with open(file, "rb") as stream:
        checkpoint = stream.read()

    step = restore(checkpoint)
    if not isinstance(step, int) or step < 0:
        raise ValueError(f"at step {step!r}")
    train_step()
    train_step()
    if not all(w.isfinite().all() for w in model.parameters()):
        raise ValueError("weights that are no numbers")
    return restore(checkpoint)


def write(checkpoint, file):
    """Let the file hold this checkpoint. After a crash it holds the old or the new."""
    unfinished = f"{file}.{os.urandom(4).hex()}.unfinished"  # a name of its own
    try:
        with open(unfinished, "xb") as stream:
            stream.write(checkpoint)
            stream.flush()
            os.fsync(stream.fileno())  # or a power cut may keep the name, not the bytes
        os.replace(unfinished, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        parser.error(f"cannot write {file}: {error}")

    for old in glob.glob(f"{glob.escape(file)}.*.unfinished"):
        with contextlib.suppress(OSError):  # a younger one may belong to another run
            if os.path.getmtime(file) - os.path.getmtime(old) > 3600:
                os.remove(old)


def train_step():
    """Fit half of the examples, drawn at random. Return what their loss was before."""
    batch = torch.randperm(N)[: N // 2].to(args.device)
    loss = nn.functional.mse_loss(model(x[batch]), y[batch], reduction="sum")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()  # sets the learning rate of the next step
    return loss.item()


devices = [d for d in ("cpu", "cuda", "mps", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--steps", type=int, default=500, help="default: %(default)s")
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
parser.add_argument("--checkpoint", type=os.path.realpath, help="resume from here")
parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
args = parser.parse_args()
if args.steps < 1:
    parser.error("argument --steps: must be 1 or more")
if args.every < 1:
    parser.error("argument --every: must be 1 or more")

# Inputs and targets come from a standard normal distribution, weights from Linear.
N, D_in, H, D_out = 64, 1000, 100, 10  # batch, input, hidden and output size
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
y = torch.tensor(randn((N, D_out), np.float32), device=args.device)

torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(D_in, H),
    nn.ReLU(),
    nn.Dropout(0.1),
    nn.Linear(H, D_out),
).to(args.device)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t / 100))

# What a checkpoint holds, besides the step.
parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
places = {args.device: getattr(torch, args.device), "cpu": torch}  # of random numbers
beginning = pack(0)

step = 0
if args.checkpoint and os.path.exists(args.checkpoint):
    try:
        step = resume(args.checkpoint)
    except Exception as error:  # noqa: BLE001, as a foreign file can raise anything
        parser.error(f"cannot resume from {args.checkpoint}: {error!r:.60}")
    if step > args.steps:
        parser.error(f"argument --steps: must be {step} or more: the checkpoint's step")
    print(f"resumed at step {step}")

half = args.steps // 2
losses = []
for t in range(step + 1, args.steps + 1):
    if args.checkpoint and (t - 1) % args.every == 0:
        write(pack(t - 1), args.checkpoint)
    if t == half + 1:
        middle = pack(half)
    losses.append(train_step())
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {losses[-1]:.8e}", flush=True)

if args.checkpoint:
    write(pack(args.steps), args.checkpoint)
else:
    # Train the second half again, each time with another part that is not restored.
    print(f"resumed at step {half}")
    for left_out in ("nothing", "optimizer", "scheduler", "random"):
        restore(beginning)
        restore(middle, left_out)
        again = [train_step() for _ in losses[half:]]
        pairs = zip(again, losses[half:], strict=True)
        off = max(abs(a / b - 1) for a, b in pairs)
        print(f"{left_out:9} left out  loss {again[-1]:.8e}  off by up to {off:.0%}")
