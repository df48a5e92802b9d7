"""Exercises with optimizers, judged at once.

Replace "raise NotImplementedError" in a function by your answer, then let it be judged:

    python optim/optim_exercises.py                        all of them
    python optim/optim_exercises.py gradient_step          one, and where it fails
    python optim/optim_exercises.py gradient_step --hint   one, with a hint

The file works alone, so a copy of it does as well. The judge is at its end.
"""

import argparse
import contextlib
import copy
import faulthandler
import inspect
import io
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
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook


def gradient_step(parameters, lr):
    """Take one step of gradient descent.

    parameters is a list of tensors that require a gradient. Subtract from each of them,
    in place, lr times its gradient. Those whose grad is None stay as they are, and so
    do all gradients. Do not call SGD() of PyTorch.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> w.square().sum().backward()
    >>> gradient_step([w], 0.25)
    >>> w
    tensor([0.5000, 1.0000], requires_grad=True)

    Read: autograd/README.md#why-the-update-needs-no_grad
    """
    raise NotImplementedError


def momentum_steps(w, gradients, lr, momentum):
    """Return the parameter w after some steps of SGD with momentum.

    w has shape (d,), and must not change. gradients has shape (n, d): row t is the
    gradient in step t. A velocity v is zero at first. In each step multiply v by
    momentum, add the gradient to it, and then subtract lr * v from w. Return a tensor
    of shape (d,), which for n = 0 has the elements of w. Do not call SGD() of PyTorch.

    >>> w = torch.tensor([2.0, 0.0])
    >>> momentum_steps(w, torch.tensor([[1.0, 2.0], [1.0, 0.0]]), 0.5, 0.5)
    tensor([ 0.7500, -1.5000])

    Read: optim/README.md#which-optimizer-sgd-momentum-rmsprop-adam-muon-and-others
    """
    raise NotImplementedError


def learning_rate(t, peak, lowest, warmup, steps):
    """Return the learning rate after t steps, with warmup and cosine decay.

    In the warmup, while t is less than warmup, the rate grows linearly, from
    peak / warmup at t = 0 to peak at t = warmup - 1. At t = warmup it is still peak.
    From there it falls along half a cosine to lowest at t = steps, and stays there.
    warmup may be 0, and is less than steps. Return a number.

    >>> [round(learning_rate(t, 8.0, 2.0, 4, 8), 2) for t in range(10)]
    [2.0, 4.0, 6.0, 8.0, 8.0, 7.12, 5.0, 2.88, 2.0, 2.0]

    Read: optim/README.md#learning-rate-schedules-warmup-and-cosine-decay
    """
    raise NotImplementedError


def parameter_groups(model, weight_decay):
    """Sort the parameters of model into those with weight decay and those without.

    Return a list of two groups, as torch.optim accepts it. The first has the parameters
    of two or more dimensions and this weight_decay; the second has those of fewer, and
    a decay of 0. A group is a dictionary with the keys "params", a list, and
    "weight_decay". Leave out parameters that do not require a gradient. A parameter
    that several layers share comes once.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    >>> for group in parameter_groups(model, 0.1):
    ...     print(group["weight_decay"], [param.ndim for param in group["params"]])
    0.1 [2]
    0 [1, 1, 1]

    Read: optim/README.md#parameter-groups-learning-rate-and-weight-decay-per-layer
    """
    raise NotImplementedError


def clip_gradients(parameters, max_norm):
    """Scale the gradients down if their norm is more than max_norm.

    parameters is a list of tensors; skip those whose grad is None. The norm is the root
    of the sum of the squares of all elements of all gradients. If it is more than
    max_norm, multiply every gradient by max_norm / norm; if not, the gradients stay as
    they are. Return the norm from before the clipping, as a tensor without dimensions
    or as a number. Do not call clip_grad_norm_() of PyTorch.

    >>> a = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> b = torch.tensor(1.0, requires_grad=True)
    >>> (3 * a[0] + 4 * b).backward()
    >>> clip_gradients([a, b], 1.0)
    tensor(5.)
    >>> a.grad, b.grad
    (tensor([0.6000, 0.0000]), tensor(0.8000))

    Read: optim/common_mistakes.md#the-loss-explodes-although-i-clip-the-gradients
    """
    raise NotImplementedError


