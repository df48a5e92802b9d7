"""Run a bidirectional GRU over sequences of unequal length: alone, packed and padded.

A batch is one tensor, so short sequences are filled up with zeros. The network does not
know, and reads these as well. Packed, each sequence gets what it gets alone. The table
says for how many sequences that is so, and what a batch costs in time steps.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import torch
from torch.nn.functional import mse_loss
from torch.nn.utils.rnn import (
    pack_sequence,
    pad_sequence,
    unpack_sequence,
    unpad_sequence,
)


def alone(gru, sequences):
    """Return the outputs, (length, 2 * H), and last states, (2, H), of each sequence.

    The first H of an output, and the first state, come from the forward direction.
    """
    return zip(*[gru(sequence) for sequence in sequences], strict=True)


def packed(gru, sequences):
    """Return the same from one pass over the steps that there are."""
    output, h_n = gru(pack_sequence(sequences, enforce_sorted=False))
    return unpack_sequence(output), h_n.unbind(1)


def padded(gru, sequences):
    """Return outputs and last states of one pass over all steps, padding included."""
    output, h_n = gru(pad_sequence(sequences))  # (T, N, 2 * H) and (2, N, H)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return unpad_sequence(output, lengths), h_n.unbind(1)


def split(outputs, h_n):
    """Return outputs and last states of the forward direction, then of the backward."""
    H = h_n[0].shape[1]
    forward, backward = [h[:, :H] for h in outputs], [h[:, H:] for h in outputs]
    return forward, [h[0] for h in h_n], backward, [h[1] for h in h_n]


def count_same(found, expected):
    """Return how many of the tensors agree with the expected ones to 1e-6."""
    pairs = zip(found, expected, strict=True)
    return sum(torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in pairs)


devices = [d for d in ("cpu", "cuda", "mps", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
parser.add_argument("--time", action="store_true", help="measure the seconds as well")
parser.add_argument("--plot", metavar="FILE.png", type=Path, help="draw the errors")
args = parser.parse_args()
if args.plot:
    writable = os.access(f"{args.plot.parent}/", os.W_OK)
    if args.plot.suffix != ".png" or args.plot.is_dir() or not writable:
        parser.error("argument --plot: must be a .png in a folder that takes files")

# On a GPU, cuDNN may round the factors of its products. Not here: we count to 1e-6.
torch.backends.cudnn.allow_tf32 = False
N, D_in, H = 16, 8, 16  # batch, input and hidden size
torch.manual_seed(0)
lengths = range(1, N + 1)
sequences = [torch.randn(length, D_in).to(args.device) for length in lengths]
targets = [torch.randn(length, 2 * H).to(args.device) for length in lengths]
gru = torch.nn.GRU(D_in, H, bidirectional=True).to(args.device)
gru.requires_grad_(False)

print(f"of {N} sequences, so many get what they get alone:")
print("        forward   h_n  backward   h_n  time steps")
expected = split(*alone(gru, sequences))
for way, steps in ((packed, sum(lengths)), (padded, N * max(lengths))):
    found = split(*way(gru, sequences))
    same = [count_same(f, e) for f, e in zip(found, expected, strict=True)]
    print("{}  {:7} {:5}  {:8} {:5}  {:10}".format(way.__name__, *same, steps))

# A mean over all steps counts the padding as well. The mask says which steps are real.
h, y = gru(pad_sequence(sequences))[0], pad_sequence(targets)  # (T, N, 2 * H)
mask = pad_sequence([torch.ones(n, dtype=torch.bool) for n in lengths])  # (T, N)
forward, y = h[:, :, :H], y[:, :, :H]
loss = mse_loss(torch.cat(expected[0]), torch.cat([t[:, :H] for t in targets]))
print(f"alone   loss {loss:.4e}")
print(f"padded  loss {mse_loss(forward, y):.4e}")
print(f"masked  loss {mse_loss(forward[mask], y[mask]):.4e}")

if args.time:
    # Rounds in turn, so that a busy moment hits all ways alike; then the median.
    seconds = {way: [] for way in (alone, packed, padded)}
    for way in 20 * list(seconds):
        start = time.perf_counter()
        way(gru, sequences)
        if args.device != "cpu":
            torch.accelerator.synchronize()  # a GPU works on after the call returned
        seconds[way].append(time.perf_counter() - start)
    for way, times in seconds.items():
        share = statistics.median(times) / statistics.median(seconds[padded])
        print(f"{way.__name__:6}  time {share:.2f} of padded")

if args.plot:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    for axes, i, title in zip(figure.subplots(1, 2), (0, 2), ("forward", "backward")):
        errors = [(f - e).abs().amax(1) for f, e in zip(found[i], expected[i])]
        errors = pad_sequence(errors, padding_value=torch.nan).clamp(min=1e-8).T
        image = axes.imshow(errors.numpy(force=True), norm="log", vmin=1e-8, vmax=1)
        axes.set(title=title, xlabel="time step", ylabel="sequence")
    figure.colorbar(image, label="error of the padded output")
    worst = str([a.images[0].get_array().max(1).tolist() for a in figure.axes[:2]])
    try:
        figure.savefig(args.plot, metadata={"Description": worst})
    except OSError as error:
        parser.error(f"cannot write {args.plot}: {error}")
