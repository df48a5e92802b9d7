"""Exercises with autograd, judged at once.

Replace "raise NotImplementedError" in a function by your answer, then let it be judged:

    python autograd/autograd_exercises.py                      all of them
    python autograd/autograd_exercises.py gradient             one, and where it fails
    python autograd/autograd_exercises.py gradient --hint      one, with a hint

The file works alone, so a copy of it does as well. The judge is at its end.
"""

import argparse
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


def gradient(f, x):
    """Return the gradient of f at x.

    x has shape (n, d). f takes such a tensor and returns one of shape (). Return a
    tensor of shape (n, d). x does not require a gradient, and must be as before when
    you return: the same elements, no gradient required, and nothing in x.grad.

    >>> gradient(lambda x: x.square().sum(), torch.tensor([[1.0, -2.0]]))
    tensor([[ 2., -4.]])

    Read: autograd/README.md#leaf-tensors
    """
    raise NotImplementedError


def accumulated_gradient(loss_of, w, batches):
    """Return the gradient of the sum of the losses of all batches, one batch at a time.

    w has shape (d,) and requires a gradient. batches is a list of one or more tensors
    of shape (n, d), and n differs between them. loss_of(w, batch) returns the loss of
    one batch, of shape (). Return a tensor of shape (d,).

    The graphs of all batches together do not fit in memory: go backward through each
    before you compute the next loss. w.grad is None or holds the gradient of an earlier
    step, which must not count. What it holds when you return does not matter.

    >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> batches = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]])]
    >>> accumulated_gradient(lambda w, batch: (batch @ w).sum(), w, batches)
    tensor([ 9., 12.])

    Read: autograd/README.md#why-gradients-accumulate
    """
    raise NotImplementedError


def straight_through(x):
    """Round x, and pass the gradient on as if x had not been rounded.

    x has any shape. Return a tensor of the same shape with the elements of x.round().
    The derivative of rounding is 0 almost everywhere, so the parameters from which x
    was computed would never change. Instead, x gets the gradient of the result.

    >>> x = torch.tensor([0.4, 2.6], requires_grad=True)
    >>> y = straight_through(x)
    >>> y.tolist()
    [0.0, 3.0]
    >>> (y * torch.tensor([10.0, 20.0])).sum().backward()
    >>> x.grad
    tensor([10., 20.])

    Read: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.detach.html
    """
    raise NotImplementedError


def numeric_gradient(f, x, h):
    """Estimate the gradient of f at x by central differences.

    x has shape (n, d) and must not change. f takes such a tensor and returns one of
    shape (). h is a number. Return a tensor of the shape and dtype of x. Its element
    [i, j] is (f(above) - f(below)) / (2 * h), where above is x with h added to x[i, j],
    and below is x with h subtracted from x[i, j].

    >>> x = torch.tensor([[1.0, 2.0]])
    >>> numeric_gradient(lambda x: x.pow(3).sum(), x, 0.5)
    tensor([[ 3.2500, 12.2500]])

    Read: autograd/README.md#the-same-losses-bit-for-bit
    """
    raise NotImplementedError


def softmax_backward(p, grad_p):
    """Return the gradient of a loss with respect to x, where p is x.softmax(dim=1).

    p has shape (n, d). grad_p, of the same shape, is the gradient of the loss with
    respect to p. The derivative of p[i, j] with respect to x[i, k] is
    p[i, j] * (1 - p[i, j]) if j equals k, else -p[i, j] * p[i, k]. Return a tensor of
    shape (n, d).

    >>> p = torch.tensor([[0.5, 0.5]])
    >>> softmax_backward(p, torch.tensor([[4.0, 0.0]]))
    tensor([[ 1., -1.]])

    Read: tensor/README.md#where-the-backward-pass-comes-from
    """
    raise NotImplementedError