class AdamW:
    """Write the optimizer AdamW, which is Adam with decoupled weight decay.

    params is a list of tensors that require a gradient. step() changes them in place,
    and leaves their gradients as they are. It skips parameters whose grad is None.

    m and v are zeros before the first step. Step t, counted from 1, computes for each
    parameter, with sqrt and all other operations element-wise:

        parameter = parameter * (1 - lr * weight_decay)
        m = betas[0] * m + (1 - betas[0]) * grad
        v = betas[1] * v + (1 - betas[1]) * grad**2
        m_corrected = m / (1 - betas[0] ** t)
        v_corrected = v / (1 - betas[1] ** t)
        parameter = parameter - lr * m_corrected / (sqrt(v_corrected) + eps)

    >>> w = torch.tensor([1.0, -2.0], requires_grad=True)
    >>> w.grad = torch.tensor([0.5, 4.0])
    >>> AdamW([w], lr=0.1).step()
    >>> w
    tensor([ 0.8990, -2.0980], requires_grad=True)

    Read: optim/README.md#which-optimizer-sgd-momentum-rmsprop-adam-muon-and-others
    """

    def __init__(self, params, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        self.params = list(params)
        self.lr = lr
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay

    def step(self):
        raise NotImplementedError


def step_in_parts(model, loss_fn, optimizer, parts):
    """Take one step of the optimizer on a batch that comes in parts.

    parts is a list of pairs x, y. x has shape (n, d), and n differs from part to part.
    loss_fn(model(x), y) is the mean of the losses of the n rows. The step has to be the
    one that all rows together would give. To save memory, call backward() for each
    part before the model sees the next one. Ignore gradients left from earlier steps.
    Return the mean loss of all rows, before the step, as a number.

    >>> model = torch.nn.Linear(1, 1)
    >>> _ = torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
    >>> x = torch.zeros(4, 1)
    >>> parts = [(x[:3], torch.ones(3, 1)), (x[:1], torch.zeros(1, 1))]
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    >>> step_in_parts(model, torch.nn.MSELoss(), optimizer, parts)
    0.75
    >>> model.bias.item()
    0.75

    Read: optim/README.md#gradient-accumulation
    """
    raise NotImplementedError


class Training:
    """Save the state of a training run, and resume the run from it.

    state_dict() returns everything that the steps to come depend on. torch.save() has
    to save it, and torch.load() with weights_only=True has to load it.

    load_state_dict(state) is called on another Training, perhaps in another process,
    which may have trained already. Its next losses have to be those that the first
    Training would have had.

    Read: optim/checkpoints.md#what-belongs-in-a-checkpoint
    """

    def __init__(self):
        self.x = torch.linspace(-1, 1, 16)[:, None]
        self.y = torch.sin(3 * self.x)
        self.steps = 0
        self.model = nn.Sequential(
            nn.Linear(1, 20), nn.Tanh(), nn.Dropout(0.2), nn.Linear(20, 1)
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda t: 1 / (1 + t)
        )

    def train(self, until):
        """Train until that many steps are done; return their losses."""
        losses = []
        while self.steps < until:
            rows = torch.randperm(len(self.x))[:8]
            loss = nn.functional.mse_loss(self.model(self.x[rows]), self.y[rows])
            losses.append(loss.item())

            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self.steps += 1
        return losses

    def state_dict(self):
        raise NotImplementedError

    def load_state_dict(self, state):
        raise NotImplementedError


def fit_plane(x, y):
    """Find the bug: this script runs, and soon its loss hardly falls any more.

    Delete "raise NotImplementedError", run the file, and change one more line.

    x has shape (n, d), and y, of shape (n, 1), is a linear function of x. The learning
    rate is 0.02 at first, and a tenth of what it was after every 10 epochs. Return the
    mean losses of the 40 epochs as a list of numbers.

    Read: optim/README.md#learning-rate-schedules-warmup-and-cosine-decay
    """
    raise NotImplementedError
    model = nn.Linear(x.shape[1], 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.1)
    losses = []
    for epoch in range(40):
        total = 0
        for rows in torch.randperm(len(x)).split(4):
            loss = nn.functional.mse_loss(model(x[rows]), y[rows])
            total += loss.item() * len(rows)

            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        losses.append(total / len(x))
    return losses


# The checks. Each calls the answer with inputs of several kinds and sizes, and compares
# it with a computation of another kind. The paragraphs of its docstring are the hints.


def check_gradient_step(answer):
    """parameter = parameter - ... makes another tensor, and the one in the list stays.

    parameter -= ... changes it in place. Autograd refuses that for a tensor that
    requires a gradient, unless the line is in a block "with torch.no_grad():".
    """
    forbid_calls(answer, "SGD")
    for dtype in torch.float32, torch.float64:
        for kind in "whole", "zeros", "random":
            parameters = with_gradients(kind, dtype)
            before = copy_of(parameters)
            with shown(before):
                answer(list(parameters), 0.25)
                compare_gradients(parameters, before, "parameters")
                for i, (new, old) in enumerate(zip(parameters, before)):
                    wanted = old.detach()
                    if old.grad is not None:
                        gradient = old.grad.numpy()
                        wanted = torch.as_tensor(wanted.numpy() - 0.25 * gradient)
                    compare_parameter(new, wanted, f"after the step parameters[{i}]")
            if not torch.is_grad_enabled():
                raise Wrong("after the step, autograd still records nothing")


def check_momentum_steps(answer):
    """A loop over gradients visits its rows. Before it, v is zeros like w.

    The velocity comes first, then w moves: v = momentum * v + gradient, w = w - lr * v.
    """
    forbid_calls(answer, "SGD")
    for lr, momentum in (0.5, 0.5), (0.1, 0.9), (0.3, 0.0):
        for gradients, w in inputs("nd", "d"):
            wanted = w.double().clone().requires_grad_()
            optimizer = torch.optim.SGD([wanted], lr=lr, momentum=momentum)
            for gradient in gradients.double():
                wanted.grad = gradient.clone()
                optimizer.step()
            expect(answer, w, gradients, lr, momentum, wanted=wanted.detach())


def check_learning_rate(answer):
    """There are three cases: t < warmup, t up to steps, and t beyond.

    The progress (t - warmup) / (steps - warmup) goes from 0 to 1, and
    (1 + math.cos(math.pi * progress)) / 2 then falls from 1 to 0.

    That factor belongs to the difference of peak and lowest, above lowest.
    """
    schedulers = torch.optim.lr_scheduler
    for peak, lowest, warmup, steps in (
        (8.0, 2.0, 4, 8),
        (0.1, 0.0, 3, 10),
        (1.0, 0.01, 0, 7),
        (5e-3, 1e-4, 10, 40),
        (1.0, 0.5, 2, 3),
    ):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
        cosine = schedulers.CosineAnnealingLR(optimizer, steps - warmup, lowest)
        scheduler = cosine
        if warmup:
            linear = schedulers.LinearLR(optimizer, 1 / warmup, 1, warmup - 1)
            scheduler = schedulers.SequentialLR(optimizer, [linear, cosine], [warmup])
        for t in range(2 * steps):
            wanted = scheduler.get_last_lr()[0] if t <= steps else lowest
            arguments = t, peak, lowest, warmup, steps
            expect(answer, *arguments, wanted=wanted, tolerance=1e-9)
            optimizer.step()
            scheduler.step()


def check_parameter_groups(answer):
    """model.parameters() yields each parameter once, and param.ndim tells them apart.

    Do not go by names: the scale of a normalization is called weight, too.

    What is frozen has param.requires_grad == False.
    """
    norm = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2, bias=False))
    images = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU())
    tied = nn.Sequential(nn.Embedding(5, 3), nn.RMSNorm(3), nn.Linear(3, 5))
    tied[2].weight = tied[0].weight
    frozen = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    frozen[0].requires_grad_(False)
    scaled = nn.Sequential(nn.Linear(3, 4))
    scaled.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
    for words, model, *wanted in (
        ("LayerNorm", norm, "0.weight 2.weight", "0.bias 1.bias 1.weight"),
        ("Conv2d", images, "0.weight", "0.bias 1.bias 1.weight 2.weight"),
        ("a shared weight", tied, "0.weight", "1.weight 2.bias"),
        ("a frozen layer", frozen, "1.weight", "1.bias"),
        ("a parameter of shape ()", scaled, "0.weight", "0.bias scale"),
    ):
        groups = answer(model, 0.1)
        if not isinstance(groups, (list, tuple)) or len(groups) != 2:
            raise Wrong("your answer is no list of two groups")
        decays = [group.get("weight_decay") for group in groups]
        compare(decays, [0.1, 0], "the weight_decay of your groups")
        names = {id(param): name for name, param in model.named_parameters()}
        for i in range(2):
            params = groups[i]["params"]
            if not isinstance(params, list):
                kind = type(params).__name__
                raise Wrong(f'"params" of groups[{i}] is of type {kind}, wanted a list')
            found = " ".join(sorted(names.get(id(p), "another tensor") for p in params))
            if found != wanted[i]:
                raise Wrong(
                    f"for a model with {words} groups[{i}] has {found or 'nothing'}, "
                    f"wanted {wanted[i]}"
                )


