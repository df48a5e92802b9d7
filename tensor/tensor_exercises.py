"""Exercises with tensors, judged at once.

Replace "raise NotImplementedError" in a function by your answer, then let it be judged:

    python tensor/tensor_exercises.py                      all of them
    python tensor/tensor_exercises.py row_means            one, and where it fails
    python tensor/tensor_exercises.py row_means --hint     one, with a hint

The file works alone, so a copy of it does as well. The judge is at its end.
"""

import argparse
import ast
import contextlib
import copy
import faulthandler
import inspect
import math
import multiprocessing
import os
import signal
import sys
import textwrap
import time
import traceback
import types

import numpy as np
import torch


def outer_product(x, y):
    """Multiply every element of x by every element of y, without a loop.

    x has shape (n,) and y has shape (d,). Return a tensor of shape (n, d).

    >>> outer_product(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0, 5.0]))
    tensor([[ 3.,  4.,  5.],
            [ 6.,  8., 10.]])

    Read: https://docs.pytorch.org/docs/stable/notes/broadcasting.html
    """
    raise NotImplementedError


def row_means(x):
    """Return the mean of each row of x.

    x has shape (n, d). Return a tensor of shape (n,).

    >>> row_means(torch.tensor([[1.0, 3.0], [5.0, 7.0]]))
    tensor([2., 6.])

    Read: tensor/README.md#forward-and-backward-by-hand-in-numpy
    """
    raise NotImplementedError


def one_hot(labels, classes):
    """Turn each label into a row of zeros with a one at the index of the label.

    labels has shape (n,) and holds integers from 0 to classes - 1. Return a float32
    tensor of shape (n, classes). Use broadcasting; do not call one_hot() of PyTorch.

    >>> one_hot(torch.tensor([2, 0]), 3)
    tensor([[0., 0., 1.],
            [1., 0., 0.]])

    Read: https://docs.pytorch.org/docs/stable/notes/broadcasting.html
    """
    raise NotImplementedError


def standardize(x):
    """Shift and scale each column of x to mean 0 and variance 1.

    x has shape (n, d), and must not change. Return a tensor of the same shape: from
    each column subtract its mean, then divide by the square root of the mean squared
    deviation. A column whose elements are all equal becomes zeros.

    >>> standardize(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    tensor([[-1.,  0.],
            [ 1.,  0.]])

    Read: tensor/torch_users.md#in-place-operations
    """
    raise NotImplementedError


def sliding_windows(x, size):
    """Return all windows of neighbouring elements of x, without copying them.

    x has shape (n,). Return a view of shape (n - size + 1, size) whose row i is
    x[i : i + size].

    >>> sliding_windows(torch.tensor([1, 2, 3, 4]), 3)
    tensor([[1, 2, 3],
            [2, 3, 4]])

    Read: tensor/torch_users.md#views
    """
    raise NotImplementedError


def bilinear_scores(x, weight, y):
    """Score every row of x against every row of y.

    x has shape (n, d), weight (d, e) and y (m, e). Return a tensor of shape (n, m): the
    score of rows i and j is the sum over a and b of x[i, a] * weight[a, b] * y[j, b].

    >>> x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 3.0]])
    >>> bilinear_scores(x, torch.eye(2), y)
    tensor([[3., 6.]])

    Read: https://docs.pytorch.org/docs/stable/generated/torch.einsum.html
    """
    raise NotImplementedError


def squared_distances(x, y):
    """Return the squared distances between rows of x and rows of y, without a loop.

    x has shape (n, d) and y has shape (m, d). Return a tensor of shape (n, m): element
    [i, j] is the sum of the squares of x[i] - y[j].

    >>> x, y = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 4.0]])
    >>> squared_distances(x, y)
    tensor([[25.],
            [13.]])

    Read: https://docs.pytorch.org/docs/stable/notes/broadcasting.html
    """
    raise NotImplementedError


