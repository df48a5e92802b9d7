"""Solutions of advanced/advanced_exercises.py.

They are judged by: python advanced/advanced_exercises.py --answers THIS_FILE
"""

import torch
from torch.func import functional_call, grad, vmap


def training_bytes(model):
    total = 0
    for param in model.parameters():
        total += param.nbytes
        if param.requires_grad:
            total += 3 * param.nbytes + 4
    return total


def ddp_loss(y_pred, y, batch, ranks):
    return ranks * (y_pred - y).square().sum() / (batch * y.shape[1])


def scaled_step(weights, grads, scale, lr):
    if not all(grad.isfinite().all() for grad in grads):
        return weights, scale / 2
    new = [w - lr * (grad.float() / scale) for w, grad in zip(weights, grads)]
    return new, scale


class Binarize(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return torch.where(x >= 0, 1, -1).to(x.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        return grad_output * (x.abs() < 1)


def binarize(x):
    return Binarize.apply(x)


def gradient_norms(model, x, y):
    def sample_loss(params, x, y):
        return (functional_call(model, params, (x,)) - y).square().sum()

    params = {name: param.detach() for name, param in model.named_parameters()}
    grads = vmap(grad(sample_loss), in_dims=(None, 0, 0))(params, x, y)
    return sum(g.flatten(1).square().sum(1) for g in grads.values()).sqrt()


def limit_norm(x):
    return x / x.norm().clamp(min=1)


class Checkpoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, x):
        ctx.function = function
        ctx.save_for_backward(x)
        return function(x)

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.function(x)
        y.backward(grad_output)
        return None, x.grad


def checkpointed(function, x):
    return Checkpoint.apply(function, x)


def ring_all_reduce(x, rank, ranks, exchange):
    parts = list(x.reshape(ranks, -1))
    i = rank
    for _ in range(ranks - 1):  # reduce-scatter
        received = exchange(parts[i])
        i = (i - 1) % ranks
        parts[i] = parts[i] + received
    for _ in range(ranks - 1):  # all-gather
        received = exchange(parts[i])
        i = (i - 1) % ranks
        parts[i] = received
    return torch.cat(parts)


def fit_in_bfloat16(x, y):
    weight, bias = torch.zeros(2, 1)
    losses = []
    for t in range(1000):
        error = x * weight + bias - y
        losses.append(error.square().mean().item())

        grad_weight = 2 * (error * x).mean()
        grad_bias = 2 * error.mean()
        weight -= 0.02 * grad_weight
        bias -= 0.02 * grad_bias
    return losses
