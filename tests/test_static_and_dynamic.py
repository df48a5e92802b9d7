"""Python in a graph does what the README's table says, in every cell.

Each cell is found by three calls of a small function, made in one of six ways. Python
gives the functions to both libraries alike: they use operators alone.
"""

import contextlib
import io
import random
import re
import textwrap
from types import SimpleNamespace

import pytest
import torch
from collection import TENSORFLOW, skip_if_missing, source
from readme import README, blocks

TEXT = README.read_text(encoding="utf-8")


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
    return x + torch.rand(())


def draw_in_tensorflow(x, k):
    import tensorflow as tf

    return x + tf.random.uniform(())


def eager(function):
    return SimpleNamespace(
        call=lambda x, k: function(torch.tensor(x), k).item(), graphs=None
    )


def compiled(function):
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


def table():
    """Return {(way, column): words} for the cells of the README's table."""
    lines = re.findall(r"^\| ?(.*) \|$", TEXT, re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    (head,) = [row for row in rows if set(COLUMNS) <= set(row)]
    return {
        (row[0], column): words
        for row in rows
        if row[0] in WAYS
        for column, words in zip(head[1:], row[1:], strict=True)
    }


CELLS = [(way, column) for way in WAYS for column in COLUMNS]


def test_the_table_has_these_cells_and_no_others():
    assert sorted(table()) == sorted(CELLS)


@pytest.mark.parametrize("way, column", CELLS)
def test_cell_of_the_table(way, column, capfd):
    if "tensorflow" in WAYS[way].__name__:
        skip_if_missing(TENSORFLOW)
    assert table()[way, column] == COLUMNS[column](WAYS[way])


SCRIPT = "advanced/static_and_dynamic.py"


@pytest.mark.parametrize("command", [(SCRIPT,)], ids=" ".join)
def test_export_keeps_what_python_drew_and_follows_what_the_graph_says(run):
    shown = {}
    for line in run.stdout.splitlines():
        name, way, found, graphs = re.fullmatch(
            r"(\w*) +(eager|torch\.\w+) +(.+?)(?:  graphs (\d))?", line
        ).groups()
        network = name or network  # noqa: F821
        shown[network, way] = found, graphs and int(graphs)

    randint = random.Random(0).randint
    drawn = [str(randint(0, 3)) for _ in range(5)]
    assert len(set(drawn)) == 3
    for network in ("DrawInPython", "DrawInGraph", "IfInPython", "IfInGraph"):
        assert shown[network, "torch.compile"][0] == shown[network, "eager"][0]
    assert shown["DrawInPython", "torch.compile"] == (" ".join(drawn), 3)
    assert len(set(shown["DrawInPython", "torch.export"][0].split())) == 1
    assert shown["IfInPython", "torch.compile"] == ("1 0 1 1 0", 3)
    assert shown["IfInPython", "torch.export"][0] == "GuardOnDataDependentSymNode"
    for network in ("DrawInGraph", "IfInGraph"):
        eager, _ = shown[network, "eager"]
        assert len(set(eager.split())) > 1
        assert shown[network, "torch.compile"] == (eager, 1)
        assert shown[network, "torch.export"] == (eager, None)


def collatz(k):
    """Return the number of steps from k to 1, which only the data decide."""
    steps = 0
    while k != 1:
        k, steps = (k // 2 if k % 2 == 0 else 3 * k + 1), steps + 1
    return steps


@pytest.mark.parametrize("k", [1, 7, 27])
def test_while_loop_takes_as_many_steps_as_python(k):
    skip_if_missing(TENSORFLOW)
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((), tf.int64)])
    def in_tensorflow(k):
        def body(k, steps):
            even = tf.equal(k % 2, 0)
            return tf.cond(even, lambda: k // 2, lambda: 3 * k + 1), steps + 1

        return tf.while_loop(lambda k, steps: tf.not_equal(k, 1), body, [k, 0])[1]

    assert int(in_tensorflow(tf.constant(k, tf.int64))) == collatz(k)


def test_scan_of_both_libraries_is_a_loop_that_keeps_its_states():
    skip_if_missing(TENSORFLOW)
    import tensorflow as tf
    from torch._higher_order_ops import scan

    def step(h, x):
        h = (h + x).tanh()
        return h, h.clone()

    xs = torch.linspace(-1, 1, 10).view(5, 2)
    h, expected = torch.zeros(2), []
    for x in xs:
        h = (h + x).tanh()
        expected.append(h)
    last, hs = scan(step, torch.zeros(2), xs)
    torch.testing.assert_close(hs, torch.stack(expected))
    torch.testing.assert_close(last, expected[-1])
    in_tensorflow = tf.function(
        lambda xs: tf.scan(lambda h, x: tf.tanh(h + x), xs, initializer=tf.zeros(2))
    )
    found = torch.tensor(in_tensorflow(tf.constant(xs.numpy())).numpy())
    torch.testing.assert_close(found, torch.stack(expected))


def test_the_loop_in_the_readme_is_that_of_the_script():
    (shown,) = [b for b in blocks(TEXT, "python") if b.startswith("def forward")]
    assert textwrap.indent(shown, "    ") in source(SCRIPT)
