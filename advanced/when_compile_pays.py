"""Measure when the code that torch.compile makes is worth the time of making it.

Two functions, eager and compiled: a training step of the small network, which is mostly
matrix products, and a chain of elementwise operations, which become a single loop.
"""

import argparse
import statistics
import time
import warnings

import torch

# Before PyTorch 2.15, the compiler uses a part of PyTorch that PyTorch deprecates.
warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)


def train_step(x, y, w1, w2):
    """Take one step of gradient descent; return the loss before it, of shape ()."""
    h = x @ w1  # (N, H)
    h_relu = h.relu()
    y_pred = h_relu @ w2  # (N, D_out)
    loss = (y_pred - y).square().sum()

    grad_y_pred = 2 * (y_pred - y)  # (N, D_out)
    grad_w2 = h_relu.T @ grad_y_pred  # (H, D_out)
    grad_h_relu = grad_y_pred @ w2.T  # (N, H)
    grad_h = grad_h_relu * (h > 0)
    grad_w1 = x.T @ grad_h  # (D_in, H)

    w1 -= 1e-6 * grad_w1
    w2 -= 1e-6 * grad_w2
    return loss


def gelu(x):
    """Return the GELU of x, of any shape, by nine elementwise operations.

    Hendrycks and Gimpel, Gaussian Error Linear Units, 2016, the form with tanh.
    """
    return 0.5 * x * (1 + torch.tanh(0.7978846 * (x + 0.044715 * x * x * x)))


def seconds(function, inputs):
    """Return how many seconds a call takes."""
    start = time.perf_counter()
    function(*inputs)
    if inputs[0].device.type != "cpu":
        torch.accelerator.synchronize()  # a GPU works on after the call has returned
    return time.perf_counter() - start


def compare(function, inputs, rounds=100):
    """Measure a function as it is and compiled.

    Returns the seconds of the first compiled call, of an eager call and of a later
    compiled call, the latter two as medians of so many rounds.
    """
    torch.compiler.reset()
    compiled = torch.compile(function)
    first = seconds(compiled, inputs)

    # In turn, so that a busy moment of the machine hits both alike.
    eager, later = [], []
    for _ in range(rounds):
        eager.append(seconds(function, inputs))
        later.append(seconds(compiled, inputs))
    return first, statistics.median(eager), statistics.median(later)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    args = parser.parse_args()

    N, D_in, H, D_out = 64, 1000, 100, 10
    torch.manual_seed(0)
    x = torch.randn(N, D_in, device=args.device)
    y = torch.randn(N, D_out, device=args.device)
    w1 = torch.randn(D_in, H, device=args.device)
    w2 = torch.randn(H, D_out, device=args.device)
    million = torch.randn(1_000_000, device=args.device)

    for function, inputs in [(train_step, (x, y, w1, w2)), (gelu, (million,))]:
        try:
            first, eager, later = compare(function, inputs)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            parser.error(
                f"cannot compile, are g++ and Python.h (python3-dev) there? {reason}"
            )

        saved = eager - later
        print(f"{function.__name__:10}  compiled / eager {later / eager:.2f}", end="")
        print(f"  first call seconds {first:.1f}", end="")
        print(f"  1000 calls save seconds {1000 * saved:.2f}")


if __name__ == "__main__":
    main()
