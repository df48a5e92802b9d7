"""All rungs of family A print the same losses; family B prints what NumPy computes.

sqrt(loss) is the length of the error vector. Rounding moves it by a few eps of its
first value, whatever the library and the number of threads.
"""

import random
from types import SimpleNamespace

import apart
import by_hand as optimizers
import numpy as np
import pytest
import torch
from collection import (
    ACCUMULATION,
    AUTOGRAD,
    CHECKPOINTED,
    COMPILE,
    CUSTOM_FUNCTION,
    DDP,
    DYNAMIC,
    FAMILY_A,
    NN,
    NUMPY,
    OPTIM,
    SEQUENTIAL,
    TAPE,
    TENSOR,
    TENSORFLOW,
    TF_FUNCTION,
    curve,
    execute,
    prepared,
    skip_if_missing,
)
from python_in_graphs import before_both_updates

DTYPES = [torch.float32, torch.float64]
WITH_SGD = ("torch.optim.Adam", "torch.optim.SGD")


def assert_same_losses(one, other, bound):
    distance = (one.sqrt() - other.sqrt()).abs().max() / other[0].sqrt()
    assert distance <= bound


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("script", FAMILY_A)
def test_family_a_prints_the_losses_of_numpy(script, dtype):
    eps = torch.finfo(dtype).eps
    assert_same_losses(curve(script, dtype=dtype), curve(NUMPY, dtype=dtype), 16 * eps)


@pytest.mark.parametrize("script", FAMILY_A)
def test_float32_and_float64_tell_the_same_story(script):
    eps = torch.finfo(torch.float32).eps
    assert_same_losses(curve(script), curve(script, dtype=torch.float64), 64 * eps)


@pytest.mark.parametrize("script", FAMILY_A)
def test_float64_shows_the_same_digits(script):
    shown = [
        [f"{loss:.4e}" for loss in curve(rung, dtype=torch.float64)[::50]]
        for rung in (script, NUMPY)
    ]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("threads, steps", [(1, 500), (2, 50)])
@pytest.mark.parametrize("script", [AUTOGRAD, CUSTOM_FUNCTION])
def test_autograd_repeats_the_pass_by_hand_bit_for_bit(script, threads, steps, dtype):
    how = {"threads": threads, "steps": steps, "dtype": dtype}
    assert torch.equal(curve(script, **how), curve(TENSOR, **how))


def by_hand(model, x, y, depths, update):
    """Train 1 + depth hidden layers in NumPy and float64; return the loss of each step.

    depths holds how often the middle layer is used in each step. update(key, w, grad)
    changes w in place; key names the weight or the bias of a layer.
    """
    params = {key: value.double().numpy() for key, value in model.state_dict().items()}
    first, *middle, last = sorted(
        {key.split(".")[0] for key in params}, key=LAYERS.index
    )
    for depth in depths:
        names = [first, *middle * depth, last]
        inputs = [x]
        for name in names:
            h = inputs[-1] @ params[f"{name}.weight"].T + params[f"{name}.bias"]
            inputs.append(np.maximum(h, 0))
        inputs[-1] = h  # no ReLU after the last layer
        yield np.square(h - y).sum()

        grads = dict.fromkeys(params, 0)
        grad = 2 * (h - y)
        for i in reversed(range(len(names))):
            grads[f"{names[i]}.weight"] += grad.T @ inputs[i]
            grads[f"{names[i]}.bias"] += grad.sum(axis=0)
            grad = grad @ params[f"{names[i]}.weight"] * (inputs[i] > 0)
        for key, w in params.items():
            if key.split(".")[0] in names:
                update(key, w, grads[key])


LAYERS = ["linear1", "input_linear", "middle_linear", "linear2", "output_linear"]


def in_place(rule):
    """Return update(key, w, grad) for a rule of the optimizers' page."""
    kept = {}

    def update(key, w, grad):
        state = kept.setdefault(key, SimpleNamespace(t=0, m=0, v=0))
        state.t += 1
        w[:] = rule(w, grad, state, 1e-4, state.t)

    return update


