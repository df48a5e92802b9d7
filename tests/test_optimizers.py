"""Update rules, groups and schedules do what the README's formulas say."""

import contextlib
import io
import itertools
import math
import re
import time
from unittest import mock

import numpy as np
import pytest
import torch
from collection import curve, execute, finished, losses

COMPARE = "optim/compare_optimizers.py"
GROUPS = "optim/parameter_groups.py"
ROW = re.compile(r"^(\S+) +lr (\S+)  there in (\d+) +memory +(\S+)  ", re.MULTILINE)


@pytest.fixture(scope="module")
def compare():
    """The script's variables, after a race of SGD alone."""
    return execute(COMPARE, ("makers.items()", "[('SGD', optim.SGD)]"))


@pytest.fixture(scope="module")
def rows():
    """What the README's run prints: {name: (learning rate, steps, memory)}."""
    found = ROW.findall(finished((COMPARE,)).stdout)
    return {name: (float(r), int(n), float(m)) for name, r, n, m in found}


# One step of each rule, as in the README. s is what the optimizer keeps for a
# parameter; all of it is 0 at first.


def sgd(w, g, s, a, t):
    return w - a * g


def momentum(w, g, s, a, t):
    s.v = 0.9 * s.v + g
    return w - a * s.v


def nesterov(w, g, s, a, t):
    s.v = 0.9 * s.v + g
    return w - a * (g + 0.9 * s.v)


def adagrad(w, g, s, a, t):
    s.v = s.v + g**2
    return w - a * g / (np.sqrt(s.v) + 1e-10)


def adadelta(w, g, s, a, t):
    s.v = 0.9 * s.v + 0.1 * g**2
    d = np.sqrt(s.u + 1e-6) / np.sqrt(s.v + 1e-6) * g
    s.u = 0.9 * s.u + 0.1 * d**2
    return w - a * d


def rmsprop(w, g, s, a, t):
    s.v = 0.99 * s.v + 0.01 * g**2
    return w - a * g / (np.sqrt(s.v) + 1e-8)


def adam(w, g, s, a, t):
    s.m = 0.9 * s.m + 0.1 * g
    s.v = 0.999 * s.v + 0.001 * g**2
    m, v = s.m / (1 - 0.9**t), s.v / (1 - 0.999**t)
    return w - a * m / (np.sqrt(v) + 1e-8)


def adamw(w, g, s, a, t):
    return adam(w - a * 0.01 * w, g, s, a, t)


def rprop(w, g, s, a, t):
    """The factor is 1.2 where the gradient keeps its sign, 0.5 where it changes it."""
    if t == 1:
        s.a, s.g = np.full_like(w, a), np.zeros_like(w)
    same = np.sign(g * s.g)
    s.a = np.clip(s.a * np.choose(same.astype(int) + 1, [0.5, 1, 1.2]), 1e-6, 50)
    s.g = np.where(same < 0, 0, g)  # after a change of sign, wait for a step
    return w - s.a * np.sign(s.g)


class State:
    """What an optimizer keeps for a parameter."""

    m = v = u = 0


RULES = {
    "SGD": (sgd, 0.5),
    "momentum": (momentum, 0.1),
    "Nesterov": (nesterov, 0.1),
    "Rprop": (rprop, 1e-2),
    "Adagrad": (adagrad, 1e-2),
    "Adadelta": (adadelta, 1),
    "RMSprop": (rmsprop, 1e-3),
    "Adam": (adam, 1e-2),
    "AdamW": (adamw, 1e-2),
}


def gradients(params):
    """Return the gradients of a two-layer network's loss at params, as NumPy arrays."""
    x, y = torch.eye(6, 5, dtype=torch.float64), torch.ones(6, 2, dtype=torch.float64)
    w1, b, w2 = params
    loss = ((x @ w1 + b).tanh() @ w2 - y).square().mean()
    return [g.numpy() for g in torch.autograd.grad(loss, params)]


