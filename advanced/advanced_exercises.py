"""Exercises with advanced topics, judged at once.

Replace "raise NotImplementedError" in a function by your answer, then let it be judged:

    python advanced/advanced_exercises.py                     all of them
    python advanced/advanced_exercises.py binarize            one, and where it fails
    python advanced/advanced_exercises.py binarize --hint     one, with a hint

The file works alone, so a copy of it does as well. The judge is at its end.
"""

import argparse
import contextlib
import copy
import faulthandler
import gc
import inspect
import math
import multiprocessing
import os
import queue
import signal
import sys
import textwrap
import time
import traceback
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode


def training_bytes(model):
    """Return how many bytes it takes to train a model with Adam.

    model is a Module. Its weights, their gradients and the state of torch.optim.Adam
    count; buffers and activations do not. Adam keeps two averages of each parameter, in
    the parameter's dtype, and for each parameter tensor a step count of 4 bytes. A
    frozen parameter (requires_grad is False) has neither a gradient nor state. A
    parameter that several layers share is there only once. Return an int.

    >>> training_bytes(torch.nn.Linear(3, 2))
    136

    Read: advanced/memory.md#how-much-gpu-memory-does-a-gpt-need
    """
    raise NotImplementedError


def ddp_loss(y_pred, y, batch, ranks):
    """Return the loss of one rank's rows of a batch, for training with DDP.

    Each rank computes a loss from its own rows, and DDP averages the gradients over the
    ranks. The ranks may have different numbers of rows. Still, the average of their
    losses has to be the mean squared error of the whole batch, over all its elements.

    y_pred and y have shape (n, d) and are this rank's rows; n may be 0. batch is the
    number of rows on all ranks together, and ranks the number of ranks. Return a tensor
    of shape (), from which backward() reaches y_pred.

    >>> ddp_loss(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1), batch=5, ranks=2)
    tensor(4.)

    Read: advanced/distributed.md#data-parallelism-ddp
    """
    raise NotImplementedError


def scaled_step(weights, grads, scale, lr):
    """Take a step of gradient descent with the gradients of a scaled loss.

    weights is a list of float32 tensors, and grads a list of float16 tensors of the
    same shapes: the gradients of scale times the loss. Divide them by scale in float32.
    Return a tuple: the list of new weights, weights - lr * gradients, and the scale.

    But if any element of any gradient is infinite or nan, skip the step: return the
    weights as they are and half of the scale. Do not change the inputs.

    >>> weights, grads = [torch.tensor([1.0])], [torch.tensor([2.0]).half()]
    >>> scaled_step(weights, grads, scale=4.0, lr=0.5)
    ([tensor([0.7500])], 4.0)

    Read: advanced/speed.md#float16-and-gradscaler
    """
    raise NotImplementedError


def binarize(x):
    """Return 1 where x >= 0 and -1 elsewhere, with a gradient that training can use.

    The true derivative is 0. Instead, the backward pass is that of a straight-through
    estimator: it passes the gradient on where -1 < x < 1, and 0 where x < -1 or x > 1.
    Where x is exactly -1 or 1, either will do.

    x has any shape, and the result has the shape and the dtype of x. You may write a
    subclass of torch.autograd.Function, or do without.

    >>> x = torch.tensor([-3.0, -0.5, 0.0, 2.0], requires_grad=True)
    >>> binarize(x).tolist()
    [-1.0, -1.0, 1.0, 1.0]
    >>> torch.autograd.grad(binarize(x).sum(), x)
    (tensor([0., 1., 1., 0.]),)

    Read: advanced/README.md#custom-autograd-functions
    """
    raise NotImplementedError


def gradient_norms(model, x, y):
    """Return the norm of each sample's gradient, without a loop over the samples.

    model is a Module that maps a tensor (n, d) to (n, e), each row by itself. The loss
    of sample i is the sum of the squares of model(x)[i] - y[i]. Its gradient with
    respect to all parameters of the model together has one norm, the root of the sum of
    the squares of all its elements.

    x has shape (n, d) and y (n, e), with n of at least 1. Return a tensor of shape
    (n,). The number of operations that you call must not grow with n.

    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> model.weight = torch.nn.Parameter(torch.ones(1, 1))
    >>> norms = gradient_norms(model, torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1))
    >>> norms.tolist()
    [2.0, 8.0]

    Read: advanced/README.md#per-sample-gradients-torchfunc
    """
    raise NotImplementedError


