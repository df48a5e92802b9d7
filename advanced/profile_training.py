"""See where the time of a training step goes, with torch.profiler.

The profiler notes when each operation began and ended. The table shows the five that
cost most: the two products with x come first, by far. --trace FILE keeps all of it, in
the order of time, to be looked at in ui.perfetto.dev or chrome://tracing.
"""

import argparse
import os
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import profile, record_function

devices = [d for d in ("cpu", "cuda", "mps", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
parser.add_argument("--trace", type=Path, help="write all that happened to this file")
args = parser.parse_args()
if args.trace and (
    args.trace.is_dir() or not os.access(args.trace.absolute().parent, os.W_OK)
):
    parser.error(f"cannot write {args.trace}: name a file in a folder that exists")

# Inputs, targets and initial weights come from a seeded standard normal distribution.
N, D_in, H, D_out = 64, 1000, 100, 10  # batch, input, hidden and output size
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
y = torch.tensor(randn((N, D_out), np.float32), device=args.device)
w1 = torch.tensor(randn((D_in, H), np.float32), device=args.device, requires_grad=True)
w2 = torch.tensor(randn((H, D_out), np.float32), device=args.device, requires_grad=True)


def train(steps):
    """Take some steps of gradient descent, each in three parts that have names."""
    for _ in range(steps):
        with record_function("forward"):
            loss = ((x @ w1).relu() @ w2 - y).square().sum()
        with record_function("backward"):
            w1.grad = w2.grad = None
            loss.backward()
        with record_function("update"), torch.no_grad():
            w1.sub_(w1.grad, alpha=1e-6)
            w2.sub_(w2.grad, alpha=1e-6)


# The first steps are slower: threads start, memory is fetched. They are left out.
train(10)
os.environ["KINETO_LOG_LEVEL"] = "99"  # keeps messages of the profiler off the screen
with profile(record_shapes=True) as profiler:
    train(100)
if args.trace:
    profiler.export_chrome_trace(str(args.trace))

# Calls with the same shapes count together. On a GPU its own work is an event as well;
# here it is told with the operation that asked for it.
events = profiler.key_averages(group_by_input_shape=True)
events = [event for event in events if event.device_type == DeviceType.CPU]
parts = [event for event in events if event.is_user_annotation]
operations = [event for event in events if event.key.startswith("aten::")]

# A part is shown with all that happens in it, an operation without those it calls.
own = "self_cpu_time_total" if args.device == "cpu" else "self_device_time_total"
operations.sort(key=attrgetter(own), reverse=True)
for rows, column in ((parts, "cpu_time_total"), (operations, own)):
    total = sum(getattr(row, column) for row in rows)
    for row in rows[:5]:
        shapes = " ".join("x".join(map(str, shape)) for shape in row.input_shapes)
        share = getattr(row, column) / total
        print(f"{row.key:26}{shapes:20}calls {row.count:4d}  share {share:.2f}")
