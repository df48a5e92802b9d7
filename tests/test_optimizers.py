"""Optimizers, parameter groups and schedules do what the formulas on the page say."""

import math
import re
from types import SimpleNamespace

import compare_optimizers
import numpy as np
import pytest
import torch
from collection import curve, losses, run
from compare_optimizers import OPTIMIZERS, draw, steps_to, train
from torch import nn

GROUPS = "optim/parameter_groups.py"
SCHEDULE = "optim/learning_rate_schedule.py"


# One step of each rule, for a parameter w with the gradient g, at the learning rate a,
# in step t. s is what the optimizer keeps for the parameter; all of it is 0 at first.


def sgd(w, g, s, a, t):
    return w - a * g


def momentum(w, g, s, a, t):
    s.v = 0.9 * s.v + g
    return w - a * s.v


def nesterov(w, g, s, a, t):
    s.v = 0.9 * s.v + g
    return w - a * (g + 0.9 * s.v)


def rprop(w, g, s, a, t):
    """The factor is 1.2 where the gradient keeps its sign, 0.5 where it changes it."""
    if t == 1:
        s.u = np.full_like(w, a)
    same = np.sign(g * s.v)
    s.u = np.clip(s.u * np.choose(same.astype(int) + 1, [0.5, 1, 1.2]), 1e-6, 50)
    s.v = np.where(same < 0, 0, g)  # after a change of sign, wait for a step
    return w - s.u * np.sign(s.v)


def adagrad(w, g, s, a, t):
    s.v = s.v + g**2
    return w - a * g / (np.sqrt(s.v) + 1e-10)


def rmsprop(w, g, s, a, t):
    s.v = 0.99 * s.v + 0.01 * g**2
    return w - a * g / (np.sqrt(s.v) + 1e-8)


def adadelta(w, g, s, a, t):
    s.v = 0.9 * s.v + 0.1 * g**2
    d = np.sqrt(s.u + 1e-6) / np.sqrt(s.v + 1e-6) * g
    s.u = 0.9 * s.u + 0.1 * d**2
    return w - a * d


def adam(w, g, s, a, t):
    s.m = 0.9 * s.m + 0.1 * g
    s.v = 0.999 * s.v + 0.001 * g**2
    m, v = s.m / (1 - 0.9**t), s.v / (1 - 0.999**t)
    return w - a * m / (np.sqrt(v) + 1e-8)


def adamw(w, g, s, a, t):
    return adam(w - a * 0.01 * w, g, s, a, t)


def adafactor(w, g, s, a, t):
    """Algorithms 4 and 5 of the paper: a matrix keeps row and column means alone."""
    beta = 1 - t**-0.8
    if w.ndim == 1:
        s.v = v = beta * s.v + (1 - beta) * g**2
    else:
        s.m = beta * s.m + (1 - beta) * (g**2).mean(1, keepdims=True)
        s.u = beta * s.u + (1 - beta) * (g**2).mean(0, keepdims=True)
        v = s.m * s.u / s.m.mean()
    u = g / np.sqrt(v)
    u = u / max(1, np.sqrt((u**2).mean()))
    return w - max(1e-3, np.sqrt((w**2).mean())) * min(a, t**-0.5) * u


RULES = {
    "SGD": (sgd, 0.5),
    "momentum": (momentum, 0.1),
    "Nesterov": (nesterov, 0.1),
    "Rprop": (rprop, 1e-2),
    "Adagrad": (adagrad, 1e-2),
    "RMSprop": (rmsprop, 1e-3),
    "Adadelta": (adadelta, 1),
    "Adam": (adam, 1e-2),
    "AdamW": (adamw, 1e-2),
    "Adafactor": (adafactor, 0.3),
}


def new_state():
    return SimpleNamespace(m=0, v=0, u=0)


def start():
    """Return the parameters of a small network, w1 (5, 4), b (4,) and w2 (4, 2)."""
    torch.manual_seed(0)
    shapes = (5, 4), (4,), (4, 2)
    return [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]


def loss_of(w1, b, w2):
    x, y = torch.eye(6, 5, dtype=torch.float64), torch.ones(6, 2, dtype=torch.float64)
    return ((x @ w1 + b).tanh() @ w2 - y).square().mean()


