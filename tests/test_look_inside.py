"""Hooks measure what NumPy computes, change nothing, and are gone afterwards."""

import math

import look_inside
import numpy as np
import pytest
import torch
from collection import NN, SEQUENTIAL, curve
from look_inside import draw, looking_inside, make_model, make_problems, train
from torch import nn

FAMILIES = ["family A", "family B"]
RUNGS = {"family A": SEQUENTIAL, "family B": NN}


def problem(family):
    """Return (model, x, y, learning rate)."""
    x, y, problems = make_problems("cpu")
    model, learning_rate = problems[family]
    return model, x, y, learning_rate


def by_hand(model, x, y, learning_rate, steps):
    """Train in NumPy and float64; return [what is to be measured] for each step."""
    params = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    x, y = x.double().numpy(), y.double().numpy()
    w1, w2 = params["linear1.weight"].copy(), params["linear2.weight"].copy()
    b1 = params.get("linear1.bias", np.zeros(100)).copy()
    b2 = params.get("linear2.bias", np.zeros(10)).copy()
    biased = "linear1.bias" in params
    found = []
    for _ in range(steps):
        h = x @ w1.T + b1
        h_relu = np.maximum(h, 0)
        y_pred = h_relu @ w2.T + b2
        grad_y_pred = 2 * (y_pred - y)
        grad_h_relu = grad_y_pred @ w2
        grad_h = grad_h_relu * (h > 0)
        found.append(
            {
                ("linear1", "mean square"): np.square(h).mean(),
                ("relu", "mean square"): np.square(h_relu).mean(),
                ("linear2", "mean square"): np.square(y_pred).mean(),
                ("linear1", "gradient norm"): np.linalg.norm(grad_h),
                ("relu", "gradient norm"): np.linalg.norm(grad_h_relu),
                ("linear2", "gradient norm"): np.linalg.norm(grad_y_pred),
                ("relu", "dead units"): (h <= 0).all(axis=0).sum(),
            }
        )
        w1 -= learning_rate * grad_h.T @ x
        w2 -= learning_rate * grad_y_pred.T @ h_relu
        if biased:
            b1 -= learning_rate * grad_h.sum(axis=0)
            b2 -= learning_rate * grad_y_pred.sum(axis=0)
    return found


