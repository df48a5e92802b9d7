"""Wrong answers to autograd/autograd_exercises.py, each with words of its verdict.

A name ends in two underscores and what is wrong.
"""

import math

import numpy as np
import torch


def gradient__of_what_autograd_does_not_record(f, x):
    """RuntimeError: element 0 of tensors does not require grad"""
    f(x).backward()
    return x.grad


def gradient__that_marks_x(f, x):
    """x requires a gradient when you return, and did not before"""
    x.requires_grad_()
    (result,) = torch.autograd.grad(f(x), x)
    x.grad = None
    return result


def gradient__that_fills_x_grad(f, x):
    """x.grad is not empty when you return"""
    x.requires_grad_()
    f(x).backward()
    x.requires_grad_(False)
    return x.grad


def gradient__as_a_tuple(f, x):
    """is of type tuple, wanted a tensor"""
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(f(leaf), leaf)


def gradient__as_backward_returns_it(f, x):
    """is None: is there a return missing?"""
    leaf = x.clone().requires_grad_()
    return f(leaf).backward()


def accumulated_gradient__in_one_graph(loss_of, w, batches):
    """you compute a loss before going backward through the last one"""
    w.grad = None
    sum(loss_of(w, batch) for batch in batches).backward()
    return w.grad


def accumulated_gradient__of_all_rows_at_once(loss_of, w, batches):
    """your answer[0] is"""
    w.grad = None
    loss_of(w, torch.cat(batches)).backward()
    return w.grad


def accumulated_gradient__of_the_last_batch(loss_of, w, batches):
    """your answer[0] is"""
    for batch in batches:
        w.grad = None
        loss_of(w, batch).backward()
    return w.grad


def accumulated_gradient__of_the_mean(loss_of, w, batches):
    """your answer[0] is"""
    w.grad = None
    for batch in batches:
        (loss_of(w, batch) / len(batches)).backward()
    return w.grad


def accumulated_gradient__on_top_of_an_earlier_step(loss_of, w, batches):
    """where w.grad holds ones beforehand, your answer[0] is"""
    for batch in batches:
        loss_of(w, batch).backward()
    return w.grad.clone()


def straight_through__without_detach(x):
    """given a random gradient of your answer, x.grad[0, 0] is 0, wanted"""
    return x + (x.round() - x)


def straight_through__only_rounded(x):
    """given a random gradient of your answer, x.grad[0, 0] is 0, wanted"""
    return x.round()


def straight_through__all_detached(x):
    """no gradient arrives at x"""
    return (x + (x.round() - x)).detach()


def straight_through__from_a_new_leaf(x):
    """no gradient arrives at x"""
    return x.detach().round().requires_grad_()


def straight_through__of_ones(x):
    """given a random gradient of your answer, x.grad[0, 0] is 1, wanted"""

    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.round()

        @staticmethod
        def backward(ctx, grad_output):
            return torch.ones_like(grad_output)

    return Round.apply(x)


def straight_through__not_rounded(x):
    """your answer["""
    return x + (x - x.round()).detach()


def differences(f, x, quotient, h):
    result = torch.zeros_like(x)
    for index in np.ndindex(*x.shape):
        above, below = x.clone(), x.clone()
        above[index] += h
        below[index] -= h
        result[index] = quotient(above, below)
    return result


def numeric_gradient__by_forward_differences(f, x, h):
    """your answer[0, 0] is"""
    return differences(f, x, lambda above, below: (f(above) - f(x)) / h, h)


def numeric_gradient__divided_by_h(f, x, h):
    """your answer[0, 0] is"""
    return differences(f, x, lambda above, below: (f(above) - f(below)) / h, h)


def numeric_gradient__of_all_elements_at_once(f, x, h):
    """has shape (), wanted (2, 3)"""
    return (f(x + h) - f(x - h)) / (2 * h)


def numeric_gradient__in_place(f, x, h):
    """you change x in place"""
    result = torch.zeros_like(x)
    for index in np.ndindex(*x.shape):
        x[index] += h
        above = f(x)
        x[index] -= 2 * h
        result[index] = (above - f(x)) / (2 * h)
    return result


def numeric_gradient__in_float64(f, x, h):
    """has dtype torch.float64, wanted torch.float32"""
    result = differences(f, x, lambda above, below: (f(above) - f(below)) / (2 * h), h)
    return result.double()


def numeric_gradient__that_does_not_go_back(f, x, h):
    """your answer["""
    result = torch.zeros_like(x)
    above, below = x.clone(), x.clone()
    for index in np.ndindex(*x.shape):
        above[index] += h
        below[index] -= h
        result[index] = (f(above) - f(below)) / (2 * h)
    return result


def softmax_backward__of_the_diagonal(p, grad_p):
    """your answer[0, 0] is"""
    return grad_p * p * (1 - p)


def softmax_backward__summed_over_the_rows(p, grad_p):
    """your answer[0, 0] is"""
    return p * (grad_p - (p * grad_p).sum(dim=0))


def softmax_backward__without_keepdim(p, grad_p):
    """The size of tensor a (3) must match the size of tensor b (2)"""
    return p * (grad_p - (p * grad_p).sum(dim=1))


def softmax_backward__without_the_factor(p, grad_p):
    """your answer["""
    return grad_p - (p * grad_p).sum(dim=1, keepdim=True)


def squared_error(derivative):
    """Return a Function with this derivative."""

    class SquaredError(torch.autograd.Function):
        @staticmethod
        def forward(ctx, prediction, target):
            ctx.save_for_backward(prediction, target)
            return (prediction - target).square().sum()

        @staticmethod
        def backward(ctx, grad_output):
            return derivative(grad_output, *ctx.saved_tensors)

    return SquaredError