def gradients(arrays):
    """Return the gradients of the loss at NumPy arrays, as NumPy arrays."""
    params = [torch.from_numpy(w).requires_grad_() for w in arrays]
    return [g.numpy() for g in torch.autograd.grad(loss_of(*params), params)]


def trained(optimizer, params, steps):
    """Return the parameters after some steps, as NumPy arrays."""

    def closure():
        optimizer.zero_grad()
        loss = loss_of(*params)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return [w.detach().numpy() for w in params]


@pytest.mark.parametrize("name", RULES)
def test_rule_is_that_of_its_paper(name):
    rule, rate = RULES[name]
    params = start()
    by_hand = [w.detach().numpy().copy() for w in params]
    found = trained(OPTIMIZERS[name](params, lr=rate), params, steps=50)

    states = [new_state() for _ in by_hand]
    for t in range(1, 51):
        together = zip(by_hand, gradients(by_hand), states, strict=True)
        by_hand = [rule(w, g, s, rate, t) for w, g, s in together]
    for one, other in zip(found, by_hand, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)


def test_lbfgs_is_that_of_its_paper():
    """Its inverse Hessian, as a matrix: BFGS updates of a multiple of the identity."""
    rate, params = 0.5, start()
    shapes = [w.shape for w in params]
    by_hand = np.concatenate([w.detach().numpy().ravel() for w in params])
    optimizer = OPTIMIZERS["L-BFGS"](params, lr=rate)
    found = np.concatenate([w.ravel() for w in trained(optimizer, params, steps=15)])

    def gradient(flat):
        parts = np.split(flat, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
        arrays = [part.reshape(s) for part, s in zip(parts, shapes, strict=True)]
        return np.concatenate([g.ravel() for g in gradients(arrays)])

    g, pairs, eye = gradient(by_hand), [], np.eye(by_hand.size)
    for t in range(1, 16):
        # Before anything is known of the curvature, PyTorch takes a shorter step.
        length = rate * min(1, 1 / np.abs(g).sum()) if t == 1 else rate
        inverse = eye
        if pairs:
            moved, change = pairs[-1]
            inverse = eye * (moved @ change) / (change @ change)
        for moved, change in pairs:
            rho = 1 / (moved @ change)
            left = eye - rho * np.outer(moved, change)
            inverse = left @ inverse @ left.T + rho * np.outer(moved, moved)
        moved = -length * inverse @ g
        by_hand = by_hand + moved
        change = gradient(by_hand) - g
        g = g + change
        pairs.append((moved, change))
    np.testing.assert_allclose(found, by_hand, rtol=0, atol=1e-9)


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
    inner = u.T @ step @ vt.T  # the identity if the step is U V^T
    diagonal = inner.diagonal()
    assert 0.6 < diagonal.min() and diagonal.max() < 1.3
    assert (inner - diagonal.diag()).abs().max() < 0.05
    assert (step - u @ inner @ vt).abs().max() < 0.05


def test_training_is_gradient_descent_on_the_mean_of_the_squared_errors():
    """By the chain rule, in NumPy and float64."""
    randn = np.random.default_rng(0).standard_normal
    x, y = randn((64, 100), np.float32), randn((64, 10), np.float32)
    torch.manual_seed(0)
    layers = [nn.Linear(100, 50, bias=False), nn.Linear(50, 10, bias=False)]
    w1, w2 = (layer.weight.detach().double().numpy().T for layer in layers)
    expected = []
    for _ in range(10):
        h = x @ w1
        error = np.maximum(h, 0) @ w2 - y
        expected.append(np.square(error).mean())
        grad_y_pred = 2 * error / error.size
        grad_w1 = x.T @ (grad_y_pred @ w2.T * (h > 0))
        grad_w2 = np.maximum(h, 0).T @ grad_y_pred
        w1, w2 = w1 - 0.3 * grad_w1, w2 - 0.3 * grad_w2
    assert train(torch.optim.SGD, 0.3, steps=10) == pytest.approx(expected, rel=1e-4)


def test_steps_are_counted_from_1():
    assert steps_to(0.5, [0.4]) == 1
    assert steps_to(0.5, [3, 0.5, 0.4, 0.1]) == 3
    assert steps_to(0.5, [3, math.nan]) == math.inf


def test_the_best_rate_is_the_fastest(monkeypatch, capsys):
    """And none, where no rate reaches the target."""

    def losses_at(make_optimizer, learning_rate, device):
        return make_optimizer.get(learning_rate, [1, 1, 1])

    fake = {"A": {0.01: [1, 1, 0], 0.1: [1, 0, 1], 1: [1, 1, 0]}, "B": {}}
    monkeypatch.setattr(compare_optimizers, "OPTIMIZERS", fake)
    monkeypatch.setattr(compare_optimizers, "train", losses_at)
    monkeypatch.setattr("sys.argv", ["compare_optimizers.py", "--target", "0.5"])
    compare_optimizers.main()
    _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split() for row in rows] == [["A", "0.1", "2"], ["B", "-", "inf"]]