@pytest.mark.parametrize("name", RULES)
def test_rule_of_the_readme_is_that_of_torch(name, compare):
    rule, rate = RULES[name]
    torch.manual_seed(0)
    shapes = (5, 4), (4,), (4, 2)
    params = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    optimizer = compare["makers"][name](params, lr=rate)
    by_hand = [w.detach().numpy().copy() for w in params]
    states = [State() for _ in params]
    for t in range(1, 51):
        for w, g in zip(params, gradients(params), strict=True):
            w.grad = torch.from_numpy(g)
        optimizer.step()
        copies = [torch.from_numpy(w).requires_grad_() for w in by_hand]
        together = zip(by_hand, gradients(copies), states, strict=True)
        by_hand = [rule(w, g, s, rate, t) for w, g, s in together]
    for found, expected in zip(params, by_hand, strict=True):
        np.testing.assert_allclose(found.detach(), expected, rtol=0, atol=1e-12)


def test_muon_makes_the_gradient_nearly_orthogonal(compare):
    """Its step has singular values near 1, times the rate and 0.2 * sqrt(rows)."""
    torch.manual_seed(0)
    matrix, bias = torch.randn(50, 10), torch.randn(50)
    before = matrix.clone()
    for w in (matrix, bias):
        w.grad = torch.randn_like(w)
    muon, adam = compare["makers"]["Muon"]([matrix, bias], lr=0.1)
    muon.step()
    step = torch.linalg.svdvals(before - matrix) / (0.1 * 0.2 * math.sqrt(50))
    assert 0.6 < step.min() and step.max() < 1.3
    assert [group["params"] for group in adam.param_groups] == [[bias]]


MEMORY = {"SGD": 0, "momentum": 1, "Nesterov": 1, "Rprop": 2, "Adagrad": 1}
MEMORY |= {"Adadelta": 2, "RMSprop": 1, "Adam": 2, "AdamW": 2, "LBFGS": 22}


def test_memory_is_what_the_rules_keep(rows):
    """A number per parameter for each letter; LBFGS: 10 pairs, a direction, a gradient.

    Adafactor keeps one for each row and each column of a matrix, and for each bias;
    Muon one for each number of a matrix, and what Adam keeps for each bias.
    """
    matrices, biases = 100 * 50 + 50 * 10, 50 + 10
    counts = {"Adafactor": 50 + 100 + 10 + 50 + biases, "Muon": matrices + 2 * biases}
    shares = {name: count / (matrices + biases) for name, count in counts.items()}
    found = {name: memory for name, (_, _, memory) in rows.items()}
    assert found == pytest.approx(MEMORY | shares, abs=0.006)


def test_time_is_that_of_the_fastest_step_as_a_multiple_of_that_of_sgd():
    """By a clock that stands still between them: how fast they are is no matter."""
    now = 0

    def lasting(optimizer, *seconds):
        step, seconds = optimizer.step, itertools.cycle(seconds)

        def slow_step(self, closure):
            nonlocal now
            now += next(seconds)
            return step(self, closure)

        return mock.patch.object(optimizer, "step", slow_step)

    with (
        lasting(torch.optim.SGD, 6, 4, 8),
        lasting(torch.optim.Adam, 50, 20, 10),
        mock.patch.object(time, "perf_counter", lambda: now),
        contextlib.redirect_stdout(io.StringIO()) as output,
    ):
        two = ("makers.items()", "[(n, makers[n]) for n in ('SGD', 'Adam')]")
        execute(COMPARE, two, argv=["--steps", "3"])
    assert re.findall(r"relative time (\S+)", output.getvalue()) == ["1.0", "2.5"]


def test_best_rates_differ_and_lie_within_the_rates_tried(rows):
    rates = [rate for rate, _, _ in rows.values()]
    assert len(rates) == 12
    assert max(rates) / min(rates) == pytest.approx(300, rel=0.1)
    for rate, steps, _ in rows.values():
        assert 1e-3 < rate < 10**0.5
        assert steps < 60


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_best_rate_is_the_best(name, compare, rows):
    def steps(k):
        losses, *_ = compare["train"](compare["makers"][name], 10 ** (k / 2), 60, 0.01)
        return len(losses) if losses[-1] <= 0.01 else math.inf

    best = min(range(-6, 2), key=steps)
    assert f"{10 ** (best / 2):.1e}" == f"{rows[name][0]:.1e}"
    assert steps(best) == rows[name][1]


