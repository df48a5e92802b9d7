"""torch.compile and tf.function compute what was computed before, from a graph."""

import re
import sys

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


@pytest.mark.parametrize("script", [COMPILE])
def test_code_in_cpp_prints_the_losses_of_numpy(script):
    """Elsewhere the tests run the graph as it is; only here is it compiled to C++."""
    expected = curve(NUMPY).sqrt()
    found = losses(run(script, "--steps", "100").stdout)
    assert list(found) == [1, 50, 100]
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


@pytest.mark.parametrize("options, runs", [([], 1), (["--eager"], 50)])
def test_tf_function_runs_python_once_and_eager_mode_always(options, runs):
    skip_if_missing(TF_FUNCTION)
    _, output, _ = outcome(TF_FUNCTION, argv=["--steps", "50", *options])
    assert f"Python ran {runs} times in 50 steps" in output
    expected = {t: curve(NUMPY)[t - 1].item() for t in (1, 50)}
    assert losses(output) == pytest.approx(expected, rel=1e-4)


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


def test_gelu_is_that_of_torch_once_or_twice():
    """The scripts' constant, the square root of 2 / pi, has seven digits."""

    def torch_gelu(x):
        return torch.nn.functional.gelu(x, approximate="tanh")

    x = torch.linspace(-3, 3, 50, dtype=torch.float64)
    for function, expected in [
        (when_compile_pays.gelu, torch_gelu(x)),
        (graph_breaks.gelu, torch_gelu(x)),
        (graph_breaks.gelu_twice, torch_gelu(torch_gelu(x))),
        (graph_breaks.gelu_print_gelu, torch_gelu(torch_gelu(x))),
    ]:
        torch.testing.assert_close(function(x), expected, rtol=1e-6, atol=1e-6)


def test_the_step_that_is_measured_is_the_step_of_the_rung():
    results = []
    for step in (when_compile_pays.train_step, execute(COMPILE)["train_step"]):
        torch.manual_seed(0)
        shapes = (5, 4), (5, 2), (4, 3), (3, 2)
        inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
        results.append([step(*inputs), *inputs])
    # An update is some 1e-5 at most, so what is right to 1e-12 has the right gradients.
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


def test_what_is_printed_compares_a_first_an_eager_and_a_later_call(
    monkeypatch, capsys
):
    """As if eager calls took 3 s, the first compiled one 100 s, and all others 1 s."""

    def seconds(function, inputs):
        return 3 if callable(function) else next(function)

    monkeypatch.setattr(torch, "compile", lambda _: iter([100] + 1000 * [1]))
    monkeypatch.setattr(when_compile_pays, "seconds", seconds)
    monkeypatch.setattr(sys, "argv", ["when_compile_pays.py"])
    when_compile_pays.main()
    line = "eager 0.33  first call seconds 100.0  1000 calls save seconds 2000.00\n"
    assert capsys.readouterr().out.count(line) == 2


def test_a_warning_is_filtered_only_where_pytorch_gives_it(tmp_path):
    """PyTorch 2.15 gives it no longer: then nothing may be left to filter."""
    script = tmp_path / "no_filter.py"
    script.write_text("import torch\ntorch.compile(len)\n", encoding="utf-8")
    complaint = run_in(tmp_path, script).stderr
    pattern = r'filterwarnings\("ignore", r"(.+)", DeprecationWarning\)'
    for message in re.findall(pattern, "".join(map(source, SCRIPTS))):
        given = re.search(f"^DeprecationWarning: {message}", complaint, re.MULTILINE)
        assert (given is None) == (torch.__version__ >= "2.15"), (
            f"a script filters {message}, which this PyTorch does not give: "
            "name the first version without it there and in this test"
        )
