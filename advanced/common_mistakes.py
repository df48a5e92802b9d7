"""Make the classic mistakes with advanced topics, see what happens, and mend them.

Each function is a mistake, and its docstring is the question that it leads to. The
first ones are those of which PyTorch says nothing. What is claimed is asserted, so with
another version of PyTorch this script says which lessons are out of date.
"""

import argparse
import logging
import multiprocessing
import random
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from importlib.util import find_spec
from inspect import isfunction

import torch
from torch import distributed, nn
from torch.nn.functional import cross_entropy


def start_two(target, *args):
    """Run target(0, *args) and target(1, *args) in two processes, or 2 minutes long."""
    start = multiprocessing.Process
    processes = [start(target=target, args=(rank, *args)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()


def add_unlocked(_, total, barrier):
    """Add 1 to a shared tensor, by chance at the same moment as another process."""
    number = total.item()
    barrier.wait(99)  # the chance
    total.fill_(number + 1)


def add_locked(_, total, lock):
    """Add 1 to a shared tensor while no other process does."""
    with lock:
        number = total.item()
        total.fill_(number + 1)


def gradients_of_sums(rank, folder, found):
    """Put DDP's gradients of a sum, and of twice the sum, into a shared tensor."""
    # DDP imports this later, when its default arguments would keep the group.
    import torch.distributed.nn

    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", store, world_size=2, rank=rank)
    model = nn.parallel.DistributedDataParallel(nn.Linear(1, 1, bias=False))

    x = torch.tensor([[1.0], [2.0]])[rank]  # each process has half of the data
    for k in (0, 1):
        model.zero_grad()
        (model(x).sum() * (k + 1)).backward()
        if rank == 0:
            found[k] = model.module.weight.grad.item()

    # The model holds the group; both must be gone before the interpreter is.
    del model
    distributed.destroy_process_group()


def multiply():
    """Multiply two matrices that are large enough for two threads."""
    torch.ones(500, 500) @ torch.ones(500, 500)


class KeepsOnCtx(torch.autograd.Function):
    """x * x, with x as an attribute of ctx."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x
        return x * x

    @staticmethod
    def backward(ctx, grad_output):
        return 2 * ctx.x * grad_output


class Saves(torch.autograd.Function):
    """x * x, with x saved."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad_output):
        return 2 * ctx.saved_tensors[0] * grad_output


def export_frozen():
    """Why does my exported network always do the same?"""

    class Net(nn.Module):
        """Adds or subtracts 1, at random or as the caller says."""

        def forward(self, x, up=None):
            if up is None:
                return x + 1 if random.random() < 0.5 else x - 1
            return torch.where(up, x + 1, x - 1)

    x, up = torch.zeros(1), torch.tensor([True])
    random.seed(0)
    # Wrong: Python runs once, while the graph is recorded. PyTorch says nothing.
    net = torch.export.export(Net(), (x,)).module()
    wrong = {net(x).item() for _ in range(20)}
    assert len(wrong) == 1
    print("wrong: in 20 calls", wrong)
    # Right: what may differ is an input, and torch.where or torch.cond decides.
    net = torch.export.export(Net(), (x, up)).module()
    right = {net(x, up).item(), net(x, ~up).item()}
    assert right == {1, -1}
    print("right:", right)
    print("why:   an if or a draw in Python is not an operation on tensors")


def updates_lost():
    """Why do my processes count to less than they should?"""
    total = torch.zeros(1).share_memory_()
    # Wrong: both read 0, then both write 1. PyTorch says nothing.
    start_two(add_unlocked, total, multiprocessing.Barrier(2))
    wrong = total.item()
    assert wrong == 1
    print("wrong: two processes add 1 each, and the sum is", wrong)
    # Right: one at a time.
    total.zero_()
    start_two(add_locked, total, multiprocessing.Lock())
    right = total.item()
    assert right == 2
    print("right:", right)
    print("why:   += reads, adds and writes. Hogwild takes the loss into the bargain;")
    print("       the barrier makes happen each time what otherwise happens by chance")


def sum_averaged():
    """Why does my network learn more slowly on two GPUs than on one?"""
    found = torch.zeros(2).share_memory_()
    with tempfile.TemporaryDirectory() as folder:
        start_two(gradients_of_sums, folder, found)
    expected = 1 + 2  # the gradient of the sum over all data in one process
    wrong, right = found.tolist()
    # Wrong: DDP takes the mean over the processes, of losses that are sums.
    assert wrong == expected / 2
    print("wrong: a gradient of", wrong, "instead of", expected)
    # Right: the sum times the number of processes; or losses that are means.
    assert right == expected
    print("right:", right)
    print("why:   the mean of means is the mean, if all have batches of the same size")


def fork_after_threads():
    """Why does my new process hang?"""
    if sys.platform != "linux":
        return print("wrong: not tried\nright: spawn\nwhy:   it is a matter of Linux")
    # Wrong: fork copies one thread. Its copy waits for the others, which are not there.
    torch.set_num_threads(2)
    multiply()
    process = multiprocessing.get_context("fork").Process(target=multiply)
    with warnings.catch_warnings(action="ignore"):  # Python 3.12 sees it coming
        process.start()
    process.join(3)
    wrong = process.exitcode
    process.kill()
    assert wrong is None
    print("wrong: no end after 3 seconds")
    # Right: forkserver or spawn; or torch.set_num_threads(1) before all else.
    process = multiprocessing.Process(target=multiply)  # main() has chosen
    process.start()
    process.join(120)
    right = process.exitcode
    torch.set_num_threads(1)
    assert right == 0
    print("right: exit status", right)
    print("why:   the threads of OpenMP were started by the first matrix product")


def tensor_kept_on_ctx():
    """Why is the gradient of my own Function wrong, but only at times?"""
    x = torch.tensor(3.0, requires_grad=True) * 1
    # Wrong: x on ctx, where autograd does not look. PyTorch says nothing.
    y = KeepsOnCtx.apply(x)
    with torch.no_grad():
        x.zero_()  # or relu_(), or whatever else the next layer does in place
    wrong = torch.autograd.grad(y, x)[0].item()
    assert wrong == 0
    print("wrong: gradient", wrong)
    # Right: save_for_backward, which remembers the version of x.
    x = torch.tensor(3.0, requires_grad=True) * 1
    y = Saves.apply(x)
    with torch.no_grad():
        x.zero_()
    try:
        right = torch.autograd.grad(y, x)[0].item()
    except RuntimeError as error:
        right = str(error).partition(":")[0]
    assert "modified by an inplace operation" in right
    print("right:", right)
    print("why:   better an error than a wrong gradient; without the change it is 6")


def loss_outside_autocast():
    """Why does my loss move in jumps under mixed precision?"""
    labels, x = torch.zeros(1000, dtype=torch.long), torch.ones(1000, 1)
    linear = nn.Linear(1, 10, bias=False)
    nn.init.zeros_(linear.weight)
    # Wrong: the scores are bfloat16, and behind autocast the loss is as well.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = linear(x)
    wrong = cross_entropy(scores, labels, reduction="sum")
    assert wrong.dtype == torch.bfloat16 and abs(wrong.item() - 2302.59) > 1
    print(f"wrong: {wrong.item():.2f} in {wrong.dtype}")
    # Right: autocast around network and loss; it knows what needs float32.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        right = cross_entropy(linear(x), labels, reduction="sum")
    assert right.dtype == torch.float32 and abs(right.item() - 2302.59) < 0.1
    print(f"right: {right.item():.2f} in {right.dtype}")
    print("why:   bfloat16 keeps 2 or 3 digits. backward() belongs outside; a loss by")
    print("       hand stays bfloat16 inside as well: begin it with scores.float()")


def graph_broken_by_print():
    """Why does torch.compile not make my network faster?"""

    def noisy(x):
        x = x * 2
        print("(half way)")
        return x + 1

    # Wrong: what is no operation on tensors breaks the graph. PyTorch says nothing.
    torch.compiler.reset()
    wrong = torch._dynamo.explain(noisy)(torch.ones(2)).graph_count
    assert wrong == 2
    print("wrong:", wrong, "graphs")
    # Right: without print. With fullgraph=True a break is an error.
    right = torch._dynamo.explain(lambda x: x * 2 + 1)(torch.ones(2)).graph_count
    assert right == 1
    print("right:", right, "graph")
    print("why:   each graph is optimized by itself, and Python runs between them")


def graph_broken_by_item():
    """Why "Graph break from `Tensor.item()`"?"""
    x = torch.ones(2)
    # Wrong: item() makes a Python number, which is no part of a graph.
    torch.compiler.reset()
    logging.disable(logging.WARNING)  # it is written to the log, once
    breaks = torch._dynamo.explain(lambda x: x / x.sum().item())(x).break_reasons
    logging.disable(logging.NOTSET)
    wrong = [found.reason.partition(" with ")[0] for found in breaks]
    assert wrong == ["Unsupported Tensor.item() call"]
    print("wrong:", *wrong)
    # Right: stay with tensors.
    right = torch._dynamo.explain(lambda x: x / x.sum())(x).break_reasons
    assert right == []
    print("right: no break")
    print("why:   on a GPU, item() also waits until the number is there. With")
    print("       fullgraph=True it is recorded, unless an if depends on it")


def saved_after_compile():
    """Why 'Missing key(s) in state_dict', and "_orig_mod." in all names?"""
    model = nn.Linear(2, 1)
    # Wrong: the state of what torch.compile returns, a module around the model.
    state = torch.compile(model, backend="eager").state_dict()
    try:
        wrong = nn.Linear(2, 1).load_state_dict(state)
    except RuntimeError as error:
        wrong = str(error)
    assert "Missing key(s) in state_dict" in wrong and "_orig_mod.weight" in wrong
    print("wrong:", " ".join(wrong.split()))
    # Right: save the model itself; or model.compile(), which adds no module.
    right = nn.Linear(2, 1)
    right.load_state_dict(model.state_dict())
    assert right.weight.equal(model.weight)
    print("right: the same weights")
    print("why:   DistributedDataParallel wraps as well: there it is 'module.'")


def function_with_self():
    """Why "Legacy autograd function with non-static forward method is deprecated"?"""

    class Square(torch.autograd.Function):
        """x * x in the style of 2017."""

        def forward(self, x):
            self.x = x
            return x * x

        def backward(self, grad_output):
            return 2 * self.x * grad_output

    # Wrong: an instance, which is called.
    try:
        with warnings.catch_warnings(action="ignore"):  # it says the same
            wrong = Square()(torch.tensor(3.0))
    except RuntimeError as error:
        wrong = str(error).partition(". ")[0]
    assert "Legacy autograd function with non-static" in wrong
    print("wrong:", wrong)
    # Right: apply. Then self is the context: call it ctx, and add @staticmethod.
    right = torch.autograd.functional.jacobian(Square.apply, torch.tensor(3.0))
    assert right == 6
    print(f"right: derivative {right:.0f}\nwhy:   nothing but ctx belongs to one use")


def tensorflow_before_triton():
    """Why "Segmentation fault", or "Aborted", with TensorFlow and torch.compile?"""

    def end_of(program):
        """Return how a new Python ends that runs this program."""
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, timeout=300, check=False)
        return signal.strsignal(-done.returncode) if done.returncode else "no error"

    if not (find_spec("tensorflow") and find_spec("triton")):
        return print("wrong: not tried\nright: Triton first\nwhy:   it takes both")
    # Wrong: TensorFlow opens its libraries to all that are loaded after them.
    wrong = end_of("import tensorflow, triton")
    assert wrong in ("Segmentation fault", "Aborted")
    print("wrong:", wrong)
    # Right: Triton, which torch.compile imports, comes first; or two processes.
    right = end_of("import triton, tensorflow")
    assert right == "no error"
    print("right:", right)
    print("why:   both bring a copy of the compiler LLVM, and Triton's functions call")
    print("       TensorFlow's. Triton comes with PyTorch for CUDA, on Linux")


def main():
    """Show one mistake or all, and exit with 1 if a lesson is out of date."""
    mistakes = {
        name: mistake
        for name, mistake in list(globals().items())
        if isfunction(mistake) and (mistake.__doc__ or "").endswith("?")
    }
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.add_argument("name", nargs="?", metavar="name", choices=mistakes)
    parser.add_argument("--list", action="store_true", help="print the names")
    args = parser.parse_args()
    if not __debug__:
        parser.error("the lessons are made of assertions: run this without -O")
    if args.list:
        print(*mistakes, sep="\n")
        parser.exit()

    # As Windows, macOS and new Pythons start processes; the server imports torch once.
    forkserver = "forkserver" in multiprocessing.get_all_start_methods()
    multiprocessing.set_start_method("forkserver" if forkserver else "spawn", True)
    multiprocessing.set_forkserver_preload(["torch"])
    outdated = []
    for name in [args.name] if args.name else mistakes:
        print(f"{name}\n{mistakes[name].__doc__}")
        try:
            mistakes[name]()
        except Exception as error:  # noqa: BLE001, as a new version can raise anything
            line = traceback.extract_tb(error.__traceback__)[1].line
            version = f"out of date with torch {torch.__version__}"
            outdated.append(f"{name}: {version}: {error!r} at {line}")
        if not args.name:
            print()
    sys.exit("\n".join(outdated) or None)


if __name__ == "__main__":
    main()