def share(t):
    """The schedule of the README, for step t = 1, 2, ..."""
    if t <= 50:
        return t / 50
    return 0.5 + 0.5 * math.cos(math.pi * min(t - 51, 450) / 450)


FULL = {
    "first.weight": 2e-4,
    "first.bias": 1e-4,
    "last.weight": 2e-3,
    "last.bias": 1e-3,
}
DECAY = {"first.weight": 1e-2, "last.weight": 1e-1}


def groups_by_hand(variables, steps):
    """Train in NumPy and float64; yield the loss of each step."""
    x, y = (variables[name].double().numpy() for name in "xy")
    torch.manual_seed(0)
    first, last = torch.nn.Linear(1000, 100), torch.nn.Linear(100, 10)
    w = {
        f"{name}.{kind}": getattr(layer, kind).detach().double().numpy()
        for name, layer in (("first", first), ("last", last))
        for kind in ("weight", "bias")
    }
    states = {key: State() for key in w}
    for t in range(1, steps + 1):
        h = x @ w["first.weight"].T + w["first.bias"]
        relu = np.maximum(h, 0)
        error = relu @ w["last.weight"].T + w["last.bias"] - y
        yield np.square(error).sum()
        grad_h = 2 * error @ w["last.weight"] * (h > 0)
        grads = {"first.weight": grad_h.T @ x, "first.bias": grad_h.sum(0)}
        grads |= {"last.weight": 2 * error.T @ relu, "last.bias": 2 * error.sum(0)}
        for key, g in grads.items():
            rate, decay = FULL[key] * share(t), DECAY.get(key, 0)
            if key.startswith("first"):
                w[key] = momentum(w[key], g + decay * w[key], states[key], rate, t)
            else:
                w[key] = adam((1 - rate * decay) * w[key], g, states[key], rate, t)


def test_groups_train_as_by_hand():
    """Rules, rates, decays and schedule: a wrong one of a single bias would be seen."""
    variables = execute(GROUPS)
    expected = torch.tensor(list(groups_by_hand(variables, 120)), dtype=torch.float64)
    found = curve(GROUPS, steps=120, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_every_parameter_is_in_one_group():
    variables = execute(GROUPS)
    optimizers = [variables["sgd"], variables["adamw"]]
    held = [w for o in optimizers for group in o.param_groups for w in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, variables["model"].parameters()))
    for group in (group for o in optimizers for group in o.param_groups):
        (w,) = group["params"]
        assert (group["weight_decay"] > 0) == (w.ndim == 2)


def test_rates_follow_the_formula_at_every_step():
    """They are printed, and are those of the optimizers when they make their steps."""
    groups = "[g['lr'] for o in optimizers for g in o.param_groups]"
    variables = execute(
        GROUPS,
        ("for t in range", "used = []\nfor t in range"),
        ("model.zero_grad()", f"model.zero_grad()\n    used.append({groups})"),
        argv=["--steps", "520"],
    )
    expected = [[full * share(t) for full in FULL.values()] for t in range(1, 521)]
    np.testing.assert_allclose(variables["used"], expected, rtol=1e-12, atol=1e-18)
    assert expected[500:] == [[0, 0, 0, 0]] * 20


def test_rates_are_printed_beside_the_loss():
    out = finished((GROUPS,)).stdout
    rates = re.findall(r"^step +(\d+)  loss \S+  lr (.+)$", out, re.MULTILINE)
    assert [int(step) for step, _ in rates] == list(losses(out))
    for step, line in rates:
        expected = [full * share(int(step)) for full in FULL.values()]
        assert [float(r) for r in line.split()] == pytest.approx(expected, rel=0.05)
