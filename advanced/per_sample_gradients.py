"""Compute the gradient of every sample at once, and find a wrong label by it.

backward() gives the gradient of the batch, in which the samples are added up. In
torch.func, grad turns the loss of one sample into the gradient for one sample, and vmap
maps that over the batch. Watch for the sample that pulls harder than all others.
"""

import argparse
import time
from functools import partial

import torch
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

devices = [d for d in ("cpu", "cuda", "mps", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--steps", type=int, default=100, help="default: %(default)s")
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
args = parser.parse_args()
if args.steps < 1:
    parser.error("argument --steps: must be 1 or more")

# Every class has a centre, its samples lie around it. One of them gets a wrong label.
N, D_in, H, classes = 256, 50, 100, 10  # batch, input and hidden size, classes
torch.manual_seed(0)
y = torch.randint(classes, (N,))  # (N,)
x = torch.randn(classes, D_in)[y] + torch.randn(N, D_in)  # (N, D_in)
wrong = torch.randint(N, ()).item()
y[wrong] = (y[wrong] + 1) % classes
x, y = x.to(args.device), y.to(args.device)
layers = torch.nn.Linear(D_in, H), torch.nn.ReLU(), torch.nn.Linear(H, classes)
model = torch.nn.Sequential(*layers).to(args.device)


def sample_loss(params, x, y):
    """Return the loss of one sample, x of shape (D_in,), as a function of params."""
    # functional_call runs the model with these parameters in place of its own.
    return cross_entropy(functional_call(model, params, (x,)), y)


# grad differentiates by the first argument, the same for all samples (None); the others
# are split along dimension 0, and every gradient gets that dimension in front.
sample_grads = vmap(grad(sample_loss), in_dims=(None, 0, 0))
params = {name: w.detach() for name, w in model.named_parameters()}

learning_rate = 0.1
for t in range(1, args.steps + 1):
    if t == 1 or t % 50 == 0:
        loss = cross_entropy(functional_call(model, params, (x,)), y)
        print(f"step {t:4d}  loss {loss.item():.4e}")

    # The gradient of a mean is the mean of the gradients.
    grads = sample_grads(params, x, y)  # for a weight (H, D_in) it is (N, H, D_in)
    for name, w in params.items():
        w.sub_(grads[name].mean(0), alpha=learning_rate)

# The length of each sample's gradient, taken over all parameters.
grads = sample_grads(params, x, y)
norms = sum(g.flatten(1).square().sum(1) for g in grads.values()).sqrt()  # (N,)
print(f"the wrong label is that of sample {wrong}")
for i in norms.topk(3).indices.tolist():
    print(f"sample {i:3d}  norm {norms[i].item():.3f}")
print(f"median      norm {norms.median().item():.3f}")


def loop():
    """Return what sample_grads returns, from one backward pass for each sample."""
    ws = {name: w.clone().requires_grad_() for name, w in params.items()}
    pairs = zip(x, y, strict=True)
    rows = [torch.autograd.grad(sample_loss(ws, *pair), ws.values()) for pair in pairs]
    return dict(zip(ws, map(torch.stack, zip(*rows, strict=True)), strict=True))


by_loop = loop()
torch.testing.assert_close(grads, by_loop)
difference = max((grads[name] - by_loop[name]).abs().max().item() for name in grads)
print(f"loop over the samples  difference {difference:.0e}")

# Measured in turns, with one thread.
ways = partial(sample_grads, params, x, y), loop
torch.set_num_threads(1)
seconds = {way: [] for way in ways}
for way in 5 * ways:
    start = time.perf_counter()
    way()
    if args.device != "cpu":
        torch.accelerator.synchronize()  # a GPU works on after the call returned
    seconds[way].append(time.perf_counter() - start)
# The fastest counts: others may have been disturbed.
vmap_time, loop_time = (min(seconds[way]) for way in ways)
print(f"vmap beside the loop  speed {loop_time / vmap_time:.1f}")
