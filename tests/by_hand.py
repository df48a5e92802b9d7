"""The optimizers of the page optim/README.md in NumPy, and a training by them.

A rule is one step for a parameter w with the gradient g, at the learning rate a, in
step t = 1, 2, ... s is what it keeps for the parameter, all of it 0 at first. It
returns the new parameter.
"""

from types import SimpleNamespace

import numpy as np
import torch
from torch.nn.functional import linear


def sgd(w, g, s, a, t):
    return w - a * g


def momentum(w, g, s, a, t, decay=0):
    s.v = 0.9 * s.v + g + decay * w
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


def adamw(w, g, s, a, t, decay=0.01):
    return adam(w - a * decay * w, g, s, a, t)


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


def standard_normal(*shapes):
    """Return x and y as the scripts draw them, in float64."""
    randn = np.random.default_rng(0).standard_normal
    return [torch.tensor(randn(shape, np.float32)).double() for shape in shapes]


def errors(x, y, w1, b1, w2, b2):
    """Return the errors of a two-layer network with weights (outputs, inputs)."""
    return linear(linear(x, w1, b1).relu(), w2, b2) - y


def train(rules, loss_of, params, steps):
    """Let each parameter follow its rule, in float64; return (losses, parameters)."""
    arrays = [param.detach().double().numpy() for param in params]
    states = [SimpleNamespace(m=0, v=0, u=0) for _ in arrays]
    losses = []
    for t in range(1, steps + 1):
        leaves = [torch.tensor(w, requires_grad=True) for w in arrays]
        loss = loss_of(*leaves)
        losses.append(loss.item())
        grads = torch.autograd.grad(loss, leaves)
        together = zip(rules, arrays, grads, states, strict=True)
        arrays = [rule(w, g.numpy(), s, t=t) for rule, w, g, s in together]
    return losses, arrays
