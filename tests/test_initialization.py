"""The table of initial weights is right, and so is the lesson on sum and mean."""

import math
import re
from functools import partial

import by_hand
import initialization
import numpy as np
import pytest
import torch
from collection import NN, curve, execute
from initialization import INITIALIZATIONS, LEARNING_RATES, draw, train
from torch import nn

SHAPES = (100, 1000), (10, 100)  # (outputs, inputs)


def weights(name):
    """Return the two weights after an initialization with seed 0."""
    torch.manual_seed(0)
    found = [torch.empty(shape) for shape in SHAPES]
    for weight in found:
        INITIALIZATIONS[name](weight)
    return found


def from_the_paper(name, m, n):
    """Return a weight (m, n) as a layer has it, or normal with the paper's variance."""
    if name == "nn.Linear":
        return nn.Linear(n, m, bias=False).weight.detach()
    variances = {"normal": 1, "Kaiming": 2 / n, "Xavier": 2 / (n + m), "zeros": 0}
    return math.sqrt(variances[name]) * torch.randn(m, n)


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_weights_are_those_of_the_paper(name):
    found = weights(name)
    torch.manual_seed(0)
    expected = [from_the_paper(name, *shape) for shape in SHAPES]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", INITIALIZATIONS)
@pytest.mark.parametrize("learning_rate", LEARNING_RATES)
def test_a_cell_is_a_training(name, learning_rate):
    """In four steps: where the loss grows, the errors of float32 grow with it."""
    x, y = by_hand.standard_normal((64, 1000), (64, 10))

    def loss_of(w1, w2):
        return by_hand.errors(x, y, w1, None, w2, None).square().sum()

    rule = partial(by_hand.sgd, a=learning_rate)
    expected, _ = by_hand.train([rule] * 2, loss_of, weights(name), steps=4)
    found = train(INITIALIZATIONS[name], learning_rate, steps=4)
    if expected[-1] < torch.finfo(torch.float32).max:
        assert found == pytest.approx(expected[-1], rel=1e-3)
    else:
        assert not math.isfinite(found)


def test_normal_weights_diverge_in_five_steps_at_1e_5():
    """As the page says."""
    assert math.isfinite(train(INITIALIZATIONS["normal"], 1e-5, steps=4))
    assert not math.isfinite(train(INITIALIZATIONS["normal"], 1e-5, steps=5))


def test_picture_shows_the_table():
    """But for what has diverged, and for the differences between tiny losses."""
    table = {name: [5, 4, 3, 2, 1, 0.5] for name in INITIALIZATIONS}
    table["Xavier"] = [4, 3, 1e-9, 1, math.inf, math.nan]
    (axes,) = draw(table).axes
    shown = {line.get_label(): line.get_ydata() for line in axes.lines}
    table["Xavier"][2:] = [1e-6, 1, math.nan, math.nan]
    np.testing.assert_equal(shown, {name: np.array(table[name]) for name in table})
    assert all(list(line.get_xdata()) == LEARNING_RATES for line in axes.lines)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_a_picture_of_an_unknown_format_gets_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["", "--plot", "a.picture"])
    monkeypatch.setattr(initialization, "train", lambda *_, **__: 1.0)
    with pytest.raises(SystemExit, match="2"):
        initialization.main()
    assert "error: cannot write a.picture: " in capsys.readouterr().err


def test_mean_takes_the_steps_of_the_sum_at_640_times_the_rate(capsys):
    execute("nn/loss_reduction.py", argv=["--steps", "200"])
    lines = re.findall(r"  loss (\S+)  mean (\S+)", capsys.readouterr().out)
    expected = curve(NN, steps=200)[[0, 49, 99, 149, 199]].tolist()
    assert [float(loss) for loss, _ in lines] == pytest.approx(expected, rel=1e-3)
    assert [640 * float(mean) for _, mean in lines] == pytest.approx(expected, rel=1e-3)
