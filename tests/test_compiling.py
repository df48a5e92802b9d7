"""torch.compile and tf.function compute what was computed before, from one graph."""

import ast
import contextlib
import io
import re

import pytest
import torch
from collection import (
    COMPILE,
    NOTICE,
    NUMPY,
    SCRIPTS,
    TF_FUNCTION,
    curve,
    execute,
    losses,
    outcome,
    run_forked,
    run_python,
    skip_if_missing,
    source,
)
from forked import CAN_FORK

PAYS = "advanced/when_compile_pays.py"


@pytest.mark.parametrize("command", [(COMPILE,)], ids=" ".join)
def test_code_in_cpp_prints_the_losses_of_numpy(run):
    """In this process the tests run the graph as it is; only this one is in C++."""
    expected, found = curve(NUMPY).sqrt(), losses(run.stdout)
    assert list(found) == [1, *range(50, 501, 50)]
    for step, loss in found.items():
        bound = 16 * torch.finfo(torch.float32).eps * expected[0] + 1e-4 * loss**0.5
        assert abs(loss**0.5 - expected[step - 1]) <= bound


def test_the_whole_step_is_one_graph():
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    torch.backend_of_this_test = backend
    try:
        edit = "@torch.compile", "@torch.compile(backend=torch.backend_of_this_test)"
        execute(COMPILE, edit, argv=["--steps", "3"])
    finally:
        del torch.backend_of_this_test
    (graph,) = graphs
    names = [node.target for node in graph.graph.nodes]
    assert names.count("sub_") == 2, "the update is in the graph"


@pytest.mark.parametrize("options, runs", [([], 1), (["--eager"], 3)])
def test_tf_function_runs_python_once(options, runs):
    skip_if_missing(TF_FUNCTION)
    _, output, _ = outcome(TF_FUNCTION, argv=["--steps", "3", *options])
    assert f"Python ran {runs} times in 3 steps" in output


def test_tensorflow_in_eager_mode_prints_the_losses_of_its_graph():
    eager = curve(TF_FUNCTION, ("if args.eager", "if True"), steps=50)
    torch.testing.assert_close(eager, curve(TF_FUNCTION)[:50], rtol=1e-5, atol=0)


@pytest.fixture(scope="module")
def pays():
    """The variables of the script, run on little and without C++."""
    with contextlib.redirect_stdout(io.StringIO()):
        return execute(
            PAYS,
            ("torch.compile(function)", 'torch.compile(function, backend="aot_eager")'),
            ("randn(1_000_000)", "randn(1_000)"),
            ("range(100)", "range(1)"),
            argv=[],
        )


def test_the_step_that_is_measured_is_the_step_of_the_rung(pays):
    step = execute(COMPILE)["train_step"]
    inputs = [
        torch.randn(5, 4),
        torch.randn(5, 2),
        torch.randn(4, 3),
        torch.randn(3, 2),
    ]
    results = []
    for function in (pays["train_step"], step):
        x, y, w1, w2 = copies = [tensor.clone() for tensor in inputs]
        results.append([function(x, y, w1, w2), *copies])
    torch.testing.assert_close(*results)


def test_the_chain_is_gelu(pays):
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)
    expected = torch.nn.functional.gelu(x, approximate="tanh")
    torch.testing.assert_close(pays["chain"](x), expected, rtol=1e-6, atol=1e-6)


FILTERED = [script for script in SCRIPTS if "filterwarnings(" in source(script)]


@pytest.fixture(scope="module")
def complaint(tmp_path_factory):
    """What Python says last where torch.compile runs without the filter."""
    folder = tmp_path_factory.mktemp("complaint")
    script = folder / "no_filter.py"
    script.write_text("import torch\ntorch.compile(len)\n", encoding="utf-8")
    done = (run_forked if CAN_FORK else run_python)((script,), folder)
    return (NOTICE.sub("", done.stderr).splitlines() or [""])[-1]


@pytest.mark.parametrize("script", FILTERED)
def test_a_warning_is_filtered_where_pytorch_gives_it(script, complaint):
    """PyTorch 2.15 gives it no longer: then nothing may be left to filter."""
    (call,) = [
        node
        for node in ast.walk(ast.parse(source(script)))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("filterwarnings")
    ]
    action, message, category = call.args
    assert (action.value, category.id) == ("ignore", "DeprecationWarning")
    if torch.__version__ >= "2.15":
        assert complaint == ""
    else:
        assert re.match(f"DeprecationWarning: {message.value}", complaint), (
            f"{script} filters a warning that this PyTorch does not give: "
            "name the first version without it in the script and in this test"
        )
