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
    w1, w2 = (torch.as_tensor(end[name]).detach() for name in ("w1", "w2"))
    _, _, before1, before2 = map(torch.tensor, start)
    rate = end["learning_rate"]
    return end["loss"].item(), (before1 - w1) / rate, (before2 - w2) / rate


@each_rung
@pytest.mark.parametrize("w1", ["normal", "zero"])
def test_gradients_equal_those_of_autograd(script, w1, start):
    """Also where w1 is 0, and so every input of ReLU: nothing passes there.

    A weight of size 4 is rounded by 4.4e-16; divided by 1e-6 that is below 1e-9.
    """
    if w1 == "zero":
        start[2][:] = 0
    x, y, w1, w2 = map(torch.tensor, start)
    w1.requires_grad_()
    w2.requires_grad_()
    loss = torch.nn.functional.mse_loss((x @ w1).relu() @ w2, y, reduction="sum")
    expected = [loss.item(), *torch.autograd.grad(loss, [w1, w2])]
    torch.testing.assert_close([*step(script, start)], expected, rtol=1e-10, atol=1e-9)


@each_rung
def test_gradients_equal_finite_differences_of_the_loss(script, start):
    """Along a random direction the loss grows by gradient times direction.

    The loss is the one that the script computes: 3e7, rounded to 1e-8 or so.
    """
    x, y, w1, w2 = start
    randn = np.random.default_rng(1).standard_normal
    d1, d2 = 1e-6 * randn(w1.shape), 1e-6 * randn(w2.shape)
    ahead, _, _ = step(script, [x, y, w1 + d1, w2 + d2])
    behind, _, _ = step(script, [x, y, w1 - d1, w2 - d2])
    _, grad_w1, grad_w2 = step(script, start)
    expected = (grad_w1.numpy() * d1).sum() + (grad_w2.numpy() * d2).sum()
    assert (ahead - behind) / 2 == pytest.approx(expected, rel=1e-6)


def test_custom_function_is_relu():
    """And can be differentiated twice."""
    relu = execute(CUSTOM_FUNCTION)["ReLU"].apply
    results = []
    for function in (relu, torch.relu):
        x = torch.tensor([[-1.0, -0.0], [0.0, 1.0]], requires_grad=True)
        y = function(x)
        results.append((y.detach(), torch.autograd.grad(y.sum(), x)))
    torch.testing.assert_close(*results, rtol=0, atol=0)

    x = torch.linspace(-2, 2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(relu, x)
    assert torch.autograd.gradgradcheck(relu, x)
