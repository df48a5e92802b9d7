"""Fit a two-layer ReLU network with the TensorFlow of today.

A GradientTape records what the gradients need. tf.function traces the step into a graph
at the first call and runs that graph from then on; --eager runs the Python every time.
"""

import argparse
import os

import numpy as np

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--eager", action="store_true", help="run without a graph")
args = parser.parse_args()

# TensorFlow logs a lot while it is imported; at level 3 only a few lines are left.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
try:
    import tensorflow as tf
except ModuleNotFoundError:
    parser.error("TensorFlow is missing: pip install tensorflow")

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10

# Inputs, targets and initial weights are random: standard normal, with seed 0.
randn = np.random.default_rng(0).standard_normal
x = tf.constant(randn((N, D_in), np.float32))
y = tf.constant(randn((N, D_out), np.float32))
w1 = tf.Variable(randn((D_in, H), np.float32))
w2 = tf.Variable(randn((H, D_out), np.float32))

learning_rate = 1e-6
python_runs = []


def train_step():
    """Take one step of gradient descent; return the loss before it, of shape ()."""
    # Not an operation of TensorFlow: it happens now, and is not part of the graph.
    python_runs.append("now")

    with tf.GradientTape() as tape:
        # Forward pass: predict y from x.
        y_pred = tf.nn.relu(x @ w1) @ w2  # (N, D_out)

        # The loss is the sum of the squared errors.
        loss = tf.reduce_sum(tf.square(y_pred - y))

    # Backward pass: compute the gradients of the loss with respect to w1 and w2.
    grad_w1, grad_w2 = tape.gradient(loss, [w1, w2])

    # Gradient descent.
    w1.assign_sub(learning_rate * grad_w1)
    w2.assign_sub(learning_rate * grad_w2)
    return loss


if not args.eager:
    train_step = tf.function(train_step)

for t in range(1, args.steps + 1):
    loss = train_step()
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.numpy():.4e}")
print(f"Python ran {len(python_runs)} times in {args.steps} steps")