def confusion_matrix(targets, predictions, classes):
    """Count for each pair of classes how often the one is predicted as the other.

    targets and predictions have shape (n,) and hold integers from 0 to classes - 1.
    Return an int64 tensor of shape (classes, classes): element [t, p] is the number of
    samples whose target is t and whose prediction is p.

    >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 0]), 2)
    tensor([[1, 0],
            [2, 0]])

    Read: https://docs.pytorch.org/docs/stable/generated/torch.bincount.html
    """
    raise NotImplementedError


def two_layer_net(x, y, w1, w2, steps):
    """Fit the network of the ladder. One line of the backward pass is incomplete.

    Replace the three dots. The answer is right when the losses are those that
    tensor/two_layer_net_numpy.py prints.

    x has shape (N, D_in), y (N, D_out), w1 (D_in, H) and w2 (H, D_out). Return the
    losses of all steps as a list of numbers.

    Read: tensor/README.md#forward-and-backward-by-hand-in-numpy
    """
    w1, w2 = w1.clone(), w2.clone()
    losses = []
    for t in range(steps):
        h = x @ w1
        h_relu = h.clamp(min=0)
        y_pred = h_relu @ w2
        losses.append((y_pred - y).square().sum().item())

        grad_y_pred = 2 * (y_pred - y)
        grad_w2 = h_relu.T @ grad_y_pred
        grad_h_relu = grad_y_pred @ w2.T
        grad_h = grad_h_relu * ...
        grad_w1 = x.T @ grad_h

        w1 -= 1e-6 * grad_w1
        w2 -= 1e-6 * grad_w2
    return losses


def fit_line(x, y):
    """Find the bug: this script runs, and its loss does not go to zero.

    Delete "raise NotImplementedError", run the file, and change one more line.

    x has shape (n, 1). y has shape (n,), and y[i] is 3 * x[i, 0] + 1. Return the losses
    of 200 steps as a list of numbers.

    Read: tensor/README.md#pitfalls
    """
    raise NotImplementedError
    weight, bias = torch.zeros(1, 1), torch.zeros(1)
    losses = []
    for t in range(200):
        y_pred = x @ weight + bias
        error = y_pred - y
        losses.append(error.square().mean().item())

        grad_y_pred = 2 * error / error.numel()
        weight -= 0.1 * x.T @ grad_y_pred.sum(dim=1, keepdim=True)
        bias -= 0.1 * grad_y_pred.sum()
    return losses


# The checks. Each calls the answer with inputs of several kinds and sizes, and compares
# it with a computation of another kind. The paragraphs of its docstring are the hints.


def check_outer_product(answer):
    """A tensor of shape (n, 1) and one of shape (d,) broadcast to shape (n, d).

    x[:, None] has shape (n, 1).
    """
    forbid_loops(answer)
    for x, y in inputs("n", "d"):
        expect(answer, x, y, wanted=np.multiply.outer(x.numpy(), y.numpy()))


def check_row_means(answer):
    """mean() takes the dimension that is to disappear.

    Rows are counted by dimension 0. The mean of a row runs over its columns, so it is
    dimension 1 that disappears.
    """
    for (x,) in inputs("nd"):
        expect(answer, x, wanted=x.double().numpy().mean(axis=1))


def check_one_hot(answer):
    """Compare the labels with all classes: torch.arange(classes).

    labels[:, None] has shape (n, 1), so the comparison has shape (n, classes). It holds
    True and False, which float() turns into ones and zeros.
    """
    for labels, classes in ([2, 0], 3), ([1], 4), ([0, 4, 4, 1, 2, 3], 5), ([], 2):
        wanted = np.eye(classes)[np.array(labels, dtype=int)]
        labels = torch.tensor(labels, dtype=torch.int64)
        expect(answer, labels, classes, wanted=wanted, dtype=torch.float32)
    with Without("one_hot"):
        answer(labels, classes)


