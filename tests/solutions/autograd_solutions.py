"""Solutions of autograd/autograd_exercises.py.

They are judged by: python autograd/autograd_exercises.py --answers THIS_FILE
"""

import math

import numpy as np
import torch


def gradient(f, x):
    leaf = x.clone().requires_grad_()
    f(leaf).backward()
    return leaf.grad


def accumulated_gradient(loss_of, w, batches):
    w.grad = None
    for batch in batches:
        loss_of(w, batch).backward()
    return w.grad


def straight_through(x):
    return x + (x.round() - x).detach()


def numeric_gradient(f, x, h):
    gradient = torch.zeros_like(x)
    for index in np.ndindex(*x.shape):
        above, below = x.clone(), x.clone()
        above[index] += h
        below[index] -= h
        gradient[index] = (f(above) - f(below)) / (2 * h)
    return gradient


def softmax_backward(p, grad_p):
    return p * (grad_p - (p * grad_p).sum(dim=1, keepdim=True))


class SquaredError(torch.autograd.Function):
    @staticmethod
    def forward(ctx, prediction, target):
        ctx.save_for_backward(prediction, target)
        return (prediction - target).square().sum()

    @staticmethod
    def backward(ctx, grad_output):
        prediction, target = ctx.saved_tensors
        grad_prediction = grad_output * 2 * (prediction - target)
        return grad_prediction, -grad_prediction


class Scalar:
    def __init__(self, data, operands=()):
        self.data = data
        self.grad = 0.0
        self.operands = operands

    def __add__(self, other):
        to_self = (self, lambda grad: grad)
        to_other = (other, lambda grad: grad)
        return Scalar(self.data + other.data, [to_self, to_other])

    def __mul__(self, other):
        to_self = (self, lambda grad: grad * other.data)
        to_other = (other, lambda grad: grad * self.data)
        return Scalar(self.data * other.data, [to_self, to_other])

    def exp(self):
        result = math.exp(self.data)
        return Scalar(result, [(self, lambda grad: grad * result)])

    def backward(self, grad=1.0):
        self.grad += grad
        for operand, rule in self.operands:
            operand.backward(rule(grad))


def hessian_times_vector(f, x, v):
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f(leaf), leaf, create_graph=True)
    (product,) = torch.autograd.grad((gradient * v).sum(), leaf)
    return product


def fit_curve(x, y):
    w1 = torch.ones(1, 1, requires_grad=True)
    w2 = torch.ones(1, 1, requires_grad=True)
    learning_rate = 1
    losses = []
    for t in range(200):
        h = x @ w1
        h_tanh = h.tanh()
        y_pred = h_tanh @ w2
        loss = (y_pred - y).square().mean()
        losses.append(loss.item())

        loss.backward()
        with torch.no_grad():
            for w in w1, w2:
                if w.grad is not None:
                    w -= learning_rate * w.grad
                    w.grad = None
    return losses
