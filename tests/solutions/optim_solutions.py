"""Solutions of optim/optim_exercises.py.

They are judged by: python optim/optim_exercises.py --answers THIS_FILE
"""

import math

import torch
from torch import nn


def gradient_step(parameters, lr):
    with torch.no_grad():
        for parameter in parameters:
            if parameter.grad is not None:
                parameter -= lr * parameter.grad


def momentum_steps(w, gradients, lr, momentum):
    v = torch.zeros_like(w)
    for gradient in gradients:
        v = momentum * v + gradient
        w = w - lr * v
    return w


def learning_rate(t, peak, lowest, warmup, steps):
    if t < warmup:
        return peak * (t + 1) / warmup
    progress = min(1, (t - warmup) / (steps - warmup))
    return lowest + (peak - lowest) * (1 + math.cos(math.pi * progress)) / 2


def parameter_groups(model, weight_decay):
    params = [param for param in model.parameters() if param.requires_grad]
    matrices = [param for param in params if param.ndim >= 2]
    others = [param for param in params if param.ndim < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0},
    ]


def clip_gradients(parameters, max_norm):
    gradients = [param.grad for param in parameters if param.grad is not None]
    norm = sum(gradient.square().sum() for gradient in gradients).sqrt()
    if norm > max_norm:
        for gradient in gradients:
            gradient *= max_norm / norm
    return norm


class AdamW:
    def __init__(self, params, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        self.params = list(params)
        self.lr = lr
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        self.t = 0
        self.m = [torch.zeros_like(param) for param in self.params]
        self.v = [torch.zeros_like(param) for param in self.params]

    @torch.no_grad()
    def step(self):
        self.t += 1
        beta1, beta2 = self.betas
        for param, m, v in zip(self.params, self.m, self.v):
            if param.grad is None:
                continue
            m.mul_(beta1).add_((1 - beta1) * param.grad)
            v.mul_(beta2).add_((1 - beta2) * param.grad.square())
            m_corrected = m / (1 - beta1**self.t)
            v_corrected = v / (1 - beta2**self.t)
            param *= 1 - self.lr * self.weight_decay
            param -= self.lr * m_corrected / (v_corrected.sqrt() + self.eps)


def step_in_parts(model, loss_fn, optimizer, parts):
    rows = sum(len(x) for x, y in parts)
    total = 0
    optimizer.zero_grad()
    for x, y in parts:
        loss = loss_fn(model(x), y) * len(x) / rows
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


class Training:
    def __init__(self):
        self.x = torch.linspace(-1, 1, 16)[:, None]
        self.y = torch.sin(3 * self.x)
        self.steps = 0
        self.model = nn.Sequential(
            nn.Linear(1, 20), nn.Tanh(), nn.Dropout(0.2), nn.Linear(20, 1)
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda t: 1 / (1 + t)
        )

    def train(self, until):
        """Train until that many steps are done; return their losses."""
        losses = []
        while self.steps < until:
            rows = torch.randperm(len(self.x))[:8]
            loss = nn.functional.mse_loss(self.model(self.x[rows]), self.y[rows])
            losses.append(loss.item())

            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self.steps += 1
        return losses

    def state_dict(self):
        return {
            "steps": self.steps,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": torch.get_rng_state(),
        }

    def load_state_dict(self, state):
        self.steps = state["steps"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        torch.set_rng_state(state["generator"])


def fit_plane(x, y):
    model = nn.Linear(x.shape[1], 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.1)
    losses = []
    for epoch in range(40):
        total = 0
        for rows in torch.randperm(len(x)).split(4):
            loss = nn.functional.mse_loss(model(x[rows]), y[rows])
            total += loss.item() * len(rows)

            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
        losses.append(total / len(x))
    return losses