def by_step(measured, steps):
    """Return the same form of what the hooks have measured."""
    lists = {
        (name, quantity): values
        for name, quantities in measured.items()
        for quantity, values in quantities.items()
    }
    assert {len(values) for values in lists.values()} == {steps}
    return [
        {key: values[t].item() for key, values in lists.items()} for t in range(steps)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_measure_what_numpy_computes(family):
    model, x, y, learning_rate = problem(family)
    expected = by_hand(model, x, y, learning_rate, steps=20)
    with looking_inside(model) as measured:
        train(model, x, y, learning_rate, steps=20)
    for found, exact in zip(by_step(measured, 20), expected, strict=True):
        # Sums of 1000 products in float32.
        assert found == pytest.approx(exact, rel=1e-4)


def test_dead_units_are_counted_in_a_network_that_has_some():
    """Biases of -1000 keep units 3 and 5 at 0, whatever the input."""
    model, x, y, learning_rate = problem("family B")
    with torch.no_grad():
        model.linear1.bias[[3, 5]] = -1000
    expected = by_hand(model, x, y, learning_rate, steps=3)
    with looking_inside(model) as measured:
        train(model, x, y, learning_rate, steps=3)
    assert [found["relu", "dead units"] for found in by_step(measured, 3)] == [2, 2, 2]
    for found, exact in zip(by_step(measured, 3), expected, strict=True):
        assert found == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_without_hooks(family):
    model, *rest = problem(family)
    with looking_inside(model):
        watched = train(model, *rest, steps=100)
    assert watched == train(*problem(family), steps=100)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_the_ladder(family):
    """As in test_rungs_print_the_same_losses.py: 16 eps of the first error's length."""
    losses = torch.tensor(train(*problem(family)), dtype=torch.float64)
    rung = curve(RUNGS[family])
    bound = 16 * torch.finfo(torch.float32).eps * rung[0].sqrt()
    assert (losses.sqrt() - rung.sqrt()).abs().max() <= bound


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
def test_hooks_are_removed(error):
    """Also when the training fails."""
    model, *rest = problem("family B")
    try:
        with looking_inside(model) as measured:
            train(model, *rest, steps=2)
            if error:
                raise error
    except ZeroDivisionError:
        pass
    assert not any(module._forward_hooks for module in model.modules())
    train(model, *rest, steps=2)
    by_step(measured, 2)  # no more than before


def test_one_look_after_the_other():
    """The second has hooks of its own, and no pass is measured twice."""
    model, *rest = problem("family B")
    for _ in range(2):
        with looking_inside(model) as measured:
            train(model, *rest, steps=3)
        by_step(measured, 3)


def test_an_evaluation_has_no_gradients():
    model, x, _, _ = problem("family A")
    with looking_inside(model) as measured, torch.no_grad():
        model(x)
    quantities = {name: set(found) for name, found in measured.items()}
    assert quantities == {
        "linear1": {"mean square"},
        "relu": {"mean square", "dead units"},
        "linear2": {"mean square"},
    }


def test_what_is_measured_keeps_no_graph_alive():
    model, *rest = problem("family A")
    with looking_inside(model) as measured:
        train(model, *rest, steps=1)
    for quantities in measured.values():
        for (value,) in quantities.values():
            assert value.shape == () and not value.requires_grad


@pytest.mark.parametrize(
    "initialize_, mean_squares, factors",
    [
        (nn.init.normal_, [1000, 500, 50_000], [10, 1 / math.sqrt(2)]),
        (nn.Linear.reset_parameters, [1 / 3, 1 / 6, 1 / 18], [3**-0.5, 0.5**0.5]),
    ],
)
def test_sizes_that_the_page_derives(initialize_, mean_squares, factors):
    """On average over networks, as from one to the next the outputs vary by a sixth.

    The gradients are some percent larger: the errors contain the outputs, which are
    not independent of the second layer's weights.
    """
    x, y, _ = make_problems("cpu")
    torch.manual_seed(0)
    squares, ratios = [], []
    for _ in range(200):
        model = make_model(bias=False)
        for layer in model.linear1, model.linear2:
            initialize_(layer if initialize_ is not nn.init.normal_ else layer.weight)
        with looking_inside(model) as measured:
            (model(x) - y).square().sum().backward()
        (found,) = by_step(measured, 1)
        squares.append([found[name, "mean square"] for name in measured])
        norms = [found[name, "gradient norm"] for name in measured]
        ratios.append([norms[1] / norms[2], norms[0] / norms[1]])
    assert np.mean(squares, axis=0) == pytest.approx(mean_squares, rel=0.05)
    assert np.mean(ratios, axis=0) == pytest.approx(factors, rel=0.1)


def test_picture_shows_what_was_measured():
    layers = ["linear1", "relu", "linear2"]
    found = {
        family: {
            name: {
                "mean square": [torch.tensor(place + 1.0), torch.tensor(9.0)],
                "gradient norm": [torch.tensor(place + 3.0), torch.tensor(0.5)],
            }
            for place, name in enumerate(layers)
        }
        for family in FAMILIES
    }
    panels = draw(found).axes
    expected = [
        [family, q] for q in ("mean square", "gradient norm") for family in found
    ]
    assert [axes.get_title().split(": ") for axes in panels] == expected
    for axes, (family, quantity) in zip(panels, expected, strict=True):
        assert axes.get_yscale() == "log"
        shown = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
        assert shown == {
            name: [
                [t + 1, value.item()]
                for t, value in enumerate(found[family][name][quantity])
            ]
            for name in layers
        }


@pytest.mark.parametrize("picture", ["a.picture", "no folder/a.png"])
def test_a_picture_that_cannot_be_written_gets_one_line(picture, monkeypatch, capsys):
    """Its format is unknown, or there is no such folder."""
    monkeypatch.setattr("sys.argv", ["", "--plot", picture])
    monkeypatch.setattr(look_inside, "STEPS_SHOWN", [1])
    monkeypatch.setattr(look_inside.train, "__defaults__", (1,))
    with pytest.raises(SystemExit, match="2"):
        look_inside.main()
    assert f"error: cannot write {picture}: " in capsys.readouterr().err
