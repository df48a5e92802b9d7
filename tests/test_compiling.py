"""torch.compile and tf.function compute what was computed before, from a graph."""

import re

import graph_breaks
import pytest
import torch
import when_compile_pays
from collection import (
    COMPILE,
    NUMPY,
    SCRIPTS,
    TF_FUNCTION,
    curve,
    execute,
    losses,
    outcome,
    run,
    run_in,
    skip_if_missing,
    source,
)


def test_code_in_cpp_prints_the_losses_of_numpy():
    """Elsewhere the tests run the graph as it is; only here is it compiled to C++."""
    expected = curve(NUMPY).sqrt()
    found = losses(run(COMPILE).stdout)
    assert list(found) == [1, *range(50, 501, 50)]
    for step, loss in found.items():
        # Rounding moves the length of the error vector by some eps of its first value;
        # the other term is what five printed digits leave open.
        bound = 16 * torch.finfo(torch.float32).eps * expected[0] + 1e-4 * loss**0.5
        assert abs(loss**0.5 - expected[step - 1]) <= bound


def test_the_whole_step_is_one_graph(monkeypatch):
    graphs = []

    def backend(graph, example_inputs):
        graphs.append((graph, [tensor.clone() for tensor in example_inputs]))
        return graph.forward

    monkeypatch.setattr(torch, "backend_of_this_test", backend, raising=False)
    edit = "@torch.compile", "@torch.compile(backend=torch.backend_of_this_test)"
    execute(COMPILE, edit, argv=["--steps", "3"])
    ((graph, inputs),) = graphs
    before = [tensor.clone() for tensor in inputs]
    graph(*inputs)
    changed = [not torch.equal(*pair) for pair in zip(before, inputs, strict=True)]
    assert sum(changed) == 2, "the graph itself updates w1 and w2, and nothing else"


@pytest.mark.parametrize("options, runs", [([], 1), (["--eager"], 3)])
def test_tf_function_runs_python_once(options, runs):
    skip_if_missing(TF_FUNCTION)
    _, output, _ = outcome(TF_FUNCTION, argv=["--steps", "3", *options])
    assert f"Python ran {runs} times in 3 steps" in output


def test_tensorflow_in_eager_mode_prints_the_losses_of_its_graph():
    eager = curve(TF_FUNCTION, ("if not args.eager", "if False"), steps=50)
    torch.testing.assert_close(eager, curve(TF_FUNCTION)[:50], rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "function, lengths, sizes",
    [
        (graph_breaks.gelu, [10, 10], [9]),
        (graph_breaks.gelu_twice, [10], [18]),
        (graph_breaks.gelu_print_gelu, [10, 10], [9, 9]),
        (graph_breaks.gelu, [10, 20, 30, 40], [9, 9]),
    ],
)
def test_a_print_and_another_length_make_one_more_graph(function, lengths, sizes):
    inputs = [torch.ones(length) for length in lengths]
    assert graph_breaks.graph_sizes(function, inputs) == sizes


@pytest.mark.parametrize("module", [graph_breaks, when_compile_pays])
def test_gelu_is_that_of_torch(module):
    """The script's constant, the square root of 2 / pi, has seven digits."""
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)
    expected = torch.nn.functional.gelu(x, approximate="tanh")
    torch.testing.assert_close(module.gelu(x), expected, rtol=1e-6, atol=1e-6)


def test_gelu_twice_is_the_same_with_and_without_a_print():
    x = torch.linspace(-3, 3, 50)
    twice = graph_breaks.gelu(graph_breaks.gelu(x))
    assert torch.equal(graph_breaks.gelu_twice(x), twice)
    assert torch.equal(graph_breaks.gelu_print_gelu(x), twice)


def test_the_step_that_is_measured_is_the_step_of_the_rung():
    results = []
    for step in (when_compile_pays.train_step, execute(COMPILE)["train_step"]):
        torch.manual_seed(0)
        shapes = (5, 4), (5, 2), (4, 3), (3, 2)
        inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
        results.append([step(*inputs), *inputs])
    # An update is some 1e-5 at most, so what is right to 1e-12 has the right gradients.
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


def test_what_is_compared_is_the_first_an_eager_and_a_later_call(monkeypatch):
    """By a clock that only the calls set forward."""
    clock = [0.0]
    first_and_later = iter([100.0] + 10 * [1.0])

    def eager(x):
        clock[0] += 3

    def compiled(x):
        clock[0] += next(first_and_later)

    monkeypatch.setattr(torch, "compile", {eager: compiled}.get)
    monkeypatch.setattr(when_compile_pays.time, "perf_counter", lambda: clock[0])
    assert when_compile_pays.compare(eager, [torch.ones(1)], rounds=10) == (100, 3, 1)


FILTER = re.compile(r'filterwarnings\("ignore", r"(.+)", DeprecationWarning\)')
FILTERED = [script for script in SCRIPTS if "filterwarnings(" in source(script)]


@pytest.fixture(scope="module")
def complaint(tmp_path_factory):
    """What Python says last where torch.compile runs without a filter."""
    folder = tmp_path_factory.mktemp("complaint")
    script = folder / "no_filter.py"
    script.write_text("import torch\ntorch.compile(len)\n", encoding="utf-8")
    lines = run_in(folder, script).stderr.splitlines()
    return lines[-1] if lines else ""


@pytest.mark.parametrize("script", FILTERED)
def test_a_warning_is_filtered_only_where_pytorch_gives_it(script, complaint):
    """PyTorch 2.15 gives it no longer: then nothing may be left to filter."""
    (message,) = FILTER.findall(source(script))
    if torch.__version__ >= "2.15":
        assert complaint == ""
    else:
        assert re.match(f"DeprecationWarning: {message}", complaint), (
            f"{script} filters a warning that this PyTorch does not give: "
            "name the first version without it in the script and in this test"
        )
