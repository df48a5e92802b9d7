"""What one training step of every rung costs, as a ratio to its matrix products.

    python tests/benchmark_ladder.py
    python tests/benchmark_ladder.py --sizes 100 400 1600 6400 --plot FILE

The sizes are numbers of hidden units. Each is measured with one thread, the first one
with a thread for each core as well.

The floor is the five matrix products of a step, into memory that is there already. Each
rung is its own file, run in a process of its own up to its training loop. All of them
are measured in turns, in one run. A figure is the median over the turns of the rung's
time over the floor's. With JAX installed, its jit is measured beside them.

A process keeps the memory that it has freed, as far as the C library is told to by the
environment (glibc can be). Otherwise some hand it back to the system and fetch it again
in every step, others not, by chance, and from 400 hidden units on that can take longer
than all else that is not a matrix product.
"""

import argparse
import ast
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import statistics
import sys
from pathlib import Path

import apart
from readme import README
from readme import rows as rungs_and_neighbours

ROOT = Path(__file__).resolve().parents[1]
CONTEXT = multiprocessing.get_context("spawn")
TURNS, SECONDS, LEAST = 15, 0.05, 4  # of each rung: turns, and what one of them takes
NUMPY = "tensor/two_layer_net_numpy.py"
EAGER = "advanced/tf_two_layer_net_function.py"
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "4294967296", "MALLOC_MMAP_MAX_": "0"}
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
UPDATE = """
    w1.sub_(grad_w1, alpha=1e-30)
    w2.sub_(grad_w2, alpha=1e-30)
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
    """Return {name: source}: the floor, the rungs, and what is shown beside them."""
    ladder = [NUMPY, *rungs_and_neighbours(README.read_text(encoding="utf-8"))]
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in ladder}
    texts = {
        "the matrix products alone": HEAD + FLOOR,
        "the same and the update": HEAD + FLOOR.rstrip("\n") + UPDATE,
        "NumPy in float64": texts[NUMPY].replace("float32", "float64"),
        **texts,
        f"{EAGER} --eager": texts[EAGER],
        "JAX, jit": HEAD + JAX,
    }
    for module in ("jax", "tensorflow"):
        if not apart.installed(module):
            line = f"import {module}"
            texts = {name: text for name, text in texts.items() if line not in text}
    floor = next(iter(texts))
    return {n: texts[n] for n in texts if not wanted or n in wanted or n == floor}


class MeasuredLoop(ast.NodeTransformer):
    """Puts a call of measure(body of the loop) in place of a training loop."""

    def visit_For(self, node):
        if not ast.unparse(node.iter).startswith("range(1, "):
            return node
        body = [ast.unparse(line) for line in node.body]
        text = "\n".join(line for line in body if "print(" not in line)
        return ast.parse(f"measure({text!r}, locals())").body[0]


def prepared(text, size):
    """Return the code of a script that hands its loop to measure(body, variables).

    The weights do not move: a step costs the same all the time, and no number is nan.
    """
    text = re.sub(r"(learning_rate =|lr=) ?1e-\d", r"\1 1e-30", text)
    text = text.replace("1000, 100, 10", f"1000, {size}, 10")
    return ast.fix_missing_locations(MeasuredLoop().visit(ast.parse(text)))


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

    variables = {"__name__": "__main__", "measure": measure, "torch": torch}
    sys.argv = [name, *re.findall(r"--\w+", name)]
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    exec(compile(prepared(text, size), name, "exec"), variables)  # noqa: S102


def measure(texts, size, threads):
    """Return the floor in seconds, and {name: median ratio to it}."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    os.environ |= KEEP_MEMORY | dict.fromkeys(names, str(threads))
    pipes = {}
    for name, text in texts.items():
        pipes[name], other = CONTEXT.Pipe()
        args = (name, text, size, threads, other)
        CONTEXT.Process(target=work, args=args, daemon=True).start()
        other.close()
    once = {}
    for name, pipe in pipes.items():
        try:
            once[name] = pipe.recv()
        except EOFError:
            raise SystemExit(f"{name} failed, see above") from None
    floor, *_ = once.values()
    steps = max(LEAST, round(SECONDS / floor))
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


def table(runs, results):
    """Return the rows of a table, the names and titles included."""
    columns = [["a step of", *results[0][1]]]
    for (size, threads), (floor, ratios) in zip(runs, results, strict=True):
        title = f"H = {size}, {threads} thread{'s'[: threads > 1]}"
        columns.append([title, *(f"{ratio:.2f}" for ratio in ratios.values())])
        columns[-1][1] = f"1 ({1e3 * floor:.2f} ms)"
    return list(zip(*columns, strict=True))


def draw(rows, file):
    """Draw how the ratios change with the size, with one thread."""
    from matplotlib.figure import Figure

    head, (floor, *_), *others = rows
    place = [i for i, title in enumerate(head) if title.endswith(" 1 thread")]
    sizes = [re.search(r"\d+", head[i])[0] for i in place]
    figure = Figure(figsize=(8, 6), dpi=72, layout="constrained")
    axes = figure.add_subplot(xlabel="hidden units", ylabel=f"time / {floor}")
    for number, (name, *cells) in enumerate(others):
        style = ("o-", "s--", "^:")[number // 6 % 3]
        column = [float(cells[i - 1]) for i in place]
        axes.semilogy(sizes, column, style, base=2, label=name)
    axes.axhline(1, color="black", linewidth=1)
    axes.yaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    # The table goes into the file as text, too, for programs to read.
    figure.savefig(file, metadata={"Description": json.dumps(rows)})


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rungs", nargs="*", help="default: all")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100])
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    known = list(sources([]))
    for name in args.rungs:
        if name not in known:
            parser.error(f"no such rung: {name!r}; there are {known}")
    if min(args.sizes) < 1:
        parser.error("argument --sizes: must be 1 or more")
    if args.plot and not (args.plot.suffix == ".png" and args.plot.parent.is_dir()):
        parser.error("argument --plot: must be a .png in a folder that exists")
    texts = sources(args.rungs)
    runs = [(size, 1) for size in args.sizes] + [(args.sizes[0], os.cpu_count())]
    results = [measure(texts, *run) for run in runs]
    versions = [f"Python {platform.python_version()}"] + [
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torch", "numpy", "tensorflow", "jax")
        if apart.installed(name)
    ]
    print(f"{processor()}, {os.cpu_count()} cores; {', '.join(versions)}\n")
    rows = table(runs, results)
    for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]:
        print(f"| {' | '.join(row)} |")
    if args.plot:
        draw(rows, args.plot)


if __name__ == "__main__":
    main()
