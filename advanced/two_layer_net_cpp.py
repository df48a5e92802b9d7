"""Fit a two-layer ReLU network with a custom operator in C++.

load_inline compiles the C++ code when the script first runs, which takes some ten
seconds, and keeps the library in a cache folder. The library itself registers the
operator; its derivative can stay in Python. The losses stay the same, bit for bit.

It needs a C++ compiler (g++, clang++ or Visual Studio) and ninja (pip install ninja).
"""

import argparse
import os
import subprocess
import sysconfig
import textwrap

import numpy as np
import torch
from torch.utils.cpp_extension import load_inline

# An operator has a schema, and for each kind of device a function that computes it.
# The derivative needs no C++: it is made of operations that PyTorch has.
CPP_SOURCE = """
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <algorithm>

at::Tensor relu(const at::Tensor& x) {
  // The elements of a contiguous tensor lie in memory one after another.
  at::Tensor input = x.contiguous();
  at::Tensor output = at::empty_like(input);

  // The lambda is compiled twice, with scalar_t as float and as double.
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "relu", [&] {
    const scalar_t* from = input.const_data_ptr<scalar_t>();
    scalar_t* to = output.mutable_data_ptr<scalar_t>();
    for (int64_t i = 0; i < input.numel(); i++) {
      to[i] = std::max(from[i], scalar_t(0));
    }
  });
  return output;
}

TORCH_LIBRARY(ladder_cpp, library) {
  library.def("relu(Tensor x) -> Tensor");
}

TORCH_LIBRARY_IMPL(ladder_cpp, CPU, library) {
  library.impl("relu", relu);
}
"""

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
args = parser.parse_args()

# pip installs ninja into the folder of its scripts, where load_inline may not look.
os.environ["PATH"] += os.pathsep + sysconfig.get_path("scripts")

# Compile and load the library. It fits one version of PyTorch, hence its name.
try:
    load_inline(
        f"ladder_cpp_{torch.__version__}",
        CPP_SOURCE,
        extra_cflags=["-O2"],
        is_python_module=False,
        no_implicit_headers=True,
    )
except (OSError, RuntimeError, subprocess.SubprocessError) as error:
    reason = textwrap.shorten(str(error), 200)
    parser.error(
        f"cannot compile, are g++ and ninja (pip install ninja) there? {reason}"
    )

relu = torch.ops.ladder_cpp.relu


@torch.library.register_fake("ladder_cpp::relu")
def fake(x):
    """Return a tensor like the result in all but its elements, which do not matter."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def setup_context(ctx, inputs, output):
    ctx.save_for_backward(output)


def backward(ctx, grad_output):
    (output,) = ctx.saved_tensors
    return grad_output * (output > 0)


torch.library.register_autograd(
    "ladder_cpp::relu", backward, setup_context=setup_context
)

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10

# Inputs, targets and initial weights are random: standard normal, with seed 0.
randn = np.random.default_rng(0).standard_normal
x = torch.tensor(randn((N, D_in), np.float32))
y = torch.tensor(randn((N, D_out), np.float32))
w1 = torch.tensor(randn((D_in, H), np.float32), requires_grad=True)
w2 = torch.tensor(randn((H, D_out), np.float32), requires_grad=True)

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