def test_picture_shows_the_losses():
    """Of those that reach the target, in the order of the table."""
    (axes,) = draw({"SGD": [3, 2, 1], "Rprop": [3, 1, 0], "Adam": [3, 2, 2]}).axes
    shown = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    expected = {"SGD": [[1, 3], [2, 2], [3, 1]], "Adam": [[1, 3], [2, 2], [3, 2]]}
    assert shown == expected


# Groups and schedules, on the network of optim/two_layer_net_optim.py


def losses_by_hand(update, steps):
    """Train in NumPy and float64; return the loss of each step.

    update(name, w, g, s, t) returns the new parameter, such as "linear1.weight".
    """
    randn = np.random.default_rng(0).standard_normal
    x = randn((64, 1000), np.float32).astype(np.float64)
    y = randn((64, 10), np.float32).astype(np.float64)
    torch.manual_seed(0)
    layers = {"linear1": nn.Linear(1000, 100), "linear2": nn.Linear(100, 10)}
    w = {
        f"{layer}.{kind}": parameter.detach().double().numpy()
        for layer in layers
        for kind, parameter in layers[layer].named_parameters()
    }
    states = {name: new_state() for name in w}
    found = []
    for t in range(1, steps + 1):
        h = x @ w["linear1.weight"].T + w["linear1.bias"]
        relu = np.maximum(h, 0)
        error = relu @ w["linear2.weight"].T + w["linear2.bias"] - y
        found.append(np.square(error).sum())
        grad_h = 2 * error @ w["linear2.weight"] * (h > 0)
        grads = {
            "linear1.weight": grad_h.T @ x,
            "linear1.bias": grad_h.sum(0),
            "linear2.weight": 2 * error.T @ relu,
            "linear2.bias": 2 * error.sum(0),
        }
        for name, g in grads.items():
            w[name] = update(name, w[name], g, states[name], t)
    return torch.tensor(found, dtype=torch.float64)


def test_groups_train_as_by_hand():
    """Rules, rates and decays: a wrong one of a single bias would be seen."""

    def update(name, w, g, s, t):
        match name:
            case "linear1.weight":
                return momentum(w, g + 1e-2 * w, s, 2e-4, t)
            case "linear1.bias":
                return momentum(w, g, s, 1e-4, t)
            case "linear2.weight":
                return adam(w - 2e-3 * 1e-1 * w, g, s, 2e-3, t)
            case "linear2.bias":
                return adam(w, g, s, 1e-3, t)

    expected = losses_by_hand(update, steps=120)
    found = curve(GROUPS, steps=120, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def factor(t):
    """The schedule of the page, for step t = 1, 2, ..."""
    if t <= 50:
        return t / 50
    return 0.5 + 0.5 * math.cos(math.pi * min(t - 51, 450) / 450)


def test_the_schedule_sets_the_rate_of_every_step():
    def update(name, w, g, s, t):
        return adam(w, g, s, 5e-3 * factor(t), t)

    expected = losses_by_hand(update, steps=120)
    found = curve(SCHEDULE, steps=120, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def rates(*options):
    """Return {step: learning rate} as the script prints them."""
    out = run(SCHEDULE, *options).stdout
    found = re.findall(r"^step +(\d+)  loss \S+  lr (\S+)$", out, re.MULTILINE)
    assert len(found) == len(losses(out))
    return {int(step): float(rate) for step, rate in found}


def test_rates_are_printed_beside_the_loss_and_stay_0_after_step_500():
    found = rates("--steps", "600")
    expected = {step: 5e-3 * factor(step) for step in found}
    assert found == pytest.approx(expected, rel=0.05)
    assert found[550] == found[600] == 0


def test_a_constant_rate_stays_as_it_is():
    assert set(rates("--steps", "100", "--constant").values()) == {5e-3}
