"""The table of initial weights is right, and so is the lesson on sum and mean."""

import math

import initialization
import numpy as np
import pytest
import torch
from collection import NN, losses, run
from initialization import INITIALIZATIONS, LEARNING_RATES, as_text, draw, train

# The variances of the weights (100, 1000) and (10, 100).
VARIANCES = {
    "normal": (1, 1),
    "nn.Linear": (1 / 3000, 1 / 300),
    "Kaiming": (2 / 1000, 2 / 100),
    "Xavier": (2 / 1100, 2 / 110),
    "zeros": (0, 0),
}


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_weights_have_their_variance(name):
    """100,000 and 1,000 of them: the mean of the squares is off by a few percent."""
    torch.manual_seed(0)
    for shape, variance in zip([(100, 1000), (10, 100)], VARIANCES[name]):
        weight = torch.empty(shape)
        INITIALIZATIONS[name](weight)
        assert weight.square().mean().item() == pytest.approx(variance, rel=0.1)


def test_uniform_weights_are_those_of_a_linear_layer():
    torch.manual_seed(0)
    expected = torch.nn.Linear(1000, 100, bias=False).weight
    torch.manual_seed(0)
    weight = torch.empty(100, 1000)
    initialization.uniform_(weight)
    assert torch.equal(weight, expected)


def by_hand(name, learning_rate, steps):
    """Train by the chain rule, in NumPy and float64; return the last loss."""
    randn = np.random.default_rng(0).standard_normal
    x = randn((64, 1000), np.float32).astype(np.float64)
    y = randn((64, 10), np.float32).astype(np.float64)
    torch.manual_seed(0)
    weights = [torch.empty(100, 1000), torch.empty(10, 100)]
    for weight in weights:
        INITIALIZATIONS[name](weight)
    w1, w2 = (weight.double().numpy().T for weight in weights)
    for _ in range(steps):
        h = x @ w1
        error = np.maximum(h, 0) @ w2 - y
        grad_w1 = x.T @ (2 * error @ w2.T * (h > 0))
        grad_w2 = np.maximum(h, 0).T @ (2 * error)
        w1, w2 = w1 - learning_rate * grad_w1, w2 - learning_rate * grad_w2
    return np.square(error).sum()


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_a_cell_is_a_training(name):
    """In four steps: where the loss grows, the errors of float32 grow with it."""
    for learning_rate in LEARNING_RATES:
        found = train(INITIALIZATIONS[name], learning_rate, steps=4)
        with np.errstate(all="ignore"):
            expected = by_hand(name, learning_rate, steps=4)
        if expected < np.finfo(np.float32).max:
            assert found == pytest.approx(expected, rel=1e-3)
        else:
            assert not math.isfinite(found)


def test_normal_weights_diverge_in_five_steps_at_1e_5():
    """As the page says."""
    assert math.isfinite(train(INITIALIZATIONS["normal"], 1e-5, steps=4))
    assert not math.isfinite(train(INITIALIZATIONS["normal"], 1e-5, steps=5))


def test_cells_say_what_is_worth_saying():
    cells = [as_text(loss) for loss in (249_999, 3e-7, math.inf, math.nan)]
    assert cells == ["2.5e+05", "<1e-6", "diverged", "diverged"]


def test_picture_shows_the_table():
    """But for what has diverged, and for the differences between tiny losses."""
    finite = {name: [5, 4, 3, 2, 1, 0.5] for name in INITIALIZATIONS}
    table = finite | {"Xavier": [4, 3, 1e-9, 1, math.inf, math.nan]}
    (axes,) = draw(table).axes
    shown = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert shown.keys() == table.keys()
    assert shown["normal"] == table["normal"]
    np.testing.assert_equal(shown["Xavier"], [4, 3, 1e-6, 1, np.nan, np.nan])


def test_a_picture_of_an_unknown_format_gets_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["initialization.py", "--plot", "a.picture"])
    monkeypatch.setattr(initialization, "train", lambda *_, **__: 1.0)
    with pytest.raises(SystemExit, match="2"):
        initialization.main()
    assert "error: cannot write a.picture: " in capsys.readouterr().err


def test_mean_takes_the_steps_of_the_sum_at_640_times_the_rate():
    done = run("nn/loss_reduction.py")
    sums = losses(done.stdout)
    means = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert sums == pytest.approx(losses(run(NN).stdout), rel=1e-3)
    assert [640 * mean for mean in means] == pytest.approx([*sums.values()], rel=1e-3)
