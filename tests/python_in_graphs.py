"""Small functions of Python, run from a graph that was made of them in four ways.

Each cell of the two tables in advanced/README.md is found by three calls. Operators
alone are used, so that both libraries take the same functions. The libraries are
imported where they are used: torch and TensorFlow must not meet in one process.
"""

import contextlib
import io
import random

import apart


def branch(x, k):
    if x > 0:
        return x * 2
    return x - 1


def halve(x, k):
    while x > 1:
        x = x / 2
    return x


def loop(x, k):
    for _ in range(k):
        x = x * 2
    return x


def talk(x, k):
    x = x * 2
    print("seen")
    return x + 1


def draw(x, k):
    return x + random.randint(0, 10**6)


def draw_in_torch(x, k):
    import torch

    return x + torch.rand(())


def draw_in_tensorflow(x, k):
    import tensorflow as tf

    return x + tf.random.uniform(())


# The ways. Each returns a function (x, k) -> float, and one that tells how many graphs
# it has taken.


def compiled(function):
    import static_and_dynamic
    import torch

    call, graphs = static_and_dynamic.compiled(function)
    return lambda x, k: call(torch.tensor(x), k).item(), lambda: len(graphs)


def exported(function):
    import torch

    class Net(torch.nn.Module):
        def forward(self, x, k):
            return function(x, k)

    graph = torch.export.export(Net(), (torch.tensor(1.0), 1)).module()
    return lambda x, k: graph(torch.tensor(x), k).item(), lambda: 1


def tensorflow_1(function):
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        x_in = tf.placeholder(tf.float32, ())
        y = function(x_in, 1)
    session = tf.Session(graph=graph)
    return lambda x, k: float(session.run(y, {x_in: x})), lambda: 1


def tensorflow_function(function):
    import tensorflow as tf

    traced = tf.function(function)
    count = traced.experimental_get_tracing_count
    return lambda x, k: float(traced(tf.constant(x), k)), count


WAYS = {
    "`torch.compile`": compiled,
    "`torch.export`": exported,
    "TensorFlow 1": tensorflow_1,
    "`tf.function`": tensorflow_function,
}


SAME = [(0.0, 1)] * 3
QUESTIONS = {
    "`if` on the data": (branch, [(3.0, 1), (-3.0, 1), (5.0, 1)]),
    "`while` on the data": (halve, [(3.0, 1), (5.0, 1), (0.5, 1)]),
    "`for` in `range(k)`": (loop, [(3.0, 1), (3.0, 2), (3.0, 3)]),
    "`print`": (talk, SAME),
    "`random.randint`": (draw, SAME),
    "`torch.rand`": (draw_in_torch, SAME),
    "`tf.random.uniform`": (draw_in_tensorflow, SAME),
}


def answer(way, question):
    """Return the words that belong in this cell of the tables."""
    function, inputs = QUESTIONS[question]
    found, seen = [], []
    try:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            call, graphs = WAYS[way](function)
            seen.append(output.getvalue().count("seen"))
            for each in inputs:
                found.append(call(*each))
                seen.append(output.getvalue().count("seen"))
    except (RuntimeError, TypeError, AssertionError):
        return "refused"

    if function is talk:
        words = {"0123": "every call", "0111": "first call", "1111": "before"}
        word = words["".join(map(str, seen))]
    elif inputs is SAME:
        word = {1: "frozen", 3: "new"}[len(set(found))]
    else:
        right = [function(*each) for each in inputs]
        frozen = [function(inputs[0][0], inputs[0][1])] * 3
        word = {str(frozen): "frozen", str(right): "right"}[str(found)]
    return word if graphs() == 1 else f"{word}, {graphs()} graphs"


def before_both_updates(*script):
    """Execute the script with the static graph, as apart.execute() does.

    Return what kinds of variables its weights are, and whether its graph computes both
    gradients before either update.
    """
    variables = apart.execute(*script)
    wanted = {variables["grad_w1"].op.name, variables["grad_w2"].op.name}
    waits = True
    for update in (variables["update_w1"], variables["update_w2"]):
        todo, before = [update.op], set()
        while todo:
            op = todo.pop()
            if op.name not in before:
                before.add(op.name)
                todo += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
        waits = waits and wanted <= before
    return {variables[name].handle.op.type for name in ("w1", "w2")}, waits
