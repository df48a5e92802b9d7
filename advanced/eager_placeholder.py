"""Create a placeholder of TensorFlow 1 in TensorFlow 2, then put it in a graph.

TensorFlow 2 computes every line at once (eagerly) and has no use for a variable without
a value. Placeholders belong in a graph, which a session runs later.
"""

import argparse
import contextlib
import os

parser = argparse.ArgumentParser(description=__doc__)
parser.parse_args()

# TensorFlow logs a lot while it is imported; at level 3 only a few lines are left.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
try:
    import tensorflow.compat.v1 as tf
except ModuleNotFoundError:
    parser.error("TensorFlow is missing: pip install tensorflow")


def double_three():
    """Return 2 * 3 in the style of TensorFlow 1, or the message of an error."""
    try:
        x = tf.placeholder(tf.float32)
        y = 2 * x
        with tf.Session() as session:
            return session.run(y, {x: 3.0})
    except RuntimeError as error:
        return error


with contextlib.nullcontext():  # wrong: changes nothing, TensorFlow 2 is eager
    print("first try:", double_three())

with tf.Graph().as_default():  # right
    print("second try:", double_three())