class SquaredError(torch.autograd.Function):
    """Write the sum of the squared differences as a torch.autograd.Function.

    prediction and target have shape (n, d). forward returns the sum of the squares of
    prediction - target, of shape (). backward takes the gradient of some loss with
    respect to that sum, and returns two tensors of shape (n, d): the gradients of that
    loss with respect to prediction and to target.

    >>> prediction = torch.tensor([[1.0, 5.0]], requires_grad=True)
    >>> error = SquaredError.apply(prediction, torch.tensor([[0.0, 2.0]]))
    >>> error.item()
    10.0
    >>> (0.5 * error).backward()
    >>> prediction.grad
    tensor([[1., 3.]])

    Read: advanced/README.md#custom-autograd-functions
    """

    @staticmethod
    def forward(ctx, prediction, target):
        raise NotImplementedError

    @staticmethod
    def backward(ctx, grad_output):
        raise NotImplementedError


class Scalar:
    """Complete a tape for plain numbers: write __mul__, exp and backward.

    The attribute data is the number. operands has a pair for each Scalar from which
    this one was computed: that Scalar, and a function that takes the gradient of the
    result and returns what it contributes to the gradient of that Scalar. Both operands
    of + and * are Scalars.

    loss.backward() adds to w.grad the derivative of loss with respect to w, for each
    Scalar w without operands that loss was computed from. What grad holds in the
    others does not matter.

    >>> w = Scalar(3.0)
    >>> loss = w * w + w
    >>> loss.data
    12.0
    >>> loss.backward()
    >>> w.grad
    7.0

    Read: autograd/README.md#what-is-recorded
    """

    def __init__(self, data, operands=()):
        self.data = data
        self.grad = 0.0
        self.operands = operands

    def __add__(self, other):
        to_self = (self, lambda grad: grad)
        to_other = (other, lambda grad: grad)
        return Scalar(self.data + other.data, [to_self, to_other])

    def __mul__(self, other):
        raise NotImplementedError

    def exp(self):
        raise NotImplementedError

    def backward(self, grad=1.0):
        raise NotImplementedError


def hessian_times_vector(f, x, v):
    """Multiply the Hessian of f at x by v.

    x and v have shape (n, d), and f takes such a tensor and returns one of shape ().
    Return a tensor of shape (n, d): its element [i, j] is the sum over all k and l of
    the second derivative of f with respect to x[i, j] and x[k, l], times v[k, l]. x
    does not require a gradient, and must be as before when you return.

    >>> x, v = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 10.0]])
    >>> hessian_times_vector(lambda x: x.pow(3).sum(), x, v)
    tensor([[  6., 120.]])

    Read: https://docs.pytorch.org/docs/stable/generated/torch.autograd.grad.html
    """
    raise NotImplementedError


def fit_curve(x, y):
    """Find the bug: this script runs, and its loss does not go to zero.

    Delete "raise NotImplementedError", run the file, and change one more line.

    x has shape (n, 1), and y, of the same shape, is 2 * tanh(3 * x). Return the losses
    of 200 steps as a list of numbers.

    Read: autograd/README.md#pitfalls
    """
    raise NotImplementedError
    w1 = torch.ones(1, 1, requires_grad=True)
    w2 = torch.ones(1, 1, requires_grad=True)
    learning_rate = 1
    losses = []
    for t in range(200):
        h = x @ w1
        h_tanh = torch.from_numpy(np.tanh(h.detach().numpy()))
        y_pred = h_tanh @ w2
        loss = (y_pred - y).square().mean()
        losses.append(loss.item())

        loss.backward()
        with torch.no_grad():
            for w in w1, w2:
                if w.grad is not None:
                    w -= learning_rate * w.grad
                    w.grad = None
    return losses


# The checks. Each calls the answer with inputs of several kinds and sizes, and compares
# it with a computation of another kind. The paragraphs of its docstring are the hints.


class Formula:
    """A function that prints as its text."""

    def __init__(self, text, function):
        self.text = text
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)

    def __repr__(self):
        return self.text


CUBES = Formula("x.pow(3).sum()", lambda x: x.pow(3).sum())
COLUMNS = Formula("x.sum(dim=0).square().sum()", lambda x: x.sum(dim=0).square().sum())


def check_gradient(answer):
    """Autograd records what is done with a leaf tensor that requires a gradient. Make
    one of x, and leave x itself alone.

    x.clone().requires_grad_() is such a leaf. After f(leaf).backward(), its gradient is
    in leaf.grad. Or call torch.autograd.grad(), which returns a tuple of gradients.
    """
    for (x,) in inputs("nd"):
        columns = x.double().sum(dim=0).expand_as(x)
        for f, wanted in (CUBES, 3 * x.double().square()), (COLUMNS, 2 * columns):
            expect(answer, f, x, wanted=wanted, dtype=x.dtype)
            expect_untouched(x)


