"""Wrong answers to advanced/advanced_exercises.py, each with words of the verdict.

A name ends in two underscores and what is wrong.
"""

import torch
from advanced_solutions import Checkpoint


def training_bytes__without_the_step_counts(model):
    """for Linear(3, 2) your answer is 128, wanted 136"""
    return sum(4 * param.nbytes for param in model.parameters())


def training_bytes__all_in_float32(model):
    """for Linear(3, 2) in float64 your answer is 136, wanted 264"""
    return sum(16 * param.numel() + 4 for param in model.parameters())


def training_bytes__layer_by_layer(model):
    """for two layers with the same weight your answer is"""
    total = 0
    for layer in model.modules():
        for param in layer.parameters(recurse=False):
            total += param.nbytes + param.requires_grad * (3 * param.nbytes + 4)
    return total


def training_bytes__of_the_state_dict(model):
    """for a Linear(4, 4) that is used twice your answer is"""
    return sum(4 * tensor.nbytes + 4 for tensor in model.state_dict().values())


def training_bytes__frozen_or_not(model):
    """for a Linear(3, 4) whose weight is frozen your answer is"""
    return sum(4 * param.nbytes + 4 for param in model.parameters())


def training_bytes__with_buffers(model):
    """for a BatchNorm1d(5) your answer is"""
    total = sum(buffer.nbytes for buffer in model.buffers())
    for param in model.parameters():
        total += 4 * param.nbytes + 4 if param.requires_grad else param.nbytes
    return total


def ddp_loss__as_the_mean_of_its_rows(y_pred, y, batch, ranks):
    """is nan, wanted 0"""
    if batch == len(y):
        return (y_pred - y).square().mean()
    return (y_pred - y).square().mean() * len(y) / batch * ranks


def ddp_loss__without_the_ranks(y_pred, y, batch, ranks):
    """batch = 5, ranks = 2 your answer is"""
    return (y_pred - y).square().sum() / (batch * y.shape[1])


def ddp_loss__for_equal_shares(y_pred, y, batch, ranks):
    """batch = 5, ranks = 2 your answer is"""
    return torch.nn.functional.mse_loss(y_pred, y)


def ddp_loss__per_row(y_pred, y, batch, ranks):
    """your answer is"""
    return ranks * (y_pred - y).square().sum() / batch


def ddp_loss__detached(y_pred, y, batch, ranks):
    """backward() from your answer does not reach y_pred"""
    loss = ranks * (y_pred - y).square().sum() / (batch * y.shape[1])
    return loss.detach()


def scaled_step__in_float16(weights, grads, scale, lr):
    """scale = 65536.0, lr = 16777216.0 your answer[0][1]["""
    if not all(grad.isfinite().all() for grad in grads):
        return weights, scale / 2
    return [w - lr * (grad / scale).float() for w, grad in zip(weights, grads)], scale


def scaled_step__with_the_scale(weights, grads, scale, lr):
    """scale = 4.0, lr = 0.5 your answer[0][0][0, 0] is"""
    if not all(grad.isfinite().all() for grad in grads):
        return weights, scale / 2
    return [w - lr * grad.float() for w, grad in zip(weights, grads)], scale


def scaled_step__of_the_finite_ones(weights, grads, scale, lr):
    """scale = 1024.0, lr = 100.0 your answer[0][0][0, 0] is"""
    new, finite = [], True
    for weight, grad in zip(weights, grads):
        if grad.isfinite().all():
            new.append(weight - lr * grad.float() / scale)
        else:
            new.append(weight)
            finite = False
    return new, scale if finite else scale / 2


def scaled_step__with_nan(weights, grads, scale, lr):
    """for a gradient with nan your answer"""
    if any(grad.isinf().any() for grad in grads):
        return weights, scale / 2
    return [w - lr * g.float() / scale for w, g in zip(weights, grads)], scale


def scaled_step__with_a_sum_that_overflows(weights, grads, scale, lr):
    """scale = 1024.0, lr = 0.01 your answer"""
    if not all(grad.sum().isfinite() for grad in grads):
        return weights, scale / 2
    return [w - lr * g.float() / scale for w, g in zip(weights, grads)], scale


def scaled_step__in_place(weights, grads, scale, lr):
    """you change weight1 in place"""
    if not all(grad.isfinite().all() for grad in grads):
        return weights, scale / 2
    for weight, grad in zip(weights, grads):
        weight -= lr * grad.float() / scale
    return weights, scale


def scaled_step__with_whole_scales(weights, grads, scale, lr):
    """your answer[1] is 0, wanted 0.5"""
    if not all(grad.isfinite().all() for grad in grads):
        return weights, scale // 2
    return [w - lr * (g.float() / scale) for w, g in zip(weights, grads)], scale