def limit_norm(x):
    """Rewrite this function so that torch.compile makes a single graph of it.

    Delete "raise NotImplementedError" and change the rest, until the function works in
    torch.compile(limit_norm, fullgraph=True, backend="eager"), too. For all x, zeros
    included, the result and its gradient with respect to x must stay what they are. It
    need not print any more. x has any shape, which the result has, too.

    >>> limit_norm(torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])

    Read: advanced/README.md#graph-breaks-and-recompilations
    """
    raise NotImplementedError
    norm = x.norm()
    if norm > 1:
        print("too long:", norm)
        x = x / norm
    return x


def checkpointed(function, x):
    """Return function(x), and keep none of its activations: checkpointing by hand.

    The backward pass calls function(x) once more, and then computes the gradients as
    usual: those of x, and those of the weights that function uses.

    function takes a tensor and returns one. It computes the same in every call. x
    requires a gradient. Gradients are computed by backward(), at most once for each
    result. Do not call checkpoint() of PyTorch.

    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> checkpointed(torch.square, x).sum().backward()
    >>> x.grad
    tensor([2., 4.])

    Read: advanced/memory.md#activation-checkpointing-compute-again-instead-of-keeping
    """
    raise NotImplementedError


def ring_all_reduce(x, rank, ranks, exchange):
    """Return the sum of the x of all ranks, which send small parts around in a ring.

    This function runs on all ranks at the same time, each with its own x of shape (n,).
    n is a positive multiple of ranks. exchange(part) sends a tensor to the next rank,
    (rank + 1) % ranks, and returns the one that the previous rank sends in the same
    round: what comes back from your first call is the part of its first call.

    Each rank calls exchange 2 * (ranks - 1) times, always with n // ranks elements.
    Return a tensor of shape (n,), and do not change x. In the example, 10 and 11 come
    from the only other rank.

    >>> received = iter([torch.tensor([10.0]), torch.tensor([11.0])])
    >>> ring_all_reduce(torch.tensor([1.0, 1.0]), 0, 2, lambda part: next(received))
    tensor([11., 11.])

    Read: advanced/distributed.md#sharded-training-fsdp2
    """
    raise NotImplementedError


def fit_in_bfloat16(x, y):
    """Find the bug: this script runs, and its loss does not go to zero.

    Delete "raise NotImplementedError", run the file, and change one more line.

    x has shape (n,), and y, of shape (n,), is 3.3 * x + 1.7. Both are float32. Return
    the losses of 1000 steps as a list of numbers.

    Read: advanced/speed.md#mixed-precision-autocast
    """
    raise NotImplementedError
    weight, bias = torch.zeros(2, 1, dtype=torch.bfloat16)
    losses = []
    for t in range(1000):
        error = x * weight + bias - y
        losses.append(error.square().mean().item())

        grad_weight = 2 * (error * x).mean()
        grad_bias = 2 * error.mean()
        weight -= 0.02 * grad_weight
        bias -= 0.02 * grad_bias
    return losses


# The checks. Each calls the answer with inputs of several kinds and sizes, and compares
# it with a computation of another kind. The paragraphs of its docstring are the hints.


def check_training_bytes(answer):
    """A parameter has numel() elements of element_size() bytes each.

    Weight, gradient and two averages are four times that. Then there is the step count.

    model.parameters() yields a parameter only once, however many layers share it.
    """
    linear = torch.nn.Linear
    layer, frozen, tied = linear(4, 4), linear(3, 4), linear(4, 4)
    tied.weight = layer.weight
    frozen.weight.requires_grad_(False)
    models = {
        "Linear(3, 2)": linear(3, 2),
        "Linear(3, 2) in float64": linear(3, 2, dtype=torch.float64),
        "layers in float32 and float16": in_turn(linear(3, 2), linear(2, 5).half()),
        "a Linear(4, 4) that is used twice": in_turn(layer, layer),
        "two layers with the same weight": in_turn(layer, tied),
        "a Linear(3, 4) whose weight is frozen": in_turn(frozen, linear(4, 2)),
        "a BatchNorm1d(5)": torch.nn.BatchNorm1d(5),
        "a ReLU": torch.nn.ReLU(),
    }
    for name, model in models.items():
        wanted = bytes_after_a_step(copy.deepcopy(model))
        compare(answer(model), wanted, f"for {name} your answer")


def in_turn(*layers):
    return torch.nn.Sequential(*layers)