def check_standardize(answer):
    """Mean and deviation of the columns run over the rows: dimension 0.

    std() divides by n - 1 by default. See its argument correction.

    Where the deviation is 0, divide by something else: torch.where(std == 0, 1, std).
    """
    for (x,) in inputs("nd", empty=False):
        columns = x.double().numpy()
        deviations = columns.std(axis=0)
        deviations[deviations == 0] = 1
        wanted = (columns - columns.mean(axis=0)) / deviations
        expect(answer, x, wanted=wanted)


def check_sliding_windows(answer):
    """There is a method of tensors for it: unfold().

    Or by hand: from one row to the next, and from one column to the next, it is one
    element of x further. as_strided() makes a view from a shape and strides.
    """
    for (x,) in inputs("n", empty=False):
        for size in range(1, len(x) + 1):
            rows = [x[i : i + size].tolist() for i in range(len(x) - size + 1)]
            expect(answer, x, size, wanted=np.array(rows))
            storage = answer(x, size).untyped_storage()
            if storage.data_ptr() != x.untyped_storage().data_ptr():
                raise Wrong("your answer is a copy of the elements, wanted a view of x")


def check_bilinear_scores(answer):
    """einsum() takes a letter for each dimension; those left out after -> are summed.

    "nd,de,me->nm"
    """
    for x, weight, y in inputs("nd", "de", "me"):
        wanted = x.double() @ weight.double() @ y.double().T
        expect(answer, x, weight, y, wanted=wanted)


def check_squared_distances(answer):
    """A difference of shape (n, m, d) has all pairs of rows in it.

    x[:, None] has shape (n, 1, d) and broadcasts with y of shape (m, d).
    """
    forbid_loops(answer)
    for x, y in inputs("nd", "md"):
        wanted = torch.zeros(len(x), len(y), dtype=torch.float64)
        for i in range(len(x)):
            for j in range(len(y)):
                wanted[i, j] = (x[i].double() - y[j].double()).square().sum()
        expect(answer, x, y, wanted=wanted)


def check_confusion_matrix(answer):
    """counts[targets, predictions] += 1 adds only once where a pair is there twice.

    index_put_() adds as often as a pair is there, if it is told so: accumulate=True.
    Another way: bincount() of targets * classes + predictions.
    """
    for n, classes in (3, 2), (1, 3), (40, 4), (0, 3):
        targets = torch.randint(classes, [n])
        predictions = torch.randint(classes - 1, [n])  # the last class is never chosen
        wanted = torch.zeros(classes, classes, dtype=torch.int64)
        for target, prediction in zip(targets, predictions):
            wanted[target, prediction] += 1
        expect(answer, targets, predictions, classes, wanted=wanted)


def check_two_layer_net(answer):
    """grad_h has the shape of h, and so has grad_h_relu.

    Where h is negative, ReLU does not pass it on, and no gradient comes back.
    """
    randn = np.random.default_rng(0).standard_normal
    shapes = (64, 1000), (64, 10), (1000, 100), (100, 10)
    tensors = [torch.from_numpy(randn(shape, np.float32)) for shape in shapes]
    losses = answer(*tensors, 100)
    compare(type(losses), list, "the type of your answer")
    compare(len(losses), 100, "the length of your answer")
    for step, wanted in (1, 2.5020e07), (50, 1.0281e04), (100, 3.2750e02):
        compare(losses[step - 1], wanted, f"the loss of step {step}", tolerance=1e-3)


def check_fit_line(answer):
    """Look at the shapes: what has y_pred, what has y, and what has their difference?

    (n, 1) minus (n,) is (n, n): each prediction is compared with each target.

    Give y the shape of y_pred.
    """
    x = torch.linspace(-1, 1, 9)[:, None]
    losses = answer(x, 3 * x[:, 0] + 1)
    compare(type(losses), list, "the type of your answer")
    compare(len(losses), 200, "the length of your answer")
    compare(losses[0], 4.75, "the loss of step 1", tolerance=1e-3)
    if not losses[-1] < 1e-6:
        raise Wrong(f"the loss ends at {losses[-1]:.4g}, wanted less than 1e-06")


