"""Fit a two-layer ReLU network without keeping its activations (checkpointing).

The backward pass needs what the layers computed in the forward pass, their activations.
checkpoint() does not keep them: backward() computes them once more. The losses are, bit
for bit, those of the autograd script. At the end, compare how many bytes the graph of a
forward pass keeps, and how long a step takes: checkpointing saves memory, not time.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
args = parser.parse_args()

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10

# Inputs, targets and initial weights are random: standard normal, with seed 0.
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
y = torch.tensor(randn((N, D_out), np.float32), device=args.device)
w1 = torch.tensor(randn((D_in, H), np.float32), device=args.device, requires_grad=True)
w2 = torch.tensor(randn((H, D_out), np.float32), device=args.device, requires_grad=True)


def plain(x):
    return (x @ w1).relu() @ w2  # (N, D_out)


def checkpointed(x):
    return checkpoint(plain, x, use_reentrant=False)


learning_rate = 1e-6
for t in range(1, args.steps + 1):
    # Forward pass: predict y from x. The hidden layer is not kept.
    y_pred = checkpointed(x)  # (N, D_out)

    # The loss is the sum of the squared errors.
    loss = (y_pred - y).square().sum()
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}")

    # Backward pass: compute the gradients of the loss with respect to w1 and w2.
    # To go back through plain(), backward() first calls it once more.
    # backward() adds to w.grad, so the gradients of the last step are cleared first.
    w1.grad = None
    w2.grad = None
    loss.backward()

    # Gradient descent. Autograd must not record the update, hence no_grad.
    with torch.no_grad():
        w1 -= learning_rate * w1.grad
        w2 -= learning_rate * w2.grad


def bytes_kept(predict):
    """Return the bytes that the graph of a forward pass keeps, besides x, y, w1, w2."""
    saved = []

    def note(tensor):
        saved.append(tensor)
        return tensor

    # Autograd calls note() with every tensor that it saves for the backward pass.
    with saved_tensors_hooks(note, lambda tensor: tensor):
        (predict(x) - y).square().sum()

    # Tensors that share their memory are counted once: hence by its address.
    sizes = {}
    for tensor in saved:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
    for tensor in (x, y, w1, w2):
        sizes.pop(tensor.data_ptr(), None)
    return sum(sizes.values())


def seconds(predict):
    """Return the seconds of a forward and a backward pass."""
    start = time.perf_counter()
    loss = (predict(x) - y).square().sum()
    loss.backward()
    if x.device.type != "cpu":
        torch.accelerator.synchronize()  # a GPU works on after the call has returned
    return time.perf_counter() - start


# In turn, so that a busy moment of the machine hits both alike.
times = {plain: [], checkpointed: []}
for _ in range(30):
    for predict in (plain, checkpointed):
        times[predict].append(seconds(predict))

for predict in (plain, checkpointed):
    milliseconds = 1000 * statistics.median(times[predict])
    print(f"{predict.__name__:12}  bytes kept {bytes_kept(predict)}", end="")
    print(f"  milliseconds {milliseconds:.2f}")
