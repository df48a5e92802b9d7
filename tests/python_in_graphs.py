"""Small functions of Python, called in six ways: eager, or from a graph made of them.

Each cell of the table in the README is found by three calls. Python gives the functions
to both libraries alike, as they use operators alone. The libraries are imported where
they are used: nobody needs both.
"""

import contextlib
import io
import random
from types import SimpleNamespace

import apart


def branch(x, k):
    if x > 0:
        return x * 2
    return x - 1


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


def eager(function):
    import torch

    return SimpleNamespace(
        call=lambda x, k: function(torch.tensor(x), k).item(), graphs=None
    )


def compiled(function):
    import torch

    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(function, backend=backend)
    return SimpleNamespace(
        call=lambda x, k: compiled(torch.tensor(x), k).item(),
        graphs=lambda: len(graphs),
    )


def exported(function):
    import torch

    class Net(torch.nn.Module):
        def forward(self, x, k):
            return function(x, k)

    graph = torch.export.export(Net(), (torch.tensor(1.0), 1)).module()
    return SimpleNamespace(
        call=lambda x, k: graph(torch.tensor(x), k).item(), graphs=None
    )


def tensorflow_1(function):
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        x_in = tf.placeholder(tf.float32, ())
        y = function(x_in, 1)
    session = tf.Session(graph=graph)
    return SimpleNamespace(
        call=lambda x, k: float(session.run(y, {x_in: x})), graphs=None
    )


def tensorflow_eager(function):
    import tensorflow as tf

    return SimpleNamespace(
        call=lambda x, k: float(function(tf.constant(x), k)), graphs=None
    )


def tensorflow_function(function):
    import tensorflow as tf

    traced = tf.function(function)
    return SimpleNamespace(
        call=lambda x, k: float(traced(tf.constant(x), k)),
        graphs=traced.experimental_get_tracing_count,
    )


WAYS = {
    "PyTorch, eager": eager,
    "`torch.compile`": compiled,
    "`torch.export`": exported,
    "TensorFlow 1, a graph": tensorflow_1,
    "TensorFlow, eager": tensorflow_eager,
    "`tf.function`": tensorflow_function,
}


def results(way, function, inputs):
    """Return what the calls return, and the way itself, None where it refuses."""
    random.seed(0)
    try:
        made = way(function)
        return [made.call(*each) for each in inputs], made
    except (RuntimeError, TypeError, AssertionError):
        return None, None


def with_graphs(verdict, made):
    """Add to what was found how many graphs it took, where they are made by need."""
    if made is None or made.graphs is None or made.graphs() == 1:
        return verdict
    return f"{verdict}, {made.graphs()} graphs"


def compare(way, function, inputs):
    """Say whether three calls return what plain Python returns."""
    expected = [function(*each) for each in inputs]
    found, made = results(way, function, inputs)
    if found is None:
        return "refused"
    first = [function(inputs[0][0], inputs[0][1])] * len(inputs)
    verdict = {str(first): "frozen", str(expected): "right"}[str(found)]
    return with_graphs(verdict, made)


def an_if(way):
    return compare(way, branch, [(3.0, 1), (-3.0, 1), (5.0, 1)])


def a_for(way):
    return compare(way, loop, [(3.0, 1), (3.0, 2), (3.0, 3)])


def when_python_runs(way, function):
    """Return how often it prints: before the calls, in the first, in two later ones."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        made, counts = way(function), [output.getvalue().count("seen")]
        for calls in (1, 2):
            for _ in range(calls):
                made.call(3.0, 1)
            counts.append(output.getvalue().count("seen") - sum(counts))
    return counts, made


def a_print(way):
    counts, made = when_python_runs(way, talk)
    words = {(0, 1, 2): "every call", (0, 1, 0): "first call", (1, 0, 0): "before"}
    return with_graphs(words[tuple(counts)], made)


def a_draw(way, function=draw):
    found, made = results(way, function, [(0.0, 1)] * 3)
    return with_graphs({1: "frozen", 3: "new"}[len(set(found))], made)


def a_draw_of_the_library(way):
    own = draw_in_tensorflow if "tensorflow" in way.__name__ else draw_in_torch
    return a_draw(way, own)


def first_and_later(way):
    """Say what is done in the first call and in the later ones."""
    if way is compiled:  # it reads the Python instead of running it
        made, graphs = way(loop), []
        for _ in range(3):
            made.call(3.0, 1)
            graphs.append(made.graphs())
        assert graphs == [1, 1, 1]
        return "makes the graph", "runs the graph"
    counts, made = when_python_runs(way, talk)
    return {
        (0, 1, 2): ("runs Python", "runs Python"),
        (0, 1, 0): ("makes the graph", "runs the graph"),
        (1, 0, 0): ("runs the graph", "runs the graph"),
    }[tuple(counts)]


COLUMNS = {
    "an `if` on the data": an_if,
    "`for` in `range(k)`": a_for,
    "`print`": a_print,
    "`random.randint`": a_draw,
    "its own random numbers": a_draw_of_the_library,
    "the first call": lambda way: first_and_later(way)[0],
    "a later call": lambda way: first_and_later(way)[1],
}


def cell(way, column):
    """Return the words that belong in this cell of the table."""
    return COLUMNS[column](WAYS[way])


def collatz(k):
    """Return the number of steps from k to 1, which only the data decide."""
    steps = 0
    while k != 1:
        k, steps = (k // 2 if k % 2 == 0 else 3 * k + 1), steps + 1
    return steps


def collatz_in_tensorflow(k):
    """Do the same by tf.while_loop, in a graph."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((), tf.int64)])
    def graph(k):
        def body(k, steps):
            even = tf.equal(k % 2, 0)
            return tf.cond(even, lambda: k // 2, lambda: 3 * k + 1), steps + 1

        return tf.while_loop(lambda k, steps: tf.not_equal(k, 1), body, [k, 0])[1]

    return int(graph(tf.constant(k, tf.int64)))


def scan_in_tensorflow(xs):
    """Return all states of h = tanh(h + x), from 0 on, for an array (T, H)."""
    import tensorflow as tf

    @tf.function
    def graph(xs):
        start = tf.zeros(xs.shape[1:])
        return tf.scan(lambda h, x: tf.tanh(h + x), xs, initializer=start)

    return graph(tf.constant(xs)).numpy()


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