def bytes_after_a_step(model):
    """Take a step with Adam and add up what is there."""
    params = list(model.parameters())
    if not params:
        return 0
    optimizer = torch.optim.Adam(params)
    for param in params:
        param.grad = torch.zeros_like(param) if param.requires_grad else None
    optimizer.step()
    tensors = params + [param.grad for param in params if param.grad is not None]
    for state in optimizer.state.values():
        tensors += state.values()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def check_ddp_loss(answer):
    """The mean squared error of the batch is a sum over the ranks of a sum over rows.

    Divide a rank's sum of squares by the elements of the whole batch, not by its own.
    Then the sum over the ranks is right. DDP takes the average.
    """
    for y_pred, y in inputs("nd", "nd"):
        for others, ranks in (0, 1), (3, 2), (7, 4):
            batch = len(y) + others
            if batch:
                rows = torch.zeros(batch, y.shape[1], dtype=torch.float64)
                rows[: len(y)] = y_pred.double() - y.double()
                wanted = ranks * rows.square().mean()
                expect(answer, y_pred, y, batch, ranks, wanted=wanted)

    x, y = torch.randn(9, 3), torch.randn(9, 2)
    weight = torch.randn(3, 2, requires_grad=True)
    grad = torch.zeros(3, 2)
    for begin, end in (0, 4), (4, 4), (4, 5), (5, 9):
        loss = answer(x[begin:end] @ weight, y[begin:end], 9, 4)
        part = None
        if loss.requires_grad:
            (part,) = torch.autograd.grad(loss, weight, allow_unused=True)
        if part is None:
            raise Wrong("backward() from your answer does not reach y_pred")
        grad += part / 4
    whole = torch.nn.functional.mse_loss(x @ weight, y)
    wanted = torch.autograd.grad(whole, weight)[0]
    compare(grad, wanted, "the average of the gradients of 4 ranks")


def check_scaled_step(answer):
    """isfinite() is False for inf, -inf and nan.

    Look at all gradients before you change any weight.

    grad / scale is a float16, which is 0 below 6e-8. grad.float() / scale is not.
    """

    def step(weight1, weight2, grad1, grad2, scale, lr):
        return answer([weight1, weight2], [grad1, grad2], scale, lr)

    for grad, scale, lr in (
        (1.0, 4.0, 0.5),
        (2.0**-10, 2.0**16, 2.0**24),
        (60000.0, 1024.0, 0.01),
        (math.inf, 1024.0, 100.0),
        (-math.inf, 1.0, 0.01),
    ):
        weights = torch.randn(2, 3), torch.randn(3)
        grads = torch.ones(2, 3).half(), torch.tensor([1.0, grad, grad]).half()
        wanted = weights, scale / 2
        if math.isfinite(grad):
            new = [w - lr / scale * g.float() for w, g in zip(weights, grads)]
            wanted = tuple(new), scale
        expect(step, *weights, *grads, scale, lr, wanted=wanted)

    weights = torch.randn(3), torch.randn(2)
    grads = [torch.tensor([0.0, math.nan, 1.0]).half(), torch.zeros(2).half()]
    got = answer(list(weights), grads, 8.0, 1.0)
    compare(got, (weights, 4.0), "for a gradient with nan your answer")


def check_binarize(answer):
    """A Function needs forward() and backward(); save x for the latter.

    backward() returns grad_output * mask. The mask is 1 where x.abs() < 1.

    Without a Function: clamp(-1, 1) has this gradient. Add to it the difference from
    what it should be, detached.
    """
    for shape in "n", "nd":
        for (x,) in inputs(shape):
            wanted = np.where(x.numpy() >= 0, 1.0, -1.0)
            expect(answer, x, wanted=wanted)

    x = torch.tensor([-2.0, -1.25, -0.75, -0.5, 0.0, 0.5, 1.5], requires_grad=True)
    mask = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    for dtype in torch.float32, torch.float64:
        h = 1 * x.to(dtype)
        upstream = torch.arange(2, 9, dtype=dtype)
        got = gradient(answer(h), h, upstream)
        compare(got, mask.to(dtype) * upstream, f"for x = {x.tolist()} the gradient")

    h = 1 * x
    result = answer(h)
    h.fill_(9)
    try:
        got = gradient(result, x, torch.ones(7))
    except RuntimeError:  # autograd has noticed
        return
    what = "after x was changed in place (use save_for_backward) the gradient"
    compare(got, mask, what)


