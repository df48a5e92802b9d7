"""Fit a two-layer ReLU network with a custom operator that is a Triton kernel.

A kernel runs on a GPU many times at once, each time for another block of elements.
Without a GPU, Triton's interpreter runs the same code block after block with NumPy:
slow, but good enough for tests. The losses stay the same, bit for bit.

It needs Triton: on Linux, pip install triton.
"""

import argparse
import os

import numpy as np
import torch

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--device", default="cpu", help="cpu, cuda, xpu")
args = parser.parse_args()

# Without a GPU, ask for the interpreter. Triton looks for this when it is imported.
if args.device == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"
try:
    import triton
    import triton.language as tl
except ModuleNotFoundError:
    parser.error("Triton is missing: pip install triton (on Linux)")


@triton.jit
def relu_kernel(x_pointer, y_pointer, length, BLOCK: tl.constexpr):
    """Compute max(x, 0) for one block of elements and store it in y."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < length  # the last block may reach beyond the end
    x = tl.load(x_pointer + index, mask=inside)
    y = tl.where(x < 0, 0, x)  # unlike tl.maximum, this keeps nan
    tl.store(y_pointer + index, y, mask=inside)


@torch.library.custom_op("ladder_triton::relu", mutates_args=())
def relu(x: torch.Tensor) -> torch.Tensor:
    """max(x, 0) for x of any shape; at x == 0 the gradient is 0, as in torch.relu."""
    # The elements of a contiguous tensor lie in memory one after another.
    x = x.contiguous()
    y = torch.empty_like(x)
    blocks = triton.cdiv(x.numel(), 1024)
    relu_kernel[(blocks,)](x, y, x.numel(), BLOCK=1024)
    return y


@relu.register_fake
def fake(x):
    """Return a tensor like the result in all but its elements, which do not matter."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def setup_context(ctx, inputs, output):
    ctx.save_for_backward(output)


def backward(ctx, grad_output):
    (output,) = ctx.saved_tensors
    return grad_output * (output > 0)


relu.register_autograd(backward, setup_context=setup_context)

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10

# Inputs, targets and initial weights are random: standard normal, with seed 0.
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
y = torch.tensor(randn((N, D_out), np.float32), device=args.device)
w1 = torch.tensor(randn((D_in, H), np.float32), device=args.device, requires_grad=True)
w2 = torch.tensor(randn((H, D_out), np.float32), device=args.device, requires_grad=True)

learning_rate = 1e-6
for t in range(1, args.steps + 1):
    # Forward pass: predict y from x.
    y_pred = relu(x @ w1) @ w2  # (N, D_out)

    # The loss is the sum of the squared errors.
    loss = (y_pred - y).square().sum()
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}")

    # Backward pass: compute the gradients of the loss with respect to w1 and w2.
    # backward() adds to w.grad, so the gradients of the last step are cleared first.
    w1.grad = None
    w2.grad = None
    loss.backward()

    # Gradient descent. Autograd must not record the update, hence no_grad.
    with torch.no_grad():
        w1 -= learning_rate * w1.grad
        w2 -= learning_rate * w2.grad