def forbid_loops(answer):
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(answer)))
    except (OSError, SyntaxError, TypeError):
        return  # such as torch.outer, or a lambda in several lines
    for node in ast.walk(tree):
        mapped = isinstance(node, ast.Name) and node.id == "map"
        if mapped or isinstance(node, (ast.For, ast.While, ast.comprehension)):
            raise Wrong(
                "there is a loop, and this exercise asks for an answer without one"
            )


class Without(torch.overrides.TorchFunctionMode):
    """Forbids functions of PyTorch, whatever name they are called by."""

    def __init__(self, *names):
        super().__init__()
        self.names = names

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", None)
        if name in self.names:
            raise Wrong(
                f"your answer calls {name}(), which the exercise asks you not to do"
            )
        return function(*args, **(kwargs or {}))


# The judge. It is the same in all files of exercises.


SECONDS = 5  # that an answer may take


class Wrong(Exception):
    """Says in one line what is wrong with an answer."""


def inputs(*shapes, empty=True):
    """Yield tuples of floating-point tensors of these shapes, small ones first.

    A shape has a letter for each dimension: inputs("nd", "d") yields a matrix and a
    vector. Different letters have different sizes. In turn there are small whole
    numbers, zeros, one row, more rows of random numbers, the same in float64, views
    that are not contiguous, and no row at all unless empty=False.
    """
    letters = "".join(dict.fromkeys("".join(shapes)))
    small = range(2, 2 + len(letters))
    large = range(4 + len(letters), 4, -1)
    kinds = [("whole", small), ("zeros", small), ("whole", [1, *small])]
    kinds += [("random", large), ("float64", large), ("view", large)]
    if empty:
        kinds.append(("random", [0, *small]))
    for kind, sizes in kinds:
        size = dict(zip(letters, sizes))
        yield tuple(tensor(kind, [size[i] for i in shape]) for shape in shapes)


def tensor(kind, shape):
    if kind == "zeros":
        return torch.zeros(shape)
    if kind == "whole":
        return torch.randint(-4, 5, shape).float()
    if kind == "view":
        every_second = tuple(slice(None, None, 2) for _ in shape)
        return torch.randn([2 * size for size in shape])[every_second]
    return torch.randn(shape, dtype=torch.float64 if kind == "float64" else None)


def expect(answer, *arguments, wanted, dtype=None, tolerance=None):
    """Call the answer and compare what it returns with what is wanted.

    wanted is a tensor, an array, a number, a string, or a tuple of these. A tensor of
    floating-point numbers is wanted in the dtype of the first argument, or in dtype.
    Its elements may differ by 1000 eps of the largest, which is rounding, or by
    tolerance.
    """
    names = names_of_arguments(answer)
    names += [f"argument {i}" for i in range(len(names), len(arguments))]
    wanted = in_dtype(wanted, dtype or getattr(arguments[0], "dtype", None))
    before = copy.deepcopy(arguments)
    details = [f"{name} = {value!r}" for name, value in zip(names, before)]
    details.append(f"wanted: {wanted!r}")
    case = "for " + shorten(", ".join(map(described, names, before)))
    try:
        got = answer(*arguments)
        details.append(f"your answer: {got!r}")
        for name, old, new in zip(names, before, arguments):
            if not unchanged(old, new):
                raise Wrong(f"{case} you change {name} in place")
        compare(got, wanted, f"{case} your answer", tolerance)
    except Exception as error:
        error.add_note("\n".join(details))
        raise


def names_of_arguments(answer):
    try:
        return list(inspect.signature(answer).parameters)
    except (TypeError, ValueError):  # such as torch.outer
        return []


def in_dtype(wanted, dtype):
    if isinstance(wanted, tuple):
        return tuple(in_dtype(each, dtype) for each in wanted)
    if isinstance(wanted, (torch.Tensor, np.ndarray)):
        wanted = torch.as_tensor(wanted)
        if wanted.is_floating_point() and isinstance(dtype, torch.dtype):
            return wanted.to(dtype)
    return wanted


