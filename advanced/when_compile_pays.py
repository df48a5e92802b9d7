"""Count the graphs that torch.compile makes, and measure where its code is faster.

What cannot be in a graph, such as a print, breaks it in two. What a graph took for
granted, such as a shape, has it made anew when that changes. Then two functions are
measured, eager and compiled in turn: a training step of the small network, which is
mostly matrix products, and a chain of elementwise operations, which become one loop.
"""

import argparse
import statistics
import time
import warnings

import torch

devices = [d for d in ("cpu", "cuda", "mps", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
args = parser.parse_args()

# Before PyTorch 2.15, the compiler uses a part of PyTorch that PyTorch deprecates.
warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)


def train_step(x, y, w1, w2, learning_rate=1e-6):
    """Take one step of gradient descent; return the loss before it, of shape ()."""
    h = x @ w1  # (N, H)
    h_relu = h.relu()
    y_pred = h_relu @ w2  # (N, D_out)
    loss = (y_pred - y).square().sum()  # ()
    grad_y_pred = 2 * (y_pred - y)  # (N, D_out)
    grad_w2 = h_relu.T @ grad_y_pred  # (H, D_out)
    grad_h = (grad_y_pred @ w2.T) * (h > 0)  # (N, H)
    grad_w1 = x.T @ grad_h  # (D_in, H)
    w1.sub_(grad_w1, alpha=learning_rate)
    w2.sub_(grad_w2, alpha=learning_rate)
    return loss


def chain(x):
    """Return the GELU of x, of any shape, by nine elementwise operations.

    Hendrycks and Gimpel, Gaussian Error Linear Units, 2016, the form with tanh.
    """
    return 0.5 * x * (1 + torch.tanh(0.7978846 * (x + 0.044715 * x * x * x)))


def two_chains(x):
    """Do it twice; a print, even of nothing, is work for Python in between."""
    x = chain(x)
    print(end="")
    return chain(x)


def count_and_run(graph, example_inputs):
    """Be a backend of torch.compile: note each new graph, and run it as it is."""
    graphs.append(graph)
    return graph.forward


def measure(function, inputs):
    """Return how many seconds a call takes."""
    start = time.perf_counter()
    function(*inputs)
    if args.device != "cpu":
        torch.accelerator.synchronize()  # a GPU works on after the call returned
    return time.perf_counter() - start


for function, lengths in ((chain, [10]), (two_chains, [10]), (chain, [10, 20, 30])):
    graphs = []
    torch.compiler.reset()
    compiled = torch.compile(function, backend=count_and_run)
    for length in lengths:
        compiled(torch.ones(length))
    print(f"{function.__name__:10}  called with {lengths}  graphs {len(graphs)}")

N, D_in, H, D_out = 64, 1000, 100, 10  # batch, input, hidden and output size
torch.manual_seed(0)
shapes = (N, D_in), (N, D_out), (D_in, H), (H, D_out)
x, y, w1, w2 = [torch.randn(shape).to(args.device) for shape in shapes]
million = (torch.randn(1_000_000).to(args.device),)
for function, inputs in ((train_step, (x, y, w1, w2)), (chain, million)):
    torch.compiler.reset()
    compiled = torch.compile(function)
    try:
        first = measure(compiled, inputs)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        parser.error(
            f"cannot compile, are g++ and Python.h (python3-dev) there? {reason}"
        )

    # Rounds in turn, so that a busy moment hits both alike; then the median.
    rounds = [[measure(f, inputs) for f in (function, compiled)] for _ in range(100)]
    eager, later = map(statistics.median, zip(*rounds, strict=True))
    pays = first / (eager - later) if later < eager else float("inf")
    print(f"{function.__name__:10}  compiled / eager ratio {later / eager:.2f}", end="")
    print(f"  first call seconds {first:.1f}  pays after {pays:.0f} calls")
