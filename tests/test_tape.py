"""The tape's derivatives are right, and its backward pass is that of autograd.

The functions below take the tape's arrays and PyTorch's tensors alike, and PyTorch's
gradients are one oracle. The other one is finite differences, operation by operation.
"""

import functools

import numpy as np
import pytest
import torch
from collection import NUMPY, TAPE, curve, execute


@functools.cache
def tape(*edits):
    """Return the class Array of an edited script, without training."""
    return execute(TAPE, *edits, argv=["--steps", "0"])["Array"]


def numbers(*shape, seed=0):
    """Return numbers of which none is near 0, where ReLU has no derivative."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.1, 1, shape) * rng.choice([-1, 1], shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_all_losses_are_those_of_the_pass_by_hand_bit_for_bit(dtype):
    assert torch.equal(curve(TAPE, dtype=dtype), curve(NUMPY, dtype=dtype))


# Derivatives


OPERATIONS = {
    "matmul, left": lambda x, other: x @ other,
    "matmul, right": lambda x, other: other @ x,
    "sub, left": lambda x, other: x - other,
    "sub, right": lambda x, other: other - x,
    "relu": lambda x, other: x.relu(),
    "square": lambda x, other: x.square(),
    "sum": lambda x, other: x.sum(),
}


def loss_of(operation, x, Array):
    """Return a scalar that weighs each element of the operation's result otherwise.

    So the gradient that comes back to the operation is not one of ones alone.
    """
    result = OPERATIONS[operation](x, Array(numbers(3, 3, seed=1)))
    if result.data.ndim == 0:
        return result.square()
    left, right = Array(numbers(3, 3, seed=2)), Array(numbers(3, 3, seed=3))
    return (left @ result @ right).sum()


def assert_finite_differences_agree(operation, Array):
    """The loss is a number of a few units, and so are its derivatives.

    Rounding, 1e-15 or so, is divided by the step of 1e-5; the curve that the difference
    takes for straight adds the square of the step.
    """
    x = Array(numbers(3, 3), requires_grad=True)
    loss_of(operation, x, Array).backward()
    expected = np.empty((3, 3))
    for place in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[place] = 1e-5
        ahead = loss_of(operation, Array(x.data + step), Array).data.item()
        behind = loss_of(operation, Array(x.data - step), Array).data.item()
        expected[place] = (ahead - behind) / 2e-5
    np.testing.assert_allclose(x.grad, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_derivative_equals_finite_differences(operation):
    assert_finite_differences_agree(operation, tape())


@pytest.mark.parametrize(
    "operation, right, wrong",
    [
        ("matmul, left", "grad @ other.data.T", "grad @ other.data"),
        ("matmul, left", "grad @ other.data.T", "other.data.T @ grad"),
        ("matmul, right", "self.data.T @ grad", "self.data @ grad"),
        ("matmul, right", "self.data.T @ grad", "grad @ self.data.T"),
        ("sub, left", "lambda grad: grad)", "lambda grad: -grad)"),
        ("sub, right", "lambda grad: -grad)", "lambda grad: grad)"),
        ("relu", "grad * (self.data > 0)", "grad"),
        ("relu", "self.data > 0", "self.data < 0"),
        ("relu", "self.data > 0", "grad > 0"),
        ("square", "2 * self.data * grad", "self.data * grad"),
        ("square", "2 * self.data * grad", "2 * grad"),
        ("square", "2 * self.data * grad", "2 * self.data"),
        ("sum", "np.full_like(self.data, grad)", "np.ones_like(self.data)"),
        ("sum", "np.full_like(self.data, grad)", "grad / self.data.size"),
    ],
)
def test_a_wrong_derivative_would_be_seen(operation, right, wrong):
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_finite_differences_agree(operation, tape((right, wrong)))


# Order and accumulation


def network(w1, w2, x, y):
    return (((x @ w1).relu() @ w2) - y).square().sum()


def used_twice(w, *_):
    return (w - w.square()).sum()


def twice_by_one_operation(w, *_):
    return (w @ w).sum()


def short_way_first(w, *_):
    h = w.square()
    return (h - (h @ h).relu().square()).sum()


def short_way_last(w, *_):
    h = w.square()
    return ((h @ h).relu().square() - h).sum()


def deep(w, other, *_):
    """Deeper than Python lets functions call themselves."""
    for _ in range(5000):
        w = w - other
    return w.square().sum()


def several(seed):
    """Return a function that does twelve operations, drawn at random."""

    def function(*arrays):
        rng = np.random.default_rng(seed)
        arrays = list(arrays)
        for _ in range(12):
            one, other = (arrays[i] for i in rng.integers(len(arrays), size=2))
            kinds = [one @ other, one - other, one.relu()]
            arrays.append(kinds[rng.integers(3)])
        loss = arrays[0].sum()
        for array in arrays[1:]:
            loss = loss - array.square().sum()
        return loss

    function.__name__ = f"several, {seed}"
    return function


FUNCTIONS = [
    network,
    used_twice,
    twice_by_one_operation,
    short_way_first,
    short_way_last,
    deep,
    *map(several, range(10)),
]


def assert_gradients_are_those_of_autograd(function, Array, times=1):
    """Also after going back through the same record several times.

    The numbers are float64, and no sum in them has more than a hundred terms.
    """
    starts = [numbers(3, 3, seed=seed) for seed in range(4)]
    arrays = [Array(start, requires_grad=True) for start in starts]
    tensors = [torch.tensor(start, requires_grad=True) for start in starts]
    loss, expected = function(*arrays), function(*tensors)
    for _ in range(times):
        loss.backward()
        expected.backward(retain_graph=True)
    assert loss.data == pytest.approx(expected.item(), rel=1e-12)
    for array, tensor in zip(arrays, tensors):
        grad = 0 if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(array.grad, grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_gradients_are_those_of_autograd(function, times):
    assert_gradients_are_those_of_autograd(function, tape(), times)


@pytest.mark.parametrize(
    "function, times, right, wrong",
    [
        # The second share replaces the first, or never arrives.
        (used_twice, 1, "grads.get(operand, 0) + rule(grad)", "rule(grad)"),
        (used_twice, 1, "uses[operand] += 1", "uses[operand] = 1"),
        # Passed on as soon as something arrives: not in topological order.
        (short_way_first, 1, "uses[operand] == 0", "operand not in ready"),
        (short_way_last, 1, "uses[operand] == 0", "operand not in ready"),
        # Nothing is added from one call to the next.
        (network, 2, "array.grad = array.grad + grad", "array.grad = grad"),
    ],
)
def test_a_wrong_backward_pass_would_be_seen(function, times, right, wrong):
    Array = tape((right, wrong))
    with pytest.raises((AssertionError, KeyError)):
        assert_gradients_are_those_of_autograd(function, Array, times)


# What is recorded


def outline(node):
    """Return the graph behind a node as nested tuples, () for a leaf."""
    if hasattr(node, "operands"):
        return tuple(outline(operand) for operand, _ in node.operands)
    return tuple(outline(each) for each, _ in node.next_functions if each is not None)


def test_graph_is_that_of_autograd():
    """As the chapter says: without x and y, which need no gradient."""
    starts = [numbers(3, 3, seed=seed) for seed in range(4)]
    arrays = [tape()(start, requires_grad=i < 2) for i, start in enumerate(starts)]
    tensors = [torch.tensor(start) for start in starts]
    tensors[0].requires_grad_()
    tensors[1].requires_grad_()
    assert outline(network(*arrays)) == outline(network(*tensors).grad_fn)


def test_what_needs_no_gradient_gets_none():
    Array = tape()
    x, y = Array(numbers(3, 3)), Array(numbers(3, 3, seed=1))
    w = Array(numbers(3, 3, seed=2), requires_grad=True)
    assert not (x - y).requires_grad and not (x - y).operands
    (x @ w - y).sum().backward()
    assert (np.shape(x.grad), np.shape(w.grad), np.shape(y.grad)) == ((), (3, 3), ())


def test_a_weight_changed_before_backward_goes_unnoticed():
    """As the chapter says. PyTorch would refuse: the gradient is that of the new w."""
    w = tape()(numbers(3, 3), requires_grad=True)
    (w @ w).sum().backward()
    right, w.grad = w.grad, 0
    loss = (w @ w).sum()
    w.data *= 2
    loss.backward()
    np.testing.assert_array_equal(w.grad, 2 * right)