def unchanged(old, new):
    if isinstance(old, torch.Tensor):
        return old.shape == new.shape and old.isclose(new, 0, 0, equal_nan=True).all()
    if isinstance(old, np.ndarray):
        return np.array_equal(old, new)
    if isinstance(old, (list, tuple)):
        return len(old) == len(new) and all(map(unchanged, old, new))
    return True


def described(name, value):
    if isinstance(value, (list, tuple)) and any(map(torch.is_tensor, value)):
        return f"{name} of {len(value)} tensors"
    if not isinstance(value, (torch.Tensor, np.ndarray)):
        return f"{name} = {shorten(repr(value))}"
    words = f"{name} of shape {tuple(value.shape)}"
    if value.dtype in (torch.float16, torch.bfloat16, torch.float64):
        words += f" and {value.dtype}"
    if isinstance(value, torch.Tensor) and not value.is_contiguous():
        words += " that is not contiguous"
    return words


def compare(got, wanted, what, tolerance=None):
    """Raise Wrong if got is not what is wanted: by type, shape, dtype or elements."""
    if got is None and wanted is not None:
        raise Wrong(f"{what} is None: is there a return missing?")
    if isinstance(wanted, tuple):
        if not isinstance(got, (tuple, list)) or len(got) != len(wanted):
            raise Wrong(f"{what} is no list or tuple of {len(wanted)} values")
        for i in range(len(wanted)):
            compare(got[i], wanted[i], f"{what}[{i}]", tolerance)
    elif isinstance(wanted, torch.Tensor):
        if not isinstance(got, torch.Tensor):
            raise Wrong(f"{what} is of type {type(got).__name__}, wanted a tensor")
        if got.shape != wanted.shape:
            shapes = tuple(got.shape), tuple(wanted.shape)
            raise Wrong("{} has shape {}, wanted {}".format(what, *shapes))
        if got.dtype != wanted.dtype:
            raise Wrong(f"{what} has dtype {got.dtype}, wanted {wanted.dtype}")
        if got.device != wanted.device:
            raise Wrong(f"{what} is on {got.device}, wanted on {wanted.device}")
        compare_elements(got.detach(), wanted, what, tolerance)
    elif isinstance(wanted, float):
        if isinstance(got, bool) or not isinstance(got, (int, float)):
            raise Wrong(f"{what} is of type {type(got).__name__}, wanted a number")
        if not math.isclose(got, wanted, rel_tol=tolerance or 1e-6, abs_tol=1e-12):
            raise Wrong(f"{what} is {apart(got, wanted)}")
    elif type(got) is not type(wanted):
        kind = type(got).__name__
        raise Wrong(f"{what} is of type {kind}, wanted {shorten(repr(wanted))}")
    elif got != wanted:
        raise Wrong(f"{what} is {shorten(repr(got))}, wanted {shorten(repr(wanted))}")


def compare_elements(got, wanted, what, tolerance):
    bound = 0
    if wanted.is_floating_point() and wanted.numel():
        relative = tolerance or 1000 * torch.finfo(wanted.dtype).eps
        bound = relative * max(1, wanted.abs().max().item())
    differs = ~torch.isclose(got, wanted, rtol=0, atol=bound)
    if differs.any():
        index = tuple(differs.nonzero()[0].tolist())
        place = f"[{', '.join(map(str, index))}]" if index else ""
        numbers = apart(got[index].item(), wanted[index].item())
        raise Wrong(f"{what}{place} is {numbers}")


def apart(got, wanted):
    """Write two numbers with as many digits as it takes to tell them apart."""
    digits = 6 if f"{got:.6g}" != f"{wanted:.6g}" else 17
    return f"{got:.{digits}g}, wanted {wanted:.{digits}g}"


def shorten(text):
    return textwrap.shorten(text, 200, placeholder=" ...")