def check_clip_gradients(answer):
    """There is one norm for all gradients, not one for each.

    Add up gradient.square().sum() of all of them, and take the root.

    param.grad *= max_norm / norm changes a gradient in place.
    """
    forbid_calls(answer, "clip_grad_norm_")
    for dtype in torch.float32, torch.float64:
        for kind in "whole", "zeros", "random":
            for max_norm in 1.5, 0.3, 1000.0:
                parameters = with_gradients(kind, dtype)
                before = copy_of(parameters)
                clipped = copy_of(parameters)
                wanted = nn.utils.clip_grad_norm_(clipped, max_norm).item()
                case = f"for max_norm = {max_norm} and gradients of norm {wanted:.6g}"
                with shown(before):
                    norm = answer(list(parameters), max_norm)
                    if isinstance(norm, torch.Tensor) and norm.ndim == 0:
                        norm = norm.item()
                    # PyTorch divides by norm + 1e-6.
                    compare(norm, wanted, f"{case} your answer", tolerance=1e-5)
                    compare_gradients(parameters, clipped, f"{case} parameters", 1e-5)
                    for i, (new, old) in enumerate(zip(parameters, before)):
                        compare_parameter(new, old.detach(), f"{case} parameters[{i}]")


def check_AdamW(answer):
    """Each parameter has an m and a v of its shape. Make them in __init__.

    Count the steps once per call of step(), not once per parameter. Parameters are
    changed in a block "with torch.no_grad():", or below "@torch.no_grad()".

    eps is added after the root, and the root is that of the corrected v.
    """
    for dtype in torch.float32, torch.float64:
        for options in (
            {"lr": 0.1, "weight_decay": 0},
            {"lr": 0.1},
            {"lr": 0.1, "betas": (0.5, 0.8), "eps": 0.1, "weight_decay": 0.3},
        ):
            params = with_gradients("random", dtype)
            wanted = copy_of(params)
            optimizer = answer(list(params), **options)
            judge = torch.optim.AdamW(wanted, **options)
            case = ", ".join(f"{name}={value}" for name, value in options.items())
            if dtype == torch.float64:
                case += f" and {dtype}"
            for t in range(1, 6):
                before = copy_of(params)
                with shown(before):
                    optimizer.step()
                    judge.step()
                    what = f"with {case} after step {t} params"
                    compare_gradients(params, before, what)
                    for i, (new, there) in enumerate(zip(params, wanted)):
                        compare_parameter(new, there.detach(), f"{what}[{i}]")
                for new, there in zip(params, wanted):
                    if there.grad is not None:
                        there.grad = torch.randn_like(there.grad)
                        new.grad.copy_(there.grad)