def gradient(result, x, upstream):
    before, grad = upstream.clone(), None
    if result.requires_grad:
        (grad,) = torch.autograd.grad(result, x, upstream, allow_unused=True)
    if grad is None:
        raise Wrong("backward() from your answer does not reach x")
    if not torch.equal(upstream, before):
        raise Wrong("your backward() changes grad_output in place")
    return grad


def check_gradient_norms(answer):
    """grad and vmap of torch.func, as in advanced/per_sample_gradients.py.

    Write a function of a dictionary of parameters, one row of x and one of y. In it,
    torch.func.functional_call(model, params, (row,)) runs the model. Then
    vmap(grad(function), in_dims=(None, 0, 0)) returns a dictionary of gradients, each
    with a first dimension n.

    Square them, sum over all dimensions but the first, and add up the parameters.
    """

    def call(x, y):
        return answer(model, x, y)

    for x, y in inputs("nd", "ne", empty=False):
        first, last = torch.nn.Linear(x.shape[1], 4), torch.nn.Linear(4, y.shape[1])
        model = in_turn(first, torch.nn.Tanh(), last).to(x.dtype)
        wanted = torch.zeros(len(x), dtype=torch.float64)
        for i in range(len(x)):
            loss = (model(x[i : i + 1]) - y[i]).square().sum()
            grads = torch.autograd.grad(loss, list(model.parameters()))
            wanted[i] = torch.cat([grad.flatten() for grad in grads]).norm()
        expect(call, x, y, wanted=wanted)

    few, many = [operations(answer, n) for n in (3, 30)]
    if many > 2 * few:
        raise Wrong(f"it takes {few} operations for 3 samples and {many} for 30")


def operations(answer, n):
    """Return how many operations of PyTorch the answer calls for n samples."""
    model = torch.nn.Linear(3, 2)
    with Counter() as counter:
        answer(model, torch.randn(n, 3), torch.randn(n, 2))
    return counter.count


