"""Measure what one training step of every rung of the ladder costs.

    python tests/benchmark_ladder.py
    python tests/benchmark_ladder.py --hidden 100 400 1600 6400 --plot FILE.png

A step cannot do without its five matrix products, so its time is given as a ratio to
the time of these alone: once as PyTorch computes them, once as the rung's own library
does. Each rung is its own file, run in a process of its own up to its training loop;
then all loops are measured in turns, with one thread each. A figure is the median over
the turns. With JAX installed (pip install jax), its jit is measured beside them.

glibc is asked to keep the memory that a process has freed. Otherwise some processes
hand it back and fetch it again in every step, others do not, by chance; from 400 hidden
units on, that can take longer than all else that is not a matrix product.
"""

import argparse
import ast
import importlib.metadata
import linecache
import multiprocessing
import os
import platform
import re
import statistics
import sys
import textwrap
import time
from pathlib import Path

import apart
import pages
from collection import NUMPY, TF_FUNCTION, source

TURNS = 15
SECONDS_OF_A_TURN = 0.05
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_MMAP_MAX_": "0",
}

HEAD = """
N, D_in, H, D_out = 64, 1000, 100, 10
learning_rate = 1e-6
"""
LOOP = "for t in range(1, args.steps + 1):"
OF_TORCH = f"""{HEAD}
import torch
x, w1, w2 = torch.randn(N, D_in), torch.randn(D_in, H), torch.randn(H, D_out)
h, y_pred = torch.randn(N, H), torch.randn(N, D_out)
grad_w1, grad_w2 = torch.empty_like(w1), torch.empty_like(w2)
{LOOP}
    torch.mm(x, w1, out=h)
    torch.mm(h, w2, out=y_pred)
    torch.mm(h.T, y_pred, out=grad_w2)
    torch.mm(y_pred, w2.T, out=h)
    torch.mm(x.T, h, out=grad_w1)
"""
OF_NUMPY = f"""{HEAD}
import numpy as np
randn = np.random.default_rng(0).standard_normal
shapes = (N, D_in), (D_in, H), (H, D_out), (N, H), (N, D_out)
x, w1, w2, h, y_pred = (randn(shape, np.float32) for shape in shapes)
grad_w1, grad_w2 = np.empty_like(w1), np.empty_like(w2)
{LOOP}
    np.matmul(x, w1, out=h)
    np.matmul(h, w2, out=y_pred)
    np.matmul(h.T, y_pred, out=grad_w2)
    np.matmul(y_pred, w2.T, out=h)
    np.matmul(x.T, h, out=grad_w1)
"""
OF_TENSORFLOW = f"""{HEAD}
import tensorflow as tf
shapes = (N, D_in), (D_in, H), (H, D_out), (N, H), (N, D_out)
tensors = [tf.random.normal(shape) for shape in shapes]
@tf.function
def products(x, w1, w2, h, y_pred):
    results = (
        x @ w1,
        h @ w2,
        tf.matmul(h, y_pred, transpose_a=True),
        tf.matmul(y_pred, w2, transpose_b=True),
        tf.matmul(x, h, transpose_a=True),
    )
    return tf.add_n([result[0, 0] for result in results])
{LOOP}
    products(*tensors)
"""
OF_JAX = f"""{HEAD}
import jax
shapes = (N, D_in), (D_in, H), (H, D_out), (N, H), (N, D_out)
arrays = [jax.random.normal(jax.random.key(0), shape) for shape in shapes]
@jax.jit
def products(x, w1, w2, h, y_pred):
    return x @ w1, h @ w2, h.T @ y_pred, y_pred @ w2.T, x.T @ h
{LOOP}
    jax.block_until_ready(products(*arrays))
"""
JAX_STEP = f"""{HEAD}
import jax
import numpy as np

randn = np.random.default_rng(0).standard_normal
x, y, w1, w2 = (
    jax.numpy.array(randn(shape, np.float32))
    for shape in ((N, D_in), (N, D_out), (D_in, H), (H, D_out))
)

def loss_fn(w1, w2):
    return jax.numpy.square(jax.nn.relu(x @ w1) @ w2 - y).sum()

@jax.jit
def step(w1, w2):
    loss, (grad_w1, grad_w2) = jax.value_and_grad(loss_fn, (0, 1))(w1, w2)
    return loss, w1 - learning_rate * grad_w1, w2 - learning_rate * grad_w2

{LOOP}
    loss, w1, w2 = step(w1, w2)
    loss.block_until_ready()
"""
PRODUCTS = {
    "products of PyTorch": OF_TORCH,
    "products of NumPy": OF_NUMPY,
    "products of TensorFlow": OF_TENSORFLOW,
    "products of JAX": OF_JAX,
}
# In the picture: a few, each with another reason to cost what it costs.
DRAWN = [
    NUMPY,
    "tensor/two_layer_net_tensor.py",
    "autograd/two_layer_net_autograd.py",
    "nn/two_layer_net_nn.py",
    "optim/two_layer_net_optim.py",
    TF_FUNCTION,
]


def two_layer_nets():
    """Return the rungs whose step has the five products that all are compared with.

    A step of gradient_accumulation.py takes them five times and one of no_sync.py
    twice, to compare columns, and Triton's interpreter says nothing about a GPU.
    """
    others = re.compile("attention|accumulation|no_sync|triton")
    return [script for script in pages.ladder() if not others.search(script)]


def sources():
    """Return {name: source} of all that can be measured here, products first."""
    texts = dict(PRODUCTS)
    for script in two_layer_nets():
        texts[script] = source(script)
        if script == NUMPY:
            double = source(script).replace("float32", "float64")
            texts[f"{script} in float64"] = double
        if script == TF_FUNCTION:
            texts[f"{script} --eager"] = source(script)
    texts["JAX, jit"] = JAX_STEP
    return {
        name: text for name, text in texts.items() if apart.installed(library(text))
    }


