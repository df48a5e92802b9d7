"""Fit a two-layer ReLU network with a small autograd of our own, written in NumPy.

Every operation records what it was applied to and the rule for its gradient, as on a
tape; backward() goes through this record from the loss to the weights. It ends up doing
what the pass by hand does: all losses are the same, bit for bit.
"""

import argparse

import numpy as np


class Array:
    """A NumPy array that remembers how it was computed.

    operands has a pair for each array that it was computed from and that needs a
    gradient: that array, and the rule by which it gets its gradient from the result's.
    """

    def __init__(self, data, requires_grad=False, operands=()):
        self.data = data
        self.grad = 0
        self.operands = [pair for pair in operands if pair[0].requires_grad]
        self.requires_grad = requires_grad or len(self.operands) > 0

    def __matmul__(self, other):
        to_self = (self, lambda grad: grad @ other.data.T)
        to_other = (other, lambda grad: self.data.T @ grad)
        return Array(self.data @ other.data, operands=[to_self, to_other])

    def __sub__(self, other):
        to_self = (self, lambda grad: grad)
        to_other = (other, lambda grad: -grad)
        return Array(self.data - other.data, operands=[to_self, to_other])

    def relu(self):
        to_self = (self, lambda grad: grad * (self.data > 0))
        return Array(np.maximum(self.data, 0), operands=[to_self])

    def square(self):
        to_self = (self, lambda grad: 2 * self.data * grad)
        return Array(np.square(self.data), operands=[to_self])

    def sum(self):
        to_self = (self, lambda grad: np.full_like(self.data, grad))
        return Array(self.data.sum(), operands=[to_self])

    def backward(self):
        """Add the gradient of this array to w.grad, for every weight w behind it."""
        # Find all arrays behind this one, and count how often each was used.
        uses = {self: 0}
        arrays = [self]
        for array in arrays:  # the list grows while the loop goes through it
            for operand, _ in array.operands:
                if operand not in uses:
                    uses[operand] = 0
                    arrays.append(operand)
                uses[operand] += 1

        # Pass the gradients on. An array is ready once every use has sent its share.
        grads = {self: np.ones_like(self.data)}
        ready = [self]
        for array in ready:
            grad = grads.pop(array)
            if not array.operands:
                array.grad = array.grad + grad
            for operand, rule in array.operands:
                grads[operand] = grads.get(operand, 0) + rule(grad)
                uses[operand] -= 1
                if uses[operand] == 0:
                    ready.append(operand)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
args = parser.parse_args()

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10

# Inputs, targets and initial weights are random: standard normal, with seed 0.
randn = np.random.default_rng(0).standard_normal
x = Array(randn((N, D_in), np.float32))
y = Array(randn((N, D_out), np.float32))
w1 = Array(randn((D_in, H), np.float32), requires_grad=True)
w2 = Array(randn((H, D_out), np.float32), requires_grad=True)

learning_rate = 1e-6
for t in range(1, args.steps + 1):
    # Forward pass: predict y from x.
    y_pred = (x @ w1).relu() @ w2  # (N, D_out)

    # The loss is the sum of the squared errors.
    loss = (y_pred - y).square().sum()
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.data:.4e}")

    # Backward pass: compute the gradients of the loss with respect to w1 and w2.
    # backward() adds to w.grad, so the gradients of the last step are cleared first.
    w1.grad = 0
    w2.grad = 0
    loss.backward()

    # Gradient descent. What is done to data, a NumPy array, is not recorded.
    w1.data -= learning_rate * w1.grad
    w2.data -= learning_rate * w2.grad
