"""The gradients of the ladder against autograd and against finite differences.

A rung's gradients are taken from its update: one step of gradient descent subtracts
learning_rate * gradient from each weight.
"""

from unittest import mock

import numpy as np
import pytest
import torch
from collection import AUTOGRAD, COMPILE, CUSTOM_FUNCTION, NUMPY, TENSOR, execute

each_rung = pytest.mark.parametrize(
    "script", [NUMPY, TENSOR, AUTOGRAD, CUSTOM_FUNCTION, COMPILE]
)


@pytest.fixture
def start():
    """x, y, w1 and w2 as the ladder draws them, in float64."""
    randn = np.random.default_rng(0).standard_normal
    return [randn(shape) for shape in [(64, 1000), (64, 10), (1000, 100), (100, 10)]]


def step(script, start):
    """Let a rung take one step from start; return (loss, grad_w1, grad_w2).

    It is given its numbers in float64, whatever dtype it asks for, and so computes in
    float64.
    """
    drawn = iter(array.copy() for array in start)
    with mock.patch.object(np.random, "default_rng") as rng:
        rng.return_value.standard_normal = lambda shape, dtype: next(drawn)
        end = execute(script, argv=["--steps", "1"])
    before = dict(zip(["w1", "w2"], map(torch.as_tensor, start[2:]), strict=True))
    grads = [
        (before[name] - torch.as_tensor(end[name]).detach()) / end["learning_rate"]
        for name in before
    ]
    return end["loss"].item(), *grads


# A weight of size 4 is rounded by half an ulp when it is updated, 4.4e-16, and that is
# divided by the learning rate, 1e-6.
ATOL = 1e-9


@each_rung
def test_gradients_equal_those_of_autograd(script, start):
    x, y, w1, w2 = map(torch.tensor, start)
    w1.requires_grad_()
    w2.requires_grad_()
    loss = torch.nn.functional.mse_loss((x @ w1).relu() @ w2, y, reduction="sum")
    expected = [loss.item(), *torch.autograd.grad(loss, [w1, w2])]
    torch.testing.assert_close([*step(script, start)], expected, rtol=1e-10, atol=ATOL)


@each_rung
@pytest.mark.parametrize("moved", ["w1", "w2"])
def test_gradients_equal_finite_differences_of_the_loss(script, moved, start):
    """Along a random direction the loss grows by gradient times direction.

    The loss is the one that the script computes: 3e7, rounded to 1e-8 or so. The
    quotient, of size 2e6, is so exact to 1e-8 / 2e-6 / 2e6 = 2.5e-9.
    """
    place = ["x", "y", "w1", "w2"].index(moved)
    direction = np.random.default_rng(1).standard_normal(start[place].shape)

    def moved_by(distance):
        there = start.copy()
        there[place] = start[place] + distance * direction
        return there

    small = 1e-6
    ahead, _, _ = step(script, moved_by(small))
    behind, _, _ = step(script, moved_by(-small))
    gradient = step(script, start)[place - 1]
    expected = (gradient * torch.tensor(direction)).sum().item()
    assert (ahead - behind) / (2 * small) == pytest.approx(expected, rel=1e-6)


@each_rung
def test_nothing_passes_where_the_input_of_relu_is_0(script, start):
    """As torch.relu does it: with w1 = 0 every h is 0, so grad_w1 is 0 as well."""
    start[2] = np.zeros_like(start[2])
    _, grad_w1, _ = step(script, start)
    assert not grad_w1.any()


@pytest.fixture(scope="module")
def relu():
    """The Function of the script, applied."""
    return execute(CUSTOM_FUNCTION)["ReLU"].apply


def test_function_passes_gradcheck_and_gradgradcheck(relu):
    x = torch.linspace(-2, 2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(relu, x)
    assert torch.autograd.gradgradcheck(relu, x)


@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("value", [-1.0, -0.0, 0.0, 1.0])
def test_function_equals_torch_relu_at_0_too(relu, value, shape):
    results = []
    for function in (relu, torch.relu):
        x = torch.full(shape, value, requires_grad=True)
        y = function(x)
        results.append((y.detach(), torch.autograd.grad(y.sum(), x)))
    torch.testing.assert_close(*results, rtol=0, atol=0)
