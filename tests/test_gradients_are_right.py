"""Hand-written gradients against autograd and against finite differences."""

import ast

import pytest
import torch
from collection import CUSTOM_FUNCTION, FAMILY_A, IN_FLOAT64, execute, source

BY_HAND = [script for script in FAMILY_A if "grad_y_pred =" in source(script)]
SMALL = ("= 64, 1000, 100, 10", "= 5, 4, 6, 3")


def training_step(script, *edits):
    """Return a function (w1, w2) -> (loss, grad_w1, grad_w2), and the script's x and y.

    The function executes the body of the script's own training loop, in float64, or
    that of the function which the loop calls.
    """
    start = execute(script, *IN_FLOAT64[:1], *edits)
    body = next(
        node.body
        for node in ast.parse(source(script)).body
        if "grad_y_pred =" in ast.unparse(node)
    )
    lines = [line for line in body if not isinstance(line, ast.Return)]
    body = compile(ast.Module(lines, []), script, "exec")
    as_array = start["y"].__class__ is not torch.Tensor

    def step(w1, w2):
        w1, w2 = w1.detach().clone(), w2.detach().clone()
        if as_array:
            w1, w2 = w1.numpy(), w2.numpy()
        variables = start | {"t": 2, "w1": w1, "w2": w2}
        exec(body, variables)  # noqa: S102
        names = "loss", "grad_w1", "grad_w2"
        return [torch.as_tensor(variables[name]) for name in names]

    return step, *(torch.as_tensor(start[name]) for name in ("x", "y"))


def weights(x, y, H=100):
    randn = torch.Generator().manual_seed(0)
    shapes = (x.shape[1], H), (H, y.shape[1])
    return [
        torch.randn(s, generator=randn, dtype=x.dtype, requires_grad=True)
        for s in shapes
    ]


@pytest.mark.parametrize("script", BY_HAND)
def test_pass_by_hand_equals_autograd(script):
    step, x, y = training_step(script)
    w1, w2 = weights(x, y)
    loss = torch.nn.functional.mse_loss((x @ w1).relu() @ w2, y, reduction="sum")
    expected = [loss.detach(), *torch.autograd.grad(loss, [w1, w2])]
    torch.testing.assert_close(step(w1, w2), expected, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("script", BY_HAND)
def test_pass_by_hand_equals_finite_differences(script):
    step, x, y = training_step(script, SMALL)

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx, w1, w2):
            loss, *grads = step(w1, w2)
            ctx.save_for_backward(*grads)
            return loss

        @staticmethod
        def backward(ctx, grad_output):
            return tuple(grad_output * grad for grad in ctx.saved_tensors)

    assert torch.autograd.gradcheck(Loss.apply, weights(x, y, H=6))


@pytest.mark.parametrize("script", BY_HAND)
def test_pass_by_hand_lets_nothing_through_where_h_is_0(script):
    """As torch.relu does it: with w1 = 0 every h is 0, so grad_w1 is 0 as well."""
    step, x, y = training_step(script)
    w1, w2 = weights(x, y)
    _, grad_w1, _ = step(torch.zeros_like(w1), w2)
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
def test_function_equals_torch_relu_at_0_too(relu, shape):
    for value in (-1.0, -0.0, 0.0, 1.0):
        results = []
        for function in (relu, torch.relu):
            x = torch.full(shape, value, requires_grad=True)
            y = function(x)
            results.append((y.detach(), torch.autograd.grad(y.sum(), x)))
        torch.testing.assert_close(*results, rtol=0, atol=0)