def verdict(name, answers):
    """Judge an exercise. answers has the variables of the reader's file.

    Returns the verdict in one line, and the input at which the answer fails, or "".
    """
    # Another answer may have changed these.
    torch.manual_seed(0)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    try:
        if name not in answers:
            raise Wrong(f"the file has no {name}")
        globals()[f"check_{name}"](answers[name])
        if not torch.is_grad_enabled():
            raise Wrong("your answer leaves autograd switched off")
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever an answer raises)
        frames = traceback.walk_tb(error.__traceback__)
        lines = [line for frame, line in frames if frame.f_globals is answers]
        message = str(error) if isinstance(error, Wrong) else in_one_line(error)
        if lines and (message == "NotImplementedError" or "ellipsis" in message):
            return "not yet", ""
        if lines:
            message = f"line {lines[-1]}: {message}"
        return f"wrong: {message}", "\n".join(getattr(error, "__notes__", []))
    return "right", ""


def in_one_line(error):
    message = shorten(str(error).strip().partition("\n")[0])
    return f"{type(error).__name__}: {message}".removesuffix(": ")


def load(file):
    """Execute a file. Returns its variables, and in one line what is wrong with it."""
    module = types.ModuleType("answers")
    sys.modules["answers"] = module
    try:
        with open(file, encoding="utf-8") as text:
            code = compile(text.read(), file, "exec")
        exec(code, vars(module))  # noqa: S102
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a file raises)
        return {}, in_one_line(error)
    return vars(module), None


def work(file, connection):
    """In a process of its own: load a file, then judge each exercise that is asked for.

    What takes too long is ended from outside of Python, with the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.reconfigure(line_buffering=True)
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere, contextlib.suppress(EOFError):
        faulthandler.dump_traceback_later(60, exit=True, file=nowhere)
        torch.optim.SGD([torch.zeros(1)])  # the first optimizer imports for seconds
        answers, problem = load(file)
        connection.send(problem)
        while True:
            faulthandler.cancel_dump_traceback_later()
            name = connection.recv()
            faulthandler.dump_traceback_later(SECONDS, exit=True, file=nowhere)
            connection.send(verdict(name, answers))


def start(file):
    """Start that process and return the connection with it."""
    spawn = multiprocessing.get_context("spawn")
    connection, other_end = spawn.Pipe()
    spawn.Process(target=work, args=(file, other_end), daemon=True).start()
    other_end.close()
    try:
        problem = connection.recv()
    except (EOFError, OSError):
        problem = "it ends Python, or takes longer than a minute"
    if problem:
        print(f"cannot load {file}: {problem}", file=sys.stderr)
        sys.exit(2)
    return connection


def judge(file, names):
    """Yield (name, verdict, details) for each exercise."""
    connection = None
    for name in names:
        connection = connection or start(file)
        begin = time.monotonic()
        try:
            connection.send(name)
            yield name, *connection.recv()
        except (EOFError, OSError):
            too_long = time.monotonic() - begin >= SECONDS
            why = f"no answer after {SECONDS} seconds" if too_long else "it ends Python"
            yield name, f"wrong: {why}", ""
            connection = None


def main():
    checks = [name for name in globals() if name.startswith("check_")]
    names = [name.removeprefix("check_") for name in checks]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("exercise", nargs="?", choices=names, metavar="exercise")
    parser.add_argument("--hint", action="count", default=0, help="twice for two hints")
    parser.add_argument(
        "--answers", default=__file__, help="judge those of another file"
    )
    args = parser.parse_args()
    if args.hint and not args.exercise:
        parser.error("--hint needs the name of an exercise")

    right = 0
    chosen = [args.exercise] if args.exercise else names
    for name, words, details in judge(args.answers, chosen):
        print(f"{name:22s}{words}", flush=True)
        right += words == "right"
        if args.exercise and details:
            print(f"\n{details}")

    if args.exercise:
        hints = inspect.getdoc(globals()[f"check_{args.exercise}"]).split("\n\n")
        for hint in hints[: args.hint]:
            print(f"\nHint: {hint}")
    else:
        print(f"{right} of {len(names)} right")
    sys.exit(right < len(chosen))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
