"""Optimizers, parameter groups and schedules do what the formulas on the page say."""

import math
import re
from functools import partial
from unittest import mock

import by_hand
import compare_optimizers
import pytest
import torch
from collection import curve, execute
from compare_optimizers import OPTIMIZERS
from torch import nn
from torch.nn.functional import linear

SCHEDULE = "optim/learning_rate_schedule.py"


@pytest.mark.parametrize(
    "name", [name for name in OPTIMIZERS if name not in ("L-BFGS", "Muon")]
)
def test_rule_is_that_of_its_paper(name):
    torch.manual_seed(0)
    params = list(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2)).double().parameters())

    def loss_of(w1, b1, w2, b2):
        x = torch.eye(6, 5, dtype=torch.float64)
        return (linear(linear(x, w1, b1).tanh(), w2, b2) - 1).square().mean()

    rule = partial(getattr(by_hand, name.lower()), a=0.1)
    _, expected = by_hand.train([rule] * 4, loss_of, params, steps=50)
    optimizer = OPTIMIZERS[name](params, lr=0.1)
    for _ in range(50):
        optimizer.zero_grad()
        loss_of(*params).backward()
        optimizer.step()
    found = [param.detach().numpy() for param in params]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_lbfgs_divides_by_the_second_derivative():
    """For a single parameter w it knows that from the last two slopes."""
    w = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    optimizer = OPTIMIZERS["L-BFGS"]([w], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = w.cosh()
        loss.backward()
        return loss

    visited = [w.item()]
    for _ in range(6):
        optimizer.step(closure)
        visited.append(w.item())
    for before, here, later in zip(visited, visited[1:], visited[2:]):
        second = (math.sinh(here) - math.sinh(before)) / (here - before)
        assert later == pytest.approx(here - 0.5 * math.sinh(here) / second, rel=1e-6)


def test_muon_steps_along_the_nearest_semi_orthogonal_matrix():
    """U V^T of the gradient's U S V^T, roughly: singular values from 0.6 to 1.3.

    The optimizer computes in bfloat16, whose 8 binary digits are worth 0.01.
    """
    torch.manual_seed(0)
    before = torch.randn(50, 10)
    weight = before.clone().requires_grad_()
    weight.grad = torch.randn(50, 10)
    OPTIMIZERS["Muon"]([weight], lr=0.1).step()

    step = (before - weight.detach()) / (0.1 * 0.2 * math.sqrt(50))
    u, _, vt = torch.linalg.svd(weight.grad, full_matrices=False)
    values = (u.T @ step @ vt.T).diagonal()  # all 1 if the step is U V^T
    assert 0.6 < values.min() and values.max() < 1.3
    assert (step - u @ values.diag() @ vt).abs().max() < 0.05


def test_training_is_gradient_descent_on_the_mean_of_the_squared_errors():
    x, y = by_hand.standard_normal((64, 100), (64, 10))
    torch.manual_seed(0)
    layers = nn.Linear(100, 50, bias=False), nn.Linear(50, 10, bias=False)

    def loss_of(w1, w2):
        return by_hand.errors(x, y, w1, None, w2, None).square().mean()

    rule, params = partial(by_hand.sgd, a=0.3), [layer.weight for layer in layers]
    expected, _ = by_hand.train([rule] * 2, loss_of, params, steps=10)
    found = compare_optimizers.train(torch.optim.SGD, 0.3, steps=10)
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_fastest_rate_is_shown_and_drawn(monkeypatch, capsys):
    """And none, where no rate reaches the target. Steps are counted from 1."""

    def train(losses_at, learning_rate, device):
        return losses_at.get(learning_rate, [1, 1, 1])

    a = {0.01: [1, 1, 0], 0.1: [1, 0.4, 1], 1: [1, 1, 0]}
    b = {0.1: [1, math.nan, 1]}
    monkeypatch.setattr(compare_optimizers, "OPTIMIZERS", {"A": a, "B": b})
    monkeypatch.setattr(compare_optimizers, "train", train)
    monkeypatch.setattr("sys.argv", ["", "--target", "0.5", "--plot", "a.png"])
    with mock.patch.object(compare_optimizers, "draw") as draw:
        compare_optimizers.main()
    _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split() for row in rows] == [["A", "0.1", "2"], ["B", "-", "inf"]]
    draw.assert_called_once_with({"A": a[0.1]})


def test_picture_shows_the_losses():
    (axes,) = compare_optimizers.draw({"SGD": [3, 2, 1], "Adam": [3, 2, 2]}).axes
    shown = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert shown == {"SGD": [[1, 3], [2, 2], [3, 1]], "Adam": [[1, 3], [2, 2], [3, 2]]}
    assert axes.get_yscale() == "log"


def factor(t):
    """The schedule of the page, for step t = 1, 2, ..."""
    if t <= 50:
        return t / 50
    return 0.5 + 0.5 * math.cos(math.pi * min(t - 51, 450) / 450)


def scheduled(w, g, s, t):
    return by_hand.adam(w, g, s, 5e-3 * factor(t), t)


# The rules of the first layer's weight and bias, and of the second's.
RULES = {
    SCHEDULE: [scheduled] * 4,
    "optim/parameter_groups.py": [
        partial(by_hand.momentum, a=2e-4, decay=1e-2),
        partial(by_hand.momentum, a=1e-4),
        partial(by_hand.adamw, a=2e-3, decay=1e-1),
        partial(by_hand.adam, a=1e-3),
    ],
}


@pytest.mark.parametrize("script", RULES)
def test_each_parameter_follows_its_rule(script):
    """A wrong rule, rate or decay of a single bias would be seen."""
    x, y = by_hand.standard_normal((64, 1000), (64, 10))
    torch.manual_seed(0)
    params = nn.Sequential(nn.Linear(1000, 100), nn.Linear(100, 10)).parameters()

    def loss_of(*params):
        return by_hand.errors(x, y, *params).square().sum()

    expected, _ = by_hand.train(RULES[script], loss_of, params, steps=120)
    found = curve(script, steps=120, dtype=torch.float64)
    assert found.tolist() == pytest.approx(expected, rel=1e-9, abs=0)


@pytest.mark.parametrize(
    "options, factor", [([], factor), (["--constant"], lambda t: 1)]
)
def test_rate_is_printed_and_stays_0_after_step_500(options, factor, capsys):
    execute(SCHEDULE, argv=["--steps", "600", *options])
    lines = r"^step +(\d+)  loss \S+  lr (\S+)$"
    found = re.findall(lines, capsys.readouterr().out, re.MULTILINE)
    assert [int(step) for step, _ in found] == [1, *range(50, 601, 50)]
    for step, rate in found:
        assert float(rate) == pytest.approx(5e-3 * factor(int(step)), rel=0.05)