def library(text):
    """Return the library that computes the products of a script."""
    for name in ("jax", "tensorflow", "torch"):
        if f"import {name}" in text:
            return name
    return "numpy"


def floor(text):
    """Return the name of the products that a script's own library computes."""
    return next(name for name in PRODUCTS if library(PRODUCTS[name]) == library(text))


class MeasuredLoop(ast.NodeTransformer):
    """Puts a call of measure(body of the loop) in place of a training loop."""

    def visit_For(self, node):
        if not ast.unparse(node.iter).startswith("range(1, "):
            return node
        body = [ast.unparse(line) for line in node.body]
        text = "\n".join(line for line in body if "print(" not in line)
        return ast.parse(f"measure({text!r}, globals())").body[0]


def prepared(text, hidden):
    """Return the text of a script that hands its loop to measure(body, variables).

    The weights do not move: a step costs the same all the time, and no number is nan.
    """
    text = re.sub(r"(learning_rate =|lr=) ?1e-\d", r"\1 1e-30", text)
    text = text.replace("1000, 100, 10", f"1000, {hidden}, 10")
    return ast.unparse(MeasuredLoop().visit(ast.parse(text)))


def seconds(body, variables, steps):
    """Return how long the body of a loop takes, run so many times."""
    loop = f"for t in range(2, {steps + 2}):\n" + textwrap.indent(body, "    ")
    code = compile(loop, "loop", "exec")
    start = time.perf_counter()
    exec(code, variables)  # noqa: S102
    return time.perf_counter() - start


def work(name, text, hidden, pipe):
    """Run a script up to its training loop; there, time as many steps as asked for."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    def measure(body, variables):
        seconds(body, variables, 20)  # the first steps are slower
        for steps in iter(pipe.recv, 0):
            pipe.send(seconds(body, variables, steps) / steps)

    sys.argv = [name, *re.findall(r"--\w+", name)]
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    text = prepared(text, hidden)
    # tf.function reads the source of what it traces.
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    variables = {"__name__": "__main__", "measure": measure}
    exec(compile(text, name, "exec"), variables)  # noqa: S102


def measured(texts, hidden):
    """Return {name: [seconds of a step in each turn]}."""
    os.environ.update(SETTINGS)
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name, text in texts.items():
        pipes[name], other = context.Pipe()
        arguments = name, text, hidden, other
        context.Process(target=work, args=arguments, daemon=True).start()
        other.close()

    times = {name: [] for name in texts}
    try:
        steps = dict.fromkeys(texts, 4)
        for _ in range(1 + TURNS):
            for name, pipe in pipes.items():
                pipe.send(steps[name])
                times[name].append(pipe.recv())
                steps[name] = max(4, round(SECONDS_OF_A_TURN / times[name][-1]))
        for pipe in pipes.values():
            pipe.send(0)
    except (EOFError, ConnectionError):
        raise SystemExit(f"{name} failed, see above") from None
    return {name: turns[1:] for name, turns in times.items()}


def ratio(times, other):
    """Return the median, over the turns, of the ratio of two times."""
    return statistics.median(a / b for a, b in zip(times, other, strict=True))


def table(texts, times):
    """Return rows of (name, ratio to PyTorch's products, to its own library's)."""
    rows = []
    for name, text in texts.items():
        to_torch = ratio(times[name], times[next(iter(PRODUCTS))])
        own = ratio(times[name], times[floor(text)])
        rows.append((name, to_torch, own))
    return rows


def processor():
    """Return the name of the processor, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    found = re.search(r"model name\s*: (.+)", text)
    return found[1] if found else platform.processor() or platform.machine()


def versions():
    names = [n for n in ("torch", "numpy", "tensorflow", "jax") if apart.installed(n)]
    found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return ", ".join([f"Python {platform.python_version()}", *found])


def draw(tables):
    """Return a figure of {hidden units: rows of a table}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.6), dpi=240, layout="constrained")
    axes = figure.add_subplot(
        xlabel="hidden units", ylabel="step / products of its library"
    )
    for name in DRAWN:
        ratios = [
            {rung: own for rung, _, own in rows}.get(name) for rows in tables.values()
        ]
        if None not in ratios:
            axes.semilogy(list(map(str, tables)), ratios, "o-", label=name)
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yticks([1, 2, 3, 4], labels=["1", "2", "3", "4"], minor=False)
    axes.yaxis.set_minor_formatter("")
    figure.legend(loc="outside lower center")
    return figure


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rungs", nargs="*", help="scripts of the ladder; default: all")
    parser.add_argument("--hidden", type=int, nargs="+", default=[100], metavar="H")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the ratios")
    args = parser.parse_args()
    texts = {
        name: text
        for name, text in sources().items()
        if not args.rungs or name in [*PRODUCTS, *args.rungs]
    }

    print(f"{processor()}; {versions()}; one thread")
    tables = {}
    for hidden in args.hidden:
        times = measured(texts, hidden)
        tables[hidden] = table(texts, times)
        product = 1e3 * statistics.median(next(iter(times.values())))
        print(f"\nH = {hidden}; the products of PyTorch take {product:.2f} ms\n")
        print("| a step of | to PyTorch's products | to its library's |")
        print("|---|---|---|")
        for name, to_torch, own in tables[hidden]:
            print(f"| {name} | {to_torch:.2f} | {own:.2f} |")

    if args.plot:
        draw(tables).savefig(args.plot)


if __name__ == "__main__":
    main()