@pytest.mark.parametrize(
    "script, name, deepest, rule",
    [
        (NN, "TwoLayerNet", 0, optimizers.sgd),
        (OPTIM, "TwoLayerNet", 0, optimizers.adam),
        (DYNAMIC, "DynamicNet", 3, optimizers.momentum),
    ],
)
def test_family_b_prints_the_losses_of_numpy(script, name, deepest, rule):
    variables = execute(script)
    torch.manual_seed(0)
    model = variables[name](1000, 100, 10)
    draw = random.Random(0).randint
    depths = [draw(0, deepest) for _ in range(500)]
    x, y = variables["x"].double().numpy(), variables["y"].double().numpy()
    expected = torch.tensor(list(by_hand(model, x, y, depths, in_place(rule))))
    found = curve(script, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_optim_with_sgd_prints_the_losses_of_nn(dtype):
    eps = torch.finfo(dtype).eps
    with_sgd = curve(OPTIM, WITH_SGD, dtype=dtype)
    assert_same_losses(with_sgd, curve(NN, dtype=dtype), 16 * eps)


def test_tensorflow_computes_both_gradients_before_either_update():
    skip_if_missing(TENSORFLOW)
    task = prepared(TENSORFLOW, [], ["--steps", "1"])
    assert apart.call(before_both_updates, *task) == ({"VarHandleOp"}, True)


MISTAKES = [
    (NUMPY, "2 * (y_pred - y)", "(y_pred - y)"),
    (NUMPY, "* (h > 0)", ""),
    (NUMPY, "w1 -=", "w1 +="),
    (NUMPY, "w2 -= learning_rate * grad_w2", "pass"),
    (TENSOR, "* (h > 0)", ""),
    (TENSOR, "h_relu.T @ grad_y_pred", "h.T @ grad_y_pred"),
    (TENSOR, "w2 -=", "w2 +="),
    (TAPE, "grad * (self.data > 0)", "grad"),
    (TAPE, "2 * self.data * grad", "self.data * grad"),
    (TAPE, "grads.get(operand, 0) + rule(grad)", "rule(grad) / 2"),
    (TAPE, "w2.grad = 0", "pass"),
    (AUTOGRAD, "w1.grad = None", "pass"),
    (AUTOGRAD, "w2.grad = None", "pass"),
    (AUTOGRAD, "w2 -= learning_rate * w2.grad", "w2 -= learning_rate * w2"),
    (AUTOGRAD, ".square().sum()", ".square().mean()"),
    (CUSTOM_FUNCTION, "* (output > 0)", ""),
    (CUSTOM_FUNCTION, "output > 0", "output < 0"),
    (CHECKPOINTED, "w2.grad = None", "pass"),
    (CHECKPOINTED, "w1 -= learning_rate * w1.grad", "w1 -= learning_rate * w1"),
    (ACCUMULATION, "w1.grad = None", "pass"),
    (ACCUMULATION, "squares.sum()", "squares.mean()"),
    (SEQUENTIAL, "model.zero_grad()", "pass"),
    (SEQUENTIAL, "nn.ReLU()", "nn.Tanh()"),
    (SEQUENTIAL, "model[2].weight.copy_(w2.T)", "pass"),
    (DDP, "model.zero_grad()", "pass"),
    (DDP, "model[0].weight.copy_(w1.T)", "pass"),
    (TENSORFLOW, "tf.nn.relu", "tf.nn.leaky_relu"),
    (TF_FUNCTION, "tf.nn.relu", "tf.nn.leaky_relu"),
    (COMPILE, "* (h > 0)", ""),
    (NN, "model.zero_grad()", "pass"),
    (NN, "self.linear1(x).relu()", "self.linear1(x)"),
    (OPTIM, "optimizer.zero_grad()", "pass"),
    (OPTIM, "Adam", "AdamW"),
    (DYNAMIC, "optimizer.zero_grad()", "pass"),
    (DYNAMIC, "momentum=0.9", "momentum=0.9, nesterov=True"),
]


@pytest.mark.parametrize("script, right, wrong", MISTAKES)
def test_a_mistake_in_a_script_would_be_seen(script, right, wrong):
    """The bounds above are tight enough: each of these edits goes beyond them.

    What goes beyond them in 100 steps does so in 500.
    """
    eps = torch.finfo(torch.float32).eps
    reference = curve(NUMPY if script in FAMILY_A else script)[:100]
    with pytest.raises((AssertionError, RuntimeWarning), match="tensor|overflow"):
        assert_same_losses(
            curve(script, (right, wrong), steps=100), reference, 16 * eps
        )