class Counter(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += 1
        return operation(*args, **(kwargs or {}))


def check_limit_norm(answer):
    """A graph has no if on data and no print. What could one divide by in both cases?

    x is divided by its norm or, if that is less than 1, by 1.

    item() takes the norm out of the graph, and its gradient is lost.
    """
    many, few = torch.randn(3, 4, dtype=torch.float64).T, torch.tensor([[0.1], [-0.5]])
    for x in torch.tensor([3.0, 4.0]), few, torch.zeros(3), many, torch.zeros(0):
        values = x.double().numpy()
        expect(answer, x, wanted=values / max(1, np.sqrt((values**2).sum())))

    for x in torch.tensor([3.0, 4.0]), few, torch.zeros(3):
        x.requires_grad_()
        upstream = torch.randn(x.shape)
        norm = x.norm()
        unchanged = x / norm if norm > 1 else x
        wanted = gradient(unchanged, x, upstream)
        case = f"for x = {x.tolist()} the"
        compare(gradient(answer(x), x, upstream), wanted, f"{case} gradient")

        torch.compiler.reset()
        compiled = torch.compile(answer, fullgraph=True, backend="eager")
        try:
            result = compiled(x)
        except torch._dynamo.exc.Unsupported as error:
            code = str(error).partition("from user code:")[2].split("\n")[2:3]
            raise Wrong(f"{in_one_line(error)}, at: {''.join(code).strip()}") from error
        compare(result, unchanged.detach(), f"{case} compiled result")
        got = gradient(result, x, upstream)
        compare(got, wanted, f"{case} gradient when compiled")


def check_checkpointed(answer):
    """Write a subclass of torch.autograd.Function. forward() records no graph.

    forward() saves x only. Its other argument, function, goes on ctx.

    In backward(): detach x and let it require a gradient. Within torch.enable_grad(),
    call function again. Then y.backward(grad_output) fills the grad of the new x, and
    those of the weights. Return a gradient for each argument of forward().
    """

    def function(x):
        callers = [frame.f_globals for frame, _ in traceback.walk_stack(None)]
        if any(names is vars(torch.utils.checkpoint) for names in callers):
            raise Wrong("your answer calls checkpoint() of PyTorch")
        h = (x @ w1).tanh()
        activations.append(StorageWeakRef(h.untyped_storage()))
        return (h @ w2).square()

    for dtype in torch.float32, torch.float64:
        w1 = torch.randn(3, 4, dtype=dtype, requires_grad=True)
        w2 = torch.randn(4, 2, dtype=dtype, requires_grad=True)
        x = torch.randn(5, 3, dtype=dtype, requires_grad=True)
        leaves = {"x": x, "the first weight": w1, "the second weight": w2}
        upstream = torch.randn(5, 2, dtype=dtype)

        argument = x if dtype == torch.float32 else 2 * x  # also what is no leaf
        activations = []
        plain = function(argument)
        wanted = torch.autograd.grad(plain, leaves.values(), upstream, True)

        activations = []
        result = answer(function, argument)
        compare(result, plain.detach(), "your answer")
        if not result.requires_grad:
            raise Wrong("backward() from your answer does not reach x")
        gc.collect()
        if not all(activation.expired() for activation in activations):
            raise Wrong("an activation of the function is kept for the backward pass")
        forward_calls = len(activations)
        result.backward(upstream)
        for (name, leaf), grad in zip(leaves.items(), wanted):
            if leaf.grad is None:
                raise Wrong(f"after backward(), {name} has no gradient")
            compare(leaf.grad, grad, f"the gradient of {name}")
        compare(forward_calls, 1, "the number of calls in the forward pass")
        backward_calls = len(activations) - 1
        compare(backward_calls, 1, "the number of calls in the backward pass")


def check_ring_all_reduce(answer):
    """Cut x into ranks parts. First add up (reduce-scatter), then hand on (all-gather).

    In the first ranks - 1 calls, add what comes in to your part of the same place, and
    send the sum in the next call. If rank r starts with part r, part r - 1 comes in.

    After them, part (rank + 1) % ranks is the sum over all ranks. It is the first that
    is sent in the second ranks - 1 calls. What comes in then replaces your part.
    """
    for ranks, n, dtype in (
        (1, 3, torch.float32),
        (2, 2, torch.float32),
        (2, 6, torch.float32),
        (3, 3, torch.float32),
        (4, 12, torch.float64),
        (5, 5, torch.float32),
    ):
        tensors = [torch.randn(2 * n, dtype=dtype)[::2] for _ in range(ranks)]
        wanted = sum(tensor.double() for tensor in tensors).to(dtype)
        before = [tensor.clone() for tensor in tensors]
        results, sent = on_a_ring(answer, tensors)
        for rank in range(ranks):
            case = f"with {ranks} ranks and n = {n}, rank {rank}"
            if not torch.equal(tensors[rank], before[rank]):
                raise Wrong(f"{case} changes x in place")
            compare(results[rank], wanted, f"{case}: your answer")
            calls = 2 * (ranks - 1)
            compare(len(sent[rank]), calls, f"{case}: the number of calls of exchange")
            sizes = [n // ranks] * calls
            compare(sent[rank], sizes, f"{case}: the list of the sizes it sends")


def on_a_ring(answer, tensors):
    """Run the answer on all ranks, each in a thread.

    Returns the results, and how many elements each rank has sent in each call.
    """
    ranks = len(tensors)
    sent = [[] for _ in range(ranks)]
    queues = [queue.Queue() for _ in range(ranks)]

    def run(rank):
        def exchange(part):
            sent[rank].append(part.numel())
            queues[(rank + 1) % ranks].put(part.detach().clone())
            received = queues[rank].get()
            if received is None:
                call = len(sent[rank])
                raise EOFError(f"call {call} of exchange: the previous rank has ended")
            return received

        try:
            return answer(tensors[rank], rank, ranks, exchange)
        finally:
            queues[(rank + 1) % ranks].put(None)

    with ThreadPoolExecutor(ranks) as threads:
        futures = [threads.submit(run, rank) for rank in range(ranks)]
    errors = [future.exception() for future in futures]
    causes = [error for error in errors if error and not isinstance(error, EOFError)]
    if causes:
        raise causes[0]
    for error in filter(None, errors):
        raise error
    return [future.result() for future in futures], sent


def check_fit_in_bfloat16(answer):
    """Print weight, and the step that is subtracted from it. What is their difference?

    A bfloat16 has 8 binary digits: between 2 and 4, neighbours differ by 1 / 64. A step
    of less than half of that changes nothing. Which tensors should be float32?
    """
    x = torch.linspace(-1, 1, 9)
    losses = answer(x, 3.3 * x + 1.7)
    compare(type(losses), list, "the type of your answer")
    compare(len(losses), 1000, "the length of your answer")
    compare(losses[0], 7.4275, "the loss of step 1", tolerance=1e-3)
    if not losses[-1] < 1e-6:
        raise Wrong(f"the loss ends at {losses[-1]:.4g}, wanted less than 1e-06")


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