def check_step_in_parts(answer):
    """The mean of a part, times its rows, is a sum, and these add up to the batch's.

    Divide each by the number of all rows: (loss * len(x) / rows).backward().

    zero_grad() comes before the loop, step() after it.
    """
    for sizes in [3], [2, 2], [4, 1, 2]:
        for loss_fn in nn.MSELoss(), nn.CrossEntropyLoss():
            model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
            x = torch.randn(sum(sizes), 3, dtype=torch.float64)
            y = torch.randn(sum(sizes), 2, dtype=torch.float64)
            if isinstance(loss_fn, nn.CrossEntropyLoss):
                y = y.argmax(dim=1)
            whole = copy.deepcopy(model)
            wanted = loss_fn(whole(x), y)
            wanted.backward()
            torch.optim.SGD(whole.parameters(), lr=0.1).step()

            model(x).sum().backward()  # leaves gradients
            one_graph_at_a_time(model, max(sizes))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            steps = []
            optimizer.register_step_post_hook(lambda *_, steps=steps: steps.append(1))
            parts = list(zip(x.split(sizes), y.split(sizes)))
            loss = answer(model, loss_fn, optimizer, parts)
            case = f"for parts of {sizes} rows"
            compare(len(steps), 1, f"{case} the number of steps of the optimizer")
            compare(loss, wanted.item(), f"{case} your answer", tolerance=1e-9)
            for (name, new), old in zip(model.named_parameters(), whole.parameters()):
                compare(new, old.detach(), f"{case} after the step {name}")