def check_accumulated_gradient(answer):
    """backward() adds to w.grad: the gradient of a sum is the sum of the gradients.

    Clear w.grad before the first batch, and only then. Call backward() on the loss of
    each batch, inside the loop.
    """
    for w, first, second, third in inputs("d", "nd", "md", "kd", empty=False):
        batches = [first, second, third]
        wanted = torch.zeros(len(w), dtype=torch.float64)
        for batch in batches:
            errors = batch.double() @ w.double() - 1
            wanted += 2 * (batch.double().T @ errors) / len(batch)
        w = w.detach().requires_grad_()
        loss_of = Formula("(batch @ w - 1).square().mean()", one_graph_at_a_time())
        expect(answer, loss_of, w, batches, wanted=wanted, dtype=w.dtype)
        w.grad = torch.ones_like(w)
        got = answer(one_graph_at_a_time(), w, batches)
        what = "where w.grad holds ones beforehand, your answer"
        compare(got, wanted.to(w.dtype), what)


def one_graph_at_a_time():
    """Return a loss that complains if the graph of its last call is still waiting."""
    waiting = []

    def loss_of(w, batch):
        if waiting:
            raise Wrong("you compute a loss before going backward through the last one")
        loss = (batch @ w - 1).square().mean()
        if loss.requires_grad:
            waiting.append(loss)
            loss.register_hook(lambda grad: waiting.clear())
        return loss

    return loss_of


def check_straight_through(answer):
    """Rounding adds x.round() - x to x. Autograd need not know about that difference.

    detach() makes a constant of a tensor: x + (x.round() - x).detach()
    """
    for (x,) in inputs("nd"):
        expect(answer, x, wanted=np.round(x.numpy()))
        expect(answer, x / 2, wanted=np.round(x.numpy() / 2))
        x = x.detach().requires_grad_()
        y = answer(x)
        wanted = torch.randn_like(x)
        if y.requires_grad:
            y.backward(wanted)
        if x.grad is None:
            raise Wrong("no gradient arrives at x")
        compare(x.grad, wanted, "given a random gradient of your answer, x.grad")


def check_numeric_gradient(answer):
    """Go through all elements in a loop. In each turn make a copy of x, with x.clone(),
    and change one element of it.

    copy[i, j] += h changes one element. So you need two copies in a turn, one for each
    of the two values of f, or you subtract 2 * h from the first one.
    """
    for (x,) in inputs("nd", empty=False):
        for h in 0.5, 0.25:
            cubes = 3 * x.double().square() + h * h
            columns = 2 * x.double().sum(dim=0).expand_as(x)
            for f, wanted in (CUBES, cubes), (COLUMNS, columns):
                expect(answer, f, x, h, wanted=wanted, dtype=x.dtype)


def check_softmax_backward(answer):
    """By the chain rule, the gradient of x[i, k] is the sum over j of grad_p[i, j]
    times the derivative of p[i, j] with respect to x[i, k].

    Put p[i, k] in front of the sum. What remains is grad_p[i, k] minus the sum over j
    of grad_p[i, j] * p[i, j], which is the same for all k of a row.

    p * (grad_p - ...), and the sum needs keepdim=True.
    """
    for x, grad_p in inputs("nd", "nd"):
        p = x.softmax(dim=1)
        wanted = np.zeros(p.shape)
        for i, row in enumerate(p.double().numpy()):
            jacobian = np.diag(row) - np.outer(row, row)
            wanted[i] = jacobian @ grad_p[i].double().numpy()
        expect(answer, p, grad_p, wanted=wanted)


