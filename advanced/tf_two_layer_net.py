"""Fit a two-layer ReLU network with a static graph of TensorFlow.

First the whole computation is written down as a graph, the update of the weights
included. Then a session runs that graph in every step, on data fed in from outside.
"""

import argparse
import os

import numpy as np

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
args = parser.parse_args()

# TensorFlow logs a lot while it is imported; at level 3 only a few lines are left.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
try:
    import tensorflow.compat.v1 as tf
except ModuleNotFoundError:
    parser.error("TensorFlow is missing: pip install tensorflow")

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10

# Inputs, targets and initial weights are random: standard normal, with seed 0.
randn = np.random.default_rng(0).standard_normal
x_value = randn((N, D_in), np.float32)
y_value = randn((N, D_out), np.float32)
w1_value = randn((D_in, H), np.float32)
w2_value = randn((H, D_out), np.float32)

learning_rate = 1e-6
with tf.Graph().as_default(), tf.Session() as session:
    # Placeholders stand for data to come; the weights are part of the graph.
    x = tf.placeholder(tf.float32, (N, D_in))
    y = tf.placeholder(tf.float32, (N, D_out))
    w1 = tf.Variable(w1_value, use_resource=True)
    w2 = tf.Variable(w2_value, use_resource=True)

    # Forward pass. Nothing is computed yet: each line adds operations to the graph.
    y_pred = tf.nn.relu(x @ w1) @ w2  # (N, D_out)

    # The loss is the sum of the squared errors.
    loss = tf.reduce_sum(tf.square(y_pred - y))

    # Backward pass: more operations, which compute the gradients.
    grad_w1, grad_w2 = tf.gradients(loss, [w1, w2])

    # Gradient descent. Only dependencies have an order in a graph: without this one,
    # w2 could be updated before grad_w1 has been computed from it.
    with tf.control_dependencies([grad_w1, grad_w2]):
        update_w1 = w1.assign_sub(learning_rate * grad_w1)
        update_w2 = w2.assign_sub(learning_rate * grad_w2)
        update = tf.group(update_w1, update_w2)

    # Now run the graph: once to initialize the weights, then once for each step.
    session.run(tf.global_variables_initializer())
    for t in range(1, args.steps + 1):
        loss_value, _ = session.run([loss, update], {x: x_value, y: y_value})
        if t == 1 or t % 50 == 0:
            print(f"step {t:4d}  loss {loss_value:.4e}")