def check_Training(answer):
    """Which attributes of a Training change while it trains? The state has all of them.

    If the first losses are right and later ones are not, the optimizer or the scheduler
    is missing. The number of steps is needed as well.

    Rows and dropped units are drawn at random: torch.get_rng_state(), and
    torch.set_rng_state() in load_state_dict().
    """
    torch.manual_seed(1)
    wanted = answer().train(until=12)

    torch.manual_seed(1)
    training = answer()
    losses = training.train(until=6)
    file = io.BytesIO()
    torch.save(training.state_dict(), file)
    losses += training.train(until=12)
    compare_losses(losses, wanted, "when state_dict() is called after step 6")

    torch.manual_seed(2)
    training = answer()
    training.train(until=2)
    file.seek(0)
    try:
        state = torch.load(file, weights_only=True)
    except Exception as error:
        raise Wrong("torch.load() with weights_only=True refuses the state") from error
    training.load_state_dict(state)
    losses = training.train(until=12)
    compare(len(losses), 6, "the number of losses from step 7 to 12, after resuming,")
    compare_losses(wanted[:6] + losses, wanted, "after resuming")


def check_fit_plane(answer):
    """Print optimizer.param_groups[0]["lr"] once per epoch.

    StepLR counts the calls of its step(). Its step_size is 10, and it is called once
    per batch.
    """
    x = torch.randn(64, 3)
    y = x @ torch.tensor([[1.0], [-2.0], [3.0]]) + 4
    rates = []

    def note(optimizer, *_):
        rates.append(optimizer.param_groups[0]["lr"])

    hook = register_optimizer_step_post_hook(note)
    try:
        losses = answer(x, y)
    finally:
        hook.remove()
    compare(type(losses), list, "the type of your answer")
    compare(len(losses), 40, "the length of your answer")
    for loss in losses:
        compare(type(loss), float, "the type of a loss")
    if not losses[-1] < 0.1:
        raise Wrong(f"the loss ends at {losses[-1]:.4g}, wanted less than 0.1")
    for epoch in range(40):
        rate = rates[len(rates) * epoch // 40] if rates else None
        compare(
            rate, 0.02 * 0.1 ** (epoch // 10), f"the learning rate in epoch {epoch + 1}"
        )


def forbid_calls(answer, name):
    code = getattr(inspect.unwrap(answer), "__code__", None)
    if code and name in code.co_names:
        raise Wrong(
            f"your answer calls {name}(), which the exercise asks you not to do"
        )


def with_gradients(kind, dtype):
    """Return parameters of different shapes with gradients, except for one."""
    parameters = []
    for shape in [3], [2, 3], [4], []:
        parameters.append(tensor(kind, shape).to(dtype).requires_grad_())
        if shape != [2, 3]:
            parameters[-1].grad = tensor(kind, shape).to(dtype)
    parameters[0].grad[1] = 0
    return parameters


def copy_of(parameters):
    copies = [parameter.detach().clone().requires_grad_() for parameter in parameters]
    for new, old in zip(copies, parameters):
        new.grad = None if old.grad is None else old.grad.clone()
    return copies


@contextlib.contextmanager
def shown(parameters):
    """If there is an error in this block, show these parameters with it."""
    try:
        yield
    except Exception as error:
        for i, param in enumerate(parameters):
            error.add_note(f"parameter {i}: {param.detach()}, grad {param.grad}")
        raise


def compare_parameter(got, wanted, what):
    compare(got.detach(), wanted, what)
    if not got.requires_grad:
        raise Wrong(f"{what} does not require a gradient any more")


def compare_gradients(got, wanted, what, tolerance=None):
    for i, (new, old) in enumerate(zip(got, wanted)):
        if new.grad is None and old.grad is not None:
            raise Wrong(f"{what}[{i}].grad is None, which it was not before")
        if new.grad is not None and old.grad is None:
            raise Wrong(f"{what}[{i}].grad is not None, which it was before")
        compare(new.grad, old.grad, f"{what}[{i}].grad", tolerance)


def compare_losses(got, wanted, case):
    for t, (here, there) in enumerate(zip(got, wanted), start=1):
        compare(here, there, f"{case} the loss of step {t}", tolerance=1e-5)


def one_graph_at_a_time(model, rows):
    """Make the model refuse too many rows, and a part before the last backward()."""
    alive = []

    def look(module, arguments, output):
        if alive:
            raise Wrong("the model sees another part before backward() of the last one")
        if len(output) > rows:
            raise Wrong(f"the model sees {len(output)} rows at once, wanted {rows}")
        if output.requires_grad:
            alive.append(output)
            output.register_hook(lambda gradient: alive.clear())

    model.register_forward_hook(look)


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