def check_SquaredError(answer):
    """backward needs the inputs of forward: ctx.save_for_backward(prediction, target)
    keeps them, and ctx.saved_tensors is the tuple of what has been kept. Each call of
    apply() has a ctx of its own.

    The derivative of the square of a difference is twice the difference, by the chain
    rule times grad_output. Where target grows, the difference shrinks.
    """
    apply = getattr(answer, "apply", answer)

    def error_of(prediction, target):
        return apply(prediction, target)

    for prediction, target in inputs("nd", "nd"):
        difference = prediction - target
        wanted = np.square(difference.double().numpy()).sum()
        expect(error_of, prediction, target, wanted=np.array(wanted))
        prediction = prediction.detach().requires_grad_()
        target = target.detach().requires_grad_()
        error = error_of(prediction, target)
        if not isinstance(error.grad_fn, torch.autograd.function.BackwardCFunction):
            raise Wrong("your answer does not come from a torch.autograd.Function")
        error.backward(torch.full_like(error, 3))
        for name, leaf, sign in ("prediction", prediction, 1), ("target", target, -1):
            if leaf.grad is None:
                raise Wrong(f"backward returns no gradient of {name}")
            what = f"where grad_output is 3, the gradient of {name}"
            compare(leaf.grad, sign * 2 * 3 * difference, what)

    first = torch.tensor([[1.0, 2.0]], requires_grad=True)
    second = torch.tensor([[3.0, 4.0]], requires_grad=True)
    target = torch.zeros(1, 2)
    (error_of(first, target) + error_of(second, target)).backward()
    what = "after backward() through two calls of apply(), the gradient of the first"
    compare(first.grad, 2 * first.detach(), f"{what} prediction")


def check_Scalar(answer):
    """__mul__ looks like __add__, with other functions: the derivative of a product
    with respect to one factor is the other factor. The derivative of exp is its result.

    backward(grad) adds grad to self.grad. Then, for each pair in operands, it calls the
    operand's backward() with what the function of the pair returns for grad.
    """
    for f in (
        Formula("a * b", lambda a, b: a * b),
        Formula("a * b + a", lambda a, b: a * b + a),
        Formula("a * a", lambda a, b: a * a),
        Formula("b.exp()", lambda a, b: b.exp()),
        Formula("a * (a + b).exp()", lambda a, b: a * (a + b).exp()),
        Formula("c * c + c with c = (a * b).exp()", lambda a, b: twice((a * b).exp())),
    ):
        a, b = answer(1.5), answer(-0.5)
        leaves = torch.tensor([1.5, -0.5], dtype=torch.float64, requires_grad=True)
        case = f"for a = 1.5 and b = -0.5, after loss = {f}"
        for count in "once", "twice":
            loss = f(a, b)
            compare(loss.data, f(*leaves).item(), f"{case}, loss.data")
            loss.backward()
            f(*leaves).backward()
            for name, scalar, wanted in zip("ab", (a, b), leaves.grad.tolist()):
                what = f"{case} and loss.backward(), {count}, {name}.grad"
                compare(scalar.grad, wanted, what)


def twice(c):
    return c * c + c


def check_hessian_times_vector(answer):
    """Multiply the gradient of f by v, element by element, and sum up: the gradient of
    that sum is what is wanted.

    So compute a gradient of a gradient. The first one must be recorded:
    torch.autograd.grad(f(leaf), leaf, create_graph=True)
    """
    for x, v in inputs("nd", "nd", empty=False):
        cubes = 6 * x.double() * v.double()
        columns = 2 * v.double().sum(dim=0).expand_as(v)
        for f, wanted in (CUBES, cubes), (COLUMNS, columns):
            expect(answer, f, x, v, wanted=wanted, dtype=x.dtype)
            expect_untouched(x)


def check_fit_curve(answer):
    """After loss.backward(), print w1.grad and w2.grad.

    w1.grad is None: something between w1 and the loss is computed in a way that
    autograd does not record. So w1 keeps its value, without an error.

    Autograd does not record what NumPy computes. PyTorch has a tanh, too.
    """
    x = torch.linspace(-1, 1, 9)[:, None]
    losses = answer(x, 2 * torch.tanh(3 * x))
    compare(type(losses), list, "the type of your answer")
    compare(len(losses), 200, "the length of your answer")
    compare(losses[0], 1.36067, "the loss of step 1", tolerance=1e-3)
    if not losses[-1] < 1e-5:
        raise Wrong(f"the loss ends at {losses[-1]:.4g}, wanted less than 1e-05")


def expect_untouched(x):
    if x.requires_grad:
        raise Wrong("x requires a gradient when you return, and did not before")
    if x.grad is not None:
        raise Wrong("x.grad is not empty when you return")


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