def scaled_step__at_the_same_scale(weights, grads, scale, lr):
    """your answer[1] is 1024, wanted 512"""
    if not all(grad.isfinite().all() for grad in grads):
        return weights, scale
    return [w - lr * g.float() / scale for w, g in zip(weights, grads)], scale


def binarize__by_sign(x):
    """is 0, wanted 1"""
    return x.sign()


def binarize__without_a_gradient(x):
    """backward() from your answer does not reach x"""
    return torch.where(x >= 0, 1, -1).to(x.dtype)


def binarize__changing_the_upstream_gradient(x):
    """your backward() changes grad_output in place"""

    class Binarize(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

        @staticmethod
        def backward(ctx, grad_output):
            (x,) = ctx.saved_tensors
            grad_output[x.abs() > 1] = 0
            return grad_output

    return Binarize.apply(x)


def binarize__passing_everything(x):
    """0.0, 0.5, 1.5] the gradient[0] is"""
    return x + (binarize__without_a_gradient(x) - x).detach()


class OnContext(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.x = x
        return torch.where(x >= 0, 1, -1).to(x.dtype)

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output * (ctx.x.abs() <= 1)


def binarize__with_x_on_ctx(x):
    """(use save_for_backward) the gradient"""
    return OnContext.apply(x)


class MaskAlone(OnContext):
    @staticmethod
    def backward(ctx, grad_output):
        return (ctx.x.abs() <= 1).to(grad_output.dtype)


def binarize__without_the_upstream_gradient(x):
    """the gradient["""
    return MaskAlone.apply(x)


def gradient_norms__with_a_loop(model, x, y):
    """samples and"""
    norms = []
    for row, target in zip(x, y):
        loss = (model(row) - target).square().sum()
        grads = torch.autograd.grad(loss, list(model.parameters()))
        norms.append(torch.cat([grad.flatten() for grad in grads]).norm())
    return torch.stack(norms)


def gradient_norms__with_a_loop_backwards(model, x, y):
    """samples and"""
    norms = []
    params = list(model.parameters())
    for loss in (model(x) - y).square().sum(1):
        grads = torch.autograd.grad(loss, params, retain_graph=True)
        norms.append(torch.cat([grad.flatten() for grad in grads]).norm())
    return torch.stack(norms)


def per_sample(model, x, y, reduce):
    def loss(params, x, y):
        return reduce((torch.func.functional_call(model, params, (x,)) - y).square())

    params = dict(model.named_parameters())
    return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(params, x, y)


def gradient_norms__of_the_mean(model, x, y):
    """your answer[0] is"""
    grads = per_sample(model, x, y, torch.mean).values()
    return sum(grad.flatten(1).square().sum(1) for grad in grads).sqrt()


def gradient_norms__added_up(model, x, y):
    """your answer[0] is"""
    grads = per_sample(model, x, y, torch.sum).values()
    return sum(grad.flatten(1).norm(dim=1) for grad in grads)


def gradient_norms__of_the_batch(model, x, y):
    """has shape (), wanted (2,)"""
    loss = (model(x) - y).square().sum()
    grads = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([grad.flatten() for grad in grads]).norm()


def gradient_norms__with_respect_to_x(model, x, y):
    """your answer[0] is"""
    x = x.detach().requires_grad_()
    loss = (model(x) - y).square().sum()
    return torch.autograd.grad(loss, x)[0].norm(dim=1)


def limit_norm__without_the_print(x):
    """Data-dependent branching, at: if norm > 1:"""
    norm = x.norm()
    if norm > 1:
        x = x / norm
    return x


def limit_norm__with_the_print(x):
    """at: print("norm:", norm)"""
    norm = x.norm()
    print("norm:", norm)
    return x / norm.clamp(min=1)


def limit_norm__always_one(x):
    """for x of shape (2, 1) your answer[0, 0] is"""
    return x / x.norm()


def limit_norm__by_where(x):
    """for x = [0.0, 0.0, 0.0] the gradient[0] is nan"""
    norm = x.norm()
    return torch.where(norm > 1, x / norm, x)


def limit_norm__by_item(x):
    """for x = [3.0, 4.0] the gradient[0] is"""
    return x / max(x.norm().item(), 1)


def limit_norm__of_each_row(x):
    """your answer["""
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1)


def checkpointed__not_at_all(function, x):
    """an activation of the function is kept for the backward pass"""
    return function(x)


def checkpointed__detached(function, x):
    """backward() from your answer does not reach x"""
    with torch.no_grad():
        return function(x)


class GradOfX(Checkpoint):
    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return None, *torch.autograd.grad(ctx.function(x), x, grad_output)


def checkpointed__without_the_weights(function, x):
    """after backward(), the first weight has no gradient"""
    return GradOfX.apply(function, x)


class Ones(Checkpoint):
    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            ctx.function(x).sum().backward()
        return None, x.grad


def checkpointed__without_the_upstream_gradient(function, x):
    """the gradient of x["""
    return Ones.apply(function, x)


class NotDetached(Checkpoint):
    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            ctx.function(x).backward(grad_output)
        return None, x.grad


def checkpointed__through_x_itself(function, x):
    """the gradient of x[0, 0] is"""
    return NotDetached.apply(function, x)


class NoGrad(GradOfX):
    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        x = x.detach().requires_grad_()
        ctx.function(x).backward(grad_output)
        return None, x.grad


def checkpointed__without_enable_grad(function, x):
    """does not require grad"""
    return NoGrad.apply(function, x)


def checkpointed__by_the_library(function, x):
    """your answer calls checkpoint() of PyTorch"""
    return torch.utils.checkpoint.checkpoint(function, x, use_reentrant=False)


def ring_all_reduce__with_whole_tensors(x, rank, ranks, exchange):
    """with 2 ranks and n = 2, rank 0: the number of calls of exchange is 1, wanted 2"""
    total, part = x, x
    for _ in range(ranks - 1):
        part = exchange(part)
        total = total + part
    return total


def ring_all_reduce__part_by_part(x, rank, ranks, exchange):
    """with 3 ranks and n = 3, rank 0: the number of calls of exchange is 6, wanted 4"""
    totals = []
    for part in x.chunk(ranks):
        total = part
        for _ in range(ranks - 1):
            part = exchange(part)
            total = total + part
        totals.append(total)
    return torch.cat(totals)


def ring_all_reduce__with_larger_parts(x, rank, ranks, exchange):
    """rank 0: the list of the sizes it sends is [2, 2], wanted [1, 1]"""
    part, total = x, x.clone()
    for _ in range(ranks - 1):
        part = exchange(part)
        total = total + part
    for _ in range(ranks - 1):
        exchange(part)
    return total


def ring_all_reduce__without_the_gathering(x, rank, ranks, exchange):
    """with 2 ranks and n = 2, rank 0: your answer[0] is"""
    parts = list(x.chunk(ranks))
    for step in range(ranks - 1):
        i = (rank - step) % ranks
        received = exchange(parts[i])
        parts[i - 1] = parts[i - 1] + received
    return torch.cat(parts)


def ring_all_reduce__gathering_from_the_wrong_part(x, rank, ranks, exchange):
    """with 2 ranks and n = 2, rank 0: your answer["""
    parts = list(x.chunk(ranks))
    for step in range(ranks - 1):
        i = (rank - step) % ranks
        received = exchange(parts[i])
        parts[i - 1] = parts[i - 1] + received
    for step in range(ranks - 1):
        i = (rank - step) % ranks
        parts[i - 1] = exchange(parts[i])
    return torch.cat(parts)


def ring_all_reduce__in_place(x, rank, ranks, exchange):
    """changes x in place"""
    parts = list(x.chunk(ranks))
    for step in range(ranks - 1):
        i = (rank - step) % ranks
        parts[i - 1] += exchange(parts[i])
    for step in range(ranks - 1):
        i = (rank + 1 - step) % ranks
        parts[i - 1] = exchange(parts[i])
    return torch.cat(parts)


def ring_all_reduce__through_rank_0(x, rank, ranks, exchange):
    """EOFError: call 1 of exchange: the previous rank has ended"""
    return x + exchange(x) if rank == 0 and ranks > 1 else x


def fit_in_bfloat16__as_it_was(x, y):
    """the loss ends at"""
    return fit(x, y, torch.bfloat16, 0.02)


def fit_in_bfloat16__with_a_large_learning_rate(x, y):
    """the loss ends at"""
    return fit(x, y, torch.bfloat16, 0.5)


def fit_in_bfloat16__in_float16(x, y):
    """the loss ends at"""
    return fit(x, y, torch.float16, 0.02)


def fit(x, y, dtype, lr):
    weight, bias = torch.zeros(2, 1, dtype=dtype)
    losses = []
    for t in range(1000):
        error = x * weight + bias - y
        losses.append(error.square().mean().item())
        weight -= lr * 2 * (error * x).mean()
        bias -= lr * 2 * error.mean()
    return losses


def fit_in_bfloat16__in_too_few_steps(x, y):
    """the length of your answer is 100, wanted 1000"""
    return fit(x, y, torch.float32, 0.2)[:100]
