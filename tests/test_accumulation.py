"""A batch in parts has the gradient of the whole, unless means are averaged."""

import functools
import re

import numpy as np
import pytest
import torch
from collection import (
    ACCUMULATION,
    EVERY_STEP,
    IN_FLOAT64,
    NUMPY,
    curve,
    execute,
    outcome,
    source,
)

RIGHT = ["loss", "32s", "16s", "7s"]
WRONG = "means of 7s"
IN_DOUBLE = tuple(edit for edit in IN_FLOAT64 if edit[0] in source(ACCUMULATION))


@functools.cache
def columns(*edits, steps=200):
    """Return {name of a column: its losses in all steps}."""
    argv = "--steps", str(steps)
    code, output, errors = outcome(ACCUMULATION, *EVERY_STEP, *edits, argv=argv)
    assert code == 0, errors
    found = {}
    for line in output.splitlines():
        for column in re.split("  +", line)[2:]:  # without "step" and "1"
            name, loss = column.rsplit(" ", 1)
            found.setdefault(name, []).append(float(loss))
    return {name: np.array(losses) for name, losses in found.items()}


def distance(one, other):
    """Return how far the lengths of two error vectors differ, relative to the first."""
    return np.abs(np.sqrt(one) - np.sqrt(other)).max() / np.sqrt(other[0])


@pytest.mark.parametrize(
    "edits, dtype", [((), torch.float32), (IN_DOUBLE, torch.float64)]
)
def test_all_ways_to_split_the_batch_print_its_losses(edits, dtype):
    """The bound is that of all rungs of the ladder, and for the same reason."""
    expected = curve(NUMPY, dtype=dtype)[:200].numpy()
    found = columns(*edits)
    assert list(found) == [*RIGHT, WRONG]
    for name in RIGHT:
        assert distance(found[name], expected) <= 16 * torch.finfo(dtype).eps, name
    assert distance(found[WRONG], expected) > 0.01


def test_last_column_trains_on_the_mean_of_means():
    """In NumPy and float64: the last row counts 7 times as much as the others."""
    randn = np.random.default_rng(0).standard_normal
    shapes = [(64, 1000), (64, 10), (1000, 100), (100, 10)]
    x, y, w1, w2 = (randn(shape, np.float32).astype(np.float64) for shape in shapes)
    share = np.array([1 / 7] * 63 + [1])[:, None] * 64 / 10
    expected = []
    for _ in range(200):
        h = x @ w1
        error = np.maximum(h, 0) @ w2 - y
        expected.append(np.square(error).sum())
        grad = 2 * share * error
        grad_w2 = np.maximum(h, 0).T @ grad
        w1 -= 1e-6 * x.T @ (grad @ w2.T * (h > 0))
        w2 -= 1e-6 * grad_w2
    assert columns(*IN_DOUBLE)[WRONG].tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "right, wrong",
    [
        ("w1.grad = None", "pass"),
        ("w2.grad = None", "pass"),
        # Cleared for each part, so that only the last part counts.
        ("squares = (", "w1.grad = w2.grad = None\n        squares = ("),
        # Nothing of the last part, if it is smaller.
        ("loss.backward()", "len(x_part) == rows and loss.backward()"),
        # An update after each part.
        ("loss.backward()", "loss.backward()\n        w1.data -= 1e-6 * w1.grad"),
        ("if mean_of_means", "if True"),
    ],
)
def test_a_mistake_would_be_seen(right, wrong):
    expected = curve(NUMPY)[:10].numpy()
    found = columns((right, wrong), steps=10)["7s"]
    assert not distance(found, expected) <= 16 * torch.finfo(torch.float32).eps


# One step of it


@pytest.fixture
def step():
    """Return step(rows, ...), which returns w1.grad and w2.grad of the first step."""
    end = execute(ACCUMULATION, *IN_DOUBLE, argv=["--steps", "0"])

    def run(*args, **options):
        weights = [end[name].clone().requires_grad_() for name in ("w1", "w2")]
        end["train_step"](*weights, *args, **options)
        return [weight.grad for weight in weights]

    return run


@pytest.mark.parametrize("rows", [1, 7, 16, 32, 63])
def test_gradients_of_the_parts_add_up_to_that_of_the_batch(step, rows):
    torch.testing.assert_close(step(rows), step(64), rtol=1e-10, atol=1e-6)


@pytest.mark.parametrize(
    "rows, good", [(32, True), (16, True), (7, False), (60, False)]
)
def test_mean_of_means_is_right_only_for_equal_parts(step, rows, good):
    """For others the whole gradient is off, by tens of percent."""
    for found, expected in zip(step(rows, mean_of_means=True), step(64)):
        error = (found - expected).norm() / expected.norm()
        assert error < 1e-10 if good else error > 0.1


def test_only_the_graph_of_one_part_is_kept(step):
    """Counted in numbers that the graph keeps for the backward pass."""
    kept = most = 0

    class Kept:
        def __init__(self, tensor):
            nonlocal kept, most
            self.tensor = tensor
            kept += tensor.numel()
            most = max(most, kept)

        def __del__(self):
            nonlocal kept
            kept -= self.tensor.numel()

    def most_kept(rows):
        nonlocal most
        most = 0
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            step(rows)
        assert kept == 0
        return most

    weights = 100 * 10  # w2 is kept for any number of rows
    rows = 1000 + 2 * 100 + 10  # x, the hidden layer before and after ReLU, the error
    for count in 64, 32, 16, 7:
        assert most_kept(count) == weights + count * rows
