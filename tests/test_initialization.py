"""The table of initial weights and learning rates is right, and so is what is said."""

import math

import numpy as np
import pytest
import torch
from collection import execute, finished

INIT = "nn/initialization.py"
STEPS = 20
SIZES = {"normal": (1, 1), "nn.Linear": (1 / 3000, 1 / 300)}
SIZES |= {"Kaiming": (2 / 1000, 2 / 100), "Xavier": (2 / 1100, 2 / 110)}


@pytest.fixture(scope="module")
def short():
    """The script's variables after trainings of a few steps."""
    return execute(INIT, argv=["--steps", str(STEPS)])


@pytest.fixture(scope="module")
def table():
    """The table of the README's run as {name: [cell, ...]}, and its learning rates."""
    lines = finished((INIT,)).stdout.splitlines()
    head, *rows = lines[-6:]
    cells = [row.replace("step ", "step_").split() for row in rows]
    return {name: found for name, *found in cells}, [float(r) for r in head.split()]


def by_hand(short, name, learning_rate):
    """Train by the chain rule; return the losses up to the first that is not finite."""
    x, y, fill = short["x"], short["y"], short["weights"][name]
    torch.manual_seed(0)
    w1, w2 = fill(torch.empty(100, 1000)).T, fill(torch.empty(10, 100)).T
    losses = []
    for _ in range(STEPS):
        h = x @ w1
        grad_y_pred = 2 * (h.relu() @ w2 - y)
        losses.append((grad_y_pred / 2).square().sum().item())
        if not math.isfinite(losses[-1]):
            break
        grad_w1 = x.T @ (grad_y_pred @ w2.T * (h > 0))
        grad_w2 = h.relu().T @ grad_y_pred
        w1, w2 = w1 - learning_rate * grad_w1, w2 - learning_rate * grad_w2
    return losses


def test_each_cell_is_a_training_of_its_own(short):
    for name, cells in short["table"].items():
        for learning_rate, cell in zip(short["learning_rates"], cells, strict=True):
            losses = by_hand(short, name, learning_rate)
            if math.isfinite(losses[-1]):
                assert float(cell) == pytest.approx(losses[-1], rel=0.06)
            else:
                assert cell == f"step {len(losses)}"


@pytest.mark.parametrize("name", SIZES)
def test_weights_have_their_variance(short, name):
    torch.manual_seed(0)
    for (outputs, inputs), variance in zip(((100, 1000), (10, 100)), SIZES[name]):
        w = short["weights"][name](torch.empty(outputs, inputs))
        assert w.square().mean().item() == pytest.approx(variance, rel=0.1)


def test_uniform_weights_are_those_of_a_linear_layer(short):
    torch.manual_seed(0)
    expected = torch.nn.Linear(1000, 100, bias=False).weight
    torch.manual_seed(0)
    assert torch.equal(short["uniform"](torch.empty(100, 1000)), expected)


def test_mean_takes_the_path_of_the_sum_at_640_times_the_rate(short):
    sums = list(short["train"](short["uniform"], 1e-4))
    means = list(short["train"](short["uniform"], 640 * 1e-4, reduction="mean"))
    np.testing.assert_allclose(640 * np.array(means), sums, rtol=1e-5)


def test_zeros_learn_nothing(short):
    losses = list(short["train"](torch.nn.init.zeros_, 1e-2))
    assert losses == [short["y"].square().sum().item()] * STEPS


def test_largest_rates_that_train_are_those_of_the_families(table):
    cells, rates = table
    largest = {
        name: max(r for r, cell in zip(rates, row, strict=True) if "step" not in cell)
        for name, row in cells.items()
    }
    assert largest["normal"] == 1e-6 and largest["nn.Linear"] == 1e-3
    assert largest["Kaiming"] == 1e-4 and largest["Xavier"] == 1e-3


def test_thirteen_units_die_at_the_border():
    """As the README says: with Xavier's weights and a learning rate of 1e-3."""
    variables = execute(INIT, ("learning_rates = [", "learning_rates = []  # ["))
    variables["args"].steps = 200
    training = variables["train"](variables["weights"]["Xavier"], 1e-3)
    losses = [
        loss for loss in training if (w1 := training.gi_frame.f_locals["w1"]) is w1
    ]
    hidden = variables["x"] @ w1.T
    assert losses[2] > 3 * losses[0]
    assert (hidden <= 0).all(0).sum() == 13
