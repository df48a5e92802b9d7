"""What one training step of every rung costs, as a ratio to its matrix products.

    python tests/benchmark_ladder.py
    python tests/benchmark_ladder.py --sizes 100 400 1600 6400 --plot FILE

The floor is the five matrix products of a step, into memory that is there already. Each
rung is run by its own file, in a process of its own. All of them are measured in turns,
in one run. A figure is the median over the turns of the rung's time over the floor's.
"""

import argparse
import ast
import importlib.metadata
import importlib.util
import multiprocessing
import os
import platform
import re
import statistics
import sys
from pathlib import Path

from readme import README, rows

ROOT = Path(__file__).resolve().parents[1]
CONTEXT = multiprocessing.get_context("spawn")
TURNS, SECONDS = 15, 0.05  # of each rung, in turn
NUMPY = "tensor/two_layer_net_numpy.py"
FLOOR = """
x, w1, w2 = torch.randn(N, D_in), torch.randn(D_in, H), torch.randn(H, D_out)
h, y_pred = x @ w1, torch.randn(N, D_out)
grad_w1, grad_w2 = torch.empty_like(w1), torch.empty_like(w2)
for t in range(1, args.steps + 1):
    torch.mm(x, w1, out=h)
    torch.mm(h, w2, out=y_pred)
    torch.mm(h.T, y_pred, out=grad_w2)
    torch.mm(y_pred, w2.T, out=h)
    torch.mm(x.T, h, out=grad_w1)
"""
JAX = """
import jax
import numpy as np

x, y, w1, w2 = (
    jax.numpy.array(np.random.default_rng(0).standard_normal(shape, np.float32))
    for shape in ((N, D_in), (N, D_out), (D_in, H), (H, D_out))
)

def loss_fn(w1, w2):
    return jax.numpy.square(jax.nn.relu(x @ w1) @ w2 - y).sum()

@jax.jit
def step(w1, w2):
    loss, (grad_w1, grad_w2) = jax.value_and_grad(loss_fn, (0, 1))(w1, w2)
    return loss, w1 - learning_rate * grad_w1, w2 - learning_rate * grad_w2

for t in range(1, args.steps + 1):
    loss, w1, w2 = step(w1, w2)
    loss.block_until_ready()
"""
HEAD = "import torch\nN, D_in, H, D_out = 64, 1000, 100, 10\nlearning_rate = 1e-6\n"


def sources(wanted):
    """Return {name: source} of the floor, of the rungs, and of JAX if it is there."""
    ladder = [NUMPY, *rows(README.read_text(encoding="utf-8"))]
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in ladder}
    texts = {"the matrix products alone": HEAD + FLOOR} | texts
    if importlib.util.find_spec("jax"):
        texts["JAX, jit"] = HEAD + JAX
    if not importlib.util.find_spec("tensorflow"):
        texts = {name: text for name, text in texts.items() if "tensorf" not in text}
    first = next(iter(texts))
    return {n: texts[n] for n in texts if not wanted or n in wanted or n == first}


class MeasuredLoop(ast.NodeTransformer):
    """Puts a call of measure(body of the loop) in place of a training loop."""

    def visit_For(self, node):
        if not ast.unparse(node.iter).startswith("range(1, "):
            return node
        body = [ast.unparse(line) for line in node.body]
        text = "\n".join(line for line in body if "print(" not in line)
        return ast.parse(f"measure({text!r}, locals())").body[0]


def work(name, text, size, threads, pipe):
    """Run a script up to its training loop; there, time as many steps as asked for."""
    if threads == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import torch
    from torch.utils.benchmark import Timer

    def measure(body, variables):
        names = [node for node in ast.walk(ast.parse(body)) if type(node) is ast.Name]
        assigned = {node.id for node in names if type(node.ctx) is ast.Store}
        setup = f"global {', '.join({'t', *assigned})}"
        timer = Timer(body, setup, globals=variables, num_threads=threads)
        pipe.send(timer.timeit(20).median)
        for steps in iter(pipe.recv, 0):
            pipe.send(timer.timeit(steps).median)

    # Weights that do not move: a step costs the same, and no number becomes nan.
    text = re.sub(r"(learning_rate =|lr=) ?1e-\d", r"\1 1e-30", text)
    text = text.replace("1000, 100, 10", f"1000, {size}, 10")
    tree = ast.fix_missing_locations(MeasuredLoop().visit(ast.parse(text)))
    variables = {"__name__": "__main__", "measure": measure, "torch": torch}
    sys.argv = [name]
    exec(compile(tree, name, "exec"), variables)  # noqa: S102


def measure(texts, size, threads):
    """Return the floor in seconds, and {name: median ratio to it}."""
    os.environ |= {
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
    }
    pipes = {}
    for name, text in texts.items():
        pipes[name], other = CONTEXT.Pipe()
        args = (name, text, size, threads, other)
        CONTEXT.Process(target=work, args=args, daemon=True).start()
        other.close()
    floor, *_ = [pipe.recv() for pipe in pipes.values()]
    steps = max(2, round(SECONDS / floor))
    seconds = {name: [] for name in texts}
    for _ in range(TURNS):
        for name, pipe in pipes.items():
            pipe.send(steps)
            seconds[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(0)
    first, *_ = seconds.values()
    return statistics.median(first), {
        name: statistics.median(s / f for s, f in zip(mine, first, strict=True))
        for name, mine in seconds.items()
    }


def processor():
    """Return the name of the processor, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    found = re.search(r"model name\s*: (.+)", text)
    return found[1] if found else platform.processor() or platform.machine()


def draw(results, names, sizes, file):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="hidden units", ylabel="time / matrix products")
    for name in names:
        axes.plot(sizes, [ratios[name] for _, ratios in results], "o-", label=name)
    axes.set_xscale("log", base=4)
    axes.set_xticks(sizes, map(str, sizes))
    axes.axhline(1, color="black", linewidth=1)
    axes.legend(fontsize="small", loc="upper right")
    figure.savefig(file, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rungs", nargs="*", help="default: all")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count()])
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    texts = sources(args.rungs)
    runs = [(size, threads) for threads in args.threads for size in args.sizes]
    results = [measure(texts, *run) for run in runs]
    versions = [f"Python {platform.python_version()}"] + [
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torch", "numpy", "tensorflow", "jax")
        if importlib.util.find_spec(name)
    ]
    print(f"{processor()}, {os.cpu_count()} cores; {', '.join(versions)}")
    lines = [["a step of"], ["---"], *([name] for name in texts)]
    for (size, threads), (floor, ratios) in zip(runs, results, strict=True):
        column = [f"H = {size}, {threads} thread{'s'[: threads > 1]}", "---"]
        column += [f"{ratio:.2f}" for ratio in ratios.values()]
        column[2] += f" ({floor * 1e6:.0f} us)"
        for line, cell in zip(lines, column, strict=True):
            line.append(cell)
    for line in lines:
        print(f"| {' | '.join(line)} |")
    if args.plot:
        draw(results, list(texts)[1:], args.sizes, args.plot)


if __name__ == "__main__":
    main()
