"""Autocast does what rounding by hand does, and float32 is kept where it is said."""

import sys

import bfloat16_speed
import mixed_precision
import numpy as np
import pytest
import torch
from collection import OPTIM, curve, losses, run
from torch import nn

INPUTS, TARGETS = mixed_precision.make_data("cpu")


def train(steps, mixed):
    """Return the model, the optimizer and the losses, as a float64 tensor."""
    model, optimizer, found = mixed_precision.train(INPUTS, TARGETS, steps, mixed)
    return model, optimizer, torch.tensor(found, dtype=torch.float64)


def rounded(tensor):
    """Round to 8 binary digits and half to even, on the bits of float32, as float64."""
    bits = np.atleast_1d(tensor.detach().float().numpy()).view(np.uint32).astype(int)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    values = bits.astype(np.uint32).view(np.float32).astype(np.float64)
    return torch.from_numpy(values).reshape(tensor.shape)


def by_hand(w1, b1, w2, b2):
    """Return the loss and the gradients of one step, computed in float64.

    Every input and every result of a matrix product is rounded to bfloat16.
    """
    x, w1, b1, w2, b2 = map(rounded, (INPUTS, w1, b1, w2, b2))
    h = rounded(x @ w1.T + b1).clamp(min=0)
    error = rounded(h @ w2.T + b2) - TARGETS
    grad_y_pred = rounded(2 * error)
    grad_h = rounded(grad_y_pred @ w2) * (h > 0)
    grads = [grad_h.T @ x, grad_h.sum(0), grad_y_pred.T @ h, grad_y_pred.sum(0)]
    return error.square().sum(), [rounded(grad) for grad in grads]


@pytest.fixture
def weights():
    """The weights and biases that both trainings start from."""
    torch.manual_seed(0)
    layers = nn.Linear(1000, 100), nn.Linear(100, 10)
    return [w for layer in layers for w in layer.parameters()]


def test_first_step_is_the_one_by_hand(weights):
    """Its gradients are much nearer to those by hand than those in float32 are."""
    expected, grads = by_hand(*weights)

    def distances(model):
        pairs = zip(model.parameters(), grads, strict=True)
        return torch.stack([(w.grad - g).norm() / g.norm() for w, g in pairs])

    mixed, _, (loss,) = train(1, mixed=True)
    in_float32, _, (other_loss,) = train(1, mixed=False)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert other_loss.item() != pytest.approx(expected.item(), rel=5e-5)
    assert (distances(mixed) < 2e-4).all()
    assert (distances(in_float32) > 1e-3).all()


def test_losses_are_those_of_training_by_hand(weights):
    optimizer = torch.optim.Adam(weights, lr=1e-4)
    expected = []
    for _ in range(50):
        loss, grads = by_hand(*weights)
        expected.append(loss)
        for w, grad in zip(weights, grads, strict=True):
            w.grad = grad.float()
        optimizer.step()
    _, _, found = train(50, mixed=True)
    torch.testing.assert_close(found, torch.stack(expected), rtol=5e-4, atol=0)


def test_the_other_training_is_that_of_the_optim_script():
    _, _, found = train(50, mixed=False)
    torch.testing.assert_close(found, curve(OPTIM, steps=50), rtol=1e-6, atol=0)


def test_dtypes_are_those_of_autocast_on_a_cpu():
    """What is not on one of autocast's lists keeps the dtype of its input."""
    model, optimizer, _ = train(1, mixed=True)
    tensors = mixed_precision.tensors_of_a_step(model, optimizer, INPUTS, TARGETS)
    for name in ("output of Linear", "relu", "softmax", "sum"):
        assert tensors[name].dtype == torch.bfloat16
    for name in ("MSELoss", "weight", "weight.grad", "Adam's average"):
        assert tensors[name].dtype == torch.float32
    h = tensors["output of Linear"]
    assert torch.equal(tensors["softmax"], h.softmax(1))
    assert torch.equal(tensors["sum"], h.sum())


@pytest.mark.parametrize("script", ["advanced/mixed_precision.py"])
def test_losses_printed_are_those_of_both_trainings(script):
    """In bfloat16, they end above the best there is: targets rounded to 8 digits."""
    text = run(script).stdout
    lines = [line.split() for line in text.splitlines() if line.startswith("step")]
    for column, mixed in ((3, False), (5, True)):
        _, _, found = train(50, mixed)
        printed = [float(line[column]) for line in lines[:2]]
        assert printed == pytest.approx(found[[0, 49]].tolist(), rel=1e-3)
    best = (rounded(TARGETS) - TARGETS).square().sum().item()
    assert f"targets rounded to bfloat16  loss {best:.4e}" in text
    assert losses(text)[500] < best / 100
    assert best < float(lines[-1][5]) < 10 * best


def test_speed_is_that_of_the_fastest_call(monkeypatch, capsys):
    """Two matrices of size 100 take 2e6 operations, here in 1 ms at best."""

    def repeat(function, number, repeat):
        function()
        return [0.008, 0.001, 0.009]

    monkeypatch.setattr(bfloat16_speed.timeit, "repeat", repeat)
    monkeypatch.setattr(sys, "argv", ["bfloat16_speed.py", "--size", "100"])
    bfloat16_speed.main()
    assert capsys.readouterr().out.splitlines() == [
        "torch.float32   GFLOP/s 2",
        "torch.bfloat16  GFLOP/s 2",
    ]
