"""See where the time of a training step goes, with torch.profiler.

The profiler records when each operation begins and ends. Most of the time goes into the
matrix products (aten::mm), and most of that into the two with x. --trace FILE keeps the
whole record, to be looked at in ui.perfetto.dev or chrome://tracing.
"""

import argparse
import os

import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import profile, record_function

PARTS = ["forward", "backward", "update"]


def train(x, y, w1, w2, steps):
    """Take some steps of gradient descent, each in three parts that have names."""
    learning_rate = 1e-6
    for _ in range(steps):
        with record_function("forward"):
            y_pred = (x @ w1).relu() @ w2  # (N, D_out)
            loss = (y_pred - y).square().sum()

        with record_function("backward"):
            w1.grad = None
            w2.grad = None
            loss.backward()

        with record_function("update"), torch.no_grad():
            w1 -= learning_rate * w1.grad
            w2 -= learning_rate * w2.grad


def record(device, steps=100):
    """Return the profiler that has recorded so many training steps."""
    N, D_in, H, D_out = 64, 1000, 100, 10
    randn = np.random.default_rng(0).standard_normal
    x = torch.tensor(randn((N, D_in), np.float32), device=device)
    y = torch.tensor(randn((N, D_out), np.float32), device=device)
    w1 = torch.tensor(randn((D_in, H), np.float32), device=device, requires_grad=True)
    w2 = torch.tensor(randn((H, D_out), np.float32), device=device, requires_grad=True)

    # The first steps are slower (threads start, memory is allocated): leave them out.
    train(x, y, w1, w2, steps=10)
    os.environ["KINETO_LOG_LEVEL"] = "99"  # keeps messages of the profiler away
    with profile(record_shapes=True) as profiler:
        train(x, y, w1, w2, steps)
    return profiler


def totals(profiler, by_shape=False):
    """Return an event for each operation, all calls of it added up.

    by_shape tells calls apart whose inputs have other shapes. What a GPU does is added
    to the operation that asked for it, and not returned again.
    """
    events = profiler.key_averages(group_by_input_shape=by_shape)
    return [event for event in events if event.device_type == DeviceType.CPU]


def report(profiler, device):
    """Print the parts of the step, its operations, and its matrix products."""
    # A part of the step, with all that happens in it.
    parts = [event for event in totals(profiler) if event.key in PARTS]
    total = sum(part.cpu_time_total for part in parts)
    for part in parts:
        print(f"{part.key:22} share of step {part.cpu_time_total / total:.2f}")

    # An operation, without the operations that it calls: its own (self) time.
    self_time = "self_cpu_time_total"
    if device != "cpu":
        self_time = "self_device_time_total"
    operations = [event for event in totals(profiler) if event.key.startswith("aten::")]
    operations.sort(key=lambda event: getattr(event, self_time), reverse=True)
    total = sum(getattr(event, self_time) for event in operations)
    for event in operations[:4]:
        share = getattr(event, self_time) / total
        print(f"{event.key:22} calls {event.count}  share of operations {share:.2f}")

    # The matrix products one by one, in the order of the step.
    for event in totals(profiler, by_shape=True):
        if event.key == "aten::mm":
            (n, k), (_, m) = event.input_shapes
            share = getattr(event, self_time) / total
            print(f"{n:4} x {k:4} @ {k:4} x {m:4}  share of operations {share:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    parser.add_argument("--trace", metavar="FILE", help="write the whole record there")
    args = parser.parse_args()
    if args.trace:
        try:
            open(args.trace, "a").close()
        except OSError as error:
            parser.error(f"cannot write the trace: {error}")

    profiler = record(args.device)
    if args.trace:
        profiler.export_chrome_trace(args.trace)
    report(profiler, args.device)


if __name__ == "__main__":
    main()
