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
# it took, which is None where a single graph is made before the first call.


def compiled(function):
    import torch

    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(function, backend=backend)
    return lambda x, k: compiled(torch.tensor(x), k).item(), lambda: len(graphs)


def exported(function):
    import torch

    class Net(torch.nn.Module):
        def forward(self, x, k):
            return function(x, k)

    graph = torch.export.export(Net(), (torch.tensor(1.0), 1)).module()
    return lambda x, k: graph(torch.tensor(x), k).item(), None


def tensorflow_1(function):
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        x_in = tf.placeholder(tf.float32, ())
        y = function(x_in, 1)
    session = tf.Session(graph=graph)
    return lambda x, k: float(session.run(y, {x_in: x})), None


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


def with_graphs(words, count):
    """Add how many graphs it took, if there were more than one."""
    return words if count is None or count() == 1 else f"{words}, {count()} graphs"


def compare(way, function, inputs):
    """Say whether three calls return what plain Python returns."""
    right = [function(*each) for each in inputs]
    frozen = [function(inputs[0][0], inputs[0][1])] * len(inputs)
    try:
        call, count = way(function)
        found = [call(*each) for each in inputs]
    except (RuntimeError, TypeError, AssertionError):
        return "refused"
    return with_graphs({str(frozen): "frozen", str(right): "right"}[str(found)], count)


def an_if(way):
    return compare(way, branch, [(3.0, 1), (-3.0, 1), (5.0, 1)])


def a_for(way):
    return compare(way, loop, [(3.0, 1), (3.0, 2), (3.0, 3)])


def a_print(way):
    """Say when it prints: before the calls, in the first one, in every one."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        call, count = way(talk)
        counts = [output.getvalue().count("seen")]
        for _ in range(3):
            call(3.0, 1)
            counts.append(output.getvalue().count("seen"))
    words = {
        (0, 1, 2, 3): "every call",
        (0, 1, 1, 1): "first call",
        (1, 1, 1, 1): "before",
    }
    return with_graphs(words[tuple(counts)], count)


def a_draw(way, function=draw):
    random.seed(0)
    call, count = way(function)
    found = {call(0.0, 1) for _ in range(3)}
    return with_graphs({1: "frozen", 3: "new"}[len(found)], count)


COLUMNS = {
    "`if` on the data": an_if,
    "`for` in `range(k)`": a_for,
    "`print`": a_print,
    "`random.randint`": a_draw,
}


def cell(way, column):
    """Return the words that belong in this cell of the tables."""
    return COLUMNS[column](WAYS[way])


def own_random_numbers(way):
    """Say what becomes of the random numbers of the library itself."""
    own = draw_in_tensorflow if "tensorflow" in WAYS[way].__name__ else draw_in_torch
    return a_draw(WAYS[way], own)


def collatz(k, steps):
    """Return steps and the number of those from k to 1, which only k decides."""
    while k != 1:
        if k % 2 == 0:
            k = k // 2
        else:
            k = 3 * k + 1
        steps = steps + 1
    return steps


def collatz_in_tensorflow(k):
    """Return the same by tf.function, and the kinds of operations in its graphs."""
    import tensorflow as tf

    graph = tf.function(collatz)
    inputs = tf.constant(k), tf.constant(0)
    definition = graph.get_concrete_function(*inputs).graph.as_graph_def()
    nodes = [*definition.node]
    for function in definition.library.function:
        nodes += function.node_def
    return int(graph(*inputs)), {node.op for node in nodes}


def running_totals_in_tensorflow(numbers):
    """Return the sums of the first number, the first two, and so on, by tf.scan."""
    import tensorflow as tf

    def add(total, number):
        return total + number

    totals = tf.function(lambda xs: tf.scan(add, xs, initializer=0))
    return totals(tf.constant(numbers)).numpy().tolist()


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
