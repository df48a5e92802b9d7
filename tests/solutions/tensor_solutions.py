"""Solutions of tensor/tensor_exercises.py.

They are judged by: python tensor/tensor_exercises.py --answers THIS_FILE
"""

import torch


def outer_product(x, y):
    return x[:, None] * y


def row_means(x):
    return x.mean(dim=1)


def one_hot(labels, classes):
    return (labels[:, None] == torch.arange(classes)).float()


def standardize(x):
    deviations = x.std(dim=0, correction=0)
    return (x - x.mean(dim=0)) / torch.where(deviations == 0, 1, deviations)


def sliding_windows(x, size):
    return x.unfold(0, size, 1)


def bilinear_scores(x, weight, y):
    return torch.einsum("nd,de,me->nm", x, weight, y)


def squared_distances(x, y):
    return (x[:, None] - y).square().sum(dim=2)


def confusion_matrix(targets, predictions, classes):
    pairs = targets * classes + predictions
    return pairs.bincount(minlength=classes * classes).reshape(classes, classes)


def two_layer_net(x, y, w1, w2, steps):
    w1, w2 = w1.clone(), w2.clone()
    losses = []
    for t in range(steps):
        h = x @ w1
        h_relu = h.clamp(min=0)
        y_pred = h_relu @ w2
        losses.append((y_pred - y).square().sum().item())

        grad_y_pred = 2 * (y_pred - y)
        grad_w2 = h_relu.T @ grad_y_pred
        grad_h_relu = grad_y_pred @ w2.T
        grad_h = grad_h_relu * (h > 0)
        grad_w1 = x.T @ grad_h

        w1 -= 1e-6 * grad_w1
        w2 -= 1e-6 * grad_w2
    return losses


def fit_line(x, y):
    weight, bias = torch.zeros(1, 1), torch.zeros(1)
    losses = []
    for t in range(200):
        y_pred = x @ weight + bias
        error = y_pred - y[:, None]
        losses.append(error.square().mean().item())

        grad_y_pred = 2 * error / error.numel()
        weight -= 0.1 * x.T @ grad_y_pred.sum(dim=1, keepdim=True)
        bias -= 0.1 * grad_y_pred.sum()
    return losses