class SquaredError__without_grad_output(
    squared_error(lambda grad, p, t: (2 * (p - t), 2 * (t - p)))
):
    """where grad_output is 3, the gradient of prediction[0, 0] is"""


class SquaredError__with_the_sign_of_the_prediction(
    squared_error(lambda grad, p, t: (grad * 2 * (p - t), grad * 2 * (p - t)))
):
    """where grad_output is 3, the gradient of target[0, 0] is"""


class SquaredError__without_the_target(
    squared_error(lambda grad, p, t: (grad * 2 * (p - t), None))
):
    """backward returns no gradient of target"""


class SquaredError__with_one_gradient(
    squared_error(lambda grad, p, t: grad * 2 * (p - t))
):
    """returned an incorrect number of gradients (expected 2, got 1)"""


LAST = {}


class SquaredError__with_one_memory_for_all_calls(torch.autograd.Function):
    """through two calls of apply(), the gradient of the first prediction[0, 0] is 6"""

    @staticmethod
    def forward(ctx, prediction, target):
        LAST["difference"] = prediction - target
        return LAST["difference"].square().sum()

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output * 2 * LAST["difference"], grad_output * -2 * LAST[
            "difference"
        ]


class SquaredError__of_the_mean(torch.autograd.Function):
    """your answer is"""

    @staticmethod
    def forward(ctx, prediction, target):
        return (prediction - target).square().mean()


def SquaredError__by_autograd(prediction, target):
    """your answer does not come from a torch.autograd.Function"""
    return (prediction - target).square().sum()


class Tape:
    """A right answer, but for what is changed below."""

    def __init__(self, data, operands=()):
        self.data = data
        self.grad = 0.0
        self.operands = operands

    def __add__(self, other):
        to_self = (self, lambda grad: grad)
        to_other = (other, lambda grad: grad)
        return type(self)(self.data + other.data, [to_self, to_other])

    def __mul__(self, other):
        to_self = (self, lambda grad: grad * other.data)
        to_other = (other, lambda grad: grad * self.data)
        return type(self)(self.data * other.data, [to_self, to_other])

    def exp(self):
        result = math.exp(self.data)
        return type(self)(result, [(self, lambda grad: grad * result)])

    def backward(self, grad=1.0):
        self.grad += grad
        for operand, rule in self.operands:
            operand.backward(rule(grad))


class Scalar__with_the_factors_mixed_up(Tape):
    """after loss = a * b and loss.backward(), once, a.grad is 1.5, wanted -0.5"""

    def __mul__(self, other):
        to_self = (self, lambda grad: grad * self.data)
        to_other = (other, lambda grad: grad * other.data)
        return type(self)(self.data * other.data, [to_self, to_other])


class Scalar__without_the_gradient_that_arrives(Tape):
    """after loss = a * (a + b).exp() and loss.backward(), once, a.grad is"""

    def exp(self):
        result = math.exp(self.data)
        return type(self)(result, [(self, lambda grad: result)])


class Scalar__that_does_not_add_up(Tape):
    """after loss = a * b and loss.backward(), twice, a.grad is -0.5, wanted -1"""

    def backward(self, grad=1.0):
        self.grad = grad
        for operand, rule in self.operands:
            operand.backward(rule(grad))


class Scalar__that_passes_on_what_it_has_had(Tape):
    """after loss = c * c + c with c = (a * b).exp() and loss.backward(), once"""

    def backward(self, grad=1.0):
        self.grad += grad
        for operand, rule in self.operands:
            operand.backward(rule(self.grad))


def hessian_times_vector__of_the_gradient(f, x, v):
    """your answer["""
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f(leaf), leaf)
    return gradient * v


def hessian_times_vector__of_the_sum_of_the_gradient(f, x, v):
    """for f = x.sum(dim=0).square().sum()"""
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f(leaf), leaf, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), leaf)
    return second * v


def hessian_times_vector__without_create_graph(f, x, v):
    """RuntimeError: element 0 of tensors does not require grad"""
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f(leaf), leaf)
    (product,) = torch.autograd.grad((gradient * v).sum(), leaf)
    return product


def hessian_times_vector__that_marks_x(f, x, v):
    """x requires a gradient when you return, and did not before"""
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(f(x), x, create_graph=True)
    (product,) = torch.autograd.grad(gradient, x, v)
    return product


def fit_curve__as_it_was(x, y):
    """the loss ends at 0.1203, wanted less than 1e-05"""
    return fit(x, y, lambda h: torch.from_numpy(np.tanh(h.detach().numpy())))


def fit_curve__with_data(x, y):
    """the loss ends at 0.1203"""
    return fit(x, y, lambda h: h.data.tanh())


def fit_curve__with_a_new_leaf(x, y):
    """the loss ends at 0.1203"""
    return fit(x, y, lambda h: h.detach().tanh().requires_grad_())


def fit_curve__without_tanh(x, y):
    """the loss of step 1 is"""
    return fit(x, y, lambda h: h)


def fit_curve__by_tensors(x, y):
    """wanted a number"""
    return [torch.tensor(loss) for loss in fit(x, y, torch.tanh)]


def fit(x, y, tanh):
    w1 = torch.ones(1, 1, requires_grad=True)
    w2 = torch.ones(1, 1, requires_grad=True)
    losses = []
    for t in range(200):
        loss = (tanh(x @ w1) @ w2 - y).square().mean()
        losses.append(loss.item())

        loss.backward()
        with torch.no_grad():
            for w in w1, w2:
                if w.grad is not None:
                    w -= w.grad
                    w.grad = None
    return losses
