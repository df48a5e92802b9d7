"""Exercises with layers, modules and losses, judged at once.

Replace "raise NotImplementedError" in a function or class by your answer, then let it
be judged:

    python nn/nn_exercises.py                             all of them
    python nn/nn_exercises.py count_parameters            one, and where it fails
    python nn/nn_exercises.py count_parameters --hint     one, with a hint

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
from itertools import pairwise

import numpy as np
import torch
from torch import nn


def count_parameters(model):
    """Count the trainable weights of a model.

    These are the elements of all its parameters that require a gradient. A parameter
    that several layers share counts once. Return an int.

    >>> count_parameters(nn.Sequential(nn.Linear(3, 2), nn.ReLU()))
    8

    Read: nn/README.md#layers-nnlinear-and-nnsequential
    """
    raise NotImplementedError


class Linear(nn.Module):
    """Rebuild nn.Linear, without deriving from it.

    Its parameters are weight of shape (out_features, in_features) and bias of shape
    (out_features,). All their elements are drawn from the uniform distribution between
    -b and b, where b is 1 / sqrt(in_features). forward() maps x of shape
    (n, in_features) to x @ weight.T + bias.

    >>> layer = Linear(3, 2)
    >>> layer(torch.ones(4, 3)).shape
    torch.Size([4, 2])
    >>> sorted(layer.state_dict())
    ['bias', 'weight']

    Read: nn/initial_weights.md#kaiming-xavier-and-the-default-of-nnlinear
    """

    def __init__(self, in_features, out_features):
        raise NotImplementedError

    def forward(self, x):
        raise NotImplementedError


class ResidualNet(nn.Module):
    """Chain any number of layers, each with a skip connection around it.

    self.layers holds depth layers nn.Linear(width, width), so that the parameters are
    called layers.0.weight, layers.0.bias and so on. Each layer replaces x, of shape
    (n, width), by x + relu(layer(x)). The tensor that is passed to the model does not
    change. With depth 0 the model returns its input.

    >>> model = ResidualNet(width=3, depth=2)
    >>> [name for name, param in model.named_parameters()]
    ['layers.0.weight', 'layers.0.bias', 'layers.1.weight', 'layers.1.bias']

    Read: nn/README.md#custom-modules
    """

    def __init__(self, width, depth):
        raise NotImplementedError

    def forward(self, x):
        raise NotImplementedError


def cross_entropy(logits, labels):
    """Return the mean cross entropy of the labels, also for very large logits.

    logits has shape (n, d), and labels has shape (n,) and holds integers from 0 to
    d - 1. The cross entropy of a row is minus the logarithm of the softmax of this row
    at its label. Return a tensor of shape () that backward() can start from. Do not use
    the cross entropy or the nll_loss of PyTorch.

    >>> logits = torch.tensor([[0.0, 0.0], [-1000.0, 1000.0]])
    >>> cross_entropy(logits, torch.tensor([0, 1]))
    tensor(0.3466)

    Read: https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html
    """
    raise NotImplementedError


def record_outputs(model, kind, x):
    """Return what the layers of one kind compute while model(x) runs.

    kind is a class, such as nn.ReLU. Its layers may be anywhere in the model, and the
    model itself may be one. Return a list of their outputs, detached from the graph, in
    the order of the calls; a layer that is called twice has two. Use forward hooks, and
    remove them afterwards, but no hook that was there before. If the model raises an
    exception, remove your hooks as well, and let the caller get the exception.

    >>> model = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.ReLU())
    >>> record_outputs(model, nn.Flatten, torch.tensor([[[-1.0], [2.0]]]))
    [tensor([[0., 2.]])]

    Read: nn/README.md#hooks-looking-inside-a-network
    """
    raise NotImplementedError


def initialize(model):
    """Draw initial weights that keep the mean square of the activations.

    model is an nn.Sequential in which each nn.Linear is followed by an nn.ReLU. Change
    it in place; nothing has to be returned. Set the biases to 0, and draw each weight
    at random so that, if the inputs are drawn from a standard normal distribution, the
    mean square of the outputs of every nn.ReLU is about 1, like that of the inputs.
    The layers differ in width, and are hundreds of units wide.

    >>> model = nn.Sequential(nn.Linear(1000, 500), nn.ReLU())
    >>> initialize(model)
    >>> round(model(torch.randn(100, 1000)).square().mean().item())
    1

    Read: nn/initial_weights.md#kaiming-xavier-and-the-default-of-nnlinear
    """
    raise NotImplementedError


class BatchNorm1d(nn.Module):
    """Rebuild nn.BatchNorm1d for x of shape (n, features).

    Its parameters are weight and bias, its buffers running_mean and running_var, and
    there are no others. All have shape (features,), and state_dict() has all four.
    weight and running_var start with ones, bias and running_mean with zeros. The output
    is (x - mean) / sqrt(var + 1e-5) * weight + bias.

    In evaluation mode, mean and var are running_mean and running_var, which do not
    change. In training mode, where n is at least 2, they are the mean of each column
    and its mean squared deviation, and gradients pass through both. Then each running
    average becomes 0.9 times its old value plus 0.1 times the batch's mean or variance,
    and requires no gradient. This variance is the sum of the squared deviations divided
    by n - 1. Do not call batch_norm() of PyTorch.

    >>> layer = BatchNorm1d(1)
    >>> _ = layer(torch.tensor([[1.0], [3.0]]))
    >>> layer.running_mean, layer.running_var
    (tensor([0.2000]), tensor([1.1000]))

    Read: https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html
    """

    def __init__(self, features):
        raise NotImplementedError

    def forward(self, x):
        raise NotImplementedError


class LayerScale(nn.Module):
    """Find the bug: this layer runs, but its factors are never trained.

    Delete "raise NotImplementedError", run the file, and change one more line.

    The layer multiplies each column of x, of shape (n, features), by a factor. The
    factors are its only parameter, scale, of shape (features,), and all start at 0.1.

    >>> layer = LayerScale(2)
    >>> [name for name, param in layer.named_parameters()]
    ['scale']

    Read: nn/README.md#custom-modules
    """

    def __init__(self, features):
        raise NotImplementedError
        super().__init__()
        self.scale = 0.1 * nn.Parameter(torch.ones(features))

    def forward(self, x):
        return self.scale * x


def train_classifier(x, labels):
    """Find the bug: this script runs, and its loss does not go below 0.55.

    Delete "raise NotImplementedError", run the file, and change one more line.

    x has shape (n, 2), and labels, of shape (n,), holds integers from 0 to 2. The
    classes lie far apart. Return the losses of 200 steps, each a mean cross entropy, as
    a list of numbers.

    Read: nn/README.md#common-mistakes
    """
    raise NotImplementedError
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(2, 16),
        nn.ReLU(),
        nn.Linear(16, 3),
        nn.Softmax(dim=1),
    )
    loss_fn = nn.CrossEntropyLoss()
    losses = []
    for t in range(200):
        loss = loss_fn(model(x), labels)
        losses.append(loss.item())

        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for param in model.parameters():
                param -= 0.1 * param.grad
    return losses


# The checks. Each calls the answer with inputs of several kinds and sizes, and compares
# it with a computation of another kind. The paragraphs of its docstring are the hints.


def check_count_parameters(answer):
    """model.parameters() yields every parameter once, shared ones as well.

    Frozen parameters have requires_grad == False. numel() counts the elements.
    """
    layer, frozen = nn.Linear(4, 4), nn.Linear(3, 5)
    tied = nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 7))
    tied[1].weight = tied[0].weight
    half_frozen = nn.Linear(6, 2)
    half_frozen.weight.requires_grad_(False)
    models = {
        "nn.Linear(3, 2)": (nn.Linear(3, 2), 8),
        "a model without parameters": (nn.ReLU(), 0),
        "a convolution inside two containers": (
            nn.Sequential(nn.Sequential(nn.Conv2d(3, 2, 5))),
            152,
        ),
        "a model with buffers": (nn.BatchNorm1d(5), 10),
        "a model with a frozen layer": (
            nn.Sequential(frozen.requires_grad_(False), nn.Linear(5, 1)),
            6,
        ),
        "a layer with a frozen weight": (half_frozen, 2),
        "a model with the same layer twice": (
            nn.Sequential(layer, nn.Tanh(), layer),
            20,
        ),
        "a model with two layers that share a weight": (tied, 28),
    }
    for words, (model, wanted) in models.items():
        compare(answer(model), wanted, f"for {words} your answer")


def check_Linear(answer):
    """Call super().__init__() first, then assign an nn.Parameter to self.weight.

    An attribute is a parameter if an nn.Parameter is assigned to it. The result of a
    computation with an nn.Parameter is a plain tensor again.

    torch.empty(out_features, in_features).uniform_(-bound, bound) draws the elements.
    """
    for x, weight in inputs("nd", "ed"):
        oracle = nn.Linear(*reversed(weight.shape))
        layer = built(answer, *reversed(weight.shape))
        if isinstance(layer, nn.Linear):
            raise Wrong("your answer is derived from nn.Linear, wanted from nn.Module")
        expect_same(layer, oracle, x)

    # Of N elements that are uniform between -b and b, the mean deviates by b/√(3N) and
    # the mean square by a part of √(0.8/N): here a fifth is at least ten times that.
    bound = 0.1
    layer, another = built(answer, 100, 2000), built(answer, 100, 2000)
    for name, param in layer.named_parameters():
        what = f"with in_features = 100, {name} has"
        highest, mean = param.abs().max().item(), param.mean().item()
        if not highest <= bound * (1 + 1e-6):
            raise Wrong(f"{what} an element of size {highest:.3g}, wanted up to 0.1")
        if not abs(mean) < bound / 5:
            raise Wrong(f"{what} the mean {mean:.3g}, wanted about 0")
        square = param.square().mean().item()
        if not 0.8 < square / (bound**2 / 3) < 1.2:
            raise Wrong(f"{what} the mean square {square:.3g}, wanted about 0.00333")
        if torch.equal(param, another.get_parameter(name)):
            raise Wrong(f"two layers start with the same {name}, wanted random ones")


def check_ResidualNet(answer):
    """Call super().__init__() first, then create the layers.

    A plain list hides its layers from parameters(). nn.ModuleList does not.

    In forward(), x += ... would change the tensor that is passed to the model.
    """

    class Oracle(nn.Module):
        def __init__(self, width, depth):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

        def forward(self, x):
            for layer in self.layers:
                x = x + (x @ layer.weight.T + layer.bias).relu()
            return x

    for depth in 3, 1, 0:
        for (x,) in inputs("nd"):
            width = x.shape[1]
            expect_same(built(answer, width, depth), Oracle(width, depth), x)


def check_cross_entropy(answer):
    """log(exp(a) / s) is a - log(s), where s is the sum of exp() over the row.

    exp(1000) is inf. Subtracting the largest logit of each row from this row changes
    nothing of its softmax, and logsumexp() does so by itself.

    logits[torch.arange(n), labels] takes from each row the logit of its label.
    """
    cases, large = [], []
    for (x,) in inputs("nd", empty=False):
        n, classes = x.shape
        cases.append((x, torch.randperm(classes)[torch.arange(n) % classes]))
    rows = [[1000, 0], [0, 1000], [1000, 1000], [-1000, 0], [-999, -1000]]
    for dtype in torch.float32, torch.float64:
        for labels in [0, 1, 0, 1, 0], [1, 1, 0, 0, 1]:
            large.append((torch.tensor(rows, dtype=dtype), torch.tensor(labels)))
    cases[1:1] = large
    for logits, labels in cases:
        leaf = logits.double().requires_grad_()
        wanted = nn.functional.cross_entropy(leaf, labels)
        expect(answer, logits, labels, wanted=wanted.detach())

        (wanted,) = torch.autograd.grad(wanted, leaf)
        leaf = logits.clone().requires_grad_()
        loss = answer(leaf, labels)
        if not loss.requires_grad:
            raise Wrong("your answer does not require a gradient, although logits does")
        (gradient,) = torch.autograd.grad(loss, leaf)
        what = f"for {described('logits', logits)} the gradient"
        compare(gradient, wanted.to(logits.dtype), what)
    with Without("cross_entropy", "nll_loss"):
        answer(logits, labels)


def check_record_outputs(answer):
    """model.modules() yields all layers, also those inside other layers, each once.

    register_forward_hook() takes a function of (module, inputs, output). It returns a
    handle, whose remove() takes the hook off again. A hook returns nothing.

    try: model(x) finally: what is indented here runs even after an exception.
    """

    calls = []

    class Kind(nn.Linear):
        def forward(self, x):
            calls.append(super().forward(x))
            return calls[-1]

    class Backwards(nn.Sequential):
        def forward(self, x):
            for layer in reversed(self):
                x = layer(x)
            return x

    class Failure(Exception):
        pass

    class Failing(nn.Module):
        def forward(self, x):
            raise Failure

    def count(layer, inputs, output):
        """Is there before the answer is called, and has to stay."""

    def hooks(model):
        return [list(layer._forward_hooks.values()) for layer in model.modules()]

    def compare_hooks(model, before, when):
        for old, new in zip(before, hooks(model)):
            if len(new) > len(old):
                raise Wrong(f"{when} your hook is still there")
            if new != old:
                raise Wrong(f"{when} a hook that was there before is gone")

    twice = Kind(3, 3)
    models = [
        nn.Sequential(Kind(3, 4), nn.ReLU(), Kind(4, 2)),
        nn.Sequential(nn.Linear(3, 2), nn.Tanh()),
        nn.Sequential(nn.ReLU(), nn.Sequential(Kind(3, 5), nn.Sequential(Kind(5, 2)))),
        nn.Sequential(twice, nn.Tanh(), twice),
        Backwards(Kind(4, 2), nn.Tanh(), Kind(3, 4)),
        Kind(3, 2),
    ]
    for model in models:
        [*model.children(), model][0].register_forward_hook(count)
        before = hooks(model)
        x = torch.randn(2, 3)
        calls.clear()
        model(x)
        wanted = tuple(output.detach() for output in calls)

        def recorded(x, model=model, wanted=wanted):
            got = answer(model, Kind, x)
            if isinstance(got, (list, tuple)) and len(got) != len(wanted):
                raise Wrong(
                    f"your answer has {len(got)} outputs where there are {len(wanted)} "
                    f"calls, for {' '.join(repr(model).split())}"
                )
            return got

        expect(recorded, x, wanted=wanted)
        compare_hooks(model, before, "afterwards")
        got = answer(model, Kind, x)
        if any(output.requires_grad for output in got):
            raise Wrong("an output requires a gradient, wanted detached ones")
        if not all(layer.training for layer in model.modules()):
            raise Wrong("afterwards the model is no longer in training mode")
        model(x)
        if len(got) != len(wanted):
            raise Wrong("the next pass of the model adds to the outputs, too")

    model = nn.Sequential(Kind(3, 2), Failing())
    before = hooks(model)
    try:
        answer(model, Kind, x)
    except Failure:
        compare_hooks(model, before, "after an exception of the model")
    else:
        raise Wrong("the model raises an exception, and your answer hides it")


def check_initialize(answer):
    """If z has variance v and mean 0, relu(z) has the mean square v/2.

    A sum of n products of activations with mean square 1 and weights of variance v has
    the variance n * v. Each layer's n is its in_features.

    So the variance is to be 2/n: see Kaiming in the chapter, and nn.init.
    """
    widths = 200, 900, 900, 600, 800
    pairs = [(nn.Linear(n, m), nn.ReLU()) for n, m in pairwise(widths)]
    answer(nn.Sequential(*(layer for pair in pairs for layer in pair)))
    x = torch.randn(200, widths[0])
    for number, (linear, relu) in enumerate(pairs):
        if linear.bias.any():
            raise Wrong(f"the bias of layer {2 * number} is not 0")
        if not (linear.weight.requires_grad and linear.bias.requires_grad):
            raise Wrong(f"layer {2 * number} can no longer be trained")
        before = x.square().mean().item()
        x = relu(linear(x)).detach()
        ratio = x.square().mean().item() / before
        # With given inputs the units are independent. For a single sample the square of
        # a ReLU with mean 1 has the variance 5, so the mean over m units deviates by
        # √(5/m): by 0.09 at most, and by less with many samples. The wrong variances
        # 1/n, 1/(3n), 2/m and 2/(n + m) all have a ratio of 0.5 or less somewhere.
        if not 0.65 < ratio < 1.5:
            raise Wrong(
                f"the mean square of the activations is multiplied by {ratio:.3g} in "
                f"layers {2 * number} and {2 * number + 1}, wanted about 1"
            )


def check_BatchNorm1d(answer):
    """register_buffer("running_mean", torch.zeros(features)) creates a buffer.

    self.training is True in training mode. x.var(dim=0, correction=0) divides by n; by
    default, var() divides by n - 1.

    Renew the running averages under torch.no_grad(), or from mean.detach().
    """
    cases = [x for (x,) in inputs("nd", empty=False)]
    cases.insert(1, cases[0] / 100)  # its variances are so small that eps matters
    for x in cases:
        features = x.shape[1]
        layer, oracle = built(answer, features), nn.BatchNorm1d(features)
        oracle.num_batches_tracked = None
        compare_names(layer, oracle)
        for name, wanted in oracle.state_dict().items():
            compare(layer.state_dict()[name], wanted, f"at first, {name}")
        nn.init.normal_(oracle.weight)
        nn.init.normal_(oracle.bias)
        if len(x) > 1:
            expect_same(layer, oracle, x, "in training mode, ")
            compare_buffers(layer, oracle, "after training mode, ")
        layer.eval(), oracle.eval()
        expect_same(layer, oracle, x, "in evaluation mode, ")
        compare_buffers(layer, oracle, "after evaluation mode, ")
        with Without("batch_norm"):
            layer(x)
            if len(x) > 1:
                layer.train()(x)


def compare_buffers(layer, oracle, when):
    for name, wanted in oracle.named_buffers():
        got = layer.get_buffer(name)
        if got.requires_grad:
            raise Wrong(f"{when}{name} requires a gradient, wanted none")
        compare(got, wanted.to(got.dtype), f"{when}{name}")


def check_LayerScale(answer):
    """Print list(layer.parameters()): there is none. What type has layer.scale?

    The product of a number and an nn.Parameter is a plain tensor. Only an nn.Parameter
    itself is registered.
    """

    class Oracle(nn.Module):
        def __init__(self, features):
            super().__init__()
            self.scale = nn.Parameter(torch.full([features], 0.1))

        def forward(self, x):
            return torch.einsum("nd,d->nd", x, self.scale)

    for (x,) in inputs("nd"):
        features = x.shape[1]
        layer, oracle = built(answer, features), Oracle(features)
        compare_names(layer, oracle)
        compare(layer.scale, oracle.scale.detach(), "at first, scale")
        nn.init.normal_(oracle.scale)
        expect_same(layer, oracle, x)


def check_train_classifier(answer):
    """The loss begins near ln 3, that of a guess, and falls, but not far enough.

    What does nn.CrossEntropyLoss expect: probabilities or logits?

    It applies softmax itself. A second softmax, of numbers between 0 and 1, gives no
    class more than e / (e + 2) = 0.58, and -ln 0.58 is 0.55.
    """
    centers = torch.tensor([[2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]])
    labels = torch.arange(60) % 3
    losses = answer(centers[labels] + 0.3 * torch.randn(60, 2), labels)
    compare(type(losses), list, "the type of your answer")
    compare(len(losses), 200, "the length of your answer")
    compare(losses[0], math.log(3), "the loss of step 1", tolerance=0.65)
    if not 0 <= losses[-1] < 0.1:
        raise Wrong(f"the loss ends at {losses[-1]:.4g}, wanted less than 0.1")


def built(answer, *arguments):
    """Return the module that the class creates."""
    module = answer(*arguments)
    if not isinstance(module, nn.Module):
        raise Wrong(f"your answer is of type {type(module).__name__}, wanted a Module")
    return module


def compare_names(layer, oracle):
    """Compare the names and shapes of parameters and buffers."""
    for kind in "parameter", "buffer":
        got = dict(getattr(layer, f"named_{kind}s")())
        wanted = dict(getattr(oracle, f"named_{kind}s")())
        for name, tensor in wanted.items():
            if name not in got:
                raise Wrong(
                    f"wanted a {kind} {name}, there is {', '.join(got) or 'none'}"
                )
            shapes = tuple(got[name].shape), tuple(tensor.shape)
            if shapes[0] != shapes[1]:
                raise Wrong("{} has shape {}, wanted {}".format(name, *shapes))
            if kind == "parameter" and not got[name].requires_grad:
                raise Wrong(f"the parameter {name} requires no gradient")
            if name not in layer.state_dict():
                raise Wrong(f"state_dict() leaves out {name}")
        for name in got:
            if name not in wanted:
                raise Wrong(f"there is a {kind} {name}, which is not asked for")


def expect_same(layer, oracle, x, when=""):
    """Give a layer the parameters of another; compare the outputs and gradients."""
    compare_names(layer, oracle)
    layer.load_state_dict(oracle.float().state_dict())
    layer.to(x.dtype)
    wanted = oracle.double()(x.double()).detach()
    try:
        expect(lambda x: layer(x), x, wanted=wanted)
    except Wrong as error:
        error.args = (f"{when}{error}",)
        raise
    if x.dtype != torch.float64:
        return

    cotangent = torch.randn_like(wanted)
    got = gradients(layer, x, cotangent)
    for name, wanted in gradients(oracle, x, cotangent).items():
        what = f"{when}for {described('x', x)} the gradient of {name}"
        if got[name] is None:
            raise Wrong(f"{what} is missing: the output does not depend on {name}")
        compare(got[name], wanted, what)


def gradients(layer, x, cotangent):
    """Return those with respect to x and all parameters, by name."""
    x = x.clone().requires_grad_()
    output = layer(x)
    if not output.requires_grad:
        raise Wrong("the output requires no gradient, although the parameters do")
    leaves = {"x": x, **dict(layer.named_parameters())}
    found = torch.autograd.grad(
        output, list(leaves.values()), cotangent, allow_unused=True
    )
    return dict(zip(leaves, found))


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
